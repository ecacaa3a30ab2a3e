"""`Blending`: a cell that changes from micro model to surrogate goes over in small steps.

What the last answer of a cell differs from the surrogate's there is known: the offset. The next answer
of the surrogate gets a part of it added, the one after that a part of this, and so on. The offset never
takes more of the tolerance than the calibrated bound leaves, so an answer that would have been within
the tolerance still is; and a cell whose answer would jump by more than the tolerance all the same is
not accepted.
"""

from __future__ import annotations

import numpy as np

from hpcmsm.closure.predictor import Predictor
from hpcmsm.fields import Field, ncomponent, rows_of
from hpcmsm.micro.base import MicroModel


class Blending:
    """Offsets of the cells of this rank, from step to step.

    Args:
        predictor: the surrogate as the gate sees it.
        micro: tells which answers are admissible.
        outputs: fields of the closure.
        nsteps: steps after which an offset has about a third of its size left; 0: none is kept.
    """

    def __init__(self, predictor: Predictor, micro: MicroModel, outputs: tuple[Field, ...], nsteps: int):
        self.predictor, self.micro, self.outputs = predictor, micro, tuple(outputs)
        self.kept = nsteps / (nsteps + 1.0)
        self.ids = np.zeros(0, dtype=np.int64)
        self.offset = np.zeros((ncomponent(self.outputs), 0))
        self.version = 0
        self._last: tuple | None = None

    def serve(
        self, batch, predicted: np.ndarray, bound: np.ndarray, allowed: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Answers to give instead of `predicted` (noutput, n), and which of them do not jump, (n,).

        Args:
            bound, allowed: what the errors of the predictions stay below, and what they may be, (n,), in
                the predictor's norm.
        """
        if self.kept == 0.0:
            return predicted, np.ones(batch.ncells, dtype=bool)
        offset = self._of(batch.ids)
        wanted = self.kept * offset
        size = self.predictor.misfit(predicted, predicted + wanted)
        room = np.maximum(allowed - bound, 0.0)
        with np.errstate(divide="ignore", invalid="ignore"):
            part = np.where(size > room, room / size, 1.0)
        added = part * wanted
        possible = self.micro.admissible(batch.inputs, predicted + added)
        added[:, ~possible] = 0.0
        jump = self.predictor.misfit(predicted, predicted + (offset - added))
        return predicted + added, jump <= allowed

    def _of(self, ids: np.ndarray) -> np.ndarray:
        """Offsets of these cells, 0 where none is known; shape (noutput, n)."""
        if self.ids is ids or np.array_equal(self.ids, ids):
            return self.offset
        order = np.argsort(self.ids, kind="stable")
        offset = np.zeros((len(self.offset), ids.size))
        if self.ids.size:
            place = order[np.minimum(np.searchsorted(self.ids, ids, sorter=order), self.ids.size - 1)]
            known = self.ids[place] == ids
            offset[:, known] = self.offset[:, place[known]]
        return offset

    def note(self, batch, given: np.ndarray, predicted: np.ndarray) -> None:
        """Take the answers that a question got, (noutput, n), beside the surrogate's own; the last counts."""
        self._last = batch.ids, batch.inputs, given, predicted

    def finish_step(self) -> None:
        """Keep the offsets of the step, from the surrogate's present version on."""
        if self._last is None:
            return
        ids, inputs, given, predicted = self._last
        forgets = self.kept == 0.0 or self.predictor.version == 0
        if self.predictor.version != self.version and ids.size and not forgets:
            predicted, _ = self.predictor.predict(inputs)
        self.ids, self.version, self._last = ids, self.predictor.version, None
        # A checkpoint holds the offsets in any case: a run may be resumed with another gate.blend.
        self.offset = np.zeros_like(given) if forgets else given - predicted
        self.offset[:, ~np.isfinite(self.offset).all(axis=0)] = 0.0

    def cell_fields(self) -> dict[str, tuple[Field, np.ndarray]]:
        """The offsets as fields of the cells, in the order of the last question."""
        return {
            f"gate/offset_{field.name}": (
                Field(f"offset_{field.name}", field.size, field.unit, "last answer less the surrogate's"),
                self.offset[row],
            )
            for field, row in zip(self.outputs, rows_of(self.outputs).values(), strict=True)
        }

    def load(self, ids: np.ndarray, arrays: dict[str, np.ndarray]) -> None:
        """Take over offsets of these cells, as `cell_fields` named them; by the present version."""
        self.ids, self.version = ids, self.predictor.version
        rows = [np.atleast_2d(arrays[f"gate/offset_{field.name}"]) for field in self.outputs]
        self.offset = np.ascontiguousarray(np.concatenate(rows))
