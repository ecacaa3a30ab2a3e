"""Unit cells whose microstructure differs from cell to cell: from a library, or each its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from hpcmsm.fields import Field
from hpcmsm.micro.cell_problem import Solution
from hpcmsm.micro.microstructure import make_microstructure
from hpcmsm.micro.subsamples import MOST_PHASES, SAMPLES, SAMPLES_OF_INCLUSIONS, are_inclusions
from hpcmsm.micro.unit_cell import UnitCell
from hpcmsm.parallel import random_uniform

# Points given to one kernel call, and points kept at hand, a byte each; others are drawn again when asked.
MOST_POINTS, MOST_KEPT = 2**24, 2**27
MOST_SHOWN = 8  # in a picture
# A draw that no microstructure shares: which realisation a cell gets.
CHOICE = 2**63


def realisation_field(number: int | None) -> Field:
    """The input that says which of `number` microstructures a cell has; None: any whole number.

    Of another realisation no sample counts as near, whatever the gate's novelty.
    """
    last = 2.0**53 if number is None else number - 1.0
    about = "number of the microstructure"
    return Field("realisation", unit="1", about=about, lower=0.0, upper=last, scale=1.0, whole=True)


class VariedUnitCell(UnitCell):
    """A unit cell whose microstructure the input `realisation` chooses.

    Args:
        labels: phases of the points of a realisation, a function of its number alone.
        conductivities, options: those of `UnitCell`.
        number: how many realisations there are; None: any, then a cell's is its global id.
        seed: of the draw that gives the cells of a library their realisations.
        fractions: of the phases, shape (nphase,), where all realisations have the same.

    Status of an answer: as for `UnitCell`; 2 also where there is no such realisation.
    """

    def __init__(
        self,
        labels: Callable[[int], np.ndarray],
        conductivities,
        number: int | None,
        seed: int = 1,
        fractions: np.ndarray | None = None,
        **options,
    ):
        super().__init__(labels(0), conductivities, **options)
        # Whether a realisation consists of inclusions may depend on it.
        self._looks = self.microstructure.subsamples > 1 and options.get("inclusions") is None
        self.labels, self.number, self.seed, self.fractions = labels, number, seed, fractions
        self.inputs = (*self.inputs, realisation_field(number))
        self._kept: dict[int, np.ndarray] = {}
        self._kinds: dict[int, int] = {}
        if number is None:
            self.no_surrogate = (
                "with micro.realisations = 'own' no two cells are alike, and inputs do not tell a surrogate "
                "in what; use a library, such as micro.realisations = 16"
            )

    def phase_fractions(self, inputs: np.ndarray) -> np.ndarray:
        """Of each cell's microstructure, shape (nphase, n); NaN where there is no such realisation."""
        if self.fractions is not None:
            return np.tile(self.fractions[:, None], inputs.shape[1])
        numbers, place, known = self._realisations(inputs)
        table = np.full((self.nphase, numbers.size + 1), np.nan)
        for column, number in enumerate(numbers):
            labels = self._labels_of(int(number))
            table[:, column] = np.bincount(labels.ravel(), minlength=self.nphase) / labels.size
        return table[:, np.where(known, place, numbers.size)]

    def draw_fields(self, ids: np.ndarray) -> dict[str, np.ndarray]:
        """The realisation of each cell, drawn by its id; without a library, the id itself."""
        if self.number is None:
            return {"realisation": ids.astype(np.float64)}
        lot = random_uniform("microstructure", self.seed, CHOICE, ids)
        return {"realisation": np.floor(lot * self.number)}

    def labels_of(self, inputs: np.ndarray) -> np.ndarray:
        """Phase of each point of one cell at its inputs, shape (ninput, 1)."""
        return self._labels_of(int(inputs[-1, 0]))

    def microstructures(self) -> list[tuple[str, np.ndarray, tuple[str, ...]]]:
        """The first ones."""
        numbers = range(min(MOST_SHOWN, self.number or MOST_SHOWN))
        return [(f"realisation {number}", self._labels_of(number), self.phases) for number in numbers]

    def facts(self) -> dict[str, object]:
        """Those of a unit cell, and how many there are."""
        return {**super().facts(), "realisations": self.number or "own", "seed": self.seed}

    def _solve_problem(
        self,
        inputs: np.ndarray,
        phases: np.ndarray,
        before: np.ndarray | None = None,
        also: Sequence[str] = (),
    ) -> Solution:
        """One kernel call for all cells, or several where these have many microstructures or two kinds."""
        numbers, place, known = self._realisations(inputs)
        most = max(1, MOST_POINTS // self.microstructure.labels.size)
        kinds = np.array([*(self._kind_of(int(one)) for one in numbers), self.microstructure.number])
        # A cell without a microstructure becomes a status.
        kind, turn = kinds[np.where(known, place, -1)], np.where(known, place // most, 0)
        # Cells of a realisation side by side: the kernel reads their image once for several of them.
        order = np.argsort(place, kind="stable")
        pairs = sorted(set(zip(turn.tolist(), kind.tolist(), strict=True))) or [(0, int(kinds[-1]))]
        calls = [order[(turn[order] == one) & (kind[order] == other)] for one, other in pairs]
        answers = []
        for (number, kernel_number), which in zip(pairs, calls, strict=True):
            some = numbers[number * most : (number + 1) * most].astype(np.int64)
            stack = [self._kernel_labels_of(int(one)) for one in some] or [self.microstructure.kernel_labels]
            image = np.where(known, place % most, -1)[which].astype(np.int32)
            part = np.ascontiguousarray(phases[:, :, which])
            start = None if before is None else np.ascontiguousarray(before[:, which])
            answers.append(
                self._problem.solve(part, None, np.stack(stack), image, start, also, kernel_number)
            )
        back = np.argsort(np.concatenate(calls))
        return Solution(
            *(
                None if arrays[0] is None else np.concatenate(arrays, axis=-1)[..., back]
                for arrays in zip(*answers, strict=True)
            )
        )

    def _realisations(self, inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Realisations that occur, the place of each cell's among them, and whether there is such a one."""
        numbers = inputs[-1]
        known = (numbers >= 0) & (numbers <= self.inputs[-1].upper) & (numbers == np.rint(numbers))
        occurring = np.unique(numbers[known])
        return occurring, np.searchsorted(occurring, numbers), known

    def _labels_of_cells(self, inputs: np.ndarray) -> list[np.ndarray | None]:
        _, _, known = self._realisations(inputs)
        return [
            self._labels_of(int(number)) if good else None
            for number, good in zip(inputs[-1], known, strict=True)
        ]

    def _labels_of(self, number: int) -> np.ndarray:
        """Labels of a realisation, shape (n * subsamples,) * ndim int32."""
        labels = self._kernel_labels_of(number)
        return labels if self.microstructure.subsamples == 1 else labels % MOST_PHASES

    def _kind_of(self, number: int) -> int:
        """What the kernel calls a realisation."""
        if not self._looks:
            return self.microstructure.number
        if number not in self._kinds:
            found = are_inclusions(self._labels_of(number))
            self._kinds[number] = SAMPLES_OF_INCLUSIONS if found else SAMPLES
        return self._kinds[number]

    def _kernel_labels_of(self, number: int) -> np.ndarray:
        """The same as the kernel takes them.

        The first ones are kept: as all cells ask in turn, to keep the latest would be to keep none.
        """
        if number in self._kept:
            return self._kept[number].astype(np.int32)
        cell = self.microstructure
        labels = make_microstructure(
            self.labels(number), cell.resolution, self.nphase, subsamples=cell.subsamples, inclusions=False
        ).kernel_labels
        if self.nphase <= 256 and (len(self._kept) + 1) * labels.size <= MOST_KEPT:
            self._kept[number] = labels.astype(np.uint8)
        return labels
