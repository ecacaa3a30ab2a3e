"""Cylinders and spheres on lines of points that follow them."""

import fitted_oracle
import numpy as np
import oracles
import pytest
import sphere_oracle
from numpy.polynomial import Chebyshev
from unit_cell_harness import ask, conductivity, constants

from hpcmsm.batch import Batch
from hpcmsm.errors import ConfigError
from hpcmsm.kernels import Kernel
from hpcmsm.micro.trial import try_out
from hpcmsm.micro.unit_cell import UnitCell


@pytest.mark.parametrize("resolution", [4, 6, 16, 32])
@pytest.mark.parametrize(("fraction", "contrast"), [(0.002, 30.0), (0.45, 0.1), (0.7, 2.0), (np.pi / 4, 0.5)])
def test_cylinders_against_a_direct_solve_of_the_same_faces(resolution, fraction, contrast):
    exact = oracles.sparse_conductivity(*fitted_oracle.fitted_cylinder_faces(fraction, contrast, resolution))
    options = {"fraction": fraction, "resolution": resolution, "tolerance": 1e-12, "grid": "fitted"}
    k = conductivity("cylinders", 1.0, contrast, **options)
    np.testing.assert_allclose(k, exact, rtol=1e-8, atol=1e-8 * exact[0])


@pytest.mark.parametrize("n", [4, 6, 10])
@pytest.mark.parametrize(("fraction", "contrast"), [(1e-4, 30.0), (0.35, 4.0), (0.35, 0.2), (0.523, 0.5)])
def test_spheres_against_a_direct_solve_of_the_same_faces(n, fraction, contrast):
    exact = oracles.sparse_conductivity(*fitted_oracle.fitted_sphere_faces(fraction, contrast, n))
    options = {"fraction": fraction, "resolution": n, "tolerance": 1e-12, "grid": "fitted"}
    k = conductivity("spheres", 1.0, contrast, **options)
    np.testing.assert_allclose(k, exact, rtol=1e-8, atol=1e-8)


# Relative error that the grid leaves at 16, 32 and 64 points a side: on an even one up to 8e-3, 4.5e-3 and
# 2.1e-3 at contrast 10, and 6.5e-2, 2.6e-2 and 1.3e-2 at contrast 50.
BOUNDS = {10.0: (4e-3, 4e-3, 2.3e-3), 0.1: (9e-3, 4e-3, 2.3e-3), 50.0: (2.1e-2, 2.5e-2, 1.5e-2)}


@pytest.mark.parametrize("contrast", BOUNDS)
def test_cylinders_come_near_the_multipole_solution(contrast):
    fraction = np.linspace(0.3, 0.7, 9)
    exact = [oracles.square_array(f, contrast) for f in fraction]
    for resolution, bound in zip((16, 32, 64), BOUNDS[contrast], strict=True):
        cell = UnitCell("cylinders", constants(1.0, contrast), resolution, grid="fitted")
        answer = ask(cell, 300.0, fraction)
        assert not answer.status.any()
        assert np.abs(answer.outputs[0] / exact - 1.0).max() < bound
        assert cell.admissible(np.stack([np.full(9, 300.0), fraction]), answer.outputs).all()


def test_spheres_come_near_the_multipole_solution():
    cell = UnitCell("spheres", constants(1.0, 10.0), 16, grid="fitted")
    exact = [sphere_oracle.simple_cubic(f, 10.0) for f in (0.2, 0.45)]
    np.testing.assert_allclose(ask(cell, 300.0, [0.2, 0.45]).outputs[0], exact, rtol=8e-3)


def roughness(microstructure, fraction, contrast, resolution, **options):
    """Largest relative distance of K from a smooth function of the fraction."""
    cell = UnitCell(microstructure, constants(1.0, contrast), resolution, tolerance=1e-9, **options)
    logs = np.log(ask(cell, 300.0, fraction).outputs[0])
    return np.abs(logs - Chebyshev.fit(fraction, logs, 12)(fraction)).max()


@pytest.mark.parametrize("contrast", [10.0, 0.1])
@pytest.mark.parametrize("resolution", [16, 32])
def test_conductivity_is_a_smooth_function_of_the_fraction(resolution, contrast):
    fraction = np.linspace(0.25, 0.65, 121)
    even, fitted = (
        roughness("cylinders", fraction, contrast, resolution, grid=grid) for grid in ("even", "fitted")
    )
    assert even > 8e-4 and fitted < 3e-6, (even, fitted)


def test_conductivity_of_spheres_is_smooth_too():
    fraction = np.linspace(0.1, 0.45, 41)
    even, fitted = (roughness("spheres", fraction, 10.0, 8, grid=grid) for grid in ("even", "fitted"))
    assert even > 5e-4 and fitted < 1e-6, (even, fitted)


def test_a_cell_does_not_see_the_batch():
    rng = np.random.default_rng(2)
    phases = [lambda temperature: 1.0 + 1e-3 * temperature, lambda temperature: 1e-4 * temperature**2]
    for name, n, most in (("cylinders", 16, 0.78), ("spheres", 6, 0.52)):
        cell = UnitCell(name, phases, n, grid="fitted")
        inputs = np.stack([rng.uniform(100, 2000, 21), rng.uniform(0, most, 21)])
        try_out(cell, Batch(np.arange(21), inputs, np.empty((0, 21))))
        whole, order = cell.solve(inputs).outputs, rng.permutation(21)
        assert np.array_equal(cell.solve(inputs[:, order]).outputs, whole[:, order])
        for part in np.split(np.arange(21), [1, 4, 11, 19]):
            assert np.array_equal(cell.solve(inputs[:, part]).outputs, whole[:, part])


@pytest.mark.parametrize(("name", "n", "ndim"), [("cylinders", 12, 2), ("spheres", 8, 3)])
@pytest.mark.parametrize("values", [[[1.0, 1.5, 0.7], [12.0, 9.0, 11.0]], [[7.0], [0.3]]])
def test_tangent_by_each_conductivity_against_differences(name, n, ndim, values):
    values = [value[:ndim] for value in values]
    inputs = np.array([[300.0], [0.37]])

    def cell(values):
        functions = [constants(*value) for value in values]
        functions = [given if len(given) > 1 else given[0] for given in functions]
        return UnitCell(name, functions, n, tolerance=1e-13, max_iterations=500, grid="fitted")

    tangent = cell(values).tangent(inputs).phases[..., 0]
    for phase, axis in np.ndindex(2, len(values[0])):
        ends = []
        for sign in (1, -1):
            changed = [list(value) for value in values]
            changed[phase][axis] *= 1 + sign * 1e-4
            ends.append(cell(changed).solve(inputs).outputs[:, 0])
        slope = (ends[0] - ends[1]) / (2e-4 * values[phase][axis])
        np.testing.assert_allclose(tangent[axis, phase], slope, rtol=1e-5, atol=1e-6)


def test_single_precision_gives_the_same():
    fraction = np.linspace(0.0, 0.78, 17)
    double = ask(UnitCell("cylinders", constants(1.0, 10.0), 16, grid="fitted"), 300.0, fraction)
    kernel, outputs = Kernel.load("unit_cell", "unit_cell_2d", dtype="float32"), np.empty((3, 17), "float32")
    status, iterations, residual = np.empty(17, np.int32), np.empty(17, np.int32), np.empty(17, "float32")
    nothing = dict.fromkeys(("labels", "image", "before", "after", "corrector", "tangent"))
    sizes = {"ncells": 17, "n": 16, "nred": 128, "nphase": 2, "naxis": 1, "nimage": 1, "nsub": 1, "nword": 16}
    found = {"conductivity": outputs, "residual": residual, "iterations": iterations, "status": status}
    phases = np.ascontiguousarray(np.broadcast_to([[[1.0], [10.0]]], (1, 2, 17)), "float32")
    kernel(
        **sizes,
        microstructure=4,
        max_iterations=100,
        tolerance=1e-5,
        phases=phases,
        fraction=fraction.astype("float32"),
        **nothing,
        **found,
    )
    assert not status.any()
    np.testing.assert_allclose(outputs[:2], double.outputs[:2], rtol=3e-5)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"grid": "fited"}, "grid must be one of even, fitted, got 'fited'; did you mean 'fitted'"),
        ({"microstructure": "laminate", "grid": "fitted"}, "grid must be 'even' for 'laminate'"),
        ({"microstructure": np.eye(4, dtype=int), "grid": "fitted"}, "grid must be 'even' for an image"),
    ],
)
def test_wrong_grids_are_named(options, text):
    with pytest.raises(ConfigError, match=text):
        UnitCell(**({"microstructure": "cylinders", "conductivities": constants(1.0, 2.0)} | options))


def test_bad_input_is_a_status_of_its_cell_alone():
    cell = UnitCell("cylinders", constants(1.0, 3.0), 16, grid="fitted")
    answer = ask(cell, 300.0, [0.3, 0.79, np.nan, -0.1, 0.0])
    assert answer.status.tolist() == [0, 2, 2, 2, 0]
    np.testing.assert_allclose(answer.outputs[:2, 4], 1.0, rtol=2e-6)
