"""Faces of a cylinder or sphere on lines of points that follow it: nothing here calls the package."""

from __future__ import annotations

from math import pi

import numpy as np


class Lines:
    """x(xi): even, periodic with 1, straight up to the box, which 3 / 8 of the lines on each side fill."""

    def __init__(self, n: int, radius: float):
        self.n, self.edge, self.box = n, (3 * n // 8) / n, min(max(radius, 0.03), 0.498)
        self.inner, self.outer = self.box / self.edge, (0.5 - self.box) / (0.5 - self.edge)

    def x(self, xi):
        """Of lines anywhere, xi and x measured from the middle of the cell."""
        period = np.floor(xi + 0.5)
        apart = np.abs(xi - period)
        far = self.box + self.outer * (apart - self.edge)
        return period + np.sign(xi - period) * np.where(apart <= self.edge, self.inner * apart, far)

    def bounds(self, strips: int, shift: float):
        """First and last x of each point (shift 0) or of the link after it (0.5), and of its strips."""
        fine = (np.arange(self.n * strips + 1) / strips + shift) / self.n - 0.5
        ends, middles = self.x(fine), self.x(0.5 * (fine[1:] + fine[:-1]))
        # A line at the cell's end belongs to both sides: keep the lengths positive.
        widths = np.diff(ends) % 1.0
        parts = widths.reshape(self.n, strips)
        first = ends[:-1].reshape(self.n, strips)[:, 0]
        return first, first + parts.sum(axis=1), middles.reshape(self.n, strips), parts


def inside(first, last, reach):
    """Share of first .. last within reach of whole numbers."""
    covered = 0.0
    for centre in (-1.0, 0.0, 1.0):
        covered = covered + np.maximum(
            np.minimum(last, centre + reach) - np.maximum(first, centre - reach), 0
        )
    return covered / (last - first)


def reach_of(radius, *positions):
    """Half the chord at positions, which count periodically."""
    square = sum((x - np.rint(x)) ** 2 for x in positions)
    return np.sqrt(np.maximum(radius**2 - square, 0.0))


def fitted_cylinder_faces(fraction: float, contrast: float, n: int, strips: int = 16):
    """kx, ky [y, x]; rules as in oracles.cylinder_faces."""
    radius = (fraction / pi) ** 0.5
    lines = Lines(n, radius)
    first, last, slices, thick = lines.bounds(strips, 0.5)
    low, high, rows, _ = lines.bounds(strips, 0.0)
    if contrast >= 1:
        share = inside(first, last, reach_of(radius, rows)[:, :, None])  # [y, strip, x]
        k = np.mean(1 / (share / contrast + 1 - share), axis=1)
    else:
        share = inside(low, high, reach_of(radius, slices)[:, :, None])  # [x, slice, y]
        weight = thick / thick.sum(axis=1, keepdims=True)
        k = 1 / np.sum(weight[:, :, None] / (share * contrast + 1 - share), axis=1).T
    kx = k * (high - low)[:, None] / (last - first)
    return np.ascontiguousarray(kx), np.ascontiguousarray(kx.T)


def fitted_sphere_faces(fraction: float, contrast: float, n: int, strips: int = 8):
    """kx, ky, kz [z, y, x]; rules as in sphere_oracle.sphere_faces."""
    radius = (0.75 * fraction / pi) ** (1 / 3)
    lines = Lines(n, radius)
    first, last, slices, thick = lines.bounds(strips, 0.5)
    low, high, rows, _ = lines.bounds(strips, 0.0)
    size, k = high - low, np.empty((n, n, n))
    for y, z in np.ndindex(n, n):
        if contrast >= 1:
            reach = reach_of(radius, rows[y][:, None, None], rows[z][:, None])
            share = inside(first, last, reach)  # [strip y, strip z, x]
            k[z, y] = np.mean(1 / (share / contrast + 1 - share), axis=(0, 1))
        else:
            # The sum over lines along z; in the kernel always along the shorter of |y|, |z|, by symmetry.
            a, b = (y, z) if abs(y - (n - 1) / 2) >= abs(z - (n - 1) / 2) else (z, y)
            reach = reach_of(radius, slices[:, :, None], rows[a])  # [x, slice, strip]
            share = inside(low[b], high[b], reach).mean(axis=2)
            weight = thick / thick.sum(axis=1, keepdims=True)
            k[z, y] = 1 / np.sum(weight / (share * contrast + 1 - share), axis=1)
    along_x = k * (size[:, None, None] * size[:, None]) / (last - first) * n
    return along_x, np.swapaxes(along_x, 1, 2).copy(), np.swapaxes(along_x, 0, 2).copy()
