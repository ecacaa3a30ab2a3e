"""`GaussianProcess`: exact regression, whose posterior deviation is the score."""

from __future__ import annotations

import numpy as np
from scipy.linalg import cho_solve, cholesky, solve_triangular
from scipy.optimize import minimize

from hpcmsm.errors import SurrogateError
from hpcmsm.kernels import Kernel
from hpcmsm.surrogate.learner import Learner, spread_out, squared_distances, weighted_sums

MOST_SAMPLES = 1500
# The likelihood is maximised on this many of them: its cost grows with the cube.
MOST_FOR_LIKELIHOOD = 300
GAUSSIAN, MATERN = 0, 1
# Natural logarithms of lengths (in standard deviations of an input) and of the noise's part of the variance.
LENGTHS, NOISES = (np.log(0.05), np.log(100.0)), (np.log(1e-10), np.log(1e-2))
START_LENGTH, START_NOISE = np.log(1.5), np.log(1e-7)
ITERATIONS = 40


class GaussianProcess(Learner):
    """One covariance, with a length for every input, shared by all encoded outputs.

    The Gaussian or the Matern covariance of order 5/2, whichever makes the samples likelier; lengths
    and noise maximise the marginal likelihood, in which the variance is eliminated.
    Source: Rasmussen, Williams, Gaussian Processes for Machine Learning, MIT Press 2006, equations 2.25,
    2.26, 4.17 and 5.8.
    """

    def __init__(self, inputs, outputs, comm, seed: int = 0, *, goal: float = 1e-4):
        super().__init__(inputs, outputs, comm, seed, goal=goal)
        self._square = Kernel.load("triangular", "triangular_square")

    def _learn(self, x: np.ndarray, z: np.ndarray) -> dict[str, np.ndarray]:
        chosen = spread_out(x, MOST_SAMPLES)
        x, z = x[chosen], z[chosen]
        few = spread_out(x, MOST_FOR_LIKELIHOOD)
        shape, parameters = self._likeliest(x[few], z[few])
        points = x / np.exp(parameters[:-1])
        covariance = correlation(shape, squared_distances(points, points.T))
        covariance[np.diag_indices(len(x))] += np.exp(parameters[-1])
        factor = cholesky(covariance, lower=True)
        weights = cho_solve((factor, True), z)
        variance = np.array([(z * weights).sum() / z.size])
        inverse = solve_triangular(factor, np.eye(len(x)), lower=True)
        return {
            "parameters": np.array([shape, *parameters]),
            "points": points,
            "weights": weights,
            "inverse": inverse,
            "variance": variance,
        }

    def _likeliest(self, x: np.ndarray, z: np.ndarray) -> tuple[int, np.ndarray]:
        start = np.array([START_LENGTH] * x.shape[1] + [START_NOISE])
        bounds = [LENGTHS] * x.shape[1] + [NOISES]
        found = []
        for shape in (GAUSSIAN, MATERN):
            result = minimize(
                minus_log_likelihood,
                start,
                (shape, x, z),
                jac=True,
                bounds=bounds,
                method="L-BFGS-B",
                options={"maxiter": ITERATIONS},
            )
            found.append((float(result.fun), shape, result.x))
        value, shape, parameters = min(found, key=lambda one: one[0])
        if not np.isfinite(value):
            raise SurrogateError(
                f"the likelihood of a Gaussian process must be finite, got {value}; "
                "check that the samples' inputs and outputs are of ordinary size"
            )
        return shape, parameters

    def _answer(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        shape, *parameters = self.arrays["parameters"]
        lengths, noise = np.exp(parameters[:-1]), np.exp(parameters[-1])
        near = correlation(shape, squared_distances(self.arrays["points"], x / lengths[:, None]))
        mean = weighted_sums(self.arrays["weights"], near)
        explained = np.empty(x.shape[1])
        inverse = self.arrays["inverse"]
        self._square(ncells=x.shape[1], nrow=len(inverse), lower=inverse, values=near, square=explained)
        left = np.maximum(1.0 + noise - explained, noise)
        return mean, np.sqrt(self.arrays["variance"] * left)[None]


def correlation(shape: float, squared: np.ndarray) -> np.ndarray:
    """Of points at squared distances, in lengths."""
    if shape == GAUSSIAN:
        return np.exp(-0.5 * squared)
    r = np.sqrt(5.0 * squared)
    return (1.0 + r + r * r / 3.0) * np.exp(-r)


def minus_log_likelihood(parameters: np.ndarray, shape: int, x: np.ndarray, z: np.ndarray):
    """A part of minus the logarithm of the marginal likelihood, and its gradient by the parameters.

    Per value: (ln s^2 + ln|K| / n) / 2 with the likeliest variance s^2 = sum z'K^-1 z / (n p).

    Args:
        parameters: logarithms of the lengths (d,) and of the noise.
        x, z: points (n, d) and values (n, p).
    """
    n, lengths, noise = len(x), np.exp(parameters[:-1]), np.exp(parameters[-1])
    points = x / lengths
    squared = squared_distances(points, points.T)
    covariance = correlation(shape, squared)
    covariance[np.diag_indices(n)] += noise
    try:
        factor = cholesky(covariance, lower=True)
    except np.linalg.LinAlgError:  # round-off ate the smallest eigenvalues: very unlikely parameters
        return 1e10, np.zeros_like(parameters)
    weights = cho_solve((factor, True), z)
    inverse = cho_solve((factor, True), np.eye(n))
    variance = max((z * weights).sum() / z.size, np.finfo(float).tiny)
    value = 0.5 * np.log(variance) + np.log(np.diag(factor)).sum() / n
    # d value / d K = inner / (2 n)
    inner = inverse - weights @ weights.T / (variance * z.shape[1])
    slope = inner * minus_slope(shape, squared)
    gradient = [(slope * (column[:, None] - column) ** 2).sum() for column in points.T]
    return value, np.array([*gradient, np.trace(inner) * noise]) / (2.0 * n)


def minus_slope(shape: int, squared: np.ndarray) -> np.ndarray:
    """-2 d correlation / d squared: its derivative by ln(length i) is this times (x_i - y_i)^2."""
    if shape == GAUSSIAN:
        return np.exp(-0.5 * squared)
    r = np.sqrt(5.0 * squared)
    return 5.0 / 3.0 * (1.0 + r) * np.exp(-r)
