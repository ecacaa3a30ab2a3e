"""`Ensemble`: several small networks, whose mean is the answer and whose spread is the score."""

from __future__ import annotations

from time import perf_counter

import numpy as np

from hpcmsm.errors import SurrogateError
from hpcmsm.fields import Field, check_array, ncomponent, rows_of
from hpcmsm.kernels import Kernel
from hpcmsm.parallel import random_uniform
from hpcmsm.surrogate import transform
from hpcmsm.surrogate.base import Lesson, Samples, Surrogate
from hpcmsm.surrogate.learner import check_samples
from hpcmsm.surrogate.network import Network, padded
from hpcmsm.surrogate.training import Schedule, fit, present_losses

HELD_OUT = 0.1  # part of the samples that a member does not see
START_DAMPING = 1e-3
# What was right near the last optimum is too little where the samples are others: steps would be refused.
MORE_DAMPING = 16.0
# An input whose range grew by more than this makes old weights a bad start: too steep.
LARGEST_GROWTH = 2.0


class Ensemble(Surrogate):
    """Networks that differ in their first weights and in the tenth of the samples held out from them.

    The mean is taken of the members' outputs, so a tensor stays symmetric positive definite. The score
    is the root mean square of the members' `misfit` to it. Members are trained in turn by the ranks and
    evaluated by one fused kernel, row by row the same in any batch; no number depends on the rank count.

    Args:
        inputs, outputs: fields of the closure.
        comm: MPI communicator of the ranks that train together.
        seed: of the random numbers.
        members: number of networks.
        hidden: neurons of each hidden layer.
        goal: root mean square misfit below which a member is good enough; a tenth of what is tolerated
            is a fair choice.
        epochs, patience, method: when else training ends and how it goes, see `training.Schedule`.
        weighted: samples count in the loss by their weight, such as V |grad u| of the macro field. Else
            their weights, which say how they were chosen, are left aside: exact answers are to be met
            wherever they lie.
    Raises:
        SurrogateError: members or hidden out of range.
    """

    def __init__(
        self,
        inputs: tuple[Field, ...],
        outputs: tuple[Field, ...],
        comm,
        seed: int = 0,
        *,
        members: int = 5,
        hidden: tuple[int, ...] = (16, 16),
        goal: float = 1e-4,
        epochs: int = 60,
        patience: int = 6,
        method: str = "auto",
        weighted: bool = False,
    ):
        _check_sizes(members, hidden)
        self.inputs, self.outputs = tuple(inputs), tuple(outputs)
        self.comm, self.seed, self.members = comm, seed, members
        self.goal, self.weighted = goal, weighted
        self.schedule = {"epochs": epochs, "patience": patience, "method": method}
        ninput, noutput = ncomponent(self.inputs), ncomponent(self.outputs)
        self.network = Network((ninput, *hidden, noutput))
        self.version = 0
        self.weights = np.zeros((members, self.network.nweight))
        self.damping = np.full(members, START_DAMPING)
        self.input_scaling = (np.zeros(ninput), np.ones(ninput))
        self.output_scaling = (np.zeros(noutput), np.ones(noutput))
        self.field_scales = np.ones(len(self.outputs))
        self._kernel = Kernel.load("ensemble", "ensemble_forward")
        self._fixed = self._sizes()
        self._refresh()

    def predict(self, inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean (noutput, n) and score (n,); before the first training NaN and infinity."""
        mean, score, _ = self._evaluate(inputs, with_members=False)
        return mean, score

    def predict_members(self, inputs: np.ndarray) -> np.ndarray:
        """What every member answers, shape (nmember, noutput, n)."""
        return self._evaluate(inputs, with_members=True)[2]

    def misfit(self, predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
        """Relative error of each cell, shape (n,), see `Surrogate`."""
        return transform.misfit(self.outputs, self.field_scales, predicted, truth)

    def prepare(self, samples: Samples, goal: float | None = None) -> Lesson:
        """Begin to train the next version on samples, equal on every rank and in the same order.

        Members go on from their last weights where these are a fair start. Where every member meets the
        goal already nothing is to be done, and not even the version will change.

        Raises:
            SurrogateError: too few samples, or samples that cannot be learnt from.
        """
        check_samples(self.inputs, self.outputs, samples)
        lesson = Lesson(samples, goal or self.goal)
        learnt = transform.encode(self.outputs, samples.outputs)
        lesson.learnt, lesson.silent = transform.silenced(self.outputs, learnt, lesson.goal)
        lesson.held_out = self._held_out(samples)
        lesson.scales = (self.input_scaling, self.output_scaling, self.field_scales)
        lesson.losses = present_losses(self.network, self.weights, *_scaled(lesson))
        lesson.needed = self.version == 0 or not lesson.losses.max() <= self._scaled_goal(lesson)
        if lesson.needed:  # a NaN is not good enough
            lesson.weights, lesson.damping, lesson.scales = self._rescaled(lesson)
            lesson.schedule = self._schedule(lesson)
            lesson.results = np.zeros((self.members, self.network.nweight + 3))
        return lesson

    def study(self, lesson: Lesson) -> None:
        """Train this rank's members: member m belongs to rank m mod nranks."""
        if lesson.needed:
            for member in range(self.comm.rank, self.members, self.comm.size):
                lesson.results[member] = self._train_member(member, lesson)

    def adopt(self, lesson: Lesson) -> dict[str, float]:
        """Collective. Send the members to all ranks, and answer with them.

        Returns:
            samples; loss and largest_loss of the members (root mean squares, as parts of the outputs'
            scale); held_out_p50 and held_out_p99, misfits of single members on samples not shown to
            them; epochs of all members; seconds since the training began, on the slowest rank.
        """
        losses, epochs, self.goal = lesson.losses, 0, lesson.goal
        if lesson.needed:
            results = lesson.results
            for member in range(self.members):
                self.comm.Bcast(results[member], root=member % self.comm.size)
            self.weights, self.damping = results[:, :-3].copy(), results[:, -3].copy()
            losses, epochs = np.sqrt(results[:, -2]), int(results[:, -1].sum())
            self.input_scaling, self.output_scaling, self.field_scales = lesson.scales
            self.version += 1
            self._refresh()
        p50, p99 = self._held_out_misfits(lesson.samples, lesson.held_out)
        return {
            "samples": len(lesson.samples),
            "loss": float(np.sqrt(np.mean(losses**2))),
            "largest_loss": float(losses.max()),
            "epochs": epochs,
            "held_out_p50": p50,
            "held_out_p99": p99,
            "seconds": self._slowest(perf_counter() - lesson.started),
        }

    def state(self) -> dict[str, np.ndarray]:
        """Weights, damping of the optimiser and scales of every member, equal on every rank."""
        return {
            "version": np.array([self.version]),
            "widths": np.array(self.network.widths),
            "weights": self.weights.copy(),
            "damping": self.damping.copy(),
            "input_scaling": np.array(self.input_scaling),
            "output_scaling": np.array(self.output_scaling),
            "field_scales": self.field_scales.copy(),
        }

    def load_state(self, state: dict[str, np.ndarray]) -> None:
        """Take over what `state` gave, bit by bit.

        Raises:
            SurrogateError: an array is missing or belongs to networks of another shape.
        """
        for name, mine in self.state().items():
            theirs = state.get(name)
            same = theirs is not None and np.shape(theirs) == mine.shape
            if not same or (name == "widths" and not np.array_equal(theirs, mine)):
                got = "none" if theirs is None else f"shape {np.shape(theirs)}"
                raise SurrogateError(
                    f"'{name}' of a stored surrogate must have shape {mine.shape}, got {got}; use the "
                    f"members and hidden layers of then (now {self.members} of widths {self.network.widths})"
                )
        self.version = int(state["version"][0])
        self.weights = np.array(state["weights"], dtype=float)
        self.damping = np.array(state["damping"], dtype=float)
        self.input_scaling = tuple(np.array(state["input_scaling"], dtype=float))
        self.output_scaling = tuple(np.array(state["output_scaling"], dtype=float))
        self.field_scales = np.array(state["field_scales"], dtype=float)
        self._refresh()

    def _sizes(self) -> dict[str, object]:
        """Arguments of the kernel that never change."""
        widths = self.network.widths
        return {
            "ninput": widths[0],
            "noutput": widths[-1],
            "nmember": self.members,
            "nlayer": len(widths) - 1,
            "widest": max(padded(width) for width in widths[1:]),
            "nweight": self.network.npacked,
            "nfield": len(self.outputs),
            "width": np.array(widths[1:], dtype=np.int32),
            "kind": np.array([transform.kind_of(field) for field in self.outputs], dtype=np.int32),
            "size": np.array([field.size for field in self.outputs], dtype=np.int32),
        }

    def _refresh(self) -> None:
        """Arguments of the kernel that change with a version."""
        self._arguments = self._fixed | {
            "weights": np.array([self.network.pack(flat) for flat in self.weights]),
            "input_mean": self.input_scaling[0],
            "input_factor": 1.0 / self.input_scaling[1],
            "output_mean": self.output_scaling[0],
            "output_scale": self.output_scaling[1],
            "field_scale": self.field_scales,
        }

    def _evaluate(self, inputs: np.ndarray, with_members: bool):
        inputs = np.ascontiguousarray(inputs, dtype=float)
        ncells, noutput = inputs.shape[1], self.network.widths[-1]
        check_array(self.inputs, inputs, ncells, "inputs of the surrogate")
        if self.version == 0:
            return np.full((noutput, ncells), np.nan), np.full(ncells, np.inf), None
        mean, score = np.empty((noutput, ncells)), np.empty(ncells)
        members = np.empty((self.members, noutput, ncells)) if with_members else None
        if ncells:
            self._kernel(
                **self._arguments,
                ncells=ncells,
                inputs=inputs,
                mean=mean,
                score=score,
                members=members,
            )
        return mean, score, members

    def _scaled_goal(self, lesson: Lesson) -> float:
        """The goal as a part of the outputs' scale, by the field that is the strictest."""
        scales = lesson.scales
        parts = [scales[1][1][row][0] for row in rows_of(self.outputs).values()]
        return lesson.goal / max(np.array(parts) / scales[2])

    def _rescaled(self, lesson: Lesson) -> tuple:
        """Weights and damping to begin with, and new scales; afresh where weights cannot follow these."""
        inputs = transform.input_scaling(self.inputs, lesson.samples.inputs)
        outputs = transform.output_scaling(self.outputs, lesson.learnt)
        grown = (inputs[1] > LARGEST_GROWTH * self.input_scaling[1]).any()
        weights, damping = self.weights.copy(), self.damping.copy()
        for member in range(self.members):
            if self.version == 0 or grown:
                weights[member] = self.network.start(self.seed, self.version, member)
                damping[member] = START_DAMPING
            else:
                damping[member] = min(MORE_DAMPING * damping[member], START_DAMPING)
                weights[member] = self.network.rescale(
                    weights[member], self.input_scaling, inputs, self.output_scaling, outputs
                )
        fields = transform.field_scales(self.outputs, lesson.samples.outputs)
        return weights, damping, (inputs, outputs, fields)

    def _schedule(self, lesson: Lesson) -> Schedule:
        patience = self.schedule["patience"]
        if self.version:  # where training goes on, what it still can gain shows early
            patience = -(-patience // 2)
        # Outputs that never change are not trained, but count as met.
        goal = self._scaled_goal(lesson) / np.sqrt(1.0 - lesson.silent.mean())
        return Schedule(goal=goal, **{**self.schedule, "patience": patience})

    def _held_out(self, samples: Samples) -> np.ndarray:
        """Which samples each member does not see, (nmember, n) bool; a sample keeps its place for ever."""
        member = np.arange(self.members)[:, None]
        numbers = random_uniform("split", self.seed, samples.step, samples.iteration, samples.ids, member)
        held_out = numbers < HELD_OUT
        held_out[np.arange(self.members), numbers.argmin(axis=1)] = True
        return held_out

    def _train_member(self, member: int, lesson: Lesson) -> np.ndarray:
        """Weights, damping, mean squared error and epochs in one row, ready to be sent."""
        x, y = _scaled(lesson)
        spoken = ~lesson.silent
        network, places = self.network.narrowed(spoken)
        hidden, seen = lesson.held_out[member], ~lesson.held_out[member]
        data = [x, np.ascontiguousarray(y[:, spoken])]
        if self.weighted:
            data.append(np.sqrt(lesson.samples.weight / lesson.samples.weight.mean()))
        trained = fit(
            network,
            lesson.weights[member][places],
            lesson.damping[member],
            tuple(array[seen] for array in data),
            tuple(array[hidden] for array in data),
            lesson.schedule,
        )
        row = np.zeros(self.network.nweight + 3)
        row[places] = trained.flat
        row[-3:] = trained.damping, trained.loss * spoken.mean(), trained.epochs
        return row

    def _held_out_misfits(self, samples: Samples, held_out: np.ndarray) -> tuple[float, float]:
        """Median and 99th percentile of the members' misfits where they were not shown the truth."""
        answers = self.predict_members(samples.inputs)
        misfits = [
            self.misfit(answer[:, out], samples.outputs[:, out])
            for answer, out in zip(answers, held_out, strict=True)
        ]
        p50, p99 = np.quantile(np.concatenate(misfits), [0.5, 0.99])
        return float(p50), float(p99)

    def _slowest(self, seconds: float) -> float:
        """Collective. The largest of the ranks' seconds."""
        from mpi4py import MPI

        mine, largest = np.array([seconds]), np.empty(1)
        self.comm.Allreduce(mine, largest, op=MPI.MAX)
        return float(largest[0])


def _scaled(lesson: Lesson) -> tuple[np.ndarray, np.ndarray]:
    """Inputs (n, ninput) and outputs (n, noutput) as the networks see them."""
    inputs, outputs, _ = lesson.scales
    x = (lesson.samples.inputs.T - inputs[0]) / inputs[1]
    y = (lesson.learnt.T - outputs[0]) / outputs[1]
    return np.ascontiguousarray(x), np.ascontiguousarray(y)


def _check_sizes(members: int, hidden: tuple[int, ...]) -> None:
    if members < 2:
        raise SurrogateError(f"surrogate.members must be at least 2, got {members}; raise it to get a spread")
    if not hidden or min(hidden) < 1:
        raise SurrogateError(f"surrogate.hidden must hold positive widths, got {list(hidden)}; try [16, 16]")
