"""The monodomain equation against exact answers: diffusion, splitting, activation, probes; on any ranks."""

from __future__ import annotations

import math

import numpy as np
import oracle_tt06 as oracle
import pytest
import scipy.linalg
from mpi4py import MPI

from hpcmsm.batch import Batch
from hpcmsm.config import MacroSection, TimeSection
from hpcmsm.errors import ConfigError
from hpcmsm.grid import Grid
from hpcmsm.macro.monodomain import ACTIVATION, Monodomain, Stimulus
from hpcmsm.macro.probes import Probe, Probes
from hpcmsm.macro.stepping import make_stepper
from hpcmsm.micro.tt06 import TT06
from tests.macro_harness import order

pytestmark = pytest.mark.mpi
COMM = MPI.COMM_WORLD
# Fibres along x, m2/s; sides in m.
D = (9.53e-5, 1.26e-5, 2.0e-5)
SIDES = (20e-3, 7e-3, 5e-3)


def a_model(cells, centring="vertex", scheme="godunov", comm=COMM, initial=0.0, stimuli=()):
    ndim = len(cells)
    grid = Grid(cells, SIDES[:ndim], comm=comm, centring=centring)
    model = Monodomain(grid, initial, D[:ndim], scheme, stimuli)
    model.kept_values = model.initial_kept(grid.ncells)
    return model


def gathered(grid, rows):
    """Rows (n, ncells) of the owned cells as (n, total_cells) on every rank, every bit kept."""
    rows = np.atleast_2d(rows)
    parts = grid.comm.allgather((grid.ids, rows))
    whole = np.empty((rows.shape[0], grid.total_cells))
    for ids, values in parts:
        whole[:, ids] = values
    return whole


def mode(grid, waves):
    """Product of cosines with `waves` half waves along each axis: an eigenvector without flux."""
    factors = [
        np.cos(math.pi * wave * x / length)
        for wave, x, length in zip(waves, grid.coordinates().values(), grid.size, strict=False)
    ]
    return np.prod(factors, axis=0)


CELLS = {1: (23,), 2: (23, 11), 3: (13, 9, 7)}


@pytest.mark.parametrize("centring", ["vertex", "cell"])
@pytest.mark.parametrize("ndim", [1, 2, 3])
@pytest.mark.parametrize("scheme", ["godunov", "strang"])
def test_a_mode_decays_as_the_stencil_says(comm, agree, ndim, centring, scheme):
    """Sides included: cosines are eigenvectors of the discrete operator, with a known factor a step."""
    model = a_model(CELLS[ndim], centring, scheme)
    grid, waves, dt = model.grid, (2, 1, 3)[:ndim], 1e-2
    voltage = mode(grid, waves)[None].copy()
    start = voltage.copy()
    model.transport(voltage, 0.0, dt)
    nstep = max(1, math.ceil(2 * dt * sum(d / h**2 for d, h in zip(D, grid.spacing, strict=False)) / 0.9))
    rate = -sum(
        4 * d / h**2 * math.sin(math.pi * wave * h / (2 * length)) ** 2
        for d, h, wave, length in zip(D, grid.spacing, waves, grid.size, strict=False)
    )
    z = rate * dt / nstep
    factor = (1 + z + (z**2 / 2 if scheme == "strang" else 0)) ** nstep
    error = np.abs(voltage - factor * start).max(initial=0.0)
    agree(comm, error < 1e-13 and nstep > 1 and factor < 0.95, f"{error}, {nstep} steps, factor {factor}")


@pytest.mark.parametrize("centring", ["vertex", "cell"])
def test_diffusion_is_of_second_order_in_space(comm, agree, centring):
    errors = []
    for n in (12, 24, 48):
        model = a_model((n + (centring == "vertex"), n // 2 + (centring == "vertex")), centring)
        grid, t = model.grid, 0.1
        voltage = mode(grid, (1, 1))[None].copy()
        exact = voltage * math.exp(
            -(math.pi**2) * t * sum(d / s**2 for d, s in zip(D, SIDES[:2], strict=False))
        )
        model.transport(voltage, 0.0, t)
        errors.append(comm.allreduce(float(np.abs(voltage - exact).max(initial=0.0)), op=MPI.MAX))
    agree(comm, abs(order(errors) - 2.0) < 0.1 and errors[-1] < 1e-3, errors)


@pytest.mark.parametrize("centring", ["vertex", "cell"])
@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_charge_stays_without_reaction(comm, agree, ndim, centring):
    """The sum over the cells, each with the part of it that lies within the box."""
    model = a_model(CELLS[ndim], centring)
    grid = model.grid
    rough = np.random.default_rng(3).uniform(-80.0, 20.0, grid.total_cells)
    weights = np.ones(grid.total_cells)
    if centring == "vertex":
        for index, n in zip(
            np.unravel_index(np.arange(grid.total_cells), grid.grid_shape), grid.grid_shape, strict=True
        ):
            weights[(index == 0) | (index == n - 1)] /= 2
    voltage = rough[grid.ids][None].copy()
    for _ in range(20):
        model.transport(voltage, 0.0, 1e-3)
    after = gathered(grid, voltage)[0]
    drift = abs(np.sum(weights * after) / np.sum(weights * rough) - 1.0)
    agree(comm, drift < 1e-13 and np.ptp(after) < 0.5 * np.ptp(rough), f"{drift}, {np.ptp(after)}")


# --- splitting


def decayed(scheme, nstep, t):
    """Voltage after diffusion, and a reaction -k(x) V that is exact over a step, on 17 cells."""
    model = a_model((17,), scheme=scheme, initial="100 * exp(-(x / 4e-3)**2)")
    grid = model.grid
    rate = 300.0 * (1.0 + np.sin(400.0 * grid.coordinates()["x"]))

    def ask(time, dt, unknown):
        model.use(unknown, {"voltage_after": unknown * np.exp(-rate * dt)})

    stepper = make_stepper(
        model, grid, TimeSection(scheme=scheme, end=t, step=t / nstep), MacroSection(), ask
    )
    stepper.set_unknown(model.initial())
    for number in range(nstep):
        stepper.advance(number + 1, number * t / nstep, t / nstep)
    # Diffusion and reaction together, as one matrix.
    n, h = grid.total_cells, grid.spacing[0]
    matrix = np.diag(np.full(n, -2.0)) + np.diag(np.ones(n - 1), 1) + np.diag(np.ones(n - 1), -1)
    matrix[0, 1] = matrix[-1, -2] = 2.0
    matrix = D[0] / h**2 * matrix - np.diag(gathered(grid, rate)[0])
    exact = scipy.linalg.expm(t * matrix) @ gathered(grid, model.initial())[0]
    return gathered(grid, stepper.unknown)[0], exact


@pytest.mark.parametrize(("scheme", "expected"), [("godunov", 1.0), ("strang", 2.0)])
def test_splitting_has_its_order_in_time(comm, agree, scheme, expected):
    errors = []
    for nstep in (10, 20, 40, 80):
        got, exact = decayed(scheme, nstep, 4e-3)
        errors.append(np.abs(got - exact).max())
    agree(comm, abs(order(errors) - expected) < 0.15 and errors[-1] < 0.5, errors)
    agree(comm, scheme == "godunov" or errors[-1] < 5e-3, errors)


# --- with cells of the heart


def beating(comm, nstep=60, dt=5e-5, cells=(9, 5, 4)):
    """Voltage, state, activation of a small slab after some steps, all cells in natural order."""
    model = a_model(cells, comm=comm, initial="-85.23 + 3 * x / 20e-3")
    grid, micro = model.grid, TT06()
    near = np.flatnonzero(grid.ids < 40)
    model.stimuli = (Stimulus(near, 1e-4, 1.03e-3, 60.0),)
    state = micro.initial_state(np.zeros((2, grid.ncells)))

    def ask(time, dt, unknown):
        nonlocal state
        offered = model.offer(unknown)
        inputs = np.stack([offered["voltage"], offered["stimulus"]])
        answer = micro.evaluate(Batch(grid.ids, inputs, state, time, dt))
        state = answer.state
        model.use(unknown, {"voltage_after": answer.outputs})

    stepper = make_stepper(
        model, grid, TimeSection(scheme="strang", end=nstep * dt, step=dt), MacroSection(), ask
    )
    stepper.set_unknown(model.initial())
    for number in range(nstep):
        stepper.advance(number + 1, number * dt, dt)
        model.finish_step(number * dt, (number + 1) * dt, stepper.unknown)
    return gathered(grid, np.concatenate([stepper.unknown, state, model.kept_values]))


def test_the_same_bits_on_any_ranks(comm, agree):
    alone, together = beating(MPI.COMM_SELF), beating(comm)
    agree(comm, alone.tobytes() == together.tobytes(), np.nanmax(np.abs(alone - together)))
    activated = np.isfinite(alone[-1]).sum()
    agree(comm, 0 < activated < alone.shape[1], activated)


def test_one_cell_is_the_twin(comm, agree):
    """Among neighbours like it a cell is alone; the stimulus ends within a step."""
    dt, nstep = 5e-5, 60
    model = a_model((5, 4), initial=oracle.REST)
    grid, micro = model.grid, TT06()
    model.stimuli = (Stimulus(np.arange(grid.ncells), 1e-4, 1.03e-3, 60.0),)
    state = micro.initial_state(np.zeros((2, grid.ncells)))
    voltage = model.initial()
    v, wanted = np.array([oracle.REST]), oracle.START[:, None].copy()
    crossed = None
    for number in range(nstep):
        model.begin_step(voltage, number * dt, dt)
        model.transport(voltage, number * dt, dt)
        offered = model.offer(voltage)
        inputs = np.stack([offered["voltage"], offered["stimulus"]])
        answer = micro.evaluate(Batch(grid.ids, inputs, state, number * dt, dt))
        state = answer.state
        model.use(voltage, {"voltage_after": answer.outputs})
        model.react(voltage, dt)
        model.finish_step(number * dt, (number + 1) * dt, voltage)
        shares = {2 <= number < 20: 1.0, number == 20: 0.6}
        before, (v, wanted) = v[0], oracle.step(v, wanted, 60.0 * shares.get(True, 0.0), 1e3 * dt)
        if crossed is None and before < 0.0 <= v[0]:
            crossed = (number - before / (v[0] - before)) * dt
    agree(comm, np.abs(voltage - v[0]).max() < 1e-7, np.abs(voltage - v[0]).max())
    agree(comm, crossed and np.abs(model.kept_values - crossed).max() < 1e-12, (model.kept_values, crossed))


def test_activation_is_the_first_crossing(comm, agree):
    model = a_model((4, 4))
    n = model.grid.ncells
    steps = [(-1.0, 3.0), (3.0, -2.0), (-2.0, 5.0)]
    for number, (before, after) in enumerate(steps):
        model.begin_step(np.full((1, n), before), 0.1 * number, 0.1)
        model.finish_step(0.1 * number, 0.1 * (number + 1), np.full((1, n), after))
    agree(comm, np.allclose(model.kept_values, 0.025, rtol=1e-12), model.kept_values)


# --- stimulus and probes


def test_a_stimulus_counts_by_its_share_of_the_step(comm, agree):
    stimulus = Stimulus(np.arange(2), 1.0, 3.0, 10.0)
    means = [stimulus.mean(time, 0.5) for time in (0.0, 0.5, 0.75, 1.0, 2.5, 2.75, 3.0)]
    agree(comm, np.allclose(means, [0, 0, 5, 10, 10, 5, 0], atol=0), means)


@pytest.mark.parametrize("centring", ["vertex", "cell"])
def test_probes_interpolate_linearly(comm, agree, centring):
    grid = a_model((9, 6, 5), centring).grid
    x, y, z = grid.coordinates().values()
    field = 2.0 + 300.0 * x - 500.0 * y + 70.0 * z
    inside = (7.7e-3, 3.1e-3, 2.2e-3)
    corner = tuple(SIDES)
    probes = Probes(
        [Probe("inside", inside), Probe("corner", corner), Probe("origin", (0.0, 0.0, 0.0))], grid
    )
    got = probes.values(field)
    half = 0.0 if centring == "vertex" else 0.5
    ends = [
        [s - half * h for s, h in zip(SIDES, grid.spacing, strict=True)],
        [half * h for h in grid.spacing],
    ]
    wanted = [2.0 + 300.0 * a - 500.0 * b + 70.0 * c for a, b, c in (inside, *ends)]
    agree(comm, np.allclose(got, wanted, rtol=1e-13), (got, wanted))


def test_a_probe_without_a_value_says_so(comm, agree):
    grid = a_model((9, 6)).grid
    field = np.where(grid.ids < 20, 1.0, np.nan)
    table = Probes([Probe("near", (0.0, 0.0)), Probe("far", SIDES[:2])], grid).table(ACTIVATION, field)
    agree(comm, table["points"]["near"] == {"at": [0.0, 0.0], "activation_time": 1.0}, table)
    agree(comm, table["points"]["far"]["activation_time"] is None, table)
    with pytest.raises(ConfigError, match=r"macro\.probes\.out must lie within the grid"):
        Probes([Probe("out", (0.0, 8e-3))], grid)
    with pytest.raises(ConfigError, match=r"macro\.probes\.flat must have one coordinate per axis"):
        Probes([Probe("flat", (0.0,))], grid)


def test_a_voltage_that_is_wrong_on_one_rank_is_refused_by_all(comm, agree):
    model = a_model((12, 4), initial="where(x > 19e-3, 500, -85)")
    refused = ""
    try:
        model.initial()
    except ConfigError as error:
        refused = str(error)
    agree(comm, "macro.initial must lie between -200 and 200 mV, got 500" in refused, refused)
