"""Derivatives of K, the corrector, and starting from another solution."""

import numpy as np
import oracles
import pytest
from unit_cell_harness import constants

from hpcmsm.batch import Batch
from hpcmsm.micro.trial import try_out
from hpcmsm.micro.unit_cell import UnitCell

RNG = np.random.default_rng(0)
CELLS = {
    "laminate": ("laminate", 8),
    "cylinders": ("cylinders", 12),
    "spheres": ("spheres", 8),
    "image in 2D": (RNG.integers(0, 2, (8, 8)), None),
    "image in 3D": (RNG.integers(0, 2, (6, 6, 6)), None),
}


def cell_of(name, values, **options):
    """A cell whose phases have these conductivities, (nphase,) or (nphase, naxis)."""
    microstructure, resolution = CELLS[name]
    functions = [constants(*np.atleast_1d(value)) for value in values]
    functions = [given if len(given) > 1 else given[0] for given in functions]
    return UnitCell(microstructure, functions, resolution, tolerance=1e-13, max_iterations=500, **options)


def inputs_of(cell, fraction=0.37):
    return np.array([[300.0], [fraction]])[: len(cell.inputs)]


def differences(name, values, **options):
    """dK by each conductivity from central differences, shape (*values.shape, ncomponent)."""
    slopes = np.empty(values.shape, object)
    for place in np.ndindex(*values.shape):
        ends = []
        for sign in (1, -1):
            changed = values.copy()
            changed[place] *= 1 + sign * 1e-4
            cell = cell_of(name, changed, **options)
            ends.append(cell.solve(inputs_of(cell)).outputs[:, 0])
        slopes[place] = (ends[0] - ends[1]) / (2e-4 * values[place])
    return slopes


@pytest.mark.parametrize("values", [[1.0, 12.0], [7.0, 0.3]])
@pytest.mark.parametrize("name", CELLS)
def test_tangent_by_each_conductivity_against_differences(name, values):
    values = np.array(values)
    cell = cell_of(name, values)
    tangent = cell.tangent(inputs_of(cell))
    for phase, slope in enumerate(differences(name, values)):
        np.testing.assert_allclose(tangent.phases[0, phase, :, 0], slope, rtol=1e-5, atol=1e-6)
    # K is homogeneous of degree 1 in the conductivities.
    np.testing.assert_allclose(np.einsum("apcn,p->cn", tangent.phases, values), tangent.outputs, atol=1e-10)


@pytest.mark.parametrize(("name", "ndim"), [*((name, None) for name in CELLS), ("cylinders", 3)])
def test_tangent_of_anisotropic_phases_against_differences(name, ndim):
    naxis = cell_of(name, [1.0, 2.0], ndim=ndim).ndim
    values = np.random.default_rng(1).uniform(1, 20, (2, naxis))
    cell = cell_of(name, values, ndim=ndim)
    tangent = cell.tangent(inputs_of(cell))
    assert tangent.phases.shape == (naxis, 2, {2: 3, 3: 6}[naxis], 1)
    for (phase, axis), slope in np.ndenumerate(differences(name, values, ndim=ndim)):
        np.testing.assert_allclose(tangent.phases[axis, phase, :, 0], slope, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("ndim", [2, 3])
def test_tangent_by_temperature_against_differences(ndim):
    phases = [lambda t: 1.0 + 1e-2 * t, lambda t: 0.3 + 1e-4 * t**2]
    cell = UnitCell("cylinders", phases, resolution=8, tolerance=1e-13, ndim=ndim)
    inputs = np.array([[250.0, 300.0, 400.0], [0.2, 0.4, 0.6]])
    ahead, behind = (cell.solve(inputs + np.array([[dt], [0.0]])).outputs for dt in (0.5, -0.5))
    np.testing.assert_allclose(cell.tangent(inputs).temperature, ahead - behind, rtol=1e-5, atol=1e-9)


def test_tangent_of_bad_input_is_not_a_number():
    cell = UnitCell("spheres", constants(1.0, 2.0), resolution=4)
    tangent = cell.tangent(np.array([[300.0, 300.0], [0.9, 0.3]]))
    assert tangent.status.tolist() == [2, 0]
    assert np.isnan(tangent.phases[..., 0]).all()
    assert np.isfinite(tangent.phases[..., 1]).all()


# -------------------------------------------------------------------------------- the corrector


@pytest.mark.parametrize("ndim", [2, 3])
def test_corrector_is_that_of_a_direct_sparse_solve(ndim):
    labels, phases = np.random.default_rng(2).integers(0, 2, [6] * ndim), np.array([1.0, 15.0])
    cell = UnitCell(labels, constants(*phases), tolerance=1e-14)
    chi = cell.solve(np.array([[300.0]]), also=("corrector",)).corrector[..., 0]
    exact = oracles.sparse_solution(*oracles.image_faces(labels, phases))
    axes = tuple(range(1, ndim + 1))
    np.testing.assert_allclose(
        chi - chi.mean(axes, keepdims=True), exact - exact.mean(axes, keepdims=True), atol=1e-6
    )


@pytest.mark.parametrize("name", ["cylinders", "spheres"])
def test_starting_from_the_solution_ends_at_once(name):
    cell = UnitCell(name, constants(1.0, 30.0), resolution=16, tolerance=1e-8)
    inputs = np.array([[300.0] * 3, [0.1, 0.3, 0.5]])
    cold = cell.solve(inputs, also=("state",))
    again = cell.solve(inputs, cold.state, also=("state",))
    assert cold.iterations.min() > 3
    assert again.iterations.max() <= 1
    np.testing.assert_allclose(again.outputs, cold.outputs, rtol=1e-8, atol=1e-9)
    nothing = cell.solve(inputs, np.zeros_like(cold.state))
    assert np.array_equal(nothing.outputs, cold.outputs)


@pytest.mark.parametrize("name", ["cylinders", "spheres"])
def test_starting_elsewhere_keeps_the_tolerance(name):
    cell = UnitCell(name, constants(1.0, 30.0), resolution=16)
    inputs = np.array([[300.0] * 5, [0.1, 0.2, 0.3, 0.4, 0.5]])
    exact = UnitCell(name, constants(1.0, 30.0), resolution=16, tolerance=1e-13).solve(inputs).outputs
    cold = cell.solve(inputs, also=("state",))
    for shift in (0.02, 0.001):
        moved = inputs - np.array([[0.0], [shift]])
        warm = cell.solve(inputs, cell.solve(moved, also=("state",)).state)
        np.testing.assert_allclose(warm.outputs[:2], exact[:2], rtol=1e-6)
        assert not warm.status.any()
        assert warm.iterations.mean() < cold.iterations.mean()


# ------------------------------------------------------------- a solution as the state of a cell


def stepped(cell, parts, nstep=4):
    """Outputs and states after some steps in which the temperatures of 21 cells creep up, asked in parts."""
    rng = np.random.default_rng(3)
    temperature, fraction = rng.uniform(200, 400, 21), rng.uniform(0.05, 0.5, 21)
    state = cell.initial_state(np.stack([temperature, fraction]))
    for step in range(nstep):
        inputs = np.stack([temperature + 2.0 * step, fraction])
        batch = Batch(np.arange(21), inputs, state, step=step + 1)
        answers = [cell.evaluate(batch.take(part)) for part in parts]
        back = np.argsort(np.concatenate(parts))
        outputs = np.concatenate([answer.outputs for answer in answers], axis=1)[:, back]
        state = np.concatenate([answer.state for answer in answers], axis=1)[:, back]
        assert not any(answer.status.any() for answer in answers)
    return outputs, state


@pytest.mark.parametrize("name", ["cylinders", "spheres"])
def test_warm_cells_do_not_see_the_batch_and_keep_the_tolerance(name):
    phases = [lambda t: 1.0 + 1e-3 * t, lambda t: 1e-4 * t**2]
    warm = UnitCell(name, phases, resolution=8, warm_start=True)
    whole = stepped(warm, [np.arange(21)])
    order = np.random.default_rng(4).permutation(21)
    for parts in ([order], np.split(order, [1, 4, 12, 20])):
        for once, again in zip(whole, stepped(warm, parts), strict=True):
            assert np.array_equal(once, again)
    cold, _ = stepped(UnitCell(name, phases, resolution=8, tolerance=1e-12), [np.arange(21)])
    np.testing.assert_allclose(whole[0][: warm.ndim], cold[: warm.ndim], rtol=1e-6)


def test_a_warm_cell_declares_its_state():
    cell = UnitCell("spheres", constants(1.0, 2.0), resolution=4, warm_start=True)
    assert (cell.history, cell.state[0].size, cell.facts()["warm_start"]) == ("liftable", 96, True)
    inputs = np.array([[300.0, 300.0], [0.9, 0.3]])
    assert not cell.lift(inputs, np.ones((6, 2))).any()
    answer = cell.evaluate(Batch(np.arange(2), inputs, cell.initial_state(inputs)))
    assert answer.status.tolist() == [2, 0]
    assert np.isfinite(answer.state).all()
    good = Batch(np.arange(1), inputs[:, 1:], cell.initial_state(inputs[:, 1:]))
    try_out(cell, good)
    assert UnitCell("spheres", constants(1.0, 2.0)).state == ()
