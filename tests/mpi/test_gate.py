"""The gate: who answers which cell, the same on any number of ranks, and never where it must not."""

from dataclasses import replace

import numpy as np
import pytest
from mpi4py import MPI

from hpcmsm.batch import MICRO, SURROGATE, Answer, Batch
from hpcmsm.closure.ledger import signed_error
from hpcmsm.errors import ConfigError, MicroError
from hpcmsm.fields import Field
from tests.gate_harness import Told, make_batch, make_gate, same_arrays

pytestmark = pytest.mark.mpi
N = 157


def world(step, n=N):
    """x, error and score of all cells in a step: smooth in x, the score a noisy guess of the error."""
    random = np.random.default_rng(1000 + step)
    x = np.linspace(0.0, 1.0, n) + 0.01 * step
    error = 10.0 ** random.normal(-2.6, 0.3, n) * random.choice([-1.0, 1.0], n)
    score = np.abs(error) * 10.0 ** random.normal(0.0, 0.2, n)
    return x, error, score


def dealt(comm, way, n=N):
    """Ids of the cells of this rank, in the order in which they are asked."""
    if way == "all on the last":
        return np.arange(n) if comm.rank == comm.size - 1 else np.zeros(0, dtype=np.int64)
    if way == "blocks":
        return np.array_split(np.arange(n), comm.size)[comm.rank]
    return np.random.default_rng(7).permutation(n)[comm.rank :: comm.size]


def ask(gate, ids, step, given=None, iteration=0) -> tuple[Batch, Answer]:
    """Ask for the cells of this rank, with the inputs of the step or with those given for all cells."""
    x, error, score = (np.broadcast_to(a, (N,))[ids] for a in (given or world(step)))
    batch = make_batch(ids, x, error, score, step, iteration, gate.micro)
    return batch, gate.evaluate(batch)


def calibrated(comm, way="blocks", **more):
    """A gate that has seen a step in which all errors were about 1e-3 and all scores 1e-3."""
    gate = make_gate(comm, version=0, training={"first_samples": 10}, **more)
    ids = dealt(comm, way)
    error = 1e-3 * (1.0 + np.linspace(0, 0.1, N))
    ask(gate, ids, 1, (np.linspace(0, 1, N), error, 1e-3))
    gate.finish_step(1)
    return gate, ids


def same_figures(one, other):
    """Equal bit by bit, not-a-number included."""
    return one.keys() == other.keys() and all(
        np.float64(one[name]).tobytes() == np.float64(other[name]).tobytes() for name in one
    )


# -- the same on any number of ranks --------------------------------------------------------------


@pytest.mark.parametrize("way", ["blocks", "at random", "all on the last"])
def test_decisions_are_those_of_one_rank(comm, agree, way):
    """Ten steps from an untrained surrogate over training to audits: answers, figures and state."""
    training = {"first_samples": 30, "growth": 0.5}
    gates = [make_gate(c, version=0, audit=0.2, blend=4, training=training) for c in (comm, MPI.COMM_SELF)]
    ids = dealt(comm, way)
    for step in range(1, 11):
        for iteration in range(1 + step % 2):
            _, mine = ask(gates[0], ids, step, iteration=iteration)
            _, whole = ask(gates[1], np.arange(N), step, iteration=iteration)
            for name in ("outputs", "state", "status", "source"):
                got, expected = getattr(mine, name), getattr(whole, name)[..., ids]
                agree(comm, np.array_equal(got, expected), f"step {step}: other {name} than alone")
        figures = [gate.finish_step(step) for gate in gates]
        agree(comm, same_figures(*figures), f"step {step}: {figures[0]}, alone {figures[1]}")
        agree(comm, same_arrays(gates[0].state(), gates[1].state()), f"step {step}: other state")
    agree(comm, gates[0].totals() == gates[1].totals(), f"{gates[0].totals()}")
    # The run must have seen everything that there is to decide.
    totals = gates[0].totals()["closure"]
    agree(
        comm, totals["versions"] >= 2 and all(totals[k] for k in ("accepted", "audited", "fallback")), totals
    )
    learnt = [(len(s), s.ids.tolist()) for s in gates[0].surrogate.learnt]
    agree(comm, len({repr(x) for x in comm.allgather(learnt)}) == 1, "ranks learn different things")


def test_nothing_is_asked_for_nothing(comm, agree):
    """Ranks without cells, and ranks all of whose cells are accepted, ask no micro model."""
    gate, ids = calibrated(comm, "all on the last", audit=1e-9)
    gate.micro.asked.clear()
    _, answer = ask(gate, ids, 2, (0.5, 1e-3, 1e-3))
    agree(comm, answer.outputs.shape == (1, ids.size), f"{answer.outputs.shape}")
    agree(comm, (answer.source == SURROGATE).all() and not gate.micro.asked, "somebody asked")
    figures = gate.finish_step(2)
    agree(comm, (figures["accepted"], figures["calls"]) == (N, N), f"{figures}")


# -- who answers ----------------------------------------------------------------------------------


def test_untrained_surrogate_answers_nothing(comm, agree):
    gate = make_gate(comm, version=0, training={"first_samples": 1000})
    for step in (1, 2, 3):
        batch, answer = ask(gate, dealt(comm, "blocks"), step, (0.5, 0.0, 0.0))
        agree(comm, (answer.source == MICRO).all(), "a cell was accepted")
        agree(comm, np.array_equal(answer.outputs, gate.micro.truth(batch.inputs)), "not the truth")
        figures = gate.finish_step(step)
        agree(comm, figures["fallback"] == N and figures["version"] == 0, f"{figures}")


def test_without_calibration_nothing_is_accepted(comm, agree):
    gate = make_gate(comm)
    _, answer = ask(gate, dealt(comm, "blocks"), 1, (0.5, 0.0, 1e-9))
    agree(comm, (answer.source == MICRO).all(), "a score alone says nothing")


def test_accepted_get_the_surrogate_and_all_others_the_truth(comm, agree):
    gate, ids = calibrated(comm, audit=0.3)
    bound = gate.calibration.bound
    score = np.geomspace(1e-5, 1.0, N)
    batch, answer = ask(gate, ids, 2, (0.5, 1e-3, score))
    predicted = gate.surrogate.predict(batch.inputs)[0]
    trusted = bound(score[ids]) <= gate.gate.tolerance
    audited = trusted & (answer.source == MICRO)
    accepted = trusted & ~audited
    agree(comm, (answer.source[~trusted] == MICRO).all(), "a cell with a large score was accepted")
    agree(comm, np.array_equal(answer.outputs[:, accepted], predicted[:, accepted]), "accepted")
    truth = gate.micro.truth(batch.inputs)
    agree(comm, np.array_equal(answer.outputs[:, ~accepted], truth[:, ~accepted]), "not the truth")
    asked = np.sort(np.concatenate(gate.micro.asked[1:] or [ids[:0]]))
    agree(comm, np.array_equal(asked, np.sort(ids[~accepted])), "the micro model was asked for other cells")
    agree(comm, (answer.status == 0).all(), "status")
    agree(comm, (answer.cost[accepted] == 0).all() and (answer.cost[~accepted] > 0).all(), "cost")
    figures = gate.finish_step(2)
    counts = [comm.allreduce(int(cells.sum())) for cells in (accepted, audited, ~trusted)]
    agree(comm, counts == [figures[name] for name in ("accepted", "audited", "fallback")], f"{figures}")
    agree(comm, min(counts) > 5, f"too few to show anything: {counts}")
    agree(comm, abs(figures["audit_error_mean"] - 1e-3) < 1e-9, f"{figures}")
    agree(comm, abs(figures["audit_error_max"] - 1e-3) < 1e-12, f"{figures}")


def test_audits_are_a_fair_lot(comm, agree):
    """Over many steps each cell is audited as often as asked, and not always in the same steps."""
    gate, ids = calibrated(comm, audit=0.2)
    chosen = []
    for step in range(2, 62):
        _, answer = ask(gate, ids, step, (0.5, 1e-3, 1e-3))
        chosen.append(answer.source == MICRO)
        gate.finish_step(step)
    chosen = np.concatenate(comm.allgather(np.array(chosen)), axis=1)
    deviation = np.sqrt(0.2 * 0.8)
    agree(comm, abs(chosen.mean() - 0.2) < 4 * deviation / np.sqrt(chosen.size), f"{chosen.mean()}")
    for mean, number in ((chosen.mean(axis=0), 60), (chosen.mean(axis=1), N)):
        far = np.abs(mean - 0.2).max() / (deviation / np.sqrt(number))
        agree(comm, 1.0 < far < 5.0, f"a mean is {far} standard deviations away")


def test_misses_of_audits_are_counted(comm, agree):
    """Beyond: past the tolerance. Missed: past what the calibration promised."""
    gate, ids = calibrated(comm, audit=0.5)
    bound = float(gate.calibration.bound(np.array([1e-3]))[0])
    error = np.where(np.arange(N) % 3 == 0, 0.02, np.where(np.arange(N) % 3 == 1, bound * 2, bound / 2))
    batch, answer = ask(gate, ids, 2, (0.5, error, 1e-3))
    errs = batch.inputs[1, answer.source == MICRO]
    beyond, missed = (comm.allreduce(int((errs > limit).sum())) for limit in (0.01, bound))
    figures = gate.finish_step(2)
    agree(comm, (figures["beyond"], figures["missed"]) == (beyond, missed), f"{figures}")
    agree(comm, 0 < beyond < missed < figures["audited"], f"{figures}")
    obtained = gate.totals()["coverage"]["obtained"]
    agree(comm, abs(obtained - (1 - beyond / figures["audited"])) < 1e-12, f"{obtained}")


# -- never where it must not ----------------------------------------------------------------------


def trained_on_known_region(comm, **more):
    """A gate that knows x from 0 to 1 and was calibrated there."""
    gate = make_gate(comm, version=0, spacing=1e-4, training={"first_samples": 10}, novelty=0.01, **more)
    ids = dealt(comm, "blocks")
    for step in (1, 2):
        ask(gate, ids, step, (np.linspace(0, 1, N), 1e-3, 1e-3))
        gate.finish_step(step)
    return gate, ids


@pytest.mark.parametrize("score", [0.0, 1e-300, -1.0, 1e-3])
def test_inadmissible_answers_are_never_accepted(comm, agree, score):
    """An error of -2 predicts a negative k, whatever the score says; nan must not be looked up either."""
    gate, ids = trained_on_known_region(comm, audit=1e-9)
    error = np.choose(np.arange(N) % 3, [1e-3, -2.0, np.nan])
    batch, answer = ask(gate, ids, 3, (np.linspace(0, 1, N), error, score))
    good = np.arange(N)[ids] % 3 == 0
    agree(comm, (answer.source[~good] == MICRO).all(), "an impossible answer was accepted")
    truth = gate.micro.truth(batch.inputs)
    agree(comm, np.array_equal(answer.outputs[:, ~good], truth[:, ~good]), "not the truth")
    if score >= 1e-300:
        agree(comm, (answer.source[good] == SURROGATE).all(), "the possible ones should be accepted")


def test_novel_inputs_are_never_accepted(comm, agree):
    gate, ids = trained_on_known_region(comm, audit=1e-9)
    x = np.linspace(0.0, 1.0, N)
    x[::5] += 10.0
    _, answer = ask(gate, ids, 3, (x, 1e-3, 1e-9))
    novel = ids % 5 == 0
    agree(comm, (answer.source[novel] == MICRO).all(), "a novel cell was accepted")
    agree(comm, (answer.source[~novel] == SURROGATE).all(), "known cells should be accepted")


def test_trap_of_a_sudden_jump_falls_back_everywhere(comm, agree):
    """The inputs leave the known region at once, and the surrogate is sure of its nonsense."""
    gate, ids = trained_on_known_region(comm, audit=0.01)
    _, answer = ask(gate, ids, 3, (np.linspace(0, 1, N), 1e-3, 1e-3))
    share = comm.allreduce(int((answer.source == SURROGATE).sum())) / N
    agree(comm, share > 0.9, f"only {share} accepted before the jump")
    gate.finish_step(3)
    batch, answer = ask(gate, ids, 4, (np.linspace(20.0, 21.0, N), 0.9, 1e-12))
    agree(comm, (answer.source == MICRO).all(), "a cell was accepted after the jump")
    agree(comm, np.array_equal(answer.outputs, gate.micro.truth(batch.inputs)), "not the truth")
    figures = gate.finish_step(4)
    agree(comm, (figures["fallback"], figures["accepted"], figures["audited"]) == (N, 0, 0), f"{figures}")


def test_a_score_that_grows_inside_a_step_is_judged(comm, agree):
    """The inputs of the last iteration count: an answer that became doubtful must not stay accepted."""
    gate, ids = calibrated(comm, audit=0.2)
    _, answer = ask(gate, ids, 2, (0.5, 1e-3, 1e-4))
    share = comm.allreduce(int((answer.source == SURROGATE).sum()))
    agree(comm, share > 0, "nothing accepted at first")
    _, answer = ask(gate, ids, 2, (0.5, 0.5, 1.0), iteration=1)
    agree(comm, (answer.source == MICRO).all(), "a doubtful answer stayed accepted")


def test_inside_a_step_cells_only_leave(comm, agree):
    """Scores that change from iteration to iteration: who is out stays out, until the next step."""
    gate, ids = calibrated(comm, audit=0.2)
    number = np.arange(N)
    first = np.where(number % 2 == 0, 1e-4, 1.0)
    _, answer = ask(gate, ids, 2, (0.5, 1e-3, first))
    accepted = [answer.source == SURROGATE]
    # Rejected cells become good: nobody joins.
    _, answer = ask(gate, ids, 2, (0.5, 1e-3, np.full(N, 1e-4)), iteration=1)
    accepted.append(answer.source == SURROGATE)
    agree(comm, np.array_equal(accepted[0], accepted[1]), "cells changed sides inside a step")
    # Every fourth cell becomes impossible, and possible again: it has left.
    error = np.where(number % 4 == 0, -2.0, 1e-3)
    _, answer = ask(gate, ids, 2, (0.5, error, 1e-4), iteration=2)
    accepted.append(answer.source == SURROGATE)
    _, answer = ask(gate, ids, 2, (0.5, 1e-3, 1e-4), iteration=3)
    accepted.append(answer.source == SURROGATE)
    left = accepted[1] & (ids % 4 != 0)
    agree(comm, np.array_equal(accepted[2], left), "not those that became impossible")
    agree(comm, np.array_equal(accepted[3], left), "a cell joined inside a step")
    numbers = [comm.allreduce(int(cells.sum())) for cells in accepted]
    agree(comm, numbers[0] > numbers[2] > 0, f"{numbers}")
    gate.finish_step(2)
    for step in (2, 3):  # the first question of a run bears the number of its first step
        _, answer = ask(gate, ids, step, (0.5, 1e-3, 1e-4))
        joined = comm.allreduce(int((answer.source == SURROGATE).sum()))
        agree(comm, joined > numbers[0], "after the step all may join again")
        gate.finish_step(step)


def test_only_the_first_question_of_a_step_teaches(comm, agree):
    gates = [calibrated(comm, audit=0.2)[0] for _ in range(2)]
    ids = dealt(comm, "blocks")
    for gate, niteration in zip(gates, (1, 3), strict=True):
        for iteration in range(niteration):
            ask(gate, ids, 2, world(2), iteration)
        gate.finish_step(2)
    for name, array in gates[0].state().items():
        if name.startswith(("replay/", "calibration/window")):
            same = np.array_equal(array, gates[1].state()[name])
            agree(comm, same, f"{name} depends on the number of iterations")


# -- state of the cells ---------------------------------------------------------------------------


class Liftable(Told):
    """Remembers how often it was asked truly; a lifted state is told by its negative sign."""

    state = (Field("count", start=5.0),)
    history = "liftable"

    def evaluate(self, batch):
        return Answer(self.truth(batch.inputs), batch.state + 1.0, np.zeros(batch.ncells, np.int32))

    def lift(self, inputs, outputs):
        return -outputs


class Full(Liftable):
    history = "full"


def test_accepted_cells_get_a_lifted_state(comm, agree):
    gate, ids = calibrated(comm, audit=0.3, micro=Liftable())
    _, answer = ask(gate, ids, 2, (0.5, 1e-3, np.geomspace(1e-5, 1.0, N)))
    accepted = answer.source == SURROGATE
    agree(comm, np.array_equal(answer.state[:, accepted], -answer.outputs[:, accepted]), "not lifted")
    agree(comm, (answer.state[:, ~accepted] == 6.0).all(), "not advanced by the micro model")
    number = comm.allreduce(int(accepted.sum()))
    agree(comm, 0 < number < N, f"{number} accepted")


def test_history_full_is_refused(comm, agree):
    text = None
    try:
        make_gate(comm, micro=Full())
    except ConfigError as error:
        text = str(error)
    agree(comm, text is not None and "surrogate.enabled must be false for Full" in text, f"{text}")
    agree(comm, "history is 'full'" in text and "\n" not in text, text)


class Timed(Told):
    """Answers that depend on how long a step is."""

    depends_on_dt = True

    def evaluate(self, batch):
        truth = self.truth(batch.inputs) + batch.dt - 1.0
        return Answer(truth, batch.state.copy(), np.zeros(batch.ncells, np.int32))


def test_steps_of_another_length_are_no_business_of_the_surrogate(comm, agree):
    gate, ids = calibrated(comm, audit=1e-9, micro=Timed())
    gate.dt = 0.0  # as at the start, where a model with a state is asked for the outputs of its present one
    known = len(gate.calibration.window)
    answer = gate.evaluate(replace(make_batch(ids, 0.5, 1e-3, 1e-3, 1), dt=0.0))
    gate.finish_step(1)
    agree(comm, (answer.source == MICRO).all(), "no surrogate may answer for a step of no length")
    agree(comm, len(gate.calibration.window) == known, "a step of no length was learnt from")
    for step, dt, source in ((2, 1.0, SURROGATE), (3, 0.5, MICRO), (4, 1.0 + 1e-12, SURROGATE)):
        known = len(gate.calibration.window)
        batch = replace(make_batch(ids, 0.5, 1e-3, 1e-3, step), dt=dt)
        answer = gate.evaluate(batch)
        agree(comm, (answer.source == source).all(), f"dt {dt}: {answer.source}")
        gate.finish_step(step)
        agree(comm, len(gate.calibration.window) == known, f"dt {dt}: another length was learnt from")
    again = make_gate(comm, micro=Timed())
    again.load_state(gate.state())
    agree(comm, again.dt == 1.0, f"{again.dt}")


# -- restart --------------------------------------------------------------------------------------


def test_a_restart_goes_on_alike_on_any_ranks(comm, agree):
    """Five steps, a state through bytes, five more: as without the stop, also on one rank alone."""
    training = {"first_samples": 20, "growth": 0.3}
    first = make_gate(comm, version=0, audit=0.2, training=training)
    ids = dealt(comm, "at random")
    for step in range(1, 6):
        ask(first, ids, step)
        first.finish_step(step)
    stored = {name: np.frombuffer(a.tobytes(), a.dtype).reshape(a.shape) for name, a in first.state().items()}
    others = [(comm, dealt(comm, "all on the last")), (MPI.COMM_SELF, np.arange(N))]
    gates = [(make_gate(c, version=0, audit=0.2, training=training), cells) for c, cells in others]
    for gate, _ in gates:
        gate.load_state({name: array.copy() for name, array in stored.items()})
        agree(comm, same_arrays(gate.state(), stored), "the state changed on its way")
    for step in range(6, 11):
        figures = []
        for gate, cells in [(first, ids), *gates]:
            _, answer = ask(gate, cells, step)
            mine = np.full((2, N), np.nan)
            mine[:, cells] = answer.outputs[0], answer.source
            figures.append((gate.finish_step(step), mine))
        for other, mine in figures[1:]:
            agree(comm, same_figures(figures[0][0], other), f"step {step}: {figures[0][0]}, {other}")
            both = np.isfinite(figures[0][1]) & np.isfinite(mine)
            agree(comm, np.array_equal(figures[0][1][both], mine[both]), f"step {step}: other answers")
    for gate, _ in gates:
        agree(comm, same_arrays(gate.state(), first.state()), "another state at the end")
        agree(comm, gate.totals() == first.totals(), "other totals")


# -- failing --------------------------------------------------------------------------------------


class FailsInCell(Told):
    def evaluate(self, batch):
        answer = super().evaluate(batch)
        return Answer(answer.outputs, answer.state, (batch.ids == N - 1).astype(np.int32))


def test_failure_of_a_cell_that_fell_back_is_raised_by_all(comm, agree):
    gate = make_gate(comm, micro=FailsInCell())
    text = None
    try:
        ask(gate, dealt(comm, "blocks"), 1)
    except MicroError as error:
        text = str(error)
    agree(comm, text is not None and f"cell {N - 1} on rank {comm.size - 1}" in text, f"{text}")


def test_signed_error_is_that_of_the_trace(comm, agree):
    """Two fields, one a tensor: the mean of their relative errors with their signs."""
    fields = (Field("conductivity", 3, spd=True), Field("capacity"))
    truth = np.array([[2.0, 1.0], [4.0, 1.0], [0.5, 0.0], [10.0, 5.0]])
    predicted = np.array([[2.6, 1.0], [4.0, 1.0], [99.0, 9.0], [9.0, 5.0]])
    got = signed_error(fields, predicted, truth)
    agree(comm, np.allclose(got, [(0.6 / 6.0 - 0.1) / 2, 0.0], atol=1e-15), f"{got}")
