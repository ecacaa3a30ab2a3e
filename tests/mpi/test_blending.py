"""Cells that change from micro model to surrogate, or from one version to the next, do not jump."""

from dataclasses import replace

import numpy as np
import pytest
from mpi4py import MPI

from hpcmsm.batch import MICRO, SURROGATE
from tests.gate_harness import TellTale, Told, make_batch, make_gate, same_arrays

pytestmark = pytest.mark.mpi
N, TOLERANCE = 101, 0.01


def cells_of(comm):
    return np.random.default_rng(3).permutation(N)[comm.rank :: comm.size]


def biased(comm, bias, blend, **more):
    """A gate whose surrogate is wrong by the part `bias` everywhere, calibrated, after a step of truth."""
    gate = make_gate(comm, version=0, blend=blend, audit=1e-9, training={"first_samples": 10}, **more)
    gate.ids = cells_of(comm)
    step(gate, 1, bias, 1.0)
    return gate


def step(gate, number, error, score):
    """One step at inputs that never change; the answers and who gave them."""
    x = np.linspace(0.0, 1.0, N)[gate.ids]
    error, score = (np.broadcast_to(a, (N,))[gate.ids] for a in (error, score))
    answer = gate.evaluate(make_batch(gate.ids, x, error, score, number))
    gate.finish_step(number)
    return answer.outputs[0] / (1.0 + x * x), answer.source


@pytest.mark.parametrize("blend, largest", [(0, 1.0), (4, 0.2), (9, 0.1)])
def test_a_cell_goes_over_in_small_steps(comm, agree, blend, largest):
    """From truth to a biased answer: at most 1 / (blend + 1) of the bias at once, and all of it at last."""
    bias = 0.004
    gate = biased(comm, bias, blend)
    series = [np.ones(gate.ids.size)]
    for number in range(2, 60):
        values, source = step(gate, number, bias, 1.0)
        agree(comm, (source == SURROGATE).all(), f"step {number}: not accepted")
        series.append(values)
    jumps = np.abs(np.diff(series, axis=0)).max(axis=1, initial=0.0)
    if gate.ids.size:
        np.testing.assert_allclose(jumps[0], largest * bias, rtol=1e-6)
        np.testing.assert_allclose(jumps[1], largest * bias * (1 - largest), rtol=1e-6, atol=1e-15)
    agree(comm, (jumps <= largest * bias * (1 + 1e-9)).all(), f"{jumps[:5]}")
    agree(comm, np.abs(series[-1] - (1 + bias)).max(initial=0.0) < 2e-5, "the surrogate's answer is reached")


class Flips(TellTale):
    """Each version errs to the other side."""

    def predict(self, inputs):
        sign = 1.0 if self.version % 2 else -1.0
        return (1.0 + inputs[0:1] ** 2) * (1.0 + sign * inputs[1:2]), inputs[2].copy()


def largest_jump_at_a_swap(comm, blend):
    """Errors of 0.9 tolerances, whose sign changes with the version; the jump of cells that stay served."""
    bias = 0.9 * TOLERANCE
    gate = biased(comm, bias, blend, surrogate=Flips(version=0))
    before, last, jumps, nserved = None, (), [], 0
    for number in range(2, 30):
        if number in (10, 20):  # between the steps a new version takes over
            gate.surrogate.version += 1
            gate.calibration.rescore(gate.predictor)
            gate.blending.note(*last)
            gate.blending.finish_step()
        x = np.linspace(0.0, 1.0, N)[gate.ids]
        batch = make_batch(gate.ids, x, bias, 1.0, number)
        answer = gate.evaluate(batch)
        last = batch, answer.outputs, gate.predictor.predict(batch.inputs)[0]
        gate.finish_step(number)
        values = answer.outputs[0] / (1.0 + x * x)
        served = answer.source == SURROGATE
        if before is not None:
            both = served & before[1]
            jumps.append(np.abs(values - before[0])[both].max(initial=0.0))
            nserved += int(both.sum())
        before = values, served
    return comm.allreduce(max(jumps), op=MPI.MAX), comm.allreduce(nserved)


def test_no_jump_is_larger_than_the_tolerance(comm, agree):
    """Without blending the answer jumps by 1.8 tolerances when the version changes."""
    hard, nhard = largest_jump_at_a_swap(comm, 0)
    soft, nsoft = largest_jump_at_a_swap(comm, 4)
    agree(comm, abs(hard / TOLERANCE - 1.8) < 0.05, f"{hard}")
    agree(comm, 0 < soft <= TOLERANCE, f"{soft}")
    agree(comm, nsoft > 0.8 * nhard > 0, f"{nsoft} and {nhard} served")


def test_what_the_bound_covers_stays_within_the_tolerance(comm, agree):
    """Any errors below their bounds, after any answers before: blending never spoils a good answer."""
    gate = biased(comm, 2e-3, 4)
    random = np.random.default_rng(5)
    naccepted = moved = 0
    for number in range(2, 40):
        score = 10.0 ** random.uniform(-1.0, 0.7, N)
        bound = gate.calibration.bound(score)
        error = random.uniform(-1, 1, N) * np.minimum(bound, 0.5)
        values, source = step(gate, number, error, score)
        served = source == SURROGATE
        agree(comm, (np.abs(values - 1)[served] <= TOLERANCE * (1 + TOLERANCE)).all(), f"step {number}")
        naccepted += comm.allreduce(int(served.sum()))
        moved += comm.allreduce(int((np.abs(values - 1 - error[gate.ids])[served] > 1e-4).sum()))
    agree(comm, naccepted > 500 and moved > 200, f"{naccepted} accepted, {moved} of them blended")


def test_a_budget_holds_for_all_that_is_served(comm, agree):
    """Cells that were wrong by a tenth and are good now: no cell may take for its offset what all may err."""
    gate = biased(comm, 2e-3, 4, macro_tolerance=0.3)
    for number, error, accepted in ((2, 0.1, False), (3, 2e-3, True)):
        batch = make_batch(gate.ids, 0.0, error, error / 2e-3, number)
        answer = gate.evaluate(replace(batch, sensitivity=lambda outputs: np.ones(outputs.shape[1])))
        gate.finish_step(number)
        spent = comm.allreduce(float(np.abs(answer.outputs[0] - 1.0).sum()))
        nserved = comm.allreduce(int((answer.source == SURROGATE).sum()))
        agree(comm, (nserved == N) if accepted else (nserved < 4), f"step {number}: {nserved} served")
        agree(comm, spent <= 0.3 * (1 + 1e-9), f"step {number}: errors of {spent} together")


class Above(Told):
    """Allows nothing below 1.0035 times the truth, which is a trap for whoever moves towards the truth."""

    def admissible(self, inputs, outputs):
        return outputs[0] >= 1.0035 * (1.0 + inputs[0] ** 2)


def test_an_offset_that_would_lead_out_of_bounds_is_left_aside(comm, agree):
    gate = biased(comm, 0.004, 4, micro=Above())
    values, source = step(gate, 2, 0.004, 1.0)
    agree(comm, (source == SURROGATE).all(), "the surrogate's own answer is possible")
    agree(comm, np.abs(values - 1.004).max(initial=0.0) < 1e-12, "it must be given as it is")


# -- the memory of the cells ----------------------------------------------------------------------


def world(number):
    random = np.random.default_rng(number)
    error = 10.0 ** random.normal(-2.6, 0.3, N) * random.choice([-1.0, 1.0], N)
    return error, np.abs(error) * 10.0 ** random.normal(0.0, 0.2, N)


def make(comm, cells):
    gate = make_gate(comm, version=0, audit=0.1, blend=4, training={"first_samples": 20, "growth": 0.5})
    gate.ids = cells
    return gate


def everywhere(comm, gate):
    """The offsets of all cells, (1, N), on every rank."""
    mine = np.zeros((1, N))
    mine[:, gate.ids] = gate.cell_fields()["gate/offset_k"][1]
    return comm.allreduce(mine)


def test_it_goes_through_a_restart_on_any_ranks(comm, agree):
    """Twelve steps; the second half again from a state, with cells dealt otherwise, and on one rank alone."""
    first = make(comm, cells_of(comm))
    for number in range(1, 7):
        step(first, number, *world(number))
    stored, offsets = first.state(), everywhere(comm, first)
    agree(comm, np.count_nonzero(offsets) > N // 2, "there must be something to remember")
    others = [(comm, np.array_split(np.arange(N), comm.size)[-1 - comm.rank]), (MPI.COMM_SELF, np.arange(N))]
    gates = [make(c, cells) for c, cells in others]
    for gate in gates:
        gate.load_state({name: np.array(array) for name, array in stored.items()})
        gate.load_cell_fields(gate.ids, {"gate/offset_k": offsets[:, gate.ids]})
    blended = 0
    for number in range(7, 13):
        answers = []
        for gate in (first, *gates):
            values, source = step(gate, number, *world(number))
            whole = np.full((2, N), np.nan)
            whole[:, gate.ids] = values, source
            answers.append(whole)
        for other in answers[1:]:
            known = np.isfinite(answers[0]) & np.isfinite(other)
            agree(comm, np.array_equal(answers[0][known], other[known]), f"step {number}: other answers")
        blended += int((answers[-1][1] != MICRO).sum())
    for gate, (c, _) in zip(gates, others, strict=True):
        agree(comm, same_arrays(gate.state(), first.state()), "another state at the end")
        same = everywhere(c, gate).tobytes() == everywhere(comm, first).tobytes()
        agree(comm, same, "other offsets at the end")
    agree(comm, blended > N, f"{blended} answers of the surrogate")
