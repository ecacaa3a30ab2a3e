"""Rayleigh's multipole method for simple cubic spheres: nothing here calls the package.

Each sphere carries multipoles B_lm I_lm, I_lm = (l - m)! P_lm(cos theta) exp(i m phi) / r^(l + 1), of odd
l and of m a multiple of 4, as a field along z asks for. Around one sphere those of all others are regular:
sum over R of I_lm(r - R) = sum over (a, b) of (-1)^a conj(R_ab(r)) S_(l + a, m + b), with
R_ab = r^a P_ab exp(i b phi) / (a + b)! and the lattice sums S_LM of I_LM over the lattice without 0. The
conditionally convergent S_2M are 0 in spherical order, in which the field that acts on a sphere is the
mean field plus 4 pi / 3 times the dipole moment per volume.

Source: the method of McPhedran and McKenzie 1978, Proc. R. Soc. Lond. A 359, 45, in solid harmonics.
"""

from functools import cache
from math import factorial, pi

import numpy as np
import scipy.special


def irregular(degree: int, order: int, x: np.ndarray) -> np.ndarray:
    """I_lm of points x (3, n), order >= 0."""
    r, angle = np.linalg.norm(x, axis=0), np.arctan2(x[1], x[0])
    legendre = scipy.special.lpmv(order, degree, x[2] / r)
    return float(factorial(degree - order)) * legendre * np.exp(1j * order * angle) / r ** (degree + 1)


@cache
def lattice_sum(degree: int, order: int, reach: float = 12.0) -> float:
    """S_LM of the simple cubic lattice; smoothly cut off, as the mean of I_LM over directions is 0."""
    if degree == 2:
        return 0.0
    line = np.arange(-int(reach), int(reach) + 1)
    x = np.array(np.meshgrid(line, line, line)).reshape(3, -1).astype(float)
    r = np.linalg.norm(x, axis=0)
    x, r = x[:, (r > 0) & (r < reach)], r[(r > 0) & (r < reach)]
    weight = 0.5 * scipy.special.erfc((r - 0.6 * reach) / (0.1 * reach))
    return float(np.sum(weight * irregular(degree, order, x)).real)


def simple_cubic(fraction: float, contrast: float, most: int = 13) -> float:
    """Conductivity of spheres on a simple cubic lattice in a matrix of conductivity 1.

    Args:
        most: largest degree of the multipoles; 13 gives five digits up to a fraction of 0.5 at contrast 10.
    """
    radius = (3 * fraction / (4 * pi)) ** (1 / 3)
    orders = [
        (degree, m) for degree in range(1, most + 1, 2) for m in range(-(degree // 4) * 4, degree + 1, 4)
    ]
    matrix = np.array([[-lattice_sum(l1 + l2, abs(m2 - m1)) for l2, m2 in orders] for l1, m1 in orders])
    for row, (degree, m) in enumerate(orders):
        strength = degree * (contrast - 1) / (degree * contrast + degree + 1) * radius ** (2 * degree + 1)
        matrix[row, row] += factorial(degree - m) * factorial(degree + m) / strength
    # Degrees differ by many powers of ten: scaled to an equal diagonal.
    scale = 1 / np.sqrt(np.abs(np.diag(matrix)))
    field = np.zeros(len(orders))
    field[0] = 1.0
    dipole = (scale * np.linalg.solve(scale[:, None] * matrix * scale, scale * field))[0]
    return 1 + 4 * pi * dipole / (1 - 4 * pi / 3 * dipole)


def sphere_faces(fraction: float, contrast: float, n: int, strips: int = 8):
    """Faces kx, ky, kz (n, n, n) of a centred sphere that conducts better (contrast >= 1), from sub-samples.

    Harmonic along each of strips x strips strips of a link, arithmetic across them.
    """
    size, fine = 1.0 / n, (np.arange(n * strips) + 0.5) / (n * strips) - 0.5
    square = (3 * fraction / (4 * pi)) ** (2 / 3) - fine[:, None] ** 2 - fine**2
    reach = np.sqrt(np.maximum(square, 0.0)).reshape(n, strips, n, strips)
    along_x = np.empty((n, n, n))
    for x in range(n):
        low, inside = (x + 0.5) * size, 0.0
        for centre in (0.5, 1.5):
            first, last = np.maximum(low, centre - reach), np.minimum(low + size, centre + reach)
            inside = inside + np.maximum(last - first, 0.0) / size
        along_x[:, :, x] = np.mean(1.0 / (inside / contrast + 1.0 - inside), axis=(1, 3))
    # A sphere looks the same along all axes.
    return along_x, np.swapaxes(along_x, 1, 2).copy(), np.swapaxes(along_x, 0, 2).copy()
