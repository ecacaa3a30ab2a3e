"""A growing and dissolving grain by numpy and scipy alone: Newton with a sparse factorisation."""

from __future__ import annotations

import numpy as np
import oracles
import scipy.sparse
import scipy.sparse.linalg

LAM, GAM, EQUILIBRIUM, STOP = 1 / 12, 0.05, 0.5, 0.95


def disc(n: int, radius: float = 0.4, lam: float = LAM) -> np.ndarray:
    """The profile 1/(1 + exp(-4 (r - radius)/lam)) at the centres of n x n points, [y, x]."""
    x = (np.arange(n) + 0.5) / n - 0.5
    return 1.0 / (1.0 + np.exp(-4.0 / lam * (np.hypot(x[:, None], x) - radius)))


def laplacian(n: int) -> scipy.sparse.csr_matrix:
    """Five points, periodic, on the unit square."""
    one = scipy.sparse.diags([1.0, -2.0, 1.0], [-1, 0, 1], (n, n)).tolil()
    one[0, -1] = one[-1, 0] = 1.0
    eye = scipy.sparse.identity(n)
    return (scipy.sparse.kron(one, eye) + scipy.sparse.kron(eye, one)).tocsr() * n**2


def step(p, u, dt, lam=LAM, gam=GAM, rate=1.0, equilibrium=EQUILIBRIUM):
    """One step of backward Euler: lam^2 dp/dt + gam P'(p) = gam lam^2 lap(p) - 4 lam f(u) p (1 - p)."""
    n = p.shape[0]
    if dt == 0.0 or p.mean() >= STOP:
        return p.copy()
    lap, old, new = laplacian(n), p.ravel(), p.ravel().copy()
    f = rate * (u / equilibrium) ** 2 - 1.0
    for _ in range(50):
        reaction = 16 * gam * new * (1 - new) * (1 - 2 * new) + 4 * lam * f * new * (1 - new)
        slope = 16 * gam * (1 - 6 * new + 6 * new**2) + 4 * lam * f * (1 - 2 * new)
        residual = lam**2 * (new - old) / dt + reaction - gam * lam**2 * (lap @ new)
        matrix = scipy.sparse.diags(lam**2 / dt + slope) - gam * lam**2 * lap
        change = scipy.sparse.linalg.splu(matrix.tocsc()).solve(residual)
        new -= change
        if np.abs(change).max() < 1e-13:
            return new.reshape(n, n)
    raise AssertionError("Newton must converge")


def faces(p, conducting=1.0, grain=1e-4):
    """Conductivities to the right of and above each point, of the mean phase of both points."""
    k = grain + (conducting - grain) * p
    return tuple(0.5 * (k + np.roll(k, -1, axis)) for axis in (1, 0))


def conductivity(p, conducting=1.0, grain=1e-4) -> np.ndarray:
    """K (xx, yy, xy) by a direct solve."""
    return oracles.sparse_conductivity(*faces(p, conducting, grain))
