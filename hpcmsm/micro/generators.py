"""Microstructures that are drawn: labels of a periodic cell from a seed and a realisation number.

Each is a function of its arguments alone, and of continuous coordinates: a finer grid shows the same
material. Where a fraction is asked, exactly the nearest number of points gets phase 1.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass

import numpy as np
import scipy.fft
import scipy.special

from hpcmsm.errors import ConfigError
from hpcmsm.micro.packing import DENSEST, nonoverlapping, random_points
from hpcmsm.parallel import random_uniform

# Largest realisation number: it travels as a float64.
MOST_REALISATIONS = 2**53
# Relative weight of the wave vectors that a Gaussian random field leaves out.
NEGLIGIBLE = 1e-6
SMALLEST_LENGTH, LARGEST_LENGTH = 0.01, 0.5


@dataclass(frozen=True)
class Kind:
    """What a generator can do: dimensions, and which options it takes."""

    ndims: tuple[int, ...]
    about: str
    fraction: bool = True
    count: bool = False
    length: bool = False

    @property
    def inclusions(self) -> bool | None:
        """Whether phase 1 lies in pieces in phase 0; None where it depends."""
        return None if self.length else self.fraction


KINDS = {
    "random_discs": Kind((2,), "equal discs that do not overlap", count=True),
    "random_fibres": Kind((2, 3), "equal parallel fibres along z, or their section", count=True),
    "random_spheres": Kind((3,), "equal spheres that do not overlap", count=True),
    "voronoi": Kind((2, 3), "grains of random points, their phases in turn", fraction=False, count=True),
    "level_set": Kind((2, 3), "where a Gaussian random field is low", length=True),
}


@dataclass(frozen=True)
class Recipe:
    """How labels are drawn.

    Args:
        name: one of KINDS.
        ndim, resolution: dimensions, and points a side.
        nphase: number of phases; 2 but for "voronoi".
        seed: of the random numbers.
        fraction: of phase 1, for all but "voronoi".
        count: number of discs, fibres, spheres or grains in the cell.
        correlation_length: l of a Gaussian random field with the covariance exp(-(r/l)^2), as a part
            of the cell's side.
    Raises:
        ConfigError: an option is wrong for this kind.
    """

    name: str
    ndim: int
    resolution: int
    nphase: int = 2
    seed: int = 1
    fraction: float | None = None
    count: int | None = None
    correlation_length: float | None = None

    def __post_init__(self):
        if self.name not in KINDS:
            close = difflib.get_close_matches(self.name, KINDS, 1)
            advice = f"did you mean '{close[0]}'?" if close else f"drawn ones are {', '.join(KINDS)}"
            raise ConfigError(f"micro.microstructure must be known, got '{self.name}'; {advice}")
        kind = KINDS[self.name]
        if self.ndim not in kind.ndims:
            raise ConfigError(
                f"micro.microstructure '{self.name}' must be in {' or '.join(map(str, kind.ndims))} "
                f"dimensions, got {self.ndim}; choose another or change micro.ndim"
            )
        defaults = {
            "count": (kind.count, 16),
            "correlation_length": (kind.length, 0.15),
            "fraction": (kind.fraction, None),
        }
        for option, (taken, default) in defaults.items():
            self._settle(option, taken, default)
        self._check_numbers()

    def _settle(self, option: str, taken: bool, default) -> None:
        """Fill in a default, and refuse an option that this kind does not take."""
        given = getattr(self, option)
        if given is not None and not taken:
            raise ConfigError(f"micro.{option} must be left out for '{self.name}', got {given}; remove it")
        if given is None and taken:
            if default is None:
                raise ConfigError(f"micro.{option} must be given for '{self.name}', got nothing; add it")
            object.__setattr__(self, option, default)

    def _check_numbers(self) -> None:
        if self.nphase != 2 and self.name != "voronoi":
            raise ConfigError(
                f"micro.phases must name 2 phases for '{self.name}', got {self.nphase}; name matrix and "
                "inclusion"
            )
        largest = DENSEST[self._section] if KINDS[self.name].count else 1.0
        if self.fraction is not None and not 0.0 <= self.fraction <= largest:
            raise ConfigError(
                f"micro.fraction must be from 0 to {largest:g} for '{self.name}', got {self.fraction}; "
                "correct the value"
            )
        if self.count is not None and not self.nphase - 1 <= self.count <= self.resolution**2:
            raise ConfigError(
                f"micro.count must be from {self.nphase - 1} to {self.resolution**2}, got {self.count}; "
                "correct the value"
            )
        length = self.correlation_length
        if length is not None and not SMALLEST_LENGTH <= length <= LARGEST_LENGTH:
            raise ConfigError(
                f"micro.correlation_length must be from {SMALLEST_LENGTH:g} to {LARGEST_LENGTH:g} of the "
                f"cell's side, got {length}; correct the value"
            )

    def labels(self, realisation: int = 0) -> np.ndarray:
        """Phase of each point [z,] y, x of a realisation, shape (resolution,) * ndim, int32."""
        if self.name == "voronoi":
            return self._grains(realisation)
        if self.name == "level_set":
            return _lowest(self._gaussian_field(realisation), self.fraction)
        labels = _lowest(self._depth(realisation), self.fraction)
        fibres = labels.ndim < self.ndim
        return np.repeat(labels[None], self.resolution, axis=0) if fibres else labels

    @property
    def _section(self) -> int:
        """Dimensions in which the inclusions are round."""
        return 2 if self.name == "random_fibres" else self.ndim

    def _depth(self, realisation: int) -> np.ndarray:
        """Squared distance of each point to the nearest centre of an inclusion."""
        centres = nonoverlapping(self._section, self.count, self.fraction, self.seed, realisation)
        nearest = np.full((self.resolution,) * self._section, np.inf)
        for centre in centres:
            np.minimum(nearest, _squared_distance(centre, self.resolution), out=nearest)
        return nearest

    def _grains(self, realisation: int) -> np.ndarray:
        centres = random_points(self.ndim, self.count, self.seed, realisation)
        nearest = np.full((self.resolution,) * self.ndim, np.inf)
        labels = np.zeros(nearest.shape, dtype=np.int32)
        for number, centre in enumerate(centres):
            distance = _squared_distance(centre, self.resolution)
            labels[distance < nearest] = number % self.nphase
            np.minimum(nearest, distance, out=nearest)
        return labels

    def _gaussian_field(self, realisation: int) -> np.ndarray:
        """A sum of waves with random amplitudes, keyed by their wave vectors."""
        n, length = self.resolution, self.correlation_length
        wave = np.rint(scipy.fft.fftfreq(n, 1.0 / n)).astype(np.int64)
        vectors = np.meshgrid(*[wave] * self.ndim, indexing="ij")
        square = sum(vector**2 for vector in vectors)
        amplitude = np.exp(-((2.0 * np.pi) ** 2) * square * length**2 / 8.0)
        amplitude[amplitude < NEGLIGIBLE] = 0.0
        kept = amplitude > 0.0
        kept.flat[0] = False  # the mean only moves the level, which the fraction decides
        keys = [vector[kept] for vector in vectors]
        draws = [random_uniform("microstructure", self.seed, realisation, part, *keys) for part in (0, 1)]
        real, imaginary = (scipy.special.ndtri(draw + 2.0**-54) for draw in draws)
        spectrum = np.zeros((n,) * self.ndim, dtype=np.complex128)
        to_centres = np.exp(1j * np.pi / n * sum(keys))  # points lie half a point off the corner
        spectrum[kept] = amplitude[kept] * (real + 1j * imaginary) * to_centres
        return scipy.fft.ifftn(spectrum, norm="forward").real


def _squared_distance(centre: np.ndarray, n: int) -> np.ndarray:
    """Of each point [z,] y, x to the nearest periodic image of a centre (x, y[, z])."""
    points = (np.arange(n) + 0.5) / n
    total = 0.0
    for axis, position in enumerate(centre):
        apart = points - position
        square = (apart - np.rint(apart)) ** 2
        total = total + square.reshape((1,) * (len(centre) - 1 - axis) + (n,) + (1,) * axis)
    return total


def _lowest(level: np.ndarray, fraction: float) -> np.ndarray:
    """Phase 1 where the level is lowest: exactly the nearest number of points to the fraction."""
    labels = np.zeros(level.shape, dtype=np.int32)
    wanted = round(fraction * level.size)
    # A stable order: should two points have the same level, their position decides.
    labels.flat[np.argsort(level, axis=None, kind="stable")[:wanted]] = 1
    return labels
