"""`MacroModel`: a residual on the grid that asks a closure."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np

from hpcmsm.fields import Field


class MacroModel(ABC):
    """A macro equation `C(u) du/dt = L(t, u; closure outputs)` for one unknown per cell.

    Attributes:
        unknown: the field that is advanced.
        sends: fields that it offers to the closure, beside the constant fields of the cells.
        wants: fields that it needs back.
        capacity: C(u) of the owned cells, set by `use`.
    """

    unknown: ClassVar[Field]
    sends: tuple[Field, ...]
    wants: tuple[Field, ...]
    capacity: np.ndarray

    @abstractmethod
    def initial(self) -> np.ndarray:
        """The unknown at t = 0 in the owned cells, shape (ncells,)."""

    @abstractmethod
    def offer(self, unknown: np.ndarray) -> dict[str, np.ndarray]:
        """What the closure may ask for, by field name, shape (ncells,) or (size, ncells)."""

    @abstractmethod
    def use(self, unknown: np.ndarray, outputs: dict[str, np.ndarray]) -> None:
        """Collective. Take over the closure's outputs for this unknown, by name, (size, ncells) each.

        Sets `capacity`, C(u) in the owned cells, shape (ncells,).
        """

    @abstractmethod
    def spatial(self, time: float, vector, out: np.ndarray | None = None) -> np.ndarray:
        """Collective. L(t, u) in the owned cells for the global PETSc vector u, shape (ncells,).

        Written into `out` where given, which must not be the array of u.
        """

    @abstractmethod
    def linear_coefficients(self, time: float, vector) -> np.ndarray:
        """dL/du with frozen closure outputs: rows centre, x-, x+, y-, y+[, z-, z+], (1 + 2 ndim, ncells)."""

    @abstractmethod
    def linear_product(self, vector) -> np.ndarray:
        """Collective. dL/du with frozen closure outputs times a global vector, shape (ncells,).

        At the time and sides of the last `linear_coefficients`.
        """

    @abstractmethod
    def is_symmetric(self) -> bool:
        """Collective. Whether dL/du is symmetric for the present closure outputs."""
