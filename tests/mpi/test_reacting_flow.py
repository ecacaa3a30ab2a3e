"""Transport of reacting flows: its order, conservation, ranks and sides."""

import numpy as np
import pytest
from mpi4py import MPI

from hpcmsm.batch import Batch
from hpcmsm.errors import ConfigError, SolverError
from hpcmsm.micro.chemistry import Chemistry
from tests.flow_harness import DENSITY, FlowRun, gases, two

pytestmark = pytest.mark.mpi

PERIODIC_2D = {side: {"kind": "periodic"} for side in ("x_low", "x_high", "y_low", "y_high")}
# ------------------------------------------------------------------------------------------ order


def wave(places, time, spread):
    """A product of sines, carried along (0.3, -0.2) m/s and levelled by diffusion."""
    wide = 2.0 * np.pi
    phase_x, phase_y = places["x"] - 0.3 * time, places["y"] + 0.2 * time
    return 0.5 + 0.3 * np.exp(-2.0 * spread * wide**2 * time) * np.sin(wide * phase_x) * np.sin(
        wide * phase_y
    )


def wave_error(comm, n, nstep):
    spread, end = 2e-3, 0.4

    def velocity(places, time):
        return np.stack([np.full_like(places["x"], 0.3), np.full_like(places["x"], -0.2)])

    run = FlowRun(
        comm,
        (n, n),
        (1.0, 1.0),
        gases(),
        lambda places: two(wave(places, 0.0, spread)),
        velocity,
        repr(spread * DENSITY),
        boundary=PERIODIC_2D,
    )
    run.run(end / nstep, nstep)
    return run.error(wave(run.coordinates, end, spread), 1)


def test_a_wave_is_carried_and_levelled_with_second_order(comm, agree):
    errors = [wave_error(comm, n, n // 4) for n in (16, 32, 64)]
    orders = np.log2(np.array(errors[:-1]) / errors[1:])
    agree(comm, errors[-1] < 1e-3 and (orders > 1.9).all(), f"errors {errors}, orders {orders}")


# ---------------------------------------------------------------------------------- conservation


def stirred(comm, cells=(9, 7)):
    """Four gases of different weights and heat capacities, unevenly hot, in a swirling flow."""
    mixture = gases(
        (0.002, 0.018, 0.028, 0.032), (14000.0, 1900.0, 1000.0, 900.0), (0.0, -1e6, 0.0, 5e4), slope=0.2
    )

    def start(places):
        x, y = places["x"], places["y"]
        parts = np.stack([np.ones_like(x), 1 + np.sin(6 * x), 2 + np.cos(9 * y), 1 + np.sin(5 * x * y)])
        return np.concatenate([(900 + 500 * np.sin(7 * x + 4 * y))[None], parts / parts.sum(axis=0)])

    def velocity(places, time):
        x, y = places["x"], places["y"]
        return np.stack([np.sin(7 * y) + time, np.cos(6 * x)])

    return FlowRun(
        comm,
        cells,
        (1.0, 0.8),
        mixture,
        start,
        velocity,
        "3e-3 * (temperature / 300) ** 0.7",
        boundary=PERIODIC_2D,
    )


def test_mass_fractions_go_on_adding_up_to_one(comm, agree):
    run = stirred(comm)
    before = run.stepper.unknown.copy()
    after = run.run(0.02, 5)
    moved = comm.allreduce(float(np.abs(after - before)[1:].max()), op=MPI.MAX)
    apart = comm.allreduce(float(np.abs(after[1:].sum(axis=0) - 1.0).max()), op=MPI.MAX)
    agree(comm, moved > 0.05 and apart < 1e-14, f"moved by {moved}, sums off by {apart}")


def test_where_the_enthalpy_is_uniform_it_stays_so(comm, agree):
    # Composition and temperature differ, so that only the right fluxes of enthalpy cancel.
    run = stirred(comm)
    mixture, values = run.flow.mixture, run.stepper.unknown.copy()
    level = np.full(run.grid.ncells, 2e6)
    values[0], exists = mixture.temperature(level, values[1:], values[0])
    run.stepper.set_unknown(values)
    after = run.run(0.02, 5)
    enthalpy = mixture.enthalpy(after[0].copy(), after[1:].copy())
    apart = comm.allreduce(float(np.abs(enthalpy / level - 1.0).max()), op=MPI.MAX)
    moved = comm.allreduce(float(np.abs(after[0] - values[0]).max()), op=MPI.MAX)
    agree(
        comm, exists.all() and moved > 20.0 and apart < 1e-12, f"moved by {moved} K, enthalpy off by {apart}"
    )


def test_reaction_keeps_the_enthalpy(comm, agree):
    run = stirred(comm)
    run.reaction = lambda fractions, dt: 0.1 * fractions[0] * np.array([[-1.0], [0.5], [0.25], [0.25]])
    mixture, before = run.flow.mixture, run.stepper.unknown.copy()
    after = before.copy()
    run._ask(0.0, 1.0, after)
    run.flow.react(after, 1.0)
    first, last = (mixture.enthalpy(part[0].copy(), part[1:].copy()) for part in (before, after))
    apart = np.abs(last / first - 1.0).max()
    warmed = np.abs(after[0] - before[0]).max()
    agree(comm, warmed > 10.0 and apart < 1e-12, f"warmed by {warmed} K, enthalpy off by {apart}")


# ---------------------------------------------------------------------------------- ranks, sides


class Chemical:
    """The real micro model as the reaction of a FlowRun."""

    def __init__(self, run, micro):
        self.run, self.micro = run, micro

    def __call__(self, fractions, dt):
        inputs = np.concatenate([self.run.stepper.unknown[:1], fractions])
        n = inputs.shape[1]
        answer = self.micro.evaluate(Batch(self.run.grid.ids, inputs, np.empty((0, n)), 0.0, dt, 1))
        if answer.status.any():
            raise AssertionError(f"status {answer.status}")
        return answer.outputs


def flame(comm, micro):
    """Hydrogen and air with a hot side and an inflow, 9 x 6 cells: every kind of side at once."""
    mixture = micro.mixture
    species = {name: 1 + mixture.species.index(name) for name in ("H2", "O2", "N2")}

    def start(places):
        x, y = places["x"], places["y"]
        values = np.zeros((1 + mixture.nspecies, x.size))
        values[0] = 1000.0 + 900.0 * np.exp(-(((x - 4e-4) / 1e-4) ** 2) - (y / 2e-4) ** 2)
        values[species["H2"]], values[species["O2"]] = 0.03 + 5 * y, 0.22
        values[species["N2"]] = 1.0 - values[species["H2"]] - 0.22
        return values

    def velocity(places, time):
        return np.stack([np.full_like(places["x"], 3.0), 2.0 * np.sin(1e4 * places["x"] + 1e5 * time)])

    run = FlowRun(
        comm,
        (9, 6),
        (9e-4, 6e-4),
        mixture,
        start,
        velocity,
        "4e-5 * (temperature / 300) ** 0.7",
        boundary={"x_low": {"kind": "temperature", "temperature": "1000 + 1e7 * t"}},
    )
    run.reaction = Chemical(run, micro)
    return run


def test_every_number_of_ranks_gives_the_same_bits(comm, agree):
    micro = Chemistry("h2o2.yaml")
    alone = flame(MPI.COMM_SELF, micro).run(2e-6, 4)
    run = flame(comm, micro)
    mine = run.run(2e-6, 4)
    same = mine.tobytes() == np.ascontiguousarray(alone[:, run.grid.ids]).tobytes()
    reacted = alone[1 + micro.mixture.species.index("H2O")].max()
    agree(comm, same and reacted > 1e-6, f"same bits: {same}, water {reacted}")


def test_a_closed_side_lets_nothing_through(comm, agree):
    start = lambda places: two(0.2 + 0.5 * places["x"] ** 2)  # noqa: E731
    run = FlowRun(comm, (16,), (1.0,), gases(), start, diffusion=repr(0.01 * DENSITY))
    before = comm.allreduce(float(run.stepper.unknown[1].sum()))
    run.run(0.5, 4)
    after = comm.allreduce(float(run.stepper.unknown[1].sum()))
    agree(comm, abs(after / before - 1.0) < 1e-13, f"content {before} became {after}")


def test_the_gas_that_flows_in_is_that_of_the_start(comm, agree):
    def start(places):
        return two(np.where(places["x"] <= 0.0, 0.9, 0.1), 300.0)

    run = FlowRun(
        comm,
        (12,),
        (1.0,),
        gases(),
        start,
        lambda places, time: np.full((1, places["x"].size), 1.0),
        repr(1e-2 * DENSITY),
        boundary={"x_low": {"kind": "temperature", "temperature": 450.0}},
    )
    values = run.run(0.25, 12)
    apart = np.abs(values - np.array([[450.0], [0.9], [0.1]])).max(initial=0.0)
    agree(comm, comm.allreduce(apart, op=MPI.MAX) < 1e-3, f"off by {apart}")


def test_other_sides_are_refused(comm, agree):
    text = ""
    try:
        FlowRun(
            comm,
            (8, 8),
            (1.0, 1.0),
            gases(),
            lambda places: two(0.0 * places["x"]),
            boundary={side: {"kind": "flux", "flux": 3.0} for side in ("x_low", "x_high", "y_low", "y_high")},
        )
    except ConfigError as error:
        text = str(error)
    agree(comm, text.startswith("macro.boundary.") or not text, text)
    agree(comm, comm.allreduce(int(bool(text))) > 0, "no rank refused it")


def test_a_velocity_without_bound_is_refused(comm, agree):
    run = stirred(comm)
    text, inner = "", run.flow.velocity
    run.flow.velocity = lambda time: np.where(run.grid.ids == 5, np.inf, inner(time))
    try:
        run.run(1e-3, 1)
    except SolverError as error:
        text = str(error)
    agree(comm, "at most 10000 stable steps" in text and "macro.velocity" in text, text)


def test_a_state_without_temperature_ends_on_every_rank(comm, agree):
    run = stirred(comm)
    run.reaction = lambda fractions, dt: np.where(run.grid.ids == 5, np.nan, 0.0) + 0.0 * fractions
    text = ""
    try:
        run.run(1e-3, 1)
    except SolverError as error:
        text = str(error)
    agree(comm, "in cell 5 " in text and "after reaction" in text, text)
