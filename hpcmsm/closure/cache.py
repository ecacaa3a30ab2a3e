"""`Cache`: a cell is solved anew only when its inputs have moved; what every cleverer closure must beat."""

from __future__ import annotations

import numpy as np

from hpcmsm.batch import MICRO, SIMILAR, Answer, Batch
from hpcmsm.closure.base import Closure
from hpcmsm.errors import ConfigError
from hpcmsm.fields import ncomponent, rows_of


class Cache(Closure):
    """Give a cell its last true answer again while no input is farther than the tolerance from then.

    Nothing watches the error, and no cell learns from another. A restart begins with an empty cache.

    Args:
        inner: closure that gives true answers, of a micro model without state.
        tolerance: largest change of an input, as a part of its declared range where that is finite,
            else of its size.
    Raises:
        ConfigError: the tolerance is negative, or the micro model has a state.
    """

    def __init__(self, inner: Closure, tolerance: float):
        if not tolerance >= 0.0:
            raise ConfigError(f"tolerance of a cache must not be negative, got {tolerance}; try 1e-3")
        if inner.micro_state:
            raise ConfigError(
                f"a cache must wrap a closure without micro state, got '{inner.micro_state[0].name}'; "
                "a state must be advanced in every step"
            )
        self.inner, self.tolerance = inner, tolerance
        self.inputs, self.outputs, self.micro_state = inner.inputs, inner.outputs, inner.micro_state
        self.ids = np.zeros(0, dtype=np.int64)
        self.known_inputs = np.zeros((ncomponent(self.inputs), 0))
        self.known_outputs = np.zeros((ncomponent(self.outputs), 0))
        self.step_reused, self.reused = 0, 0

    def evaluate(self, batch: Batch) -> Answer:
        """Collective. Answer every cell, from memory where its inputs have hardly moved."""
        place, known = self._find(batch.ids)
        moved = np.abs(batch.inputs[:, known] - self.known_inputs[:, place[known]])
        still = known.copy()
        still[known] = (moved <= self._largest_moves(self.known_inputs[:, place[known]])).all(axis=0)
        asked = np.flatnonzero(~still)
        truth = self.inner.evaluate(batch.take(asked))
        outputs = np.empty((len(self.known_outputs), batch.ncells))
        outputs[:, still], outputs[:, asked] = self.known_outputs[:, place[still]], truth.outputs
        self._remember(batch.ids[asked], batch.inputs[:, asked], truth.outputs)
        source = np.full(batch.ncells, SIMILAR, dtype=np.int8)
        cost, residual = np.zeros(batch.ncells), np.zeros(batch.ncells)
        source[asked], cost[asked], residual[asked] = MICRO, truth.cost, truth.residual
        self.step_reused += int(still.sum())
        status = np.zeros(batch.ncells, dtype=np.int32)
        return Answer(outputs, batch.state.copy(), status, source, cost, residual)

    def _find(self, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Places of cells in the memory, and whether they are there at all."""
        place = np.searchsorted(self.ids, ids)
        place[place == self.ids.size] = 0
        known = self.ids[place] == ids if self.ids.size else np.zeros(ids.size, dtype=bool)
        return place, known

    def _largest_moves(self, inputs: np.ndarray) -> np.ndarray:
        scale = np.abs(inputs)
        for field, row in zip(self.inputs, rows_of(self.inputs).values(), strict=True):
            if np.isfinite(field.upper - field.lower):
                scale[row] = field.upper - field.lower
        return self.tolerance * scale

    def _remember(self, ids: np.ndarray, inputs: np.ndarray, outputs: np.ndarray) -> None:
        """Take in what was just answered, in the order of the ids."""
        kept = ~np.isin(self.ids, ids)
        order = np.argsort(np.concatenate([self.ids[kept], ids]), kind="stable")
        self.ids = np.concatenate([self.ids[kept], ids])[order]
        self.known_inputs = np.concatenate([self.known_inputs[:, kept], inputs], axis=1)[:, order]
        self.known_outputs = np.concatenate([self.known_outputs[:, kept], outputs], axis=1)[:, order]

    def finish_step(self, step: int) -> dict[str, float]:
        """Collective. Count the step; a reused answer counts as accepted."""
        figures = self.inner.finish_step(step)
        reused = self.inner.comm.allreduce(self.step_reused)
        self.step_reused = 0
        self.reused += reused
        return {**figures, "calls": figures["calls"] + reused, "accepted": reused}

    def totals(self) -> dict[str, object]:
        """Figures of the whole run for the summary."""
        totals = self.inner.totals()
        calls = totals["closure"]["calls"] + self.reused
        share = self.reused / calls if calls else 0.0
        counts = {"calls": calls, "accepted": self.reused, "accepted_fraction": share}
        return {**totals, "closure": {**totals["closure"], **counts}}

    def state(self) -> dict[str, np.ndarray]:
        """That of the closure inside."""
        return self.inner.state()

    def load_state(self, state: dict[str, np.ndarray]) -> None:
        """Take over what `state` gave."""
        self.inner.load_state(state)
