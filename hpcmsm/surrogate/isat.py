"""`Isat`: in situ adaptive tabulation, linear answers inside ellipsoids where they were found accurate."""

from __future__ import annotations

import numpy as np

from hpcmsm.surrogate.learner import CHUNK, Learner, nearest

# Error of a linear answer that is tolerated, in goals.
TOLERATED = 5.0
# Records whose ellipsoids are tried for a cell, the nearest first.
TRIED = 8
# Half-axes of an ellipsoid, in standard deviations of an input, stay between these.
SHORTEST, LONGEST = 1e-4, 0.5
# Size of the ellipsoid in which neighbours lay, in root mean squares of their distances.
REACH = 2.0
# Samples that a gradient is fitted to, for each unknown of the fit.
SAMPLES_PER_UNKNOWN = 2


class Isat(Learner):
    """A table of records: a point, its answer, the gradient there, and an ellipsoid of accuracy.

    Inside the ellipsoid of a near record its linear answer is given, with a score that grows as the
    square of the distance; outside all of them the score is infinite, so that the micro model is asked.
    A sample that a record answers within the tolerance makes that record's ellipsoid grow to it; any
    other becomes a record. Gradients are fitted to the nearest samples: micro models give none. The
    table is built anew of the samples in their order, so nothing is left of wrong early gradients.
    Source: Pope 1997, doi 10.1080/713665229.
    """

    @property
    def tolerance(self) -> float:
        """Error of a linear answer that is tolerated."""
        return TOLERATED * self.goal

    def _learn(self, x: np.ndarray, z: np.ndarray) -> dict[str, np.ndarray]:
        scale = self._scalings["output_scaling"][1] / self._size_of_rows()
        gradients, curvatures, reach = fitted_derivatives(x, z)
        # The sum lies within both: a gradient is not known across directions in which no neighbour lay.
        ellipsoids = first_ellipsoids(gradients, curvatures, scale, self.tolerance) + reach
        table = _Table(x, z * scale, gradients * scale[:, None], ellipsoids, self.tolerance)
        for sample in range(len(x)):
            table.offer(sample)
        records = np.array(table.records)
        return {
            "points": x[records],
            "values": z[records],
            "gradients": gradients[records],
            "ellipsoids": np.array(table.ellipsoids),
            "used": np.array([self.tolerance]),
        }

    def _size_of_rows(self) -> np.ndarray:
        """What an encoded output is divided by to be a part of its field's size, (noutput,)."""
        scales = self._scalings["field_scales"]
        return np.concatenate([np.full(f.size, s) for f, s in zip(self.outputs, scales, strict=True)])

    def _answer(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        points, ellipsoids = self.arrays["points"], self.arrays["ellipsoids"]
        tried = nearest(points, np.ascontiguousarray(x.T), TRIED)
        square = np.stack([quadratic(ellipsoids[k], x - points[k].T) for k in tried.T])
        # The nearest record whose ellipsoid holds the cell, else the one that comes closest to holding it.
        best = np.where((square <= 1.0).any(axis=0), (square <= 1.0).argmax(axis=0), square.argmin(axis=0))
        cell = np.arange(CHUNK)
        record, square = tried[cell, best], square[best, cell]
        apart = x - points[record].T
        mean = self.arrays["values"][record].T.copy()
        for i, row in enumerate(apart):
            mean += self.arrays["gradients"][record, :, i].T * row
        error = np.where(square <= 1.0, self.arrays["used"][0] * square, np.inf)
        # One number for all outputs: their deviations add as squares to this error.
        width = self._scalings["output_scaling"][1] / self._size_of_rows()
        return mean, error / (width[:, None] * np.sqrt(self.noutput))


class _Table:
    """The table while it is built: values z (n, p) and gradients (n, p, d) in parts of the fields' sizes."""

    def __init__(self, x, z, gradients, first_ellipsoids, tolerance: float):
        self.x, self.z, self.gradients, self.tolerance = x, z, gradients, tolerance
        self.first_ellipsoids = first_ellipsoids
        self.records: list[int] = []
        self.ellipsoids: list[np.ndarray] = []
        self._points = np.empty_like(x)

    def offer(self, sample: int) -> None:
        """Retrieve, grow or add."""
        count = len(self.records)
        apart = self.x[sample] - self._points[:count]
        order = np.argsort((apart * apart).sum(axis=1), kind="stable")[:TRIED]
        for k in order:
            record, step = self.records[k], apart[k]
            guess = self.z[record] + self.gradients[record] @ step
            accurate = np.linalg.norm(guess - self.z[sample]) <= self.tolerance
            if step @ self.ellipsoids[k] @ step <= 1.0:
                if accurate:
                    return
                self.ellipsoids[k] = shrunk(self.ellipsoids[k], step)
            elif accurate and np.linalg.norm(step) <= LONGEST:
                self.ellipsoids[k] = grown(self.ellipsoids[k], step)
                return
        self._points[count] = self.x[sample]
        self.records.append(sample)
        self.ellipsoids.append(self.first_ellipsoids[sample])


def first_ellipsoids(gradients, curvatures, scale: np.ndarray, tolerance: float) -> np.ndarray:
    """Matrices E (n, d, d), dx'E dx <= 1: where an error is expected that is half the tolerance.

    With curvatures it is that of the linear answer, dx'H dx / 2, else that of a constant one.

    Args:
        gradients, curvatures: (n, p, d) and (n, p, d, d), or None for the latter.
        scale: what makes encoded outputs parts of their fields' sizes, (p,).
    """
    if curvatures is None:
        slopes = gradients * scale[:, None] / tolerance
        squares = np.einsum("npi,npj->nij", slopes, slopes)
    else:
        bends = curvatures * scale[:, None, None] / tolerance
        squares = np.einsum("npik,npkj->nij", bends, bends)
    values, vectors = np.linalg.eigh(squares)
    if curvatures is not None:
        values = np.sqrt(np.maximum(values, 0.0))  # of the mean |H| of the outputs
    values = np.clip(values, 1.0 / LONGEST**2, 1.0 / SHORTEST**2)
    return (vectors * values[:, None, :]) @ vectors.transpose(0, 2, 1)


def grown(ellipsoid: np.ndarray, step: np.ndarray) -> np.ndarray:
    """The smallest ellipsoid of the same centre that holds the old one and the point at step.

    In coordinates in which the old one is a ball it is stretched towards the point alone.
    """
    square = step @ ellipsoid @ step
    towards = ellipsoid @ step
    return ellipsoid - np.outer(towards, towards) * (1.0 - 1.0 / square) / square


def shrunk(ellipsoid: np.ndarray, step: np.ndarray) -> np.ndarray:
    """The largest ellipsoid of the same shape that ends before the point at step."""
    return ellipsoid / max(0.99 * (step @ ellipsoid @ step), 1e-8)  # of a repeated sample it keeps a little


def quadratic(matrices: np.ndarray, apart: np.ndarray) -> np.ndarray:
    """dx'E dx for matrices (m, d, d) and apart (d, m), added up term by term."""
    total = np.zeros(apart.shape[1])
    for i, one in enumerate(apart):
        for j, other in enumerate(apart):
            total += matrices[:, i, j] * one * other
    return total


def fitted_derivatives(x: np.ndarray, z: np.ndarray):
    """Derivatives at every sample of a polynomial through it that is fitted to its neighbours.

    Returns:
        gradients (n, p, d); second derivatives (n, p, d, d), None where samples suffice for linear fits
        only; matrices (n, d, d) of the ellipsoids in which the neighbours lay.
    """
    n, d = x.shape
    pairs = [(i, j) for i in range(d) for j in range(i + 1)]
    quadratic_fit = n > SAMPLES_PER_UNKNOWN * (d + len(pairs))
    unknowns = d + len(pairs) if quadratic_fit else d
    neighbours = nearest(x, x, SAMPLES_PER_UNKNOWN * unknowns + 1)
    solutions, reach = np.empty((n, unknowns, z.shape[1])), np.empty((n, d, d))
    for sample, others in enumerate(neighbours):
        apart = x[others] - x[sample]
        size = max(np.sqrt((apart * apart).sum(axis=1).max()), np.finfo(float).tiny)
        terms = np.concatenate(
            [apart / size, *[apart[:, [i]] * apart[:, [j]] / size**2 for i, j in pairs]], axis=1
        )
        terms = terms[:, :unknowns]
        solution = np.linalg.lstsq(terms, z[others] - z[sample], rcond=1e-8)[0]
        solution[:d] /= size
        solution[d:] /= size**2
        solutions[sample] = solution
        spread = REACH**2 * apart.T @ apart / len(others)
        reach[sample] = np.linalg.inv(spread + SHORTEST**2 * np.eye(d))
    gradients = np.ascontiguousarray(solutions[:, :d].transpose(0, 2, 1))
    if not quadratic_fit:
        return gradients, None, reach
    curvatures = np.empty((n, z.shape[1], d, d))
    for (i, j), coefficient in zip(pairs, solutions[:, d:].transpose(1, 0, 2), strict=True):
        curvatures[:, :, i, j] = curvatures[:, :, j, i] = coefficient * (2.0 if i == j else 1.0)
    return gradients, curvatures, reach
