"""Random places of equal discs or spheres that do not overlap, in a periodic cell of side 1."""

from __future__ import annotations

import math

import numpy as np

from hpcmsm.errors import ConfigError
from hpcmsm.parallel import random_uniform

# Volume of the unit ball.
BALL = {2: math.pi, 3: 4.0 * math.pi / 3.0}
# Up to here a few hundred sweeps part any number of inclusions; random packings jam at 0.84 and 0.64.
DENSEST = {2: 0.6, 3: 0.45}
# Where there is room, inclusions stay apart by this part of their diameter: they would touch on the grid.
GAP, CROWDED = 0.1, {2: 0.62, 3: 0.47}
SWEEPS, ATTEMPTS = 3000, 50


def radius(ndim: int, count: int, fraction: float) -> float:
    """Radius of `count` equal inclusions that fill a fraction of the cell of side 1."""
    return (fraction / (count * BALL[ndim])) ** (1.0 / ndim)


def random_points(ndim: int, count: int, seed: int, realisation: int, attempt: int = 0) -> np.ndarray:
    """Independent uniform points of the cell, shape (count, ndim)."""
    number = np.arange(count * ndim).reshape(count, ndim)
    return random_uniform("microstructure", seed, realisation, attempt, number)


def nonoverlapping(ndim: int, count: int, fraction: float, seed: int, realisation: int) -> np.ndarray:
    """Centres of equal inclusions that keep apart, shape (count, ndim).

    Uniform points are pushed apart, each pair by its overlap, until none is left; where they jam, the
    next draw is tried. A function of its arguments alone.

    Raises:
        ConfigError: they jam in every draw.
    """
    gap = min(1.0 + GAP, (CROWDED[ndim] / max(fraction, 1e-300)) ** (1.0 / ndim))
    distance = 2.0 * radius(ndim, count, fraction) * gap
    for attempt in range(ATTEMPTS):
        points = random_points(ndim, count, seed, realisation, attempt)
        for _ in range(SWEEPS):
            push = _overlaps(points, distance)
            if push is None:
                return points
            points = (points + push) % 1.0
    raise ConfigError(
        f"micro.fraction must leave room for micro.count inclusions that do not touch, got {fraction} for "
        f"{count}; lower the fraction or change the count"
    )


def _overlaps(points: np.ndarray, distance: float) -> np.ndarray | None:
    """By how much to move each point, shape (count, ndim); None if no two are closer than the distance."""
    apart = points[:, None] - points[None]
    apart -= np.rint(apart)  # to the nearest periodic image
    length = np.sqrt((apart**2).sum(axis=2))
    np.fill_diagonal(length, np.inf)
    close = length < distance
    if not close.any():
        return None
    # Half the overlap each, and a little more, so that the last of it goes in finitely many sweeps.
    missing = np.where(close, (1.0 + 1e-3) * distance - length, 0.0)
    share = 0.5 * missing / np.maximum(length, 1e-12)
    return (share[:, :, None] * apart).sum(axis=1)
