"""`Gate`: a surrogate answers where it has been shown good enough, the micro model elsewhere.

In each step every cell is accepted, audited or falls back. Accepted: the calibrated score is below
the tolerance, known samples are near, and the answer is physically possible. Audited: accepted,
and drawn by lot to be evaluated truly all the same. Decisions are keyed by the global cell id and
rest on replicated data, so that they are the same on any number of ranks.
"""

from __future__ import annotations

import numpy as np

from hpcmsm.batch import MICRO, SURROGATE, Answer, Batch
from hpcmsm.closure.base import Closure
from hpcmsm.closure.blending import Blending
from hpcmsm.closure.budget import Budget
from hpcmsm.closure.calibration import Calibration
from hpcmsm.closure.ledger import Ledger, signed_error
from hpcmsm.closure.predictor import Predictor
from hpcmsm.closure.records import Records
from hpcmsm.closure.tolerance import Tolerance
from hpcmsm.closure.verdict import Verdict, nobody
from hpcmsm.config import GateSection, SurrogateSection
from hpcmsm.errors import ConfigError
from hpcmsm.fields import Field
from hpcmsm.micro.base import MicroModel
from hpcmsm.parallel import random_uniform
from hpcmsm.surrogate.base import Surrogate
from hpcmsm.surrogate.replay import ReplayBuffer
from hpcmsm.surrogate.trainer import Trainer
from hpcmsm.timers import Timers

# Steps whose lengths differ by this part are of one length.
SAME_DT = 1e-6


class Gate(Closure):
    """Wrap a closure by a surrogate that is audited, calibrated and trained on the way.

    Args:
        inner: closure that gives true answers.
        micro: the model behind it, for admissibility, lifting and its `history`.
        surrogate, replay: the surrogate and the samples it learns from.
        gate, training: sections of the case file.
        seed: of the random decisions.
        timers: where phases are counted.

    Attributes:
        verdict: decisions about the cells of the last batch.
    """

    def __init__(
        self,
        inner: Closure,
        micro: MicroModel,
        surrogate: Surrogate,
        replay: ReplayBuffer,
        gate: GateSection,
        training: SurrogateSection,
        comm,
        seed: int,
        timers: Timers,
    ):
        if micro.history == "full":
            raise ConfigError(
                f"surrogate.enabled must be false for {type(micro).__name__}, got true; "
                "its history is 'full', so every cell must be advanced in every step"
            )
        if micro.no_surrogate:
            raise ConfigError(
                f"surrogate.enabled must be false for {type(micro).__name__}, got true; {micro.no_surrogate}"
            )
        if gate.macro_tolerance and not isinstance(gate.tolerance, int | float):
            raise ConfigError(
                f"gate.tolerance must be a number beside gate.macro_tolerance, got {gate.tolerance!r}; "
                "leave one of them out"
            )
        self.inner, self.micro, self.surrogate, self.replay = inner, micro, surrogate, replay
        self.gate = gate
        self.tolerance = Tolerance(gate.tolerance, inner.outputs)
        self.predictor = Predictor(surrogate, micro, self.tolerance)
        self.comm, self.seed, self.timers = comm, seed, timers
        self.inputs, self.outputs, self.micro_state = inner.inputs, inner.outputs, inner.micro_state
        # What a budget allows one cell may be all that the cells have together: nothing is left for offsets.
        nsteps = 0 if gate.macro_tolerance else gate.blend
        self.blending = Blending(self.predictor, micro, inner.outputs, nsteps)
        self.calibration = Calibration(
            sum(f.size for f in self.inputs), sum(f.size for f in self.outputs), gate.coverage
        )
        self.budget = Budget(gate.macro_tolerance, comm) if gate.macro_tolerance else None
        self.ledger = Ledger(comm)
        self.records = Records(comm, seed, self.inputs, self.outputs)
        self.trainer = Trainer(surrogate, replay, training, self.tolerance.goal_of, comm, timers)
        self.verdict: Verdict | None = None
        self.dt = 0.0  # length of the steps that were learnt, where it matters
        # The step under way, and the cells that have left the surrogate in it.
        self._left: tuple[int, np.ndarray] | None = None
        # The step whose budget has been shared out, and what each of its cells is allowed.
        self._shared: tuple[int, np.ndarray] | None = None

    def evaluate(self, batch: Batch) -> Answer:
        """Collective. Answer every cell, by the surrogate where the gate accepts it."""
        with self.timers.phase("surrogate"):
            predicted, score = self._predict(batch)
        with self.timers.phase("gate"):
            served, self.verdict = self._judge(batch, predicted, score)
            verdict = self.verdict
            asked = np.flatnonzero(verdict.asked)
            question = batch.take(asked)
        truth = self.inner.evaluate(question)
        with self.timers.phase("gate"):
            self._enter(batch, verdict, asked, truth, predicted, served, score)
            answer = self._merge(batch, asked, truth, served)
            self.blending.note(batch, answer.outputs, predicted)
            return answer

    def _predict(self, batch: Batch) -> tuple[np.ndarray, np.ndarray]:
        if self.surrogate.version == 0:
            noutput = sum(field.size for field in self.outputs)
            return np.zeros((noutput, batch.ncells)), np.full(batch.ncells, np.inf)
        return self.predictor.predict(batch.inputs)

    def _suits(self, dt: float) -> bool:
        """Whether what is learnt holds for steps of this length; the first that is asked for decides."""
        if not self.micro.depends_on_dt:
            return True
        if dt == 0.0:  # outputs of a present state: nothing advances
            return False
        self.dt = self.dt or dt
        return abs(dt - self.dt) <= SAME_DT * self.dt

    def _judge(self, batch: Batch, predicted: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, Verdict]:
        """What the surrogate would answer, blended, and the decision for every cell.

        Inside a step cells may only leave the surrogate, never join it.

        A Picard iteration or a solver that steps back would not converge if cells changed sides.
        """
        if self.surrogate.version == 0:
            return predicted, nobody(batch.ncells)
        candidate = self.micro.admissible(batch.inputs, predicted)
        candidate &= (self.replay.distance(batch.inputs) <= self.gate.novelty) & self._suits(batch.dt)
        bound = self.calibration.bound(score)
        allowed = self._allowed(batch, predicted, bound, candidate)
        served, steady = self.blending.serve(batch, predicted, bound, allowed)
        accepted = candidate & steady & (bound <= allowed)
        left = np.zeros(0, dtype=np.int64)
        if self._left is not None and self._left[0] == batch.step:
            left = self._left[1]
            accepted &= ~np.isin(batch.ids, left)
        self._left = (batch.step, np.union1d(left, batch.ids[~accepted]))
        audited = accepted & (random_uniform("audit", self.seed, batch.step, batch.ids) < self.gate.audit)
        return served, Verdict(candidate, accepted, audited, bound, allowed)

    def _allowed(self, batch, predicted, bound, candidate) -> np.ndarray:
        """Collective. What the bound of each cell may be, (n,); a budget is shared out once a step."""
        if self.budget is None:
            return self.tolerance.allowed(predicted)
        if batch.iteration and self._shared is not None and self._shared[0] == batch.step:
            return self._shared[1]
        unknown = batch.sensitivity is None or not np.isfinite(predicted).all()
        if self.comm.allreduce(int(unknown)):
            return np.zeros(batch.ncells)
        allowed = self.budget.allowed(batch.sensitivity(predicted), bound, candidate)
        self._shared = (batch.step, allowed)
        return allowed

    def _enter(self, batch, verdict, asked, truth, predicted, served, score) -> None:
        """Count, and note true answers: all of the first question of a step, later ones only counted."""
        self.ledger.count(**verdict.counts)
        was_audited = verdict.audited[asked]
        guess = np.ascontiguousarray(predicted[:, asked])
        if was_audited.any():
            allowed = verdict.allowed[asked]
            self._enter_audits(guess, served[:, asked], truth.outputs, score[asked], allowed, was_audited)
        if batch.iteration == 0 and self._suits(batch.dt):
            error = np.full(asked.size, np.inf)
            if self.surrogate.version and asked.size:
                error = self.predictor.told(guess, truth.outputs)
            self.records.note(
                batch.step,
                batch.ids[asked],
                np.ascontiguousarray(batch.inputs[:, asked]),
                truth.outputs,
                was_audited,
                verdict.candidate[asked],
                error,
            )

    def _enter_audits(self, guess, served, truth, score, allowed, was_audited) -> None:
        """The answer that would have been given is told; the surrogate's own moves the level."""
        guess, served, truth = (np.ascontiguousarray(a[:, was_audited]) for a in (guess, served, truth))
        told = self.predictor.told(served, truth)
        self.ledger.audits(told, signed_error(self.outputs, served, truth))
        missed = self.predictor.misfit(guess, truth) > self.calibration.bound(score[was_audited])
        limit = self.tolerance.limit if self.budget is None else allowed[was_audited]
        self.ledger.count(missed=missed.sum(), beyond=(told > limit).sum())

    def _merge(self, batch: Batch, asked: np.ndarray, truth: Answer, given: np.ndarray) -> Answer:
        outputs, state = given.copy(), batch.state.copy()
        if self.micro_state:
            served = np.setdiff1d(np.arange(batch.ncells), asked)
            if served.size:
                state[:, served] = self.micro.lift(batch.inputs[:, served], given[:, served])
        source = np.full(batch.ncells, SURROGATE, dtype=np.int8)
        cost, residual = np.zeros(batch.ncells), np.zeros(batch.ncells)
        outputs[:, asked], state[:, asked], source[asked] = truth.outputs, truth.state, MICRO
        cost[asked], residual[asked] = truth.cost, truth.residual
        return Answer(outputs, state, np.zeros(batch.ncells, dtype=np.int32), source, cost, residual)

    def finish_step(self, step: int) -> dict[str, float]:
        """Collective. Count the step, move the level, keep new samples, and train when it is time."""
        self._left = self._shared = None
        with self.timers.phase("calibrate"):
            self.inner.finish_step(step)
            figures = self.ledger.close_step()
            self.calibration.follow(figures["audited"], figures["missed"])
            chosen = self.records.gather(step, self.gate.audit)
            self.calibration.add(chosen.calibration, self.predictor)
            self.replay.add(chosen.training, chosen.training_error, self.tolerance.limit)
        ended = self.trainer.finish_step(step, figures, self.calibration.at_floor)
        if ended is not None:
            with self.timers.phase("calibrate"):
                self._aim(ended.samples.outputs)
                self.calibration.rescore(self.predictor)
        self.blending.finish_step()
        figures.update(
            q=self.calibration.q,
            alpha=self.calibration.alpha,
            version=self.surrogate.version,
            samples=len(self.replay.samples),
        )
        return figures

    def _aim(self, outputs: np.ndarray) -> None:
        """Let a tolerance in units know the sizes of the outputs, and the surrogate what that asks of it."""
        self.tolerance.learn(outputs)
        self.surrogate.goal = self.tolerance.goal

    def totals(self) -> dict[str, object]:
        """Figures of the whole run for the summary."""
        totals = self.ledger.totals(self.gate.coverage)
        totals["closure"]["versions"] = self.surrogate.version
        totals |= {name: part for name, part in self.inner.totals().items() if name == "nested"}
        if self.budget is not None:
            return {**totals, "tolerance_text": f"{self.budget.tolerance:g} of the goal, over all cells"}
        return {**totals, "tolerance": self.tolerance.limit, "tolerance_text": self.tolerance.text}

    def work(self) -> dict[str, float | None]:
        """That of the closure which gives true answers."""
        return self.inner.work()

    def _parts(self) -> dict[str, object]:
        return {
            "surrogate": self.surrogate,
            "replay": self.replay,
            "trainer": self.trainer,
            "calibration": self.calibration,
            "ledger": self.ledger,
            "inner": self.inner,
        }

    def state(self) -> dict[str, np.ndarray]:
        """Everything that a restart needs, as named arrays, equal on every rank."""
        arrays = {
            "norm": self.tolerance.norm,
            "sizes": self.tolerance.sizes.copy(),
            "dt": np.array([self.dt]),
        }
        for part, owner in self._parts().items():
            arrays.update({f"{part}/{name}": array for name, array in owner.state().items()})
        return arrays

    def load_state(self, state: dict[str, np.ndarray]) -> None:
        """Take over what `state` gave."""
        self.dt = float(state["dt"][0])
        for part, owner in self._parts().items():
            prefix = f"{part}/"
            owner.load_state({n[len(prefix) :]: a for n, a in state.items() if n.startswith(prefix)})
        if np.array_equal(state["norm"], self.tolerance.norm):
            self.tolerance.sizes = np.array(state["sizes"])
            self.surrogate.goal = self.tolerance.goal
        else:  # resumed with another tolerance, in whose norm nothing was measured yet
            self._aim(self.replay.samples.outputs)
            self.calibration.rescore(self.predictor)

    def cell_fields(self) -> dict[str, tuple[Field, np.ndarray]]:
        """Offsets of blending."""
        return self.blending.cell_fields()

    def load_cell_fields(self, ids: np.ndarray, arrays: dict[str, np.ndarray]) -> None:
        """Take over the offsets."""
        self.blending.load(ids, arrays)
