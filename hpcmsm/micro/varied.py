"""Unit cells whose microstructure differs from cell to cell: from a library, or each its own."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from hpcmsm.batch import Answer, Batch
from hpcmsm.fields import Field, allocate
from hpcmsm.micro.base import MicroModel
from hpcmsm.parallel import random_uniform

# Microstructures kept at hand, in points; others are drawn again when they are asked.
MOST_POINTS = 2**24
BAD_INPUT = 2
# A draw that no microstructure shares: which realisation a cell gets.
CHOICE = 2**63


def realisation_field(number: int | None) -> Field:
    """The input that says which of `number` microstructures a cell has; None: any whole number.

    Of another realisation no sample counts as near, whatever the gate's novelty.
    """
    last = 2.0**53 if number is None else number - 1.0
    about = "number of the microstructure"
    return Field("realisation", unit="1", about=about, lower=0.0, upper=last, scale=1.0, whole=True)


class VariedCell(MicroModel):
    """Asks for every cell the model of its own microstructure, which the input `realisation` names.

    Args:
        make_cell: the model of a realisation, a function of its number alone; all of them declare the
            same fields.
        number: how many realisations there are; None: any, then a cell's is its global id.
        seed: of the draw that gives the cells of a library their realisations.
        fractions: of the phases, shape (nphase,), where all realisations have the same.
    Status of an answer: that of the cell's model, 2 also where there is no such realisation.
    """

    def __init__(
        self,
        make_cell: Callable[[int], MicroModel],
        number: int | None,
        seed: int = 1,
        fractions: np.ndarray | None = None,
    ):
        self.make_cell, self.number, self.seed, self.fractions = make_cell, number, seed, fractions
        self._cells: OrderedDict[int, MicroModel] = OrderedDict()
        first = self._cell(0)
        self.inputs = (*first.inputs, realisation_field(number))
        self.outputs, self.state, self.history = first.outputs, first.state, first.history
        self.phases = first.phases
        if number is None:
            self.no_surrogate = (
                "with micro.realisations = 'own' no two cells are alike, and inputs do not tell a surrogate "
                "in what; use a library, such as micro.realisations = 16"
            )

    def evaluate(self, batch: Batch) -> Answer:
        """Answer the cells of each realisation together."""
        answer = Answer(
            np.full((len(allocate(self.outputs, 0)), batch.ncells), np.nan),
            batch.state.copy(),
            np.full(batch.ncells, BAD_INPUT, dtype=np.int32),
        )
        for cell, which in self._groups(batch.inputs):
            part = batch.take(which)
            found = cell.evaluate(replace(part, inputs=np.ascontiguousarray(part.inputs[:-1])))
            answer.outputs[:, which], answer.state[:, which] = found.outputs, found.state
            for name in ("status", "source", "cost", "residual"):
                getattr(answer, name)[which] = getattr(found, name)
        return answer

    def initial_state(self, inputs: np.ndarray) -> np.ndarray:
        """That of the cells' models."""
        state = allocate(self.state, inputs.shape[1])
        for cell, which in self._groups(inputs) if self.state else ():
            state[:, which] = cell.initial_state(np.ascontiguousarray(inputs[:-1, which]))
        return state

    def admissible(self, inputs: np.ndarray, outputs: np.ndarray) -> np.ndarray:
        """Whether the model of each cell's microstructure holds its outputs for possible."""
        fine = np.zeros(inputs.shape[1], dtype=bool)
        for cell, which in self._groups(inputs):
            fine[which] = cell.admissible(inputs[:-1, which], outputs[:, which])
        return fine

    def phase_fractions(self, inputs: np.ndarray) -> np.ndarray | None:
        """Of each cell's microstructure, shape (nphase, n)."""
        if self.fractions is not None:
            return np.tile(self.fractions[:, None], inputs.shape[1])
        fractions = np.full((len(self.phases), inputs.shape[1]), np.nan)
        for cell, which in self._groups(inputs):
            fractions[:, which] = cell.phase_fractions(inputs[:-1, which])
        return fractions

    def draw_fields(self, ids: np.ndarray) -> dict[str, np.ndarray]:
        """The realisation of each cell, drawn by its id; without a library, the id itself."""
        if self.number is None:
            return {"realisation": ids.astype(np.float64)}
        lot = random_uniform("microstructure", self.seed, CHOICE, ids)
        return {"realisation": np.floor(lot * self.number)}

    def facts(self) -> dict[str, object]:
        """Those of the first microstructure, and how many there are."""
        return {**self._cell(0).facts(), "realisations": self.number or "own", "seed": self.seed}

    def _groups(self, inputs: np.ndarray):
        """The models of a batch, each with the indices of its cells."""
        numbers = inputs[-1]
        last = self.inputs[-1].upper
        known = (numbers >= 0) & (numbers <= last) & (numbers == np.rint(numbers))
        for number in np.unique(numbers[known]):
            yield self._cell(int(number)), np.flatnonzero(numbers == number)

    def _cell(self, number: int) -> MicroModel:
        """The model of a realisation, of which the latest are kept."""
        if number in self._cells:
            self._cells.move_to_end(number)
            return self._cells[number]
        cell = self._cells[number] = self.make_cell(number)
        points = getattr(cell, "microstructure", None)
        while points is not None and len(self._cells) * points.labels.size > MOST_POINTS:
            self._cells.popitem(last=False)
        return cell
