"""`Stepper`: owns the unknowns of a macro model, and advances them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from hpcmsm.config import MacroSection, TimeSection
from hpcmsm.grid import Grid
from hpcmsm.macro.base import MacroModel

# ask(time, dt, unknown): let the closure answer for these unknowns, shape (ncomponent, ncells), and hand
# the outputs to the model.
Ask = Callable[[float, float, np.ndarray], None]


@dataclass(frozen=True)
class StepResult:
    """What a step did: the time it reached, the step proposed next, and the iterations spent."""

    time: float
    next_dt: float
    nonlinear: int = 0
    linear: int = 0


class Stepper(ABC):
    """Owns the unknowns, and advances them by one step.

    Attributes:
        previous: unknowns one step back, shape (ncomponent, ncells), for multistep schemes, else None.
        previous_dt: length of the step before, in s; 0 before the first.
    """

    previous: np.ndarray | None = None
    previous_dt: float = 0.0

    def __init__(self, model: MacroModel, grid: Grid, time: TimeSection, macro: MacroSection, ask: Ask):
        self.model, self.grid, self.time, self.macro, self.ask = model, grid, time, macro, ask

    @property
    @abstractmethod
    def unknown(self) -> np.ndarray:
        """The unknowns in the owned cells, shape (ncomponent, ncells); not to be written."""

    @abstractmethod
    def set_unknown(self, values: np.ndarray) -> None:
        """Take over values of shape (ncomponent, ncells)."""

    @abstractmethod
    def advance(self, step: int, now: float, dt: float) -> StepResult:
        """Collective. Advance the unknowns from time `now` by about dt.

        Raises:
            SolverError: the solve diverged.
        """
