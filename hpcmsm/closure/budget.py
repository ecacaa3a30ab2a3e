"""`Budget`: an error that a goal of the macro field may have, shared out over the cells.

Each cell costs what its error bound may change the goal by. Cells are accepted from the cheapest up, as long
as all costs together stay within the tolerance: below one threshold, the same for all ranks.
"""

from __future__ import annotations

import numpy as np

from hpcmsm.parallel import ExactSum

# Halvings of the range of thresholds, from 2^-50 of the tolerance (whose sum counts as nothing) to all of it.
SMALLEST, HALVINGS = -50.0, 30
# First order in the error is meant: beyond this relative error nothing is accepted, whatever it costs.
LARGEST_ERROR = 0.2
# Weights are rounded up to powers of 2^(1/16): an adjoint solved on other ranks differs in its last digits,
# and decisions must not.
ROUNDING, SLACK = 16.0, 1e-6
COSTS = ExactSum()


class Budget:
    """What the accepted cells of a step may cost together.

    Args:
        tolerance: largest change of the goal, in its unit.
        comm: the ranks that share it.

    Attributes:
        spent: part of the tolerance that the accepted cells of the last step may have cost.
    """

    def __init__(self, tolerance: float, comm):
        self.tolerance, self.comm, self.spent = tolerance, comm, 0.0

    def allowed(self, weights: np.ndarray, bound: np.ndarray, candidate: np.ndarray) -> np.ndarray:
        """Collective. The largest error bound that is accepted in each cell, shape (n,).

        Args:
            weights: change of the goal by a relative error of one in this cell, shape (n,).
            bound: what the relative error stays below, shape (n,).
            candidate: cells that may be accepted at all, shape (n,) bool.
        """
        with np.errstate(invalid="ignore", divide="ignore"):
            weights = np.exp2(np.ceil(np.log2(weights) * ROUNDING - SLACK) / ROUNDING)
            cost = weights * bound / self.tolerance
            able = candidate & (bound <= LARGEST_ERROR) & (cost <= 1.0)
            threshold = self._threshold(cost[able])
            return np.minimum(threshold * self.tolerance / weights, LARGEST_ERROR)

    def _threshold(self, cost: np.ndarray) -> float:
        """Largest cost of a cell up to which all cells together cost one at most, by bisection."""
        self.spent = self._sum(cost, 1.0)
        if self.spent <= 1.0:
            return 1.0
        low, high = SMALLEST, 0.0
        for _ in range(HALVINGS):
            middle = (low + high) / 2.0
            spent = self._sum(cost, 2.0**middle)
            if spent <= 1.0:
                low, self.spent = middle, spent
            else:
                high = middle
        return 2.0**low

    def _sum(self, cost: np.ndarray, limit: float) -> float:
        return COSTS.value(self.comm.allreduce(COSTS.local(cost[cost <= limit])))
