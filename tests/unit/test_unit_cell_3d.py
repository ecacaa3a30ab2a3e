"""Unit cells in 3D, and phases that conduct differently along the axes."""

import numpy as np
import oracles
import pytest
from unit_cell_harness import ask, conductivity, constants, solve_image

from hpcmsm.batch import Batch
from hpcmsm.errors import ConfigError
from hpcmsm.micro.trial import try_out
from hpcmsm.micro.unit_cell import UnitCell

PAIRS = oracles.pairs(3)


def ball(n, fraction):
    centres = (np.arange(n) + 0.5) / n - 0.5
    square = centres[:, None, None] ** 2 + centres[:, None] ** 2 + centres**2
    return (square < (3 * fraction / (4 * np.pi)) ** (2 / 3)).astype(np.int32)


def layers(n, axis, share):
    """Phase 1 in the first points along an axis (0 is x) of a cube."""
    first = (np.arange(n) < share * n).astype(np.int32)
    return np.broadcast_to(first.reshape([n if 2 - a == axis else 1 for a in range(3)]), (n, n, n)).copy()


# ------------------------------------------------------------------ exact and independent solutions


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("contrast", [10.0, 0.02, 1e4])
@pytest.mark.parametrize("n", [4, 10, 16])
def test_layers_across_each_axis_are_exact(axis, contrast, n):
    labels = layers(n, axis, 0.25 if n % 4 == 0 else 0.3)
    share = labels.mean()
    series, parallel = oracles.wiener([1 - share, share], [1.0, contrast])
    exact = np.array([parallel] * 3 + [0.0] * 3)
    exact[axis] = series
    k = conductivity(labels, 1.0, contrast, tolerance=1e-14)
    np.testing.assert_allclose(k, exact, rtol=2e-11, atol=1e-12 * parallel)


@pytest.mark.parametrize("n", [4, 6, 8, 10])
@pytest.mark.parametrize("contrast", [5.0, 1000.0])
def test_random_voxels_against_a_direct_sparse_solve(n, contrast):
    labels = np.random.default_rng(n).integers(0, 3, (n, n, n))
    phases = np.array([1.0, contrast, np.sqrt(contrast)])
    exact = oracles.sparse_conductivity(*oracles.image_faces(labels, phases))
    k = conductivity(labels, *phases, tolerance=1e-12, max_iterations=500)
    np.testing.assert_allclose(k, exact, rtol=1e-8, atol=1e-8 * exact[0])


def test_a_cell_that_does_not_change_along_z_is_its_section():
    labels = np.random.default_rng(1).integers(0, 2, (8, 8))
    plane = conductivity(labels, 1.0, 20.0)
    solid = conductivity(np.broadcast_to(labels, (8, 8, 8)).copy(), 1.0, 20.0)
    parallel = 1.0 + 19.0 * labels.mean()
    np.testing.assert_allclose(solid, [plane[0], plane[1], parallel, 0, 0, plane[2]], rtol=1e-9, atol=1e-9)
    # The micro model takes the short way.
    np.testing.assert_allclose(conductivity(labels, 1.0, 20.0, ndim=3), solid, rtol=1e-9, atol=1e-9)


def test_turning_a_cell_turns_its_tensor():
    labels = np.random.default_rng(2).integers(0, 2, (8, 8, 8))
    k = conductivity(labels, 1.0, 30.0)
    turned = conductivity(np.moveaxis(labels, 0, 2).copy(), 1.0, 30.0)  # x, y, z become y, z, x
    np.testing.assert_allclose(turned, k[[2, 0, 1, 5, 3, 4]], rtol=1e-8, atol=1e-8)


def test_bounds_of_hashin_and_shtrikman():
    for fraction in (0.1, 0.3, 0.5):
        for contrast in (3.0, 0.3):
            low, high = oracles.hashin_shtrikman_3d(fraction, 1.0, contrast)
            k = conductivity("spheres", 1.0, contrast, fraction=fraction, resolution=16)
            worst, best = oracles.wiener([1 - fraction, fraction], [1.0, contrast])
            assert worst < low * (1 - 1e-3) < k[0] < high * (1 + 1e-3) < best
            np.testing.assert_allclose(k, [k[0]] * 3 + [0] * 3, rtol=1e-9, atol=1e-9)


def test_each_cell_may_have_its_own_image():
    rng = np.random.default_rng(3)
    for ndim in (2, 3):
        images = rng.integers(0, 2, (3, *[6] * ndim)).astype(np.int32)
        phases = rng.uniform(1, 20, (2, 11))
        which = rng.integers(0, 3, 11).astype(np.int32)
        mixed, *_ = solve_image(images, phases, 1e-8, 100, image=which)
        for number in range(3):
            alone, *_ = solve_image(images[number], phases, 1e-8, 100)
            assert np.array_equal(mixed[:, which == number], alone[:, which == number])
        which[4] = 3
        _, status, *_ = solve_image(images, phases, 1e-8, 100, image=which)
        assert status.tolist() == [0] * 4 + [2] + [0] * 6


# ------------------------------------------------------------------------------ anisotropic phases


@pytest.mark.parametrize("ndim", [2, 3])
def test_anisotropic_phases_against_a_direct_sparse_solve(ndim):
    rng = np.random.default_rng(4)
    labels = rng.integers(0, 2, [8] * ndim)
    by_axis = rng.uniform(1, 50, (ndim, 2))
    faces = [oracles.image_faces(labels, phases)[axis] for axis, phases in enumerate(by_axis)]
    cell = UnitCell(labels, [constants(*by_axis[:, 0]), constants(*by_axis[:, 1])], tolerance=1e-12)
    k = ask(cell, 300.0)
    assert k.status.tolist() == [0]
    exact = oracles.sparse_conductivity(*faces)
    np.testing.assert_allclose(k.outputs[:, 0], exact, rtol=1e-8, atol=1e-8 * exact[0])


@pytest.mark.parametrize("microstructure", ["laminate", "cylinders", "spheres"])
def test_equal_conductivities_along_all_axes_are_isotropic(microstructure):
    functions = constants(2.0, 11.0)
    isotropic = UnitCell(microstructure, functions, resolution=12)
    several = UnitCell(microstructure, [functions[0], [functions[1]] * isotropic.ndim], resolution=12)
    inputs = [300.0] * 3, [0.1, 0.3, 0.5]
    np.testing.assert_array_equal(ask(several, *inputs).outputs, ask(isotropic, *inputs).outputs)


def test_anisotropic_laminate_has_its_means_along_each_axis():
    cell = UnitCell("laminate", [constants(1.0, 2.0, 3.0), constants(10.0, 0.5, 7.0)], ndim=3, fraction=0.3)
    answer = ask(cell, 300.0)
    exact = [1 / (0.7 + 0.03), 0.7 * 2 + 0.3 * 0.5, 0.7 * 3 + 0.3 * 7, 0, 0, 0]
    np.testing.assert_allclose(answer.outputs[:, 0], exact, atol=1e-6)
    assert cell.admissible(np.array([[300.0]]), answer.outputs).all()
    assert not cell.admissible(np.array([[300.0]]), 1.1 * answer.outputs).any()


def test_number_of_conductivities_must_fit_the_dimension():
    with pytest.raises(ConfigError, match="one function, 3, one per axis, or 6, one per component, got 2"):
        UnitCell("spheres", [constants(1.0)[0], constants(1.0, 2.0)])
    with pytest.raises(ConfigError, match="ndim must be 3 for this microstructure, got 2"):
        UnitCell("spheres", constants(1.0, 2.0), ndim=2)
    with pytest.raises(ConfigError, match="ndim must be 2 or 3 for this microstructure, got 4"):
        UnitCell("laminate", constants(1.0, 2.0), ndim=4)


# ------------------------------------------------------------------------ iterations and failures


def test_iterations_hardly_grow_with_the_resolution():
    for n in (8, 16, 32):
        _, status, iterations, residual = solve_image(ball(n, 0.3), [[1.0], [10.0]], 1e-12, 50)
        assert status[0] == 0
        assert iterations[0] <= 11
        assert residual[0] < 1e-5


@pytest.mark.parametrize("contrast", [10.0, 1e4])
def test_hard_voxels_converge_to_the_tolerance(contrast):
    labels = np.random.default_rng(5).integers(0, 2, (16, 16, 16))
    exact, status, *_ = solve_image(labels, [[1.0], [contrast]], 1e-14, 500)
    k, good, iterations, _ = solve_image(labels, [[1.0], [contrast]], 1e-6, 500)
    assert status[0] == good[0] == 0
    assert iterations[0] < {10.0: 12, 1e4: 80}[contrast]
    np.testing.assert_allclose(k[:3], exact[:3], rtol=2e-6)


def test_single_precision_stops_where_rounding_does():
    labels, phases = ball(16, 0.3), [[1.0], [100.0]]
    exact, *_ = solve_image(labels, phases, 1e-14, 100)
    k, status, iterations, _ = solve_image(labels, phases, 1e-6, 100, "float32")
    assert status[0] == 0
    assert iterations[0] < 20
    np.testing.assert_allclose(k[:3], exact[:3], rtol=5e-6)
    k, status, iterations, _ = solve_image(labels, phases, 1e-30, 1000, "float32")
    assert status[0] in (0, 1)
    assert iterations[0] < 500
    np.testing.assert_allclose(k[:3], exact[:3], rtol=5e-4)


def test_bad_input_is_a_status_of_its_cell_alone():
    temperature = np.array([300.0, np.nan, -1.0, 300.0, 300.0, 1e300, 300.0])
    fraction = np.array([0.5, 0.5, 0.5, 0.6, -0.1, 0.5, 0.3])
    cell = UnitCell("spheres", [lambda temperature: temperature, constants(3.0)[0]], resolution=8)
    answer = ask(cell, temperature, fraction)
    assert answer.status.tolist() == [0, 2, 2, 2, 2, 2, 0]
    assert np.isnan(answer.outputs[:, answer.status == 2]).all()
    good = ask(cell, temperature[[0, 6]], fraction[[0, 6]])
    assert np.array_equal(answer.outputs[:, [0, 6]], good.outputs)
    extruded = UnitCell("cylinders", [lambda temperature: temperature, constants(3.0)[0]], ndim=3)
    answer = ask(extruded, temperature, fraction)
    assert answer.status.tolist() == [0, 2, 2, 0, 2, 2, 0]
    assert np.isnan(answer.outputs[:, answer.status == 2]).all()


# ------------------------------------------------------------------- the same bits in any batch


def test_order_splits_and_padding_do_not_change_a_bit():
    rng = np.random.default_rng(2)
    phases = [lambda temperature: 1.0 + 1e-3 * temperature, lambda temperature: 1e-4 * temperature**2]
    cell, temperature, fraction = (
        UnitCell("spheres", phases, resolution=8),
        rng.uniform(100, 2000, 21),
        rng.uniform(0, 0.52, 21),
    )
    whole = ask(cell, temperature, fraction)
    assert not whole.status.any()
    order = rng.permutation(21)
    shuffled = ask(cell, temperature[order], fraction[order])
    assert np.array_equal(shuffled.outputs, whole.outputs[:, order])
    assert np.array_equal(shuffled.residual, whole.residual[order])
    for part in np.split(np.arange(21), [1, 4, 12, 20]):
        answer = ask(cell, temperature[part], fraction[part])
        assert np.array_equal(answer.outputs, whole.outputs[:, part])
    try_out(cell, Batch(np.arange(21), np.stack([temperature, fraction]), np.empty((0, 21))))
