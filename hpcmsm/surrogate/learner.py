"""`Learner`: what the surrogates that are no networks have in common."""

from __future__ import annotations

import copy
from abc import abstractmethod
from time import perf_counter

import numpy as np
from scipy.spatial import cKDTree

from hpcmsm.errors import SurrogateError
from hpcmsm.fields import Field, check_array, ncomponent
from hpcmsm.surrogate import transform
from hpcmsm.surrogate.base import Lesson, Samples, Surrogate

FEWEST_SAMPLES = 10
# Cells are judged in chunks of one width: numpy sums a lone column in another order than one of many.
CHUNK = 256


class Learner(Surrogate):
    """Learns encoded outputs of standardised inputs, on one rank for all.

    A subclass turns samples into named arrays (`_learn`) and these into answers for a chunk of cells
    (`_answer`). Training runs on rank 0, whose arrays all ranks take, so that neither their number nor
    their libraries change a bit.

    Args:
        inputs, outputs: fields of the closure.
        comm: MPI communicator of the ranks that use it.
        seed: of random numbers, where there are any.
        goal: error that is small enough. Scores are hypotenuses with it: near a sample an interpolation
            is sure to all digits, and what is left there says nothing about the errors elsewhere.
    """

    def __init__(
        self,
        inputs: tuple[Field, ...],
        outputs: tuple[Field, ...],
        comm,
        seed: int = 0,
        *,
        goal: float = 1e-4,
    ):
        self.inputs, self.outputs = tuple(inputs), tuple(outputs)
        self.comm, self.seed, self.goal, self.version = comm, seed, goal, 0
        self.ninput, self.noutput = ncomponent(self.inputs), ncomponent(self.outputs)
        self.arrays: dict[str, np.ndarray] = {}
        self._scalings = {
            "input_scaling": np.array([np.zeros(self.ninput), np.ones(self.ninput)]),
            "output_scaling": np.array([np.zeros(self.noutput), np.ones(self.noutput)]),
            "field_scales": np.ones(len(self.outputs)),
        }

    @abstractmethod
    def _learn(self, x: np.ndarray, z: np.ndarray) -> dict[str, np.ndarray]:
        """On rank 0: the arrays that hold what is learnt of points x (n, ninput), values z (n, noutput)."""

    @abstractmethod
    def _answer(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """For points x (ninput, CHUNK): scaled mean (noutput, CHUNK); deviation (noutput or 1, CHUNK)."""

    def _refresh(self) -> None:
        """Make from `arrays` what answers are quicker with."""

    def predict(self, inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean (noutput, n) and score (n,); before the first training NaN and infinity."""
        inputs = np.ascontiguousarray(inputs, dtype=float)
        ncells = inputs.shape[1]
        check_array(self.inputs, inputs, ncells, "inputs of the surrogate")
        mean, score = np.full((self.noutput, ncells), np.nan), np.full(ncells, np.inf)
        if self.version == 0:
            return mean, score
        for first in range(0, ncells, CHUNK):
            part = slice(first, min(first + CHUNK, ncells))
            width = part.stop - first
            chunk_mean, chunk_score = self._predict_chunk(inputs[:, part])
            mean[:, part], score[part] = chunk_mean[:, :width], chunk_score[:width]
        return mean, score

    def _predict_chunk(self, inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Answers for at most CHUNK cells, of which the last fills the empty places."""
        inputs = np.pad(inputs, ((0, 0), (0, CHUNK - inputs.shape[1])), mode="edge")
        middle, width = self._scalings["input_scaling"]
        x = np.ascontiguousarray((inputs - middle[:, None]) / width[:, None])
        lost = ~np.isfinite(x).all(axis=0)  # of a macro field that diverges
        x[:, lost] = 0.0
        mean, deviation = self._answer(x)
        mean[:, lost], deviation = np.nan, np.where(lost, np.inf, deviation)
        middle, width = self._scalings["output_scaling"]
        learnt = mean * width[:, None] + middle[:, None]
        score = transform.deviation(
            self.outputs, self._scalings["field_scales"], learnt, deviation * width[:, None]
        )
        return transform.decode(self.outputs, learnt), np.hypot(score, self.goal)

    def misfit(self, predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
        """Relative error of each cell, shape (n,), see `Surrogate`."""
        return transform.misfit(self.outputs, self._scalings["field_scales"], predicted, truth)

    def prepare(self, samples: Samples, goal: float | None = None) -> Lesson:
        """Begin to learn the samples, equal on every rank and in the same order, anew.

        Raises:
            SurrogateError: too few samples, or samples that cannot be learnt from.
        """
        check_samples(self.inputs, self.outputs, samples)
        learnt = transform.encode(self.outputs, samples.outputs)
        learnt, _ = transform.silenced(self.outputs, learnt, goal or self.goal)
        # It learns as a copy of this one would that had other scales.
        lesson = Lesson(samples, goal or self.goal)
        lesson.learner, lesson.learnt, lesson.arrays = copy.copy(self), learnt, {}
        lesson.learner.goal = lesson.goal
        lesson.learner._scalings = {
            "input_scaling": np.array(transform.input_scaling(self.inputs, samples.inputs)),
            "output_scaling": np.array(transform.output_scaling(self.outputs, learnt)),
            "field_scales": transform.field_scales(self.outputs, samples.outputs),
        }
        return lesson

    def study(self, lesson: Lesson) -> None:
        """Rank 0 learns for all."""
        if self.comm.rank == 0:
            learner, samples = lesson.learner, lesson.samples
            (middle, width), (origin, scale) = (
                learner._scalings[name] for name in ("input_scaling", "output_scaling")
            )
            x, z = (samples.inputs.T - middle) / width, (lesson.learnt.T - origin) / scale
            lesson.arrays = learner._learn(np.ascontiguousarray(x), np.ascontiguousarray(z))

    def adopt(self, lesson: Lesson) -> dict[str, float]:
        """Collective. Send what was learnt to all ranks, and answer with it.

        Returns:
            samples, and seconds since the training began, on rank 0.
        """
        self._scalings, self.goal = lesson.learner._scalings, lesson.goal
        self.arrays = spread(self.comm, lesson.arrays)
        self.version += 1
        self._refresh()
        seconds = float(self.comm.bcast(perf_counter() - lesson.started))
        return {"samples": len(lesson.samples), "seconds": seconds}

    def state(self) -> dict[str, np.ndarray]:
        """Version, scales and what was learnt, equal on every rank."""
        arrays = {name: array.copy() for name, array in (self._scalings | self.arrays).items()}
        return {"version": np.array([self.version]), "kind": np.array([self._code()]), **arrays}

    def load_state(self, state: dict[str, np.ndarray]) -> None:
        """Take over what `state` gave, bit by bit.

        Raises:
            SurrogateError: it belongs to another kind of surrogate or to other fields.
        """
        fits = all(np.shape(state.get(name)) == array.shape for name, array in self._scalings.items())
        if not fits or "version" not in state or int(np.ravel(state.get("kind", -1))[0]) != self._code():
            raise SurrogateError(
                f"a stored surrogate must be a {type(self).__name__} of {self.ninput} inputs and "
                f"{self.noutput} outputs, got another ({', '.join(state) or 'nothing'}); use the "
                "surrogate.kind of then"
            )
        arrays = {name: np.array(array) for name, array in state.items() if name not in ("version", "kind")}
        self.version = int(state["version"][0])
        self._scalings = {name: arrays.pop(name) for name in self._scalings}
        self.arrays = arrays
        if self.version:
            self._refresh()

    def _code(self) -> int:
        """A number for the name of the class: a state holds nothing but arrays of numbers."""
        return int.from_bytes(type(self).__name__.encode()[:7], "little")


def spread(comm, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Collective. The named arrays of rank 0, on every rank."""
    shapes = comm.bcast({name: (array.shape, array.dtype.str) for name, array in arrays.items()})
    result = {}
    for name, (shape, kind) in shapes.items():
        result[name] = np.ascontiguousarray(arrays[name]) if comm.rank == 0 else np.empty(shape, kind)
        comm.Bcast(result[name])
    return result


def check_samples(inputs: tuple[Field, ...], outputs: tuple[Field, ...], samples: Samples) -> None:
    """Refuse too few samples, or samples of other fields."""
    if len(samples) < FEWEST_SAMPLES:
        raise SurrogateError(
            f"samples to learn from must be at least {FEWEST_SAMPLES}, got {len(samples)}; collect more"
        )
    check_array(inputs, samples.inputs, len(samples), "inputs of samples")
    check_array(outputs, samples.outputs, len(samples), "outputs of samples")


def spread_out(x: np.ndarray, most: int) -> np.ndarray:
    """Sorted indices of at most `most` of the points x (n, d): each next one the farthest from the rest."""
    if len(x) <= most:
        return np.arange(len(x))
    chosen, apart = [0], np.full(len(x), np.inf)
    while len(chosen) < most:
        apart = np.minimum(apart, ((x - x[chosen[-1]]) ** 2).sum(axis=1))
        chosen.append(int(apart.argmax()))
    return np.sort(chosen)


def squared_distances(points: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Between points (n, d) and cells x (d, m): (n, m), added up input by input."""
    total = np.zeros((points.shape[0], x.shape[1]))
    for column, row in zip(points.T, x, strict=True):
        apart = column[:, None] - row
        total += apart * apart
    return total


def weighted_sums(weights: np.ndarray, values: np.ndarray) -> np.ndarray:
    """weights (n, p) and values (n, CHUNK) to (p, CHUNK): every column's sum in one order."""
    return np.stack([np.add.reduce(column[:, None] * values, axis=0) for column in weights.T])


def nearest(points: np.ndarray, x: np.ndarray, count: int) -> np.ndarray:
    """Indices (m, count) of the points (n, d) nearest to x (m, d), the nearest first."""
    found = cKDTree(points).query(x, k=min(count, len(points)))[1]
    return found.reshape(len(x), -1)
