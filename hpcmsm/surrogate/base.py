"""`Surrogate`: inputs to mean and score, learnt from samples."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from time import perf_counter

import numpy as np

from hpcmsm.fields import Field
from hpcmsm.parallel import together


@dataclass(frozen=True)
class Samples:
    """True answers of a micro model, sorted by (step, iteration, id).

    Args:
        step, iteration: when each was taken, shape (n,) int64.
        ids: global cell ids, shape (n,) int64.
        inputs: shape (ninput, n) float64.
        outputs: shape (noutput, n) float64.
        weight: inverse probability with which the sample was chosen, shape (n,) float64.
    """

    step: np.ndarray
    iteration: np.ndarray
    ids: np.ndarray
    inputs: np.ndarray
    outputs: np.ndarray
    weight: np.ndarray

    def __len__(self) -> int:
        return self.ids.shape[0]

    def take(self, which: np.ndarray) -> Samples:
        """Some of the samples, by indices or by a mask."""
        return Samples(
            self.step[which],
            self.iteration[which],
            self.ids[which],
            np.ascontiguousarray(self.inputs[:, which]),
            np.ascontiguousarray(self.outputs[:, which]),
            self.weight[which],
        )


class Lesson:
    """A training under way: made by `Surrogate.prepare`, done by `study`, ended by `adopt`."""

    def __init__(self, samples: Samples, goal: float):
        self.samples, self.goal = samples, goal
        self.started = perf_counter()


class Surrogate(ABC):
    """Predicts outputs of a micro model, and says how uncertain it is.

    Errors and scores share one norm, `misfit`: for a tensor field the Frobenius norm of the
    difference over that of the prediction, for any other field the difference over the root mean
    square of that field in the training data; the largest over the fields of a cell.

    Attributes:
        version: 0 before the first training.
        goal: relative error that training aims at.
    """

    inputs: tuple[Field, ...]
    outputs: tuple[Field, ...]
    comm: object  # MPI communicator of the ranks that train together
    version: int = 0
    goal: float

    @abstractmethod
    def predict(self, inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean (noutput, n) and score (n,), the members' spread in the norm of `misfit`.

        Row-invariant: a column of the answer depends on that column of the inputs alone.
        """

    @abstractmethod
    def misfit(self, predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
        """Size of the error of each cell, relative, shape (n,), for outputs (noutput, n)."""

    def prepare(self, samples: Samples, goal: float | None = None) -> Lesson:
        """Begin to train the next version on samples, equal on every rank; answers stay those of this one.

        Args:
            goal: relative error that is small enough; None leaves it as it is.
        Raises:
            SurrogateError: samples that cannot be learnt from; the same on every rank.
        """
        return Lesson(samples, goal or self.goal)

    def study(self, lesson: Lesson) -> None:
        """This rank's share of the work: without messages, and touching nothing that answers depend on.

        It may run in another thread while this version answers. What it does depends on the lesson alone.
        """

    @abstractmethod
    def adopt(self, lesson: Lesson) -> dict[str, float]:
        """Collective. Give all ranks what was learnt, and answer with it from now on; figures for the log."""

    def train(self, samples: Samples) -> dict[str, float]:
        """Collective. Prepare, study and adopt at once."""
        lesson = self.prepare(samples)
        with together(self.comm):
            self.study(lesson)
        return self.adopt(lesson)

    @abstractmethod
    def state(self) -> dict[str, np.ndarray]:
        """Everything a restart needs, as named arrays, equal on every rank."""

    @abstractmethod
    def load_state(self, state: dict[str, np.ndarray]) -> None:
        """Take over what `state` gave, bit by bit."""
