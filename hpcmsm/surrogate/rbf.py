"""`RadialBasis`: a table of the samples, interpolated twice; where the two disagree it is unsure."""

from __future__ import annotations

import numpy as np
from scipy.linalg import inv, svd
from scipy.spatial import cKDTree

from hpcmsm.errors import SurrogateError
from hpcmsm.surrogate.learner import Learner, spread_out, squared_distances, weighted_sums

MOST_SAMPLES = 2000
# Power of the distance and degree of the polynomial beside it; each needs at least its predecessor's.
LINEAR, CUBIC, QUINTIC = (1, 0), (3, 1), (5, 2)


class RadialBasis(Learner):
    """Interpolation by sums of r^5 around the samples and a quadratic function.

    The score has two parts. One is the difference to the same with r^3 and a linear function: both meet
    every sample, and between and beyond them they part as far as the samples leave open what is there.
    Where they happen to cross, the other remains: the error that the interpolation would make at the
    nearest sample without it, times the square of the distance in gaps between samples there. Where the
    samples are too few for so many monomials, r^3 answers and r is compared with it.
    Source: Wendland, Scattered Data Approximation, Cambridge University Press 2005, chapter 8; errors
    without a sample: Rippa 1999, doi 10.1023/A:1018975909870.
    """

    def _learn(self, x: np.ndarray, z: np.ndarray) -> dict[str, np.ndarray]:
        chosen = spread_out(x, MOST_SAMPLES)
        points, z = x[chosen], z[chosen]
        many = len(points) >= 2 * monomials(points, QUINTIC[1]).shape[1]
        bases = np.array([QUINTIC, CUBIC] if many else [CUBIC, LINEAR])
        squared = squared_distances(points, points.T)
        weights, without = interpolant(bases[0], points, squared, z)
        other, _ = interpolant(bases[1], points, squared, z)
        np.fill_diagonal(squared, np.inf)
        return {
            "points": points,
            "bases": bases,
            "weights": weights,
            "other": other,
            "without": without,
            "gaps": np.sqrt(squared.min(axis=1)),
        }

    def _refresh(self) -> None:
        self._tree = cKDTree(self.arrays["points"])

    def _answer(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        squared = squared_distances(self.arrays["points"], x)
        answer, other = (
            weighted_sums(
                self.arrays[name], np.concatenate([radial(basis[0], squared), monomials(x.T, basis[1]).T])
            )
            for name, basis in zip(("weights", "other"), self.arrays["bases"], strict=True)
        )
        distance, near = self._tree.query(np.ascontiguousarray(x.T))
        ratio = distance / np.maximum(self.arrays["gaps"][near], np.finfo(float).tiny)
        return answer, np.hypot(answer - other, self.arrays["without"][near].T * (ratio * ratio))


def radial(power: int, squared: np.ndarray) -> np.ndarray:
    """r^power of an odd power, by products: they are rounded alike everywhere."""
    value = r = np.sqrt(squared)
    for _ in range(int(power) // 2):
        value = value * squared
    return value if power > 1 else r


def monomials(x: np.ndarray, degree: int) -> np.ndarray:
    """Monomials up to a degree of 0, 1 or 2 at points x (n, d), shape (n, nmonomial)."""
    columns = [np.ones(len(x))]
    if degree > 0:
        columns += list(x.T)
    if degree > 1:
        columns += [x[:, i] * x[:, j] for i in range(x.shape[1]) for j in range(i + 1)]
    return np.stack(columns, axis=1)


def interpolant(basis, points: np.ndarray, squared: np.ndarray, z: np.ndarray):
    """Radial functions and monomials that together meet z (n, p).

    Monomials that the points cannot tell apart, where an input never varied, share their weight.

    Returns:
        weights (n + nmonomial, p); at every point the error of the same without that point (n, p).
    """
    power, degree = basis
    tail = monomials(points, degree)
    left, size, right = svd(tail, full_matrices=False)
    left, size, right = (part[..., size > 1e-10 * size[0]] for part in (left, size, right.T))
    n, ntail = left.shape
    matrix = np.zeros((n + ntail, n + ntail))
    matrix[:n, :n] = radial(power, squared)
    matrix[:n, n:], matrix[n:, :n] = left, left.T
    try:
        inverse = inv(matrix)
    except np.linalg.LinAlgError:
        raise SurrogateError(
            f"samples of a radial basis table must differ in their inputs, got some of {n} that do not; "
            "leave repeated ones out"
        ) from None
    solution = inverse[:, :n] @ z
    solution += inverse @ (np.concatenate([z, np.zeros((ntail, z.shape[1]))]) - matrix @ solution)
    weights = np.concatenate([solution[:n], (right / size) @ solution[n:]])
    return weights, np.abs(solution[:n] / np.diag(inverse)[:n, None])
