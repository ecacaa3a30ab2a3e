"""`ReplayBuffer`: the known true answers, thinned to a net that covers the inputs met so far."""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

from hpcmsm.errors import SurrogateError
from hpcmsm.fields import Field, ncomponent, rows_of
from hpcmsm.surrogate.base import Samples

# A sample that the surrogate misjudged may lie this much closer to a known one.
REFINEMENT = 0.25
# Range of an input that was the same in all samples, as a part of its size.
RANGE_OF_A_CONSTANT = 1e-3

# Samples looked at together: a tree of the known ones first, then each of the rest with all others.
CHUNK = 256

NAMES = tuple(Samples.__dataclass_fields__)


class ReplayBuffer:
    """Samples that are far enough from one another, the same on every rank.

    Distances are Euclidean in inputs divided by their ranges: the scale of the field, or its declared
    range where that is finite, else the range of all samples offered so far. When the buffer is full,
    the spacing doubles and the net is thinned, the oldest samples first in the choice.

    Args:
        inputs, outputs: fields of the closure.
        capacity: largest number of samples.
        spacing: smallest distance of a new sample from all known ones.
    Raises:
        SurrogateError: capacity or spacing out of range.
    """

    def __init__(
        self,
        inputs: tuple[Field, ...],
        outputs: tuple[Field, ...],
        capacity: int = 2048,
        spacing: float = 0.005,
    ):
        if capacity < 1:
            raise SurrogateError(f"capacity of a replay buffer must be at least 1, got {capacity}; raise it")
        if not 0.0 < spacing < np.inf:
            raise SurrogateError(f"spacing of a replay buffer must be positive, got {spacing}; try 0.005")
        self.inputs, self.outputs = tuple(inputs), tuple(outputs)
        self.capacity, self.spacing = capacity, float(spacing)
        ninput, none = ncomponent(self.inputs), np.zeros(0, dtype=np.int64)
        self.samples = Samples(
            none, none, none, np.zeros((ninput, 0)), np.zeros((ncomponent(self.outputs), 0)), np.zeros(0)
        )
        self.seen = np.array([np.full(ninput, np.inf), np.full(ninput, -np.inf)])
        self._tree: cKDTree | None = None

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def scale(self) -> np.ndarray:
        """Range of every input, (ninput,), in which distances are measured."""
        lowest, highest = self.seen
        with np.errstate(invalid="ignore"):
            ranges = highest - lowest
        size = np.maximum(np.abs(lowest), np.abs(highest))
        constant = np.where(np.isfinite(size) & (size > 0.0), size * RANGE_OF_A_CONSTANT, 1.0)
        ranges = np.where(ranges > 0.0, ranges, constant)
        for field, row in zip(self.inputs, rows_of(self.inputs).values(), strict=True):
            if field.scale is not None:
                ranges[row] = field.scale
            elif np.isfinite(field.upper - field.lower):
                ranges[row] = field.upper - field.lower
        return ranges

    def add(self, samples: Samples, misfit: np.ndarray | None = None, tolerance: float = np.inf) -> int:
        """Take the samples in their order, each if it tells something new.

        A sample is new if it is farther than the spacing from all known ones, or than a quarter of that
        if its misfit exceeds the tolerance: there the surrogate needs a finer net.

        Args:
            samples: sorted by (step, iteration, id), equal on every rank.
            misfit: what the surrogate's error was there, (n,).
            tolerance: misfit that is still good.
        Returns:
            how many of them were taken.
        """
        if len(samples) == 0:
            return 0
        self.seen = np.array(
            [
                np.minimum(self.seen[0], samples.inputs.min(axis=1)),
                np.maximum(self.seen[1], samples.inputs.max(axis=1)),
            ]
        )
        self._tree = None
        missed = np.zeros(len(samples), dtype=bool) if misfit is None else misfit > tolerance
        radii = np.where(missed, REFINEMENT, 1.0)
        chunks = np.split(np.arange(len(samples)), np.arange(CHUNK, len(samples), CHUNK))
        return sum(self._take_new(samples, radii, chunk) for chunk in chunks)

    def distance(self, inputs: np.ndarray, bound: float = np.inf) -> np.ndarray:
        """Distance of every cell from the nearest sample, (n,); infinity where there is none.

        Inputs that are not finite, as a diverging macro field has them, are infinitely far.

        Args:
            inputs: shape (ninput, n).
            bound: distances above it may be given as infinity, which is faster.
        """
        if len(self) == 0 or inputs.shape[1] == 0:
            return np.full(inputs.shape[1], np.inf)
        if self._tree is None:
            self._tree = cKDTree(self._scaled(self.samples.inputs))
        points = self._scaled(inputs)
        lost = ~np.isfinite(points).all(axis=1)
        points[lost] = 0.0
        distance = self._tree.query(points, distance_upper_bound=bound)[0]
        distance[lost] = np.inf
        return distance

    def state(self) -> dict[str, np.ndarray]:
        """The samples and what decides about the next ones, as named arrays."""
        samples = {name: getattr(self.samples, name) for name in NAMES}
        return {**samples, "seen": self.seen, "spacing": np.array([self.spacing])}

    def load_state(self, state: dict[str, np.ndarray]) -> None:
        """Take over what `state` gave, bit by bit.

        Raises:
            SurrogateError: an array is missing.
        """
        missing = [name for name in (*NAMES, "seen", "spacing") if name not in state]
        if missing:
            raise SurrogateError(
                f"a stored replay buffer must have '{missing[0]}', got {', '.join(state) or 'nothing'}; "
                "use a file that this version wrote"
            )
        self.samples = Samples(*(np.ascontiguousarray(state[name]) for name in NAMES))
        self.seen = np.array(state["seen"], dtype=float)
        self.spacing = float(state["spacing"][0])
        self._tree = None

    def _scaled(self, inputs: np.ndarray) -> np.ndarray:
        """Points (n, ninput) of the space in which distances are measured."""
        return np.ascontiguousarray((inputs / self.scale[:, None]).T)

    def _take_new(self, samples: Samples, radii: np.ndarray, waiting: np.ndarray) -> int:
        """Take those of the samples waiting, given as indices, that are new; radii in spacings."""
        taken = 0
        while waiting.size:
            room = self.capacity - len(self)
            chosen, waiting = self._choose(samples.inputs, radii * self.spacing, waiting, room)
            self._append(samples.take(chosen))
            taken += chosen.size
            if waiting.size:
                self._thin()
        return taken

    def _choose(self, inputs, radii, waiting, room: int) -> tuple[np.ndarray, np.ndarray]:
        """Indices of the first `room` new ones among those waiting, and of those not yet decided on.

        The same as one after the other, but each choice strikes out all that lie too near to it. What
        comes after the one that found no room is undecided again: thinning may remove what struck it out.
        """
        everyone = waiting
        waiting = waiting[self.distance(inputs[:, waiting]) > radii[waiting]]
        points, radii = self._scaled(inputs[:, waiting]), radii[waiting]
        chosen = []
        while waiting.size and len(chosen) < room:
            chosen.append(waiting[0])
            keep = np.sqrt(((points - points[0]) ** 2).sum(axis=1)) > radii
            keep[0] = False
            waiting, points, radii = waiting[keep], points[keep], radii[keep]
        undecided = everyone[everyone >= waiting[0]] if waiting.size else waiting
        return np.array(chosen, dtype=np.int64), undecided

    def _append(self, new: Samples) -> None:
        if len(new):
            pairs = ((getattr(self.samples, name), getattr(new, name)) for name in NAMES)
            self.samples = Samples(*(np.concatenate(pair, axis=-1) for pair in pairs))
            self._tree = None

    def _thin(self) -> None:
        """Double the spacing, and keep the samples that are still far enough from all kept before."""
        self.spacing *= 2.0
        everything, self.samples = self.samples, self.samples.take(np.zeros(0, dtype=np.int64))
        radii = np.full(len(everything), self.spacing)
        chosen, _ = self._choose(everything.inputs, radii, np.arange(len(everything)), len(everything))
        self.samples, self._tree = everything.take(chosen), None
