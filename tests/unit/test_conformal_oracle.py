"""The bound of the gate against MAPIE, a conformal library that shares no line with it."""

import numpy as np
import pytest
from mapie.conformity_scores import ResidualNormalisedScore
from mapie.regression import SplitConformalRegressor
from sklearn.base import BaseEstimator, RegressorMixin

from hpcmsm.closure.calibration import Calibration, weighted_quantile
from hpcmsm.surrogate.base import Samples
from tests.gate_harness import TellTale

LEVELS = (0.5, 0.75, 0.9, 0.95, 0.99)


class Known(RegressorMixin, BaseEstimator):
    """A "fitted" regressor that says what a function of the inputs says."""

    def __init__(self, function=None):
        self.function = function
        self.is_fitted = True

    def fit(self, X, y):
        return self

    def predict(self, X):
        return self.function(np.asarray(X))


def zero(x):
    return np.zeros(len(x))


def half_width(regressor, x, y, new):
    """Upper end of MAPIE's interval around zero for new points."""
    regressor.conformalize(x, y)
    return regressor.predict_interval(new)[1][:, 1, 0]


@pytest.mark.parametrize("level", LEVELS)
def test_quantile_is_that_of_split_conformal_prediction(level):
    random = np.random.default_rng(int(100 * level))
    for n in (101, 128, 257, 1000):
        errors = random.lognormal(0, 1, n)
        mapie = SplitConformalRegressor(Known(zero), confidence_level=level, prefit=True)
        expected = half_width(mapie, np.arange(n)[:, None], errors, np.zeros((1, 1)))[0]
        assert weighted_quantile(errors, np.full(n, 2.5), level) == expected, n


@pytest.mark.parametrize("level", [0.6, 0.9, 0.99])
def test_bound_is_a_normalised_conformal_interval(level):
    """Errors over what is expected of them: MAPIE with the gate's score as its estimate of residuals."""
    random = np.random.default_rng(5)
    n = 500
    score = random.lognormal(-5, 0.7, n)
    error = score * random.lognormal(0, 0.5, n)
    zeros = np.zeros(n, dtype=np.int64)
    inputs = np.array([np.zeros(n), error, score])
    samples = Samples(zeros, zeros, np.arange(n), inputs, np.ones((1, n)), np.ones(n))
    calibration = Calibration(3, 1, level)
    calibration.add(samples, TellTale())
    floor = np.sort(calibration.errors)[250]  # the 251st of 500: with the cell to be judged, the median
    estimate = Known(lambda x: np.hypot(x[:, 0], floor))
    mapie = SplitConformalRegressor(
        Known(zero),
        confidence_level=level,
        conformity_score=ResidualNormalisedScore(estimate, prefit=True),
        prefit=True,
    )
    new = np.geomspace(1e-6, 1.0, 20)
    expected = half_width(mapie, score[:, None], calibration.errors, new[:, None])
    np.testing.assert_allclose(calibration.bound(new), expected, rtol=1e-12)
    assert calibration.bound(new)[0] < expected[-1] * 1e-2, "the bound must depend on the score"
