"""`Verdict`: what the gate decided in a step."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Verdict:
    """What the gate decided for the cells of a rank, shape (n,) each.

    Args:
        candidate: nothing but the size of the score stands against the surrogate; bool.
        accepted: the surrogate's answer is good enough; bool.
        audited: accepted, and evaluated truly all the same; bool.
        bound: what the error of the surrogate's answer stays below; infinity before there is one.
        allowed: what the bound might be at most.
    """

    candidate: np.ndarray
    accepted: np.ndarray
    audited: np.ndarray
    bound: np.ndarray
    allowed: np.ndarray

    @property
    def asked(self) -> np.ndarray:
        """Cells that the micro model must answer."""
        return ~self.accepted | self.audited

    @property
    def decisions(self) -> np.ndarray:
        """Per cell, int8: 0 fell back, 1 accepted, 2 audited."""
        return self.accepted.astype(np.int8) + self.audited

    @property
    def counts(self) -> dict[str, int]:
        """Numbers of cells for the ledger."""
        audited = int(self.audited.sum())
        accepted, ncells = int(self.accepted.sum()) - audited, self.accepted.size
        fallback = ncells - accepted - audited
        return {"calls": ncells, "accepted": accepted, "audited": audited, "fallback": fallback}


def nobody(ncells: int) -> Verdict:
    """All cells fall back, as before the first training."""
    none = np.zeros(ncells, dtype=bool)
    return Verdict(~none, none, none, np.full(ncells, np.inf), np.zeros(ncells))
