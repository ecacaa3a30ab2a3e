"""`MicroModel`: the physics of a batch of cells."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar, Literal

import numpy as np

from hpcmsm.batch import Answer, Batch
from hpcmsm.errors import MicroError
from hpcmsm.fields import Field, allocate, within_bounds

History = Literal["none", "liftable", "full"]


class MicroModel(ABC):
    """A fine-scale model, asked in batches.

    A subclass declares its fields and answers a batch. It keeps no memory of cells: state is
    passed in and returned. A cell's answer must depend on nothing but its own inputs and state.

    Attributes:
        inputs, outputs: what it is asked and what it answers.
        state: what a cell remembers from step to step; empty for a stateless model.
        history: "none" (stateless, may be replaced by a surrogate freely), "liftable"
            (`lift` rebuilds a state), "full" (must be advanced in every step).
        phases: names of the materials that its phases are made of, if it has any.
        depends_on_dt: the outputs are those of a step of a certain length, which is no input; a surrogate
            then answers only for steps as long as those that it learnt from.
        no_surrogate: why no surrogate may answer in its place, and what to do; empty where one may.
        lower: models that it asks itself, by name.
        nested: closures around these, by name; where there are some, `evaluate` is collective, and every
            rank calls it, with an empty batch too.
    """

    inputs: ClassVar[tuple[Field, ...]]
    outputs: ClassVar[tuple[Field, ...]]
    state: ClassVar[tuple[Field, ...]] = ()
    history: ClassVar[History] = "none"
    phases: tuple[str, ...] = ()
    depends_on_dt: ClassVar[bool] = False
    no_surrogate: str = ""
    lower: Mapping[str, MicroModel] = {}
    nested: Mapping[str, object] = {}

    @abstractmethod
    def evaluate(self, batch: Batch) -> Answer:
        """Answer the cells of a batch, in one call."""

    def initial_state(self, inputs: np.ndarray) -> np.ndarray:
        """State before the first step, shape (nstate, n), for inputs of shape (ninput, n)."""
        return allocate(self.state, inputs.shape[1])

    def admissible(self, inputs: np.ndarray, outputs: np.ndarray) -> np.ndarray:
        """Which cells' outputs are physically possible for these inputs, shape (n,) bool.

        The default checks the declared bounds of the outputs. A model that knows sharper bounds
        (Wiener's, conserved sums) overrides this; it is asked of every surrogate answer.
        """
        return within_bounds(self.outputs, outputs)

    def conserved(self, inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
        """Sums that the outputs of every cell keep exactly: A outputs = b, as (A, b), or None.

        For example that mass fractions add up to 1, or that each element leaves as it came in.
        Answers of a surrogate are moved onto these sums before anything else is asked of them.

        Args:
            inputs: shape (ninput, n).
        Returns:
            A of shape (nsum, noutput), the same for all cells, and b of shape (nsum, n).
        """
        return None

    def lift(self, inputs: np.ndarray, outputs: np.ndarray) -> np.ndarray:
        """A state that belongs to these inputs and outputs; only for history "liftable"."""
        raise MicroError(
            f"{type(self).__name__}.lift must be defined for history 'liftable', got none; "
            "define it or declare history 'full'"
        )

    def alone(self) -> MicroModel:
        """The same model such that no call is collective."""
        return self

    def draw_fields(self, ids: np.ndarray) -> dict[str, np.ndarray]:
        """Inputs that it gives the cells itself where the case does not, by name, shape (n,) each."""
        return {}

    def phase_fractions(self, inputs: np.ndarray) -> np.ndarray | None:
        """Volume fractions of the phases, shape (nphase, n), or None if it has no phases."""
        return None

    def inside(self, inputs: np.ndarray) -> list[tuple[Field, np.ndarray]]:
        """Fields inside one cell at its inputs, shape (ninput, 1), for pictures; empty if it has none.

        Returns:
            pairs of a Field and its values, shape (size, [nz,] ny, nx).
        """
        return []

    def microstructures(self) -> list[tuple[str, np.ndarray, tuple[str, ...]]]:
        """Where the phases of its cells lie, for pictures; empty if that is not known.

        Returns:
            for each picture its title, the phase of each point [z,] y, x, and the names of the phases.
        """
        return []

    def images(self, inputs: np.ndarray) -> np.ndarray | None:
        """Conductivity of every point of the cells, (n, [nz,] ny, nx), or None if it has no such points.

        Surrogates of kinds "cnn" and "fno" learn from these images. NaN where the inputs are bad.
        """
        return None

    def facts(self) -> dict[str, object]:
        """What a reader of a result needs to know about this model, for logs and files."""
        return {"model": type(self).__name__}
