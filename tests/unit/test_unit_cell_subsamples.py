"""Unit cells of images that are finer than their grid."""

import numpy as np
import oracles
import pytest
from unit_cell_harness import ask, constants, solve_image

from hpcmsm.batch import Batch
from hpcmsm.errors import ConfigError
from hpcmsm.micro.generators import Recipe
from hpcmsm.micro.subsamples import are_inclusions, marked
from hpcmsm.micro.trial import try_out
from hpcmsm.micro.unit_cell import UnitCell
from hpcmsm.micro.varied import VariedUnitCell

DISCS = {"name": "random_discs", "ndim": 2, "fraction": 0.4, "count": 8}


def sampled_faces(fine, phases, n, rule):
    """Faces kx, ky (, kz) of links of (m / n)^ndim sub-samples each; phases (nphase,) or (naxis, nphase).

    rule: "low" harmonic along strips, arithmetic across; "high" the other way; "mean" geometric of both.
    """
    ndim, nsub = fine.ndim, len(fine) // n
    faces = []
    for number in range(ndim):
        axis = ndim - 1 - number
        k = (phases if phases.ndim == 1 else phases[number])[np.roll(fine, -(nsub // 2), axis)]
        k = np.moveaxis(k, axis, -1).reshape([n, nsub] * ndim)
        across, beside = 2 * ndim - 1, tuple(range(1, 2 * ndim - 1, 2))
        low = (1 / (1 / k).mean(across)).mean(beside)
        high = 1 / (1 / k.mean(beside)).mean(-1)
        face = {"low": low, "high": high, "mean": np.sqrt(low * high)}[rule]
        faces.append(np.ascontiguousarray(np.moveaxis(face, -1, axis)))
    return faces


def solved(fine, phases, n, nsub, **options):
    cell = UnitCell(fine, constants(*phases), n, tolerance=1e-12, subsamples=nsub, **options)
    answer = ask(cell, 300.0)
    assert answer.status.tolist() == [0]
    return answer.outputs[:, 0]


@pytest.mark.parametrize(("contrast", "rule"), [(20.0, "low"), (0.1, "high")])
def test_inclusions_against_a_direct_solve_of_the_same_faces(contrast, rule):
    fine, phases = Recipe(**DISCS, resolution=96).labels(), np.array([1.0, contrast])
    exact = oracles.sparse_conductivity(*sampled_faces(fine, phases, 24, rule))
    np.testing.assert_allclose(solved(fine, phases, 24, 4), exact, rtol=1e-8, atol=1e-8 * exact[0])


@pytest.mark.parametrize(("ndim", "n", "nsub"), [(2, 16, 8), (2, 4, 2), (3, 8, 4)])
def test_grains_against_a_direct_solve_of_the_same_faces(ndim, n, nsub):
    fine = Recipe("voronoi", ndim, n * nsub, nphase=3, count=9).labels()
    phases = np.array([1.0, 7.0, 0.3])
    exact = oracles.sparse_conductivity(*sampled_faces(fine, phases, n, "mean"))
    np.testing.assert_allclose(solved(fine, phases, n, nsub), exact, rtol=1e-8, atol=1e-8 * exact[0])


def errors_of(recipe, phases):
    """Relative errors of Kxx and Kyy at 32 points a side of three drawings: without samples, with 8."""
    errors = {1: [], 8: []}
    for realisation in range(3):
        finest = Recipe(**recipe, resolution=1024).labels(realisation)
        exact = 2 * solved(finest, phases, 128, 8)[:2] - solved(finest, phases, 64, 16)[:2]
        for nsub, found in errors.items():
            labels = Recipe(**recipe, resolution=32 * nsub).labels(realisation)
            found.extend(solved(labels, phases, 32, nsub)[:2] / exact - 1)
    return np.array(errors[1]), np.array(errors[8])


@pytest.mark.parametrize(("contrast", "gain"), [(10.0, 1.2), (0.1, 5.0)])
def test_samples_come_nearer_than_points_and_scatter_less(contrast, gain):
    """Discs of four points' radius, against what finer and finer grids of samples tend to."""
    points, samples = errors_of(DISCS, [1.0, contrast])
    assert gain * np.sqrt(np.mean(samples**2)) < np.sqrt(np.mean(points**2))
    assert 6 * np.std(samples) < np.std(points) and np.abs(samples).max() < 0.02


def test_islands_of_a_level_set_come_nearer():
    points, samples = errors_of({"name": "level_set", "ndim": 2, "fraction": 0.2}, [1.0, 10.0])
    assert 3 * np.sqrt(np.mean(samples**2)) < np.sqrt(np.mean(points**2))


@pytest.mark.parametrize("nphase", [2, 3])
def test_layers_are_exact_wherever_they_end(nphase):
    ends = np.array([0, 13, 27, 64]) if nphase == 3 else np.array([0, 13, 64])
    row = np.repeat(np.arange(nphase), np.diff(ends)).astype(np.int32)
    phases, shares = np.array([1.0, 12.0, 0.2])[:nphase], np.diff(ends) / 64
    low, high = oracles.wiener(shares, phases)
    k = solved(np.tile(row, (64, 1)), phases, 8, 8)
    np.testing.assert_allclose(k, [low, high, 0], rtol=1e-11, atol=1e-11)


def test_a_cell_does_not_see_the_batch():
    rng, recipe = np.random.default_rng(1), Recipe(**DISCS, resolution=32)
    phases = [lambda temperature: 1.0 + 1e-3 * temperature, lambda temperature: 1e-4 * temperature**2]
    cell = VariedUnitCell(recipe.labels, phases, 5, resolution=8, subsamples=4, inclusions=True)
    inputs = np.stack([rng.uniform(60, 900, 29), rng.integers(0, 5, 29)])
    try_out(cell, Batch(np.arange(29), inputs, np.empty((0, 29))))
    whole, order = cell.solve(inputs).outputs, rng.permutation(29)
    assert np.array_equal(cell.solve(inputs[:, order]).outputs, whole[:, order])
    for part in np.split(np.arange(29), [1, 4, 11, 19]):
        assert np.array_equal(cell.solve(inputs[:, part]).outputs, whole[:, part])
    # One image shared by all cells takes another path through the kernel.
    for number in range(5):
        mine = inputs[1] == number
        alone = UnitCell(recipe.labels(number), phases, 8, subsamples=4, inclusions=True)
        assert np.array_equal(alone.solve(inputs[:1, mine]).outputs, whole[:, mine])
        assert np.array_equal(cell.labels_of(inputs[:, mine][:, :1]), recipe.labels(number))
    assert cell.admissible(inputs, whole).all()


def test_each_image_of_a_library_is_looked_at_by_itself():
    """Level sets of 0.4 are islands or hang together, by lot: the answer is that of the image alone."""
    recipe, phases = Recipe("level_set", 2, 32, fraction=0.4), constants(1.0, 10.0)
    assert {are_inclusions(recipe.labels(number)) for number in (0, 1, 2, 8)} == {True, False}
    cell = VariedUnitCell(recipe.labels, phases, 16, resolution=8, subsamples=4)
    inputs = np.stack([np.full(9, 300.0), [1, 0, 8, 20, 2, 8, 1, 0, 2]])
    found = cell.solve(inputs, also=("tangent",))
    assert found.status.tolist() == [0, 0, 0, 2, 0, 0, 0, 0, 0]
    for column in (0, 1, 2, 4):
        alone = UnitCell(recipe.labels(int(inputs[1, column])), phases, 8, subsamples=4)
        same = inputs[1] == inputs[1, column]
        expected = alone.solve(inputs[:1, same], also=("tangent",))
        assert np.array_equal(found.outputs[:, same], expected.outputs)
        assert np.array_equal(found.tangent[..., same], expected.tangent)
    assert cell.solve(inputs[:, :0]).outputs.shape == (3, 0)


@pytest.mark.parametrize("inclusions", [True, False])
@pytest.mark.parametrize("ndim", [2, 3])
def test_tangent_by_each_conductivity_against_differences(ndim, inclusions):
    fine = np.random.default_rng(3).integers(0, 2, (8,) * ndim).repeat(2, 0)[: 8 if ndim == 3 else 16]
    fine = fine.repeat(2, 1) if ndim == 2 else fine
    values = np.array([[1.0, 1.5, 0.7], [12.0, 9.0, 0.5]])[:, :ndim]

    def cell(values):
        functions = [constants(*value) for value in values]
        options = {"tolerance": 1e-13, "max_iterations": 500, "inclusions": inclusions}
        return UnitCell(fine, functions, len(fine) // 2, subsamples=2, **options)

    found = cell(values).tangent(np.array([[300.0]]))
    for phase, axis in np.ndindex(2, ndim):
        ends = []
        for sign in (1, -1):
            changed = values.copy()
            changed[phase, axis] *= 1 + sign * 1e-4
            ends.append(cell(changed).solve(np.array([[300.0]])).outputs[:, 0])
        slope = (ends[0] - ends[1]) / (2e-4 * values[phase, axis])
        np.testing.assert_allclose(found.phases[axis, phase, :, 0], slope, rtol=1e-5, atol=1e-6)
    whole = np.einsum("apc,pa->c", found.phases[..., 0], values)
    np.testing.assert_allclose(whole, found.outputs[:, 0], atol=1e-10)


def test_single_precision_gives_the_same():
    fine = Recipe(**DISCS, resolution=64).labels()
    phases, changes = np.array([[1.0], [10.0]]), {"nsub": 4, "n": 16, "nred": 128, "microstructure": 7}
    marks = marked(fine, 4).astype(np.int32)
    double, *_ = solve_image(marks, phases, 1e-12, 100, **changes)
    single, status, *_ = solve_image(marks, phases, 1e-5, 100, "float32", **changes)
    assert not status.any()
    np.testing.assert_allclose(single, double, rtol=3e-5, atol=3e-5)


def test_inclusions_are_told_from_what_hangs_together():
    discs = Recipe(**DISCS, resolution=64).labels()
    assert are_inclusions(discs)
    assert are_inclusions(np.roll(discs, 17, (0, 1))), "across the cell's sides, too"
    assert not are_inclusions(1 - discs)
    assert not are_inclusions(np.tile(np.arange(8) < 3, (8, 1)).astype(int)), "layers"
    assert not are_inclusions(discs + (Recipe(**DISCS, resolution=64, seed=2).labels() > 0)), "three phases"


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"subsamples": 3}, "subsamples must be 1 or an even number up to 16, got 3"),
        ({"subsamples": 0}, "subsamples must be 1 or an even number"),
        ({"subsamples": True}, "subsamples must be 1 or an even number"),
        ({"subsamples": 6}, "subsamples must divide the 16 pixels of the image, got 6"),
        ({"subsamples": 8}, "must leave an even number of points from 4 on, got 8 for 16 pixels; lower it"),
        ({"subsamples": 2, "resolution": 12}, "multiple of the 16 pixels of the image, got 12 times 2"),
        ({"subsamples": 16, "resolution": 128}, "resolution times subsamples must be at most 1024, got 128"),
        ({"subsamples": 2, "microstructure": "cylinders"}, "subsamples must be 1 for 'cylinders', got 2"),
        (
            {"subsamples": 2, "conductivities": [constants(1.0, 2.0, 0.1), *constants(1.0)]},
            "have cross terms",
        ),
        ({"subsamples": 2, "conductivities": constants(*[1.0] * 33)}, "must be 1 for more than 32 phases"),
    ],
)
def test_wrong_numbers_are_named(options, text):
    image = np.arange(256).reshape(16, 16) % 2
    with pytest.raises(ConfigError, match=text):
        UnitCell(**({"microstructure": image, "conductivities": constants(1.0, 2.0)} | options))
