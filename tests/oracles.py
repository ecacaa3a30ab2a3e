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


def image_faces(labels: np.ndarray, phases: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Harmonic faces to the right of and above each point.

    Args:
        labels: phase of each point [y, x], shape (n, n).
        phases: conductivities, shape (nphase,) or (nphase, ncells).
    Returns:
        kx, ky of shape (n, n) or (ncells, n, n).
    """
    k = np.moveaxis(phases[labels], -1, 0) if phases.ndim == 2 else phases[labels]
    return tuple(2.0 / (1.0 / k + 1.0 / np.roll(k, -1, axis)) for axis in (-1, -2))


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


def sparse_conductivity(kx: np.ndarray, ky: np.ndarray) -> np.ndarray:
    """K (xx, yy, xy) of one cell by a direct solve, from its fluxes (not from the energy)."""
    n = kx.shape[0]
    points = np.arange(n * n).reshape(n, n)
    ends = [(points, np.roll(points, -1, 1), kx), (points, np.roll(points, -1, 0), ky)]
    rows, columns, values = [], [], []
    for one, other, k in ends:
        for i, j, sign in ((one, one, 1), (other, other, 1), (one, other, -1), (other, one, -1)):
            rows.append(i.ravel()), columns.append(j.ravel()), values.append(sign * k.ravel())
    matrix = scipy.sparse.coo_matrix(
        (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns)))
    ).tocsc()
    loads = np.stack([(kx - np.roll(kx, 1, 1)).ravel(), (ky - np.roll(ky, 1, 0)).ravel()], axis=1)
    chi = np.zeros((n * n, 2))
    chi[1:] = scipy.sparse.linalg.splu(matrix[1:, 1:]).solve(loads[1:])  # chi of the first point is 0
    x, y = chi.T.reshape(2, n, n)
    xx = np.mean(kx * (1 + np.roll(x, -1, 1) - x))
    yy = np.mean(ky * (1 + np.roll(y, -1, 0) - y))
    xy = np.mean(kx * (np.roll(y, -1, 1) - y))
    return np.array([xx, yy, xy])


def fft_pcg(kx: np.ndarray, ky: np.ndarray, tolerance: float, most: int = 1000):
    """K of a batch of cells by conjugate gradients, preconditioned by the Laplacian through FFTs.

    This is what a careful NumPy user would write: batched, both loads.

    Args:
        kx, ky: faces, shape (ncells, n, n).
        tolerance: of the residual's 2-norm, relative to the right-hand side.
    Returns:
        K (3, ncells) from the energy, iterations (ncells,) of the slower load.
    """
    n = kx.shape[-1]
    wave = 2.0 - 2.0 * np.cos(2 * pi * np.arange(n) / n)
    symbol = wave[:, None] + wave[None, : n // 2 + 1]
    symbol[0, 0] = 1.0
    inverse = 1.0 / symbol
    inverse[0, 0] = 0.0

    def operator(u):
        across, up = kx * (np.roll(u, -1, -1) - u), ky * (np.roll(u, -1, -2) - u)
        return np.roll(across, 1, -1) - across + np.roll(up, 1, -2) - up

    def precondition(r):
        return scipy.fft.irfft2(scipy.fft.rfft2(r) * inverse, s=(n, n))

    def dot(a, b):
        return np.einsum("cij,cij->c", a, b)

    loads = (kx - np.roll(kx, 1, -1), ky - np.roll(ky, 1, -2))
    solutions, steps = [], np.zeros(len(kx), int)
    for b in loads:
        x, r = np.zeros_like(b), b.copy()
        p = z = precondition(r)
        rz, target = dot(r, z), tolerance**2 * dot(b, b) + 1e-300
        for step in range(1, most + 1):
            active = dot(r, r) > target
            if not active.any():
                break
            q = operator(p)
            alpha = np.where(active, rz / np.where(active, dot(p, q), 1.0), 0.0)[:, None, None]
            x, r = x + alpha * p, r - alpha * q
            z = precondition(r)
            before, rz = rz, dot(r, z)
            p = z + np.where(active, rz / np.where(active, before, 1.0), 0.0)[:, None, None] * p
            steps = np.where(active, np.maximum(steps, step), steps)
        solutions.append((x, r))
    (x, rx), (y, ry) = solutions
    bx, by = loads
    xx = np.mean(kx, (1, 2)) - (dot(bx, x) + dot(rx, x)) / n**2
    yy = np.mean(ky, (1, 2)) - (dot(by, y) + dot(ry, y)) / n**2
    return np.stack([xx, yy, -(dot(bx, y) + dot(ry, x)) / n**2]), steps
