"""Unit cells against exact values, bounds and independent solvers, and what a batch must not change."""

import numpy as np
import oracles
import pytest
from unit_cell_harness import ask, conductivity, constants, solve_image

from hpcmsm.batch import Batch
from hpcmsm.errors import ConfigError
from hpcmsm.micro.trial import try_out
from hpcmsm.micro.unit_cell import UnitCell

# ------------------------------------------------------------------------------- exact solutions


@pytest.mark.parametrize("fraction", [0.0, 0.3, 0.123456789, 0.5, 0.9999, 1.0])
@pytest.mark.parametrize(("matrix", "inclusion"), [(1.0, 10.0), (3.0, 0.02), (1.0, 1e4)])
@pytest.mark.parametrize("resolution", [8, 32, 50])
def test_laminate_is_exact_for_any_fraction(fraction, matrix, inclusion, resolution):
    k = conductivity("laminate", matrix, inclusion, fraction=fraction, resolution=resolution, tolerance=1e-14)
    series, parallel = oracles.wiener([1.0 - fraction, fraction], [matrix, inclusion])
    # At contrast 1e4 the rounding of the fraction itself is worth 1e-11.
    rtol = 1e-12 if inclusion < 1e3 else 2e-11
    np.testing.assert_allclose(k[:2], [series, parallel], rtol=rtol)
    assert abs(k[2]) < 1e-12 * parallel


# Relative error that the grid leaves at 32, 64 and 128 points a side.
BOUNDS = {10.0: (4e-3, 2.5e-3, 1.2e-3), 0.1: (4e-3, 2.5e-3, 1.2e-3), 50.0: (1.8e-2, 1.0e-2, 6e-3)}


@pytest.mark.parametrize("fraction", [0.2, 0.5, 0.6])
@pytest.mark.parametrize("contrast", BOUNDS)
def test_cylinders_come_near_the_multipole_solution(fraction, contrast):
    exact, errors = oracles.square_array(fraction, contrast), []
    for resolution, bound in zip((32, 64, 128), BOUNDS[contrast], strict=True):
        k = conductivity("cylinders", 1.0, contrast, fraction=fraction, resolution=resolution)
        errors.append(abs(k[0] / exact - 1.0))
        assert errors[-1] < bound
        assert k[1] == pytest.approx(k[0], rel=1e-9)
        assert abs(k[2]) < 1e-9
    assert errors[2] < errors[1] < errors[0]


def test_oracle_of_the_cylinders_has_the_published_value():
    assert oracles.square_array(0.5, 10.0) == pytest.approx(2.41546738, abs=5e-9)
    assert oracles.lattice_sum(4) == pytest.approx(3.15121200, abs=5e-9)


@pytest.mark.parametrize("contrast", [2.0, 10.0])
def test_keller_holds_for_cylinders(contrast):
    errors = []
    for resolution in (32, 64, 128):
        k, inverse = (
            conductivity("cylinders", 1.0, s, fraction=0.5, resolution=resolution)
            for s in (contrast, 1 / contrast)
        )
        errors.append(abs(k[0] * inverse[1] - 1.0))
    assert errors[0] < 1e-3
    assert errors[2] < 4e-4


@pytest.mark.parametrize(("contrast", "bound"), [(2.0, 4e-4), (4.0, 5e-3)])
def test_checkerboard_is_the_geometric_mean(contrast, bound):
    errors = [
        abs(conductivity("checkerboard", 1.0, contrast, resolution=n)[0] / np.sqrt(contrast) - 1.0)
        for n in (32, 64, 128)
    ]
    assert errors[0] < 4 * bound
    assert errors[2] < bound
    assert errors[2] < errors[1] < errors[0]


def test_equal_phases_are_a_homogeneous_cell():
    np.testing.assert_allclose(conductivity("cylinders", 2.5, 2.5, fraction=0.4), [2.5, 2.5, 0], atol=1e-14)


# --------------------------------------------------------------------- bounds, independent solvers


def test_bounds_of_wiener_and_of_hashin_and_shtrikman():
    for fraction in (0.1, 0.3, 0.6, 0.75):
        for contrast in (3.0, 0.3):
            k = conductivity("cylinders", 1.0, contrast, fraction=fraction, resolution=64)
            low, high = oracles.hashin_shtrikman_2d(fraction, 1.0, contrast)
            worst, best = oracles.wiener([1 - fraction, fraction], [1.0, contrast])
            assert worst < low * (1 - 1e-3) < k[0] < high * (1 + 1e-3) < best


@pytest.mark.parametrize("resolution", [4, 6, 16, 20, 22, 32, 48])
@pytest.mark.parametrize("contrast", [5.0, 1000.0])
def test_random_voxels_against_a_direct_sparse_solve(resolution, contrast):
    rng = np.random.default_rng(resolution)
    labels = rng.integers(0, 3, (resolution, resolution))
    phases = np.array([1.0, contrast, np.sqrt(contrast)])
    exact = oracles.sparse_conductivity(*oracles.image_faces(labels, phases))
    k = conductivity(labels, *phases, tolerance=1e-12, max_iterations=500)
    np.testing.assert_allclose(k, exact, rtol=1e-8, atol=1e-8 * exact[0])


@pytest.mark.parametrize("resolution", [4, 16, 32])
@pytest.mark.parametrize(("fraction", "contrast"), [(0.2, 30.0), (0.45, 0.1), (np.pi / 4, 2.0)])
def test_cylinders_against_subsampled_faces(resolution, fraction, contrast):
    kx, ky = oracles.cylinder_faces(fraction, contrast, resolution)
    exact = oracles.sparse_conductivity(kx, ky)
    k = conductivity("cylinders", 1.0, contrast, fraction=fraction, resolution=resolution, tolerance=1e-12)
    np.testing.assert_allclose(k, exact, rtol=1e-8, atol=1e-8 * exact[0])


def test_the_two_oracles_agree():
    rng = np.random.default_rng(5)
    kx, ky = oracles.image_faces(rng.integers(0, 2, (12, 12)), np.array([[1.0, 2.0], [30.0, 0.5]]))
    k, _ = oracles.fft_pcg((kx, ky), 1e-8)
    for cell in range(2):
        np.testing.assert_allclose(k[:, cell], oracles.sparse_conductivity(kx[cell], ky[cell]), atol=1e-10)


# ------------------------------------------------------------------ iterations, tolerance, failures


@pytest.mark.parametrize("contrast", [2.0, 10.0, 100.0])
@pytest.mark.parametrize("tolerance", [1e-3, 1e-6, 1e-9])
def test_error_is_below_the_tolerance(contrast, tolerance):
    rng = np.random.default_rng(1)
    disc = oracles.cylinder_faces(0.4, 5.0, 32)[0] > 1.5
    for labels in (
        disc,
        rng.integers(0, 2, (32, 32)),
        rng.integers(0, 2, (16, 16)).repeat(2, 0).repeat(2, 1),
    ):
        exact = conductivity(labels, 1.0, contrast, tolerance=1e-14)
        k = conductivity(labels, 1.0, contrast, tolerance=tolerance)
        scale = np.array([exact[0], exact[1], np.sqrt(exact[0] * exact[1])])
        assert np.all(np.abs(k - exact) < tolerance * scale)


def disc(n):
    centres = (np.arange(n) + 0.5) / n - 0.5
    return (centres[:, None] ** 2 + centres**2 < 0.16).astype(np.int32)


def test_iterations_hardly_grow_with_the_resolution():
    for n in (32, 64, 128):
        # An energy to 1e-12 belongs to a residual of about 1e-6.
        _, status, iterations, residual = solve_image(disc(n), np.array([[1.0], [10.0]]), 1e-12, 50)
        assert status[0] == 0
        assert iterations[0] <= 10
        assert residual[0] < 1e-5


@pytest.mark.parametrize("seed", [0, 1])
def test_contrast_of_ten_thousand_converges(seed):
    labels = np.random.default_rng(seed).integers(0, 2, (32, 32))
    phases = np.array([1.0, 1e4])
    exact = oracles.sparse_conductivity(*oracles.image_faces(labels, phases))
    k = conductivity(labels, *phases, tolerance=1e-6, max_iterations=300)
    np.testing.assert_allclose(k[:2], exact[:2], rtol=5e-6)


def test_too_few_iterations_are_a_status():
    cell = UnitCell("cylinders", constants(1.0, 100.0), tolerance=1e-12, max_iterations=2)
    answer = ask(cell, 300.0, [0.5, 0.0])
    assert answer.status.tolist() == [1, 0]
    assert answer.residual[0] > 1e-3
    assert np.isfinite(answer.outputs).all()


def test_single_precision_stops_where_rounding_does():
    labels, phases = disc(32), np.array([[1.0], [100.0]])
    exact, *_ = solve_image(labels, phases, 1e-14, 100)
    k, status, iterations, _ = solve_image(labels, phases, 1e-6, 100, "float32")
    assert status[0] == 0
    assert iterations[0] < 20
    np.testing.assert_allclose(k[:2], exact[:2], rtol=5e-6)
    k, status, iterations, _ = solve_image(labels, phases, 1e-30, 1000, "float32")
    assert status[0] == 1
    assert iterations[0] < 500
    np.testing.assert_allclose(k[:2], exact[:2], rtol=5e-4)


def test_bad_input_is_a_status_of_its_cell_alone():
    temperature = np.array([300.0, np.nan, -1.0, 300.0, 0.0, 300.0, 300.0, 1e300, 300.0])
    fraction = np.array([0.5, 0.5, 0.5, 0.8, 0.5, -0.1, np.nan, 0.5, 0.3])
    cell = UnitCell("cylinders", [lambda temperature: temperature, constants(3.0)[0]])
    answer = ask(cell, temperature, fraction)
    assert answer.status.tolist() == [0, 2, 2, 2, 2, 2, 2, 2, 0]
    assert np.isnan(answer.outputs[:, answer.status == 2]).all()
    good = ask(cell, temperature[[0, 8]], fraction[[0, 8]])
    assert np.array_equal(answer.outputs[:, [0, 8]], good.outputs)


# ------------------------------------------------------------------------- the same bits in any batch


@pytest.fixture(scope="module")
def varied():
    """A cell model and inputs whose cells need different numbers of iterations."""
    rng = np.random.default_rng(2)
    phases = [lambda temperature: 1.0 + 1e-3 * temperature, lambda temperature: 1e-4 * temperature**2]
    return UnitCell("cylinders", phases, resolution=16), rng.uniform(100, 2000, 37), rng.uniform(0, 0.78, 37)


def test_order_splits_and_padding_do_not_change_a_bit(varied):
    cell, temperature, fraction = varied
    whole = ask(cell, temperature, fraction)
    assert not whole.status.any()
    order = np.random.default_rng(3).permutation(37)
    shuffled = ask(cell, temperature[order], fraction[order])
    assert np.array_equal(shuffled.outputs, whole.outputs[:, order])
    assert np.array_equal(shuffled.residual, whole.residual[order])
    for part in np.split(np.arange(37), [1, 4, 11, 19, 20, 36]):
        answer = ask(cell, temperature[part], fraction[part])
        assert np.array_equal(answer.outputs, whole.outputs[:, part])
        assert np.array_equal(answer.residual, whole.residual[part])


@pytest.mark.parametrize("microstructure", ["laminate", "checkerboard"])
def test_other_microstructures_do_not_see_the_batch_either(microstructure):
    cell = UnitCell(microstructure, [lambda temperature: temperature, constants(50.0)[0]], resolution=12)
    rows = [np.linspace(1, 900, 13), np.linspace(0, 1, 13)][: len(cell.inputs)]
    whole = ask(cell, *rows)
    for number in range(13):
        alone = ask(cell, *(row[number] for row in rows))
        assert np.array_equal(alone.outputs[:, 0], whole.outputs[:, number])


def test_the_trial_call_before_a_run_is_passed(varied):
    cell, temperature, fraction = varied
    try_out(cell, Batch(np.arange(37), np.stack([temperature, fraction]), np.empty((0, 37))))


# -------------------------------------------------------------------------------- the micro model


def test_empty_batch():
    answer = ask(UnitCell("cylinders", constants(1.0, 2.0)), [], [])
    assert answer.outputs.shape == (3, 0)
    assert answer.status.shape == answer.cost.shape == (0,)


def test_cost_is_shared_by_work():
    answer = ask(UnitCell("cylinders", constants(1.0, 10.0), tolerance=1e-10), 300.0, [0.0, 0.5])
    assert 0 < answer.cost[0] < answer.cost[1] < 10.0


def test_fields_and_facts():
    cell = UnitCell("cylinders", constants(1.0, 2.0), phases=["epoxy", "fibre"])
    assert [(field.name, field.unit) for field in cell.inputs] == [("temperature", "K"), ("fraction", "1")]
    assert cell.outputs[0].component_names == ("conductivity_xx", "conductivity_yy", "conductivity_xy")
    assert cell.facts()["phases"] == ["epoxy", "fibre"]
    fixed = UnitCell("laminate", constants(1.0, 2.0), fraction=0.25)
    assert [field.name for field in fixed.inputs] == ["temperature"]
    assert fixed.facts()["fraction"] == 0.25
    np.testing.assert_array_equal(fixed.phase_fractions(np.full((1, 3), 300.0))[:, 2], [0.75, 0.25])
    image = UnitCell(np.eye(4, dtype=int), constants(1.0, 2.0))
    np.testing.assert_array_equal(image.phase_fractions(np.full((1, 2), 300.0)), [[0.75] * 2, [0.25] * 2])


def test_admissible_means_within_wieners_bounds():
    cell, inputs = UnitCell("laminate", constants(1.0, 4.0)), np.array([[300.0] * 6, [0.5] * 6])
    outputs = np.array(
        [
            [1.6, 1.599, 1.5, 2.5, 2.0, np.nan],  # 1.6 and 2.5 are the bounds
            [2.5, 2.501, 2.5, 2.6, 2.0, 2.0],
            [0.0, 0.0, 0.0, 0.0, 0.6, 0.0],  # eigenvalues 1.4 and 2.6
        ]
    )
    assert cell.admissible(inputs, outputs).tolist() == [True, True, False, False, False, False]
    answer = ask(cell, *inputs)
    assert cell.admissible(inputs, answer.outputs).all()


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"microstructure": "lamnate"}, "did you mean 'laminate'"),
        ({"fraction": 0.8}, r"fraction of 'cylinders' must be from 0 to 0.78539816, got 0.8"),
        ({"fraction": float("nan")}, "fraction of 'cylinders'"),
        ({"microstructure": "checkerboard", "fraction": 0.5}, "must be left out"),
        ({"resolution": -8}, "resolution must be an even number"),
        ({"tolerance": 0.0}, "tolerance must be from 1e-14"),
        ({"tolerance": 2.0}, "below 1, got 2.0"),
        ({"max_iterations": 0}, "max_iterations must be a number from 1 on"),
        ({"phases": ["epoxy"]}, "must name 2 phases, got 1"),
        ({"microstructure": np.full((4, 4), 2)}, "below 2, the number of phases"),
    ],
)
def test_wrong_arguments_are_named(options, text):
    with pytest.raises(ConfigError, match=text):
        UnitCell(**({"microstructure": "cylinders", "conductivities": constants(1.0, 2.0)} | options))


@pytest.mark.parametrize(
    ("name", "fraction"), [("laminate", 0.3), ("cylinders", 0.4), ("checkerboard", None)]
)
def test_a_mirrored_cell_has_no_cross_terms(name, fraction):
    """Not even those that the solver leaves, which its image as labels shows."""
    conductivities, inputs = (lambda t: 1.0, lambda t: 7.0), np.full((1, 3), 300.0)
    cell = UnitCell(name, conductivities, 16, fraction=fraction)
    found = cell.solve(inputs, also=("tangent",))
    assert not found.outputs[2].any() and not found.tangent[:, :, 2].any() and found.outputs[0].all()
    labels = cell.microstructure.pixels(fraction)
    drawn = UnitCell(labels, conductivities, 16).solve(inputs)
    assert np.abs(drawn.outputs[2]).max() < 1e-6
