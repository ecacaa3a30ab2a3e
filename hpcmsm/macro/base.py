"""`MacroModel`: an equation on the grid that asks a closure, and the two shapes that steppers know."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np

from hpcmsm.errors import ConfigError
from hpcmsm.fields import Field, allocate, rows_of


class MacroModel(ABC):
    """A macro equation for one or several unknowns per cell.

    The array of the unknowns has shape (ncomponent, ncells), the fields of `unknowns` one below the
    other, the cells as in `grid.ids`.

    Attributes:
        unknowns: the fields that are advanced.
        sends: fields that it offers to the closure, beside the constant fields of the cells.
        wants: fields that it needs back.
        schemes: names of time.scheme that it can be advanced by.
        centrings: names of grid.centring that it knows.
        kept: further fields of the cells that it carries from step to step (an activation time, a
            maximum so far); they appear in snapshots and survive restarts. Their values are in
            `kept_values`, shape (ncomponent, ncells).
    """

    unknowns: tuple[Field, ...]
    sends: tuple[Field, ...]
    wants: tuple[Field, ...]
    schemes: ClassVar[tuple[str, ...]]
    centrings: ClassVar[tuple[str, ...]] = ("cell",)
    kept: tuple[Field, ...] = ()
    kept_values: np.ndarray

    @abstractmethod
    def initial(self) -> np.ndarray:
        """The unknowns at t = 0 in the owned cells, shape (ncomponent, ncells)."""

    def initial_kept(self, ncells: int) -> np.ndarray:
        """The kept fields at t = 0, shape (ncomponent, ncells): their declared start values."""
        return allocate(self.kept, ncells)

    def offer(self, unknown: np.ndarray) -> dict[str, np.ndarray]:
        """What the closure may ask for, by field name, shape (ncells,) or (size, ncells)."""
        return {name: unknown[rows] for name, rows in rows_of(self.unknowns).items()}

    @abstractmethod
    def use(self, unknown: np.ndarray, outputs: dict[str, np.ndarray]) -> None:
        """Collective. Take over the closure's outputs for these unknowns, by name, (size, ncells) each."""

    def set_goal(self, formula, horizon: float) -> None:
        """Choose what `goal_weights` is about, see gate.goal.

        Raises:
            ConfigError: this equation knows no adjoint.
        """
        raise ConfigError(
            f"gate.macro_tolerance must be left out for {type(self).__name__}, got a value; only the heat "
            "equation has an adjoint, use gate.tolerance"
        )

    def goal_weights(self, time: float, unknown: np.ndarray, outputs: dict[str, np.ndarray]) -> np.ndarray:
        """Collective. What a relative error of one in each cell's outputs moves the goal by, (ncells,).

        To be followed by `use`: the model keeps nothing of these outputs.
        """
        raise NotImplementedError

    def finish_step(self, before: float, now: float, unknown: np.ndarray) -> None:
        """Collective. Called once after each accepted step from time `before` to `now`; may renew `kept`."""

    def figures(self) -> dict[str, object]:
        """Collective. What the model adds to the summary, equal on every rank."""
        return {}


class MethodOfLines(MacroModel):
    """`C(u) du/dt = L(t, u; closure outputs)` for one unknown, advanced by PETSc.

    Attributes:
        capacity: C(u) of the owned cells, shape (ncells,), set by `use`.
    """

    capacity: np.ndarray

    def gain(self, before: np.ndarray, after: np.ndarray) -> np.ndarray:
        """Integral of C du from `before` to `after`, all of shape (ncells,): what a cell has stored.

        A model whose C depends on u overrides it, so that implicit steps conserve what is stored.
        """
        return self.capacity * (after - before)

    def settled(self, before: np.ndarray, after: np.ndarray) -> np.ndarray:
        """The unknown that has stored what a step with the frozen `capacity` let in, shape (ncells,).

        It solves gain(before, result) = capacity (after - before) in each cell.
        """
        return after

    def capacity_at(self, unknown: np.ndarray) -> np.ndarray:
        """C of the owned cells for an unknown (ncells,), with the closure's outputs of the last `use`."""
        return self.capacity

    @abstractmethod
    def spatial(self, time: float, vector, out: np.ndarray | None = None) -> np.ndarray:
        """Collective. L(t, u) in the owned cells for the global PETSc vector u, shape (ncells,).

        Written into `out` where given, which must not be the array of u.
        """

    def forward_euler(self, time: float, dt: float, vector, out) -> None:
        """Collective. out = u + dt L(t, u) / C(u), for global PETSc vectors u and out."""
        with out as values:
            self.spatial(time, vector, values)
            values *= dt / self.capacity
            values += vector.getArray(readonly=True)

    @abstractmethod
    def linear_coefficients(self, time: float, vector) -> np.ndarray:
        """dL/du with frozen closure outputs: rows centre, x-, x+[, y-, y+, ...], (1 + 2 ndim, ncells)."""

    @abstractmethod
    def linear_product(self, vector) -> np.ndarray:
        """Collective. dL/du with frozen closure outputs times a global vector, shape (ncells,).

        At the time and sides of the last `linear_coefficients`.
        """

    @abstractmethod
    def is_symmetric(self) -> bool:
        """Collective. Whether dL/du is symmetric for the present closure outputs."""


class SplitModel(MacroModel):
    """Transport between cells and reaction within them, advanced in turns.

    The closure is asked once a step, for the reaction over the whole step: so the state of a cell
    advances once, whatever the order of the splitting.
    """

    schemes = ("godunov", "strang")

    def begin_step(self, unknown: np.ndarray, time: float, dt: float) -> None:
        """Called once before each step from `time` by dt, with the unknowns at its start."""

    @abstractmethod
    def transport(self, unknown: np.ndarray, time: float, dt: float) -> None:
        """Collective. Advance the transport part in place from `time` by dt."""

    @abstractmethod
    def react(self, unknown: np.ndarray, dt: float) -> None:
        """Advance the reaction part in place by dt, with the closure's outputs of the last `use`."""
