"""Independent answers that tests and benchmarks compare with: nothing here calls the package."""

from __future__ import annotations

from math import comb, factorial, pi, sqrt

import numpy as np
import scipy.fft
import scipy.sparse
import scipy.sparse.linalg

# ------------------------------------------------------------------------ bounds and exact values


def wiener(fractions, phases) -> tuple[float, float]:
    """Harmonic and arithmetic mean: bounds of every composite, reached by laminates."""
    fractions, phases = np.asarray(fractions), np.asarray(phases)
    return 1.0 / np.sum(fractions / phases), np.sum(fractions * phases)


def hashin_shtrikman_2d(fraction: float, matrix: float, inclusion: float) -> tuple[float, float]:
    """Bounds of an isotropic (or square-symmetric) two-phase composite in 2D.

    Source: Hashin 1970, in: Mechanics of composite materials, Pergamon.
    """

    def coated(core, shell, share):
        return shell + share / (1.0 / (core - shell) + (1.0 - share) / (2.0 * shell))

    ends = coated(inclusion, matrix, fraction), coated(matrix, inclusion, 1.0 - fraction)
    return min(ends), max(ends)


def hashin_shtrikman_3d(fraction: float, matrix: float, inclusion: float) -> tuple[float, float]:
    """Bounds of an isotropic (or cubic) two-phase composite in 3D.

    Source: Hashin and Shtrikman 1962, doi 10.1063/1.1728579.
    """

    def coated(core, shell, share):
        return shell + share / (1.0 / (core - shell) + (1.0 - share) / (3.0 * shell))

    ends = coated(inclusion, matrix, fraction), coated(matrix, inclusion, 1.0 - fraction)
    return min(ends), max(ends)


def lattice_sum(power: int) -> float:
    """Sum of z^-power over the unit square lattice without 0; conditionally pi for power 2."""
    if power == 2:
        return pi
    if power % 4:
        return 0.0
    q = np.exp(-2 * pi)
    zeta = sum(k**-power for k in range(1, 2000))
    divisors = [sum(d ** (power - 1) for d in range(1, k + 1) if k % d == 0) for k in range(1, 40)]
    series = sum(sigma * q ** (k + 1) for k, sigma in enumerate(divisors))
    return float(2 * zeta + 2 * (2 * pi) ** power / factorial(power - 1) * series)


def square_array(fraction: float, contrast: float, nterm: int = 30) -> float:
    """Conductivity of a square array of cylinders in a matrix of conductivity 1.

    Source: Rayleigh's method as in Perrins, McKenzie and McPhedran 1979, doi 10.1098/rspa.1979.0160.
    """
    a, t = sqrt(fraction / pi), (contrast + 1.0) / (contrast - 1.0)
    orders = range(1, 2 * nterm, 2)
    sums = {power: lattice_sum(power) for power in range(2, 4 * nterm, 2)}
    matrix = [
        [(t if m == n else 0.0) - comb(m + n - 1, m) * sums[m + n] * a ** (m + n) for n in orders]
        for m in orders
    ]
    x = np.linalg.solve(np.array(matrix, float), np.array([a] + [0.0] * (nterm - 1)))
    return 1.0 + 2.0 * pi * a * x[0]


# ---------------------------------------------------------- finite volumes on the points of a cell


def image_faces(labels: np.ndarray, phases: np.ndarray) -> tuple[np.ndarray, ...]:
    """Harmonic faces to the right of, above (and in front of) each point.

    Args:
        labels: phase of each point [y, x] or [z, y, x].
        phases: conductivities, shape (nphase,) or (nphase, ncells).
    Returns:
        kx, ky (, kz) of the shape of labels, or (ncells, ...).
    """
    k = np.moveaxis(phases[labels], -1, 0) if phases.ndim == 2 else phases[labels]
    return tuple(2.0 / (1.0 / k + 1.0 / np.roll(k, -1, -1 - axis)) for axis in range(labels.ndim))


def cylinder_faces(fraction: float, contrast: float, n: int, strips: int = 16):
    """Faces of a centred cylinder from sub-samples: strips along a link, or slices across it.

    A cylinder that conducts better: harmonic along each strip, arithmetic across the strips. One that
    conducts worse: arithmetic across each slice, harmonic along the slices.
    """
    size, fine = 1.0 / n, (np.arange(n * strips) + 0.5) / (n * strips)

    def shares(low, position):
        """Of the intervals low .. low + size inside the circle at the positions [n, strips, 1]."""
        position = position.reshape(n, strips, 1) % 1.0
        reach = np.sqrt(np.maximum(fraction / pi - (position - 0.5) ** 2, 0.0))
        inside = 0.0
        for centre in (0.5, 1.5):
            first, last = np.maximum(low, centre - reach), np.minimum(low + size, centre + reach)
            inside = inside + np.maximum(last - first, 0.0) / size
        return inside

    corners = np.arange(n) * size
    if contrast >= 1.0:
        inside = shares(corners + 0.5 * size, fine)  # [y, strip, x]
        kx = np.mean(1.0 / (inside / contrast + 1.0 - inside), axis=1)
    else:
        inside = shares(corners, fine + 0.5 * size)  # [x, slice, y]
        kx = 1.0 / np.mean(1.0 / (inside * contrast + 1.0 - inside), axis=1).T
    return np.ascontiguousarray(kx), np.ascontiguousarray(kx.T)


def pairs(ndim: int) -> list[tuple[int, int]]:
    """Components of a symmetric tensor in the order in which it is stored."""
    return [(0, 0), (1, 1), (0, 1)] if ndim == 2 else [(0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1)]


def sparse_solution(*faces: np.ndarray) -> np.ndarray:
    """chi of one cell by a direct solve, shape (ndim, *points); it is 0 at the first point."""
    shape, ndim = faces[0].shape, len(faces)
    points = np.arange(faces[0].size).reshape(shape)
    rows, columns, values = [], [], []
    for axis, k in enumerate(faces):
        one, other = points, np.roll(points, -1, -1 - axis)
        for i, j, sign in ((one, one, 1), (other, other, 1), (one, other, -1), (other, one, -1)):
            rows.append(i.ravel()), columns.append(j.ravel()), values.append(sign * k.ravel())
    matrix = scipy.sparse.coo_matrix(
        (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns)))
    ).tocsc()
    loads = np.stack([(k - np.roll(k, 1, -1 - axis)).ravel() for axis, k in enumerate(faces)], axis=1)
    chi = np.zeros((points.size, ndim))
    chi[1:] = scipy.sparse.linalg.splu(matrix[1:, 1:]).solve(loads[1:])
    return chi.T.reshape(ndim, *shape)


def sparse_conductivity(*faces: np.ndarray) -> np.ndarray:
    """K by component of one cell, from its fluxes (not from the energy)."""
    chi = sparse_solution(*faces)
    return np.array(
        [np.mean(faces[i] * ((i == j) + np.roll(chi[j], -1, -1 - i) - chi[j])) for i, j in pairs(len(faces))]
    )


def fft_pcg(faces: tuple[np.ndarray, ...], tolerance: float, most: int = 1000, start=None, jacobi=False):
    """K of a batch of cells by conjugate gradients, preconditioned by the Laplacian through FFTs.

    This is what a careful NumPy user would write: batched, load after load.

    Args:
        faces: kx, ky (, kz), each of shape (ncells, n, n) or (ncells, n, n, n).
        tolerance: of the residual's 2-norm, relative to the right-hand side.
        start: correctors of each load to begin with, of the shape of the faces; None: zero.
        jacobi: take the diagonal as preconditioner instead.
    Returns:
        K (ncomponent, ncells) from the energy, iterations (ncells,) of the slowest load.
    """
    n, ndim = faces[0].shape[-1], len(faces)
    axes = tuple(range(1, ndim + 1))
    inverse = _inverse_laplacian(n, ndim)

    def operator(u):
        total = 0.0
        for axis, k in enumerate(faces):
            flux = k * (np.roll(u, -1, -1 - axis) - u)
            total = total + np.roll(flux, 1, -1 - axis) - flux
        return total

    diagonal = sum(k + np.roll(k, 1, -1 - axis) for axis, k in enumerate(faces))

    def precondition(r):
        if jacobi:
            return r / diagonal
        return scipy.fft.irfftn(scipy.fft.rfftn(r, axes=axes) * inverse, s=(n,) * ndim, axes=axes)

    def dot(a, b):
        return np.einsum("ci,ci->c", a.reshape(len(a), -1), b.reshape(len(b), -1))

    loads = [k - np.roll(k, 1, -1 - axis) for axis, k in enumerate(faces)]
    solutions, steps = [], np.zeros(len(faces[0]), int)
    for number, b in enumerate(loads):
        x = np.zeros_like(b) if start is None else start[number].copy()
        r = b.copy() if start is None else b - operator(x)
        p = z = precondition(r)
        rz, target = dot(r, z), tolerance**2 * dot(b, b) + 1e-300
        for step in range(1, most + 1):
            active = dot(r, r) > target
            if not active.any():
                break
            q = operator(p)
            alpha = np.where(active, rz / np.where(active, dot(p, q), 1.0), 0.0)
            x, r = x + _per_cell(alpha, p) * p, r - _per_cell(alpha, q) * q
            z = precondition(r)
            before, rz = rz, dot(r, z)
            p = z + _per_cell(np.where(active, rz / np.where(active, before, 1.0), 0.0), p) * p
            steps = np.where(active, np.maximum(steps, step), steps)
        solutions.append((x, r))
    k = [
        (i == j) * np.mean(faces[i], axes)
        - (dot(loads[i], solutions[j][0]) + dot(solutions[i][1], solutions[j][0])) / n**ndim
        for i, j in pairs(ndim)
    ]
    return np.stack(k), steps


def _inverse_laplacian(n: int, ndim: int) -> np.ndarray:
    """Of the 5 (7) point Laplacian, at the frequencies of rfftn; 0 for the mean."""
    wave = 2.0 - 2.0 * np.cos(2 * pi * np.arange(n) / n)
    symbol = sum(np.meshgrid(*[wave] * (ndim - 1), wave[: n // 2 + 1], indexing="ij"))
    symbol.flat[0] = 1.0
    inverse = 1.0 / symbol
    inverse.flat[0] = 0.0
    return inverse


def _per_cell(values, like):
    return values.reshape(-1, *[1] * (like.ndim - 1))
