"""`Predictor`: the surrogate as the gate sees it."""

from __future__ import annotations

import numpy as np

from hpcmsm.closure.conserved import project
from hpcmsm.closure.tolerance import Tolerance
from hpcmsm.micro.base import MicroModel
from hpcmsm.surrogate.base import Surrogate


class Predictor:
    """Predictions that keep the sums which the micro model keeps; errors in the norm of the tolerance.

    Args:
        surrogate: what predicts.
        micro: declares the sums.
        tolerance: gives the norm.
    """

    def __init__(self, surrogate: Surrogate, micro: MicroModel, tolerance: Tolerance):
        self.surrogate, self.micro, self.tolerance = surrogate, micro, tolerance

    @property
    def version(self) -> int:
        """That of the surrogate, 0 before the first training."""
        return self.surrogate.version

    def predict(self, inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Answers (noutput, n) and scores (n,) for inputs (ninput, n), row by row."""
        predicted, score = self.surrogate.predict(inputs)
        declared = self.micro.conserved(inputs)
        if declared is not None:
            predicted = project(predicted, *declared)
        return predicted, self.tolerance.score(score)

    def misfit(self, predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
        """Errors of answers (n,) as they are calibrated."""
        return self.tolerance.error(self.surrogate, predicted, truth)

    def told(self, predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
        """Errors of answers (n,), to be compared with `tolerance.limit`."""
        return self.tolerance.told(self.surrogate, predicted, truth)
