"""Unit cells whose phases have full tensors: exact values, a direct solver, what a batch must not change."""

import numpy as np
import pytest
from tensor_oracle import components, matrices, tensor_solution
from unit_cell_harness import constants

from hpcmsm.batch import Batch
from hpcmsm.errors import ConfigError
from hpcmsm.kernels import Kernel
from hpcmsm.micro.cell_problem import CellProblem
from hpcmsm.micro.generators import Recipe
from hpcmsm.micro.microstructure import make_microstructure
from hpcmsm.micro.tensors import drawn_angles, rotation
from hpcmsm.micro.trial import try_out
from hpcmsm.micro.unit_cell import UnitCell
from hpcmsm.micro.varied import VariedUnitCell

NCOMPONENT = {2: 3, 3: 6}


def drawn_tensors(ndim, count, contrast, seed=0):
    """Components (count, ncomponent) of tensors turned at random."""
    rng = np.random.default_rng(seed)
    axes = np.linalg.qr(rng.normal(size=(count, ndim, ndim)))[0]
    lengths = np.exp(rng.uniform(0, np.log(contrast), (count, ndim)))
    return components(np.einsum("pij,pj,pkj->pik", axes, lengths, axes))


def solve(labels, tensors, tolerance=1e-12, max_iterations=500, **asked):
    """Solution of one cell; tensors (nphase, ncomponent), or (ncomponent, nphase, ncells) of several."""
    tensors = np.asarray(tensors, float)
    if tensors.ndim == 2:
        tensors = tensors.T[:, :, None]
    cell = make_microstructure(np.asarray(labels), None, tensors.shape[1])
    problem = CellProblem(cell, tolerance, max_iterations, "cpu", full=True)
    return problem.solve(np.ascontiguousarray(tensors), None, **asked)


def conductivity(labels, tensors, **options):
    found = solve(labels, tensors, **options)
    assert found.status.tolist() == [0]
    return found.outputs[:, 0]


# ------------------------------------------------------------------------------- exact solutions


@pytest.mark.parametrize("ndim", [2, 3])
def test_one_turned_phase_is_itself(ndim):
    tensors = drawn_tensors(ndim, 1, 1e3)
    k = conductivity(np.zeros([6] * ndim, int), tensors)
    np.testing.assert_allclose(k, tensors[0], rtol=1e-12, atol=1e-12 * tensors.max())


def laminate(tensors, shares, axis):
    """K of layers across an axis: its flux is the same in all, and so is the gradient along them."""
    k = matrices(tensors)
    across, normal = k[:, :, axis], k[:, axis, axis]
    mean = np.einsum("p,pi->i", shares, across / normal[:, None])
    rest = k - across[:, :, None] * across[:, None, :] / normal[:, None, None]
    series = 1.0 / np.sum(shares / normal)
    return components(np.einsum("p,pij->ij", shares, rest) + series * np.outer(mean, mean))


@pytest.mark.parametrize(("ndim", "n"), [(2, 4), (2, 12), (3, 4), (3, 6)])
@pytest.mark.parametrize("contrast", [10.0, 1e3])
def test_layers_across_each_axis_are_exact(ndim, n, contrast):
    """To round-off: gradients are constant in each layer, and so they are in the discrete equations."""
    tensors, row = drawn_tensors(ndim, 3, contrast, seed=n), np.array([0, 2, 1, 1, 0, 2] * 2)[:n]
    shares = np.bincount(row) / n
    for axis in range(ndim):
        labels = np.broadcast_to(
            row.reshape([n if ndim - 1 - a == axis else 1 for a in range(ndim)]), [n] * ndim
        )
        exact = laminate(tensors, shares, axis)
        k = conductivity(labels.copy(), tensors, tolerance=1e-14)
        np.testing.assert_allclose(k, exact, rtol=1e-11, atol=1e-12 * exact.max())


def crystals(k_along, angles):
    """Tensors of a crystal of conductivities (k_along, 1) in 2D, turned by angles in degrees."""
    turns = np.stack([rotation(float(angle))[:2, :2] for angle in angles])
    return components(np.einsum("pij,j,pkj->pik", turns, [k_along, 1.0], turns))


def test_the_determinant_of_a_polycrystal_is_that_of_its_crystal():
    """Keller and Dykhne: fluxes turned by 90 degrees are gradients of a cell of k / det k, whose K is hence
    K / det K. In grains of one crystal det k is the same everywhere, so that it is K / det k, too."""
    angles = np.random.default_rng(1).uniform(0, 180, 12)
    errors = []
    for n in (32, 64, 128):
        labels = Recipe("voronoi", 2, n, nphase=12, seed=4, count=12).labels()
        xx, yy, xy = conductivity(labels, crystals(5.0, angles), tolerance=1e-8)
        errors.append(abs(np.log((xx * yy - xy**2) / 5.0)))
    assert errors[0] < 3e-2
    assert errors[2] < 0.75 * errors[1] < 0.6 * errors[0]


@pytest.mark.parametrize(
    ("anisotropy", "n", "low", "high"), [(10, 32, 0.03, 0.06), (100, 32, 0.2, 0.35), (100, 128, 0.07, 0.15)]
)
def test_what_the_grid_leaves_of_a_polycrystal(anisotropy, n, low, high):
    """sqrt(det K) comes out too low, which cases/README.md tells: much so for very anisotropic crystals."""
    angles = [drawn_angles(3, number, 16, 2) for number in range(16)]
    labels = Recipe("voronoi", 2, n, nphase=16, seed=3, count=16).labels()
    xx, yy, xy = conductivity(labels, crystals(anisotropy, angles), tolerance=1e-6)
    assert low < 1 - np.sqrt((xx * yy - xy**2) / anisotropy) < high


# ------------------------------------------------------------------- symmetry, bounds, other solvers


@pytest.mark.parametrize(("ndim", "n"), [(2, 4), (2, 10), (2, 16), (3, 4), (3, 6)])
@pytest.mark.parametrize("contrast", [10.0, 1e3])
def test_random_voxels_against_a_direct_sparse_solve(ndim, n, contrast):
    labels, tensors = np.random.default_rng(n).integers(0, 3, [n] * ndim), drawn_tensors(ndim, 3, contrast, n)
    exact, corrector = tensor_solution(labels, tensors)
    found = solve(labels, tensors, also=("corrector",))
    assert found.status.tolist() == [0]
    np.testing.assert_allclose(found.outputs[:, 0], exact, atol=1e-9 * exact.max())
    chi, axes = found.corrector[..., 0], tuple(range(1, ndim + 1))
    apart = chi - chi.mean(axes, keepdims=True) - corrector + corrector.mean(axes, keepdims=True)
    assert np.abs(apart).max() < 1e-4


@pytest.mark.parametrize("ndim", [2, 3])
def test_tensors_along_the_axes_are_the_cells_of_harmonic_faces(ndim):
    labels = np.random.default_rng(1).integers(0, 2, [6] * ndim)
    along = np.random.default_rng(2).uniform(1, 50, (2, ndim))
    full = np.concatenate([along, np.zeros((2, NCOMPONENT[ndim] - ndim))], axis=1)
    cell = UnitCell(labels, [constants(*phase) for phase in along], tolerance=1e-12)
    assert not cell.full
    plain = cell.solve(np.full((1, 1), 300.0)).outputs[:, 0]
    np.testing.assert_allclose(conductivity(labels, full), plain, atol=1e-10 * plain.max())


@pytest.mark.parametrize("ndim", [2, 3])
def test_turning_a_cell_turns_its_tensor(ndim):
    labels, tensors = np.random.default_rng(5).integers(0, 3, [6] * ndim), drawn_tensors(ndim, 3, 30.0)
    turn = rotation(90.0)[:ndim, :ndim]  # x becomes y, y becomes -x
    turned = components(turn @ matrices(tensors) @ turn.T)
    picture = np.rot90(labels, 1, (ndim - 1, ndim - 2))
    k, k_turned = conductivity(labels, tensors), conductivity(picture.copy(), turned)
    np.testing.assert_allclose(matrices(k_turned), turn @ matrices(k) @ turn.T, atol=1e-9 * k.max())


def test_a_finer_grid_comes_nearer():
    angles = np.random.default_rng(2).uniform(0, 180, 8)
    k = [
        conductivity(Recipe("voronoi", 2, n, nphase=8, seed=3, count=8).labels(), crystals(4.0, angles))
        for n in (16, 32, 64, 256)
    ]
    errors = [np.abs(some - k[-1]).max() / k[-1].max() for some in k[:-1]]
    assert errors[0] < 0.06
    assert errors[2] < errors[1] < errors[0]


def unit_cell(labels, tensors, **options):
    """A micro model whose phases have these tensors (nphase, ncomponent)."""
    return UnitCell(labels, [constants(*tensor) for tensor in tensors], **options)


@pytest.mark.parametrize("ndim", [2, 3])
def test_admissible_means_within_wieners_bounds(ndim):
    labels, tensors = np.random.default_rng(6).integers(0, 3, [6] * ndim), drawn_tensors(ndim, 3, 20.0)
    cell, inputs = unit_cell(labels, tensors), np.full((1, 5), 300.0)
    k = matrices(cell.solve(inputs).outputs[:, 0])
    shares = np.bincount(labels.ravel()) / labels.size
    upper = np.einsum("p,pij->ij", shares, matrices(tensors))
    lower = np.linalg.inv(np.einsum("p,pij->ij", shares, np.linalg.inv(matrices(tensors))))
    one = np.eye(ndim)
    tried = [k, upper, lower, upper + 0.01 * one, lower - 0.01 * one]
    outputs = np.stack([components(some) for some in tried], axis=1)
    assert cell.admissible(inputs, outputs).tolist() == [True, True, True, False, False]
    assert not cell.admissible(inputs, np.full_like(outputs, np.nan)).any()


# ------------------------------------------------------------------ iterations, tolerance, failures


@pytest.mark.parametrize("contrast", [3.0, 100.0])
@pytest.mark.parametrize("tolerance", [1e-3, 1e-6])
def test_error_is_below_the_tolerance(contrast, tolerance):
    for ndim, n in ((2, 32), (3, 8)):
        labels = Recipe("voronoi", ndim, n, nphase=8, count=8).labels()
        tensors = drawn_tensors(ndim, 8, contrast, seed=3)
        exact, k = conductivity(labels, tensors), conductivity(labels, tensors, tolerance=tolerance)
        scale = np.sqrt(np.outer(*[np.diag(matrices(exact))] * 2))
        assert np.all(np.abs(matrices(k - exact)) < tolerance * scale)


@pytest.mark.parametrize("contrast", [1e-4, 1e4])
def test_contrast_of_ten_thousand_converges(contrast):
    """Of an inclusion whose axes, like those of the matrix, are turned."""
    centres = (np.arange(16) + 0.5) / 16 - 0.5
    labels = (centres[:, None] ** 2 + centres**2 < 0.12).astype(int)
    tensors = crystals(3.0, [20.0, 70.0]) * np.array([[1.0], [contrast]])
    exact, _ = tensor_solution(labels, tensors)
    found = solve(labels, tensors, tolerance=1e-6, max_iterations=200)
    assert (found.status[0], found.iterations[0] < 60) == (0, True)
    np.testing.assert_allclose(found.outputs[:, 0], exact, atol=1e-6 * exact.max())


def test_iterations_hardly_grow_with_the_resolution():
    angles = np.random.default_rng(3).uniform(0, 180, 12)
    counts = []
    for n in (32, 64, 128):
        labels = Recipe("voronoi", 2, n, nphase=12, seed=4, count=12).labels()
        counts.append(solve(labels, crystals(10.0, angles), tolerance=1e-6).iterations[0])
    assert counts[0] <= 15
    assert counts[2] <= counts[0] + 6


def test_what_is_no_conductivity_is_a_status_of_its_cell_alone():
    labels, good = np.random.default_rng(0).integers(0, 2, (8, 8)), drawn_tensors(2, 2, 5.0).T
    cells = np.repeat(good[:, :, None], 7, axis=2)
    cells[2, 1, 1] = 1.01 * np.sqrt(cells[0, 1, 1] * cells[1, 1, 1])
    cells[2, 0, 2] = np.nan
    cells[0, 0, 3] = -1.0
    cells[2, 1, 5] = np.inf
    found = solve(labels, cells, also=("tangent", "state"))
    assert found.status.tolist() == [0, 2, 2, 2, 0, 2, 0]
    assert np.isnan(found.outputs[:, found.status == 2]).all()
    assert np.isnan(found.tangent[..., found.status == 2]).all()
    assert np.isfinite(found.state).all()
    assert np.array_equal(found.outputs[:, 6], conductivity(labels, good.T))
    solid = drawn_tensors(3, 2, 5.0).T[:, :, None].repeat(2, axis=2)
    solid[3:, 1, 1] = 0.9 * np.sqrt(np.prod(solid[[[1, 0, 0], [2, 2, 1]], 1, 1], axis=0)) * [1, 1, -1]
    assert solve(np.zeros((4, 4, 4), int) + np.arange(4) % 2, solid).status.tolist() == [0, 2]


def test_too_few_iterations_are_a_status():
    labels = np.random.default_rng(0).integers(0, 2, (16, 16))
    found = solve(labels, drawn_tensors(2, 2, 100.0), max_iterations=2)
    assert found.status.tolist() == [1]
    assert found.residual[0] > 1e-3
    assert np.isfinite(found.outputs).all()


@pytest.mark.parametrize("ndim", [2, 3])
def test_single_precision_stops_where_rounding_does(ndim):
    labels, tensors = Recipe("voronoi", ndim, 8, nphase=4, count=6).labels(), drawn_tensors(ndim, 4, 10.0)
    exact = conductivity(labels, tensors)
    name = {2: "unit_cell_tensor", 3: "unit_cell_tensor_3d"}[ndim]
    kernel = Kernel.load(name, f"unit_cell_tensor_{ndim}d", dtype="float32")
    for tolerance, wanted in ((1e-5, {0}), (1e-30, {0, 1})):
        k, residual = np.empty((NCOMPONENT[ndim], 1), "f4"), np.empty(1, "f4")
        iterations, status = np.empty(1, "i4"), np.empty(1, "i4")
        phases = np.ascontiguousarray(tensors.T[:, :, None], "f4")
        answers = dict(conductivity=k, residual=residual, iterations=iterations, status=status)
        nothing = dict.fromkeys(("image", "before", "after", "corrector", "gradient", "tangent"))
        sizes = dict(ncells=1, n=8, npoint=8**ndim, nphase=4, nimage=1, nword={2: 25, 3: 31}[ndim])
        limits = dict(max_iterations=1000, tolerance=tolerance)
        kernel(labels=labels[None].astype("i4"), phases=phases, **sizes, **limits, **nothing, **answers)
        assert status[0] in wanted
        assert iterations[0] < 500
        np.testing.assert_allclose(k[:, 0], exact, atol=2e-5 * exact.max())


# ------------------------------------------------------------------------- the same bits in any batch


def hot_tensor(ndim, seed):
    """A phase whose tensor grows with temperature."""
    tensor = drawn_tensors(ndim, 1, 8.0, seed)[0]
    return [lambda t, part=part: part * (1.0 + 1e-3 * t) for part in tensor]


def varied(ndim):
    """Cells with one of three microstructures each, which need different numbers of iterations."""
    images = np.random.default_rng(1).integers(0, 2, (3, *[8] * ndim))
    phases = [hot_tensor(ndim, 1), lambda t: 1e-4 * t**2]
    return VariedUnitCell(lambda number: images[number], phases, 3)


@pytest.mark.parametrize("ndim", [2, 3])
def test_order_splits_and_padding_do_not_change_a_bit(ndim):
    rng, cell = np.random.default_rng(2), varied(ndim)
    inputs = np.stack([rng.uniform(100, 2000, 21), rng.integers(0, 3, 21)])
    whole = cell.solve(inputs, also=("tangent",))
    assert not whole.status.any()
    assert len(set(whole.iterations)) > 1
    order = rng.permutation(21)
    parts = [order, *np.split(np.arange(21), [1, 4, 12, 20])]
    for part in parts:
        again = cell.solve(inputs[:, part], also=("tangent",))
        assert np.array_equal(again.outputs, whole.outputs[:, part])
        assert np.array_equal(again.tangent, whole.tangent[..., part])
        assert np.array_equal(again.residual, whole.residual[part])
    try_out(cell, Batch(np.arange(21), inputs, np.empty((0, 21))))


@pytest.mark.parametrize("ndim", [2, 3])
def test_an_image_of_all_is_that_of_each(ndim):
    """Corners inside a phase are looked up where the lanes share an image, and computed where they do not."""
    cell, temperatures = varied(ndim), np.linspace(200, 900, 9)
    mixed = cell.solve(np.stack([np.repeat(temperatures, 3), np.tile([0.0, 1.0, 2.0], 9)])).outputs
    for number in range(3):
        alone = UnitCell(cell.labels(number), [hot_tensor(ndim, 1), lambda t: 1e-4 * t**2])
        assert np.array_equal(alone.solve(temperatures[None]).outputs, mixed[:, number::3])


# ------------------------------------------------------------- tangent, warm start, fields, sections


@pytest.mark.parametrize("ndim", [2, 3])
def test_tangent_by_each_component_against_differences(ndim):
    labels, tensors = np.random.default_rng(3).integers(0, 2, [6] * ndim), drawn_tensors(ndim, 2, 10.0)
    found = solve(labels, tensors, tolerance=1e-14, also=("tangent",))
    for phase, component in np.ndindex(tensors.shape):
        ends = []
        for change in (1e-4, -1e-4):
            changed = tensors.copy()
            changed[phase, component] += change
            ends.append(conductivity(labels, changed, tolerance=1e-14))
        slope = (ends[0] - ends[1]) / 2e-4
        np.testing.assert_allclose(found.tangent[component, phase, :, 0], slope, atol=1e-6)


@pytest.mark.parametrize("ndim", [2, 3])
def test_tangent_by_temperature_against_differences(ndim):
    labels = np.random.default_rng(4).integers(0, 2, [6] * ndim)
    cell = UnitCell(labels, [hot_tensor(ndim, 1), lambda t: 1e-4 * t**2], tolerance=1e-13)
    inputs = np.array([[250.0, 300.0, 400.0]])
    ahead, behind = (cell.solve(inputs + change).outputs for change in (0.5, -0.5))
    np.testing.assert_allclose(cell.tangent(inputs).temperature, ahead - behind, rtol=1e-5, atol=1e-8)


def test_starting_from_the_solution_ends_at_once():
    labels = Recipe("voronoi", 2, 16, nphase=2, count=8).labels()
    phases = [hot_tensor(2, 1), lambda t: 1e-4 * t**2]
    cell, inputs = UnitCell(labels, phases, warm_start=True), np.array([[300.0, 600.0]])
    cold = cell.solve(inputs, also=("state",))
    again = cell.solve(inputs, cold.state)
    assert cold.iterations.min() > 3
    assert again.iterations.max() <= 1
    np.testing.assert_allclose(again.outputs, cold.outputs, atol=1e-6)
    moved = cell.solve(inputs + 5.0, cold.state)
    exact = UnitCell(labels, phases, tolerance=1e-12).solve(inputs + 5.0).outputs
    np.testing.assert_allclose(moved.outputs[:2], exact[:2], rtol=1e-6)
    assert moved.iterations.mean() < cold.iterations.mean()


@pytest.mark.parametrize("ndim", [2, 3])
def test_the_mean_flux_inside_is_the_tensor(ndim):
    labels, tensors = np.random.default_rng(7).integers(0, 3, [6] * ndim), drawn_tensors(ndim, 3, 20.0)
    cell, inputs = unit_cell(labels, tensors, tolerance=1e-12), np.full((1, 1), 300.0)
    k = matrices(cell.solve(inputs).outputs[:, 0])
    inside = {field.name: values for field, values in cell.inside(inputs)}
    axes = tuple(range(1, ndim + 1))
    for load, axis in enumerate("xyz"[:ndim]):
        np.testing.assert_allclose(inside[f"flux_{axis}"].mean(axes), k[:, load], atol=1e-6 * k.max())
        np.testing.assert_allclose(inside[f"gradient_{axis}"].mean(axes), np.eye(ndim)[load], atol=1e-12)


def test_a_cell_that_does_not_change_along_z_is_its_section():
    labels = np.random.default_rng(1).integers(0, 2, (6, 6))
    tensors = drawn_tensors(3, 2, 10.0)
    tensors[:, 3:5] = 0.0
    some = [[*constants(*tensor[:3]), None, None, *constants(tensor[5])] for tensor in tensors]
    flat = UnitCell(labels, some, ndim=3, tolerance=1e-12)
    inputs = np.full((1, 1), 300.0)
    solid = unit_cell(np.broadcast_to(labels, (6, 6, 6)).copy(), tensors, tolerance=1e-12)
    for name in ("outputs", "phases"):
        short, long = (getattr(cell.tangent(inputs), name) for cell in (flat, solid))
        if name == "phases":  # across the plane a section knows nothing of yz and xz
            short, long = short[[0, 1, 2, 5]], long[[0, 1, 2, 5]]
        np.testing.assert_allclose(short, long, atol=1e-6)
    tilted = [[*constants(*tensor)] for tensor in drawn_tensors(3, 2, 10.0)]
    with pytest.raises(ConfigError, match="no components yz and xz"):
        UnitCell(labels, tilted, ndim=3)


def test_the_mean_of_many_phases_does_not_see_the_batch():
    """K_zz of a cell that does not change along z: numpy sums eight numbers and more in two ways."""
    rng, labels = np.random.default_rng(3), np.arange(64).reshape(8, 8) % 20
    values = rng.uniform(1.0, 10.0, 20)
    flat = UnitCell(labels, [lambda t, value=value: value * t for value in values], ndim=3)
    inputs = rng.uniform(200, 500, (1, 20))
    whole = flat.solve(inputs).outputs
    for cell in range(20):
        assert np.array_equal(flat.solve(inputs[:, [cell]]).outputs[:, 0], whole[:, cell])


@pytest.mark.parametrize("ndim", [2, 3])
def test_a_laminate_is_exact_for_any_fraction(ndim):
    tensors = drawn_tensors(ndim, 2, 50.0, seed=9)
    cell = unit_cell("laminate", tensors, ndim=ndim)
    fraction = np.array([0.0, 0.3, 0.123456789, 1.0, 1.2, np.nan])
    inputs = np.stack([np.full(6, 300.0), fraction])
    found = cell.solve(inputs)
    assert found.status.tolist() == [0, 0, 0, 0, 2, 2]
    assert np.isnan(found.outputs[:, 4:]).all()
    for number in range(4):
        exact = laminate(tensors, np.array([1.0 - fraction[number], fraction[number]]), 0)
        np.testing.assert_allclose(found.outputs[:, number], exact, rtol=1e-12, atol=1e-13 * exact.max())
        alone = cell.solve(inputs[:, [number]])
        assert np.array_equal(alone.outputs[:, 0], found.outputs[:, number])
    assert cell.admissible(inputs, found.outputs).tolist() == [True] * 4 + [False] * 2
    inside = {
        field.name: values
        for field, values in unit_cell("laminate", tensors, ndim=ndim, resolution=8).inside(inputs[:, :1])
    }
    assert inside["phase"].shape == (1, 8, 8)


@pytest.mark.parametrize("ndim", [2, 3])
def test_tangent_of_a_laminate_against_differences(ndim):
    tensors, inputs = drawn_tensors(ndim, 2, 50.0, seed=9), np.array([[300.0], [0.3]])
    tangent = unit_cell("laminate", tensors, ndim=ndim).tangent(inputs).phases
    for phase, component in np.ndindex(tensors.shape):
        ends = []
        for change in (1e-5, -1e-5):
            changed = tensors.copy()
            changed[phase, component] += change
            ends.append(unit_cell("laminate", changed, ndim=ndim).solve(inputs).outputs[:, 0])
        slope = (ends[0] - ends[1]) / 2e-5
        np.testing.assert_allclose(tangent[component, phase, :, 0], slope, atol=1e-7)


def test_named_microstructures_with_a_fraction_are_refused():
    with pytest.raises(ConfigError, match="of 'cylinders' must have no cross terms"):
        unit_cell("cylinders", drawn_tensors(2, 2, 3.0))
    with pytest.raises(ConfigError, match="one per axis, or 3, one per component, got 4"):
        unit_cell(np.eye(4, dtype=int), np.ones((2, 4)))
