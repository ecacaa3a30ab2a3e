"""`Batch` and `Answer`: what travels over the seam between the scales."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

# Values of Answer.source: who answered a cell.
MICRO, SURROGATE, SIMILAR = 0, 1, 2
SOURCE_NAMES = ("micro", "surrogate", "similar")


@dataclass(frozen=True)
class Batch:
    """Cells that ask a closure.

    Args:
        ids: global cell ids (natural order), shape (n,) int64.
        inputs: closure inputs, shape (ninput, n) float64, C order.
        state: micro state at the start of the step, shape (nstate, n) float64.
        time: time in s that the question belongs to.
        dt: length in s of the step under way.
        step: number of the step under way, the first is 1.
        iteration: how often this step has asked before (stages, Picard iterations, repeated steps).
        sensitivity: collective; for outputs (noutput, n) of all cells of the batch, what a relative error of
            one in each of them would change a goal of the macro field by, shape (n,); None if unknown.
    """

    ids: np.ndarray
    inputs: np.ndarray
    state: np.ndarray
    time: float = 0.0
    dt: float = 0.0
    step: int = 0
    iteration: int = 0
    sensitivity: Callable[[np.ndarray], np.ndarray] | None = None

    @property
    def ncells(self) -> int:
        return self.ids.shape[0]

    def take(self, cells: np.ndarray) -> Batch:
        """The same question for some of the cells, given as indices or as a mask."""
        return replace(
            self,
            ids=self.ids[cells],
            inputs=np.ascontiguousarray(self.inputs[:, cells]),
            state=np.ascontiguousarray(self.state[:, cells]),
            sensitivity=None,
        )


@dataclass(frozen=True)
class Answer:
    """What a closure answers.

    Args:
        outputs: shape (noutput, n) float64.
        state: micro state at the end of the step, shape (nstate, n) float64.
        status: 0 where the answer is good, shape (n,) int32.
        source: MICRO, SURROGATE or SIMILAR, shape (n,) int8.
        cost: measured or estimated work per cell in s, shape (n,) float64.
        residual: what the micro model reports of its convergence, shape (n,) float64.
    """

    outputs: np.ndarray
    state: np.ndarray
    status: np.ndarray
    source: np.ndarray = field(default=None)
    cost: np.ndarray = field(default=None)
    residual: np.ndarray = field(default=None)

    def __post_init__(self):
        ncells = self.outputs.shape[1]
        defaults = {"source": np.int8, "cost": np.float64, "residual": np.float64}
        for name, dtype in defaults.items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, np.zeros(ncells, dtype))
