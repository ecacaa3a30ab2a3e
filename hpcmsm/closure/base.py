"""`Closure`: Batch to Answer, the only seam between the scales."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np

from hpcmsm.batch import Answer, Batch
from hpcmsm.fields import Field


class Closure(ABC):
    """Answers what the macro equation does not know. Wrappers take another closure and are one.

    A step may ask several times (stages, iterations); `finish_step` is called once when the step
    has been accepted, `state`/`load_state` carry what must survive a restart.
    """

    inputs: tuple[Field, ...]
    outputs: tuple[Field, ...]
    micro_state: tuple[Field, ...]

    @abstractmethod
    def evaluate(self, batch: Batch) -> Answer:
        """Collective. Answer every cell of this rank's batch, which may be empty."""

    def finish_step(self, step: int) -> dict[str, float]:
        """Collective. Learn from the step; returns figures for the step log, equal on all ranks."""
        return {}

    def totals(self) -> dict[str, object]:
        """Figures of the whole run so far for the summary, equal on all ranks."""
        return {}

    def work(self) -> dict[str, float | None]:
        """Seconds of the micro model since the last start, and their imbalance over the ranks."""
        return {}

    def state(self) -> dict[str, np.ndarray]:
        """What a restart needs, as named arrays, equal on every rank."""
        return {}

    def load_state(self, state: dict[str, np.ndarray]) -> None:
        """Take over what `state` gave, bit by bit."""

    def cell_fields(self) -> dict[str, tuple[Field, np.ndarray]]:
        """What a restart needs of each cell, by name: its field and values (size, ncells)."""
        return {}

    def load_cell_fields(self, ids: np.ndarray, arrays: dict[str, np.ndarray]) -> None:
        """Take over what `cell_fields` gave, for the cells that this rank has now; after `load_state`."""
