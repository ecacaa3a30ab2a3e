"""Where the phases of a unit cell lie: named microstructures with a fraction, labelled images and volumes."""

from __future__ import annotations

import difflib
import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from hpcmsm.errors import ConfigError
from hpcmsm.micro.subsamples import (
    SAMPLES,
    SAMPLES_OF_INCLUSIONS,
    are_inclusions,
    check_size,
    checked_subsamples,
    marked,
)

# Named microstructures: number in the kernel, largest fraction of phase 1 (None: not adjustable).
IMAGE, LAMINATE = 0, "laminate"
NAMED = {
    LAMINATE: (1, 1.0),
    "cylinders": (2, math.pi / 4),
    "checkerboard": (IMAGE, None),
    "spheres": (3, math.pi / 6),
}
NAMED_IN_3D = ("spheres",)
# Those of which the lines of points may follow the inclusion, and their numbers then.
FITTED = {"cylinders": 4, "spheres": 5}
GRIDS = ("even", "fitted")

DEFAULT_RESOLUTION = 32
# Points a side, in 2D and in 3D.
SMALLEST, LARGEST = 4, {2: 1024, 3: 256}


@dataclass(frozen=True)
class Microstructure:
    """Two or more phases in a periodic square or cube. Make one with `make_microstructure`.

    Attributes:
        name: "laminate", "cylinders", "checkerboard", "spheres" or "image".
        number: what the kernel calls it.
        resolution: points a side.
        labels: phase of each point or sub-sample [z,] y, x, shape (resolution * subsamples,) * ndim int32;
            None if it follows from the fraction.
        largest_fraction: of phase 1; None where the image fixes the fractions.
        grid: "even", or "fitted": the lines of points follow the inclusion, see `make_microstructure`.
        subsamples: of a point, a side.
    """

    name: str
    number: int
    resolution: int
    labels: np.ndarray | None
    largest_fraction: float | None
    grid: str = "even"
    subsamples: int = 1

    @cached_property
    def kernel_labels(self) -> np.ndarray:
        """Labels as the kernel takes them, int32: those of sub-samples are marked."""
        return self.labels if self.subsamples == 1 else marked(self.labels, self.subsamples).astype(np.int32)

    @property
    def ndim(self) -> int:
        """2 or 3."""
        return self.labels.ndim if self.labels is not None else 3 if self.name in NAMED_IN_3D else 2

    @property
    def mirrored(self) -> bool:
        """Whether it is its own mirror image along every axis, so that K has no cross terms."""
        return self.name != "image"

    def pixels(self, fraction: float | None) -> np.ndarray:
        """Phase of each point, that at its centre, for a fraction of phase 1; shape (resolution,) * ndim."""
        if self.labels is not None:
            return self.labels
        apart = np.abs((np.arange(self.resolution) + 0.5) / self.resolution - 0.5)
        if self.name == LAMINATE:
            return np.tile((apart < 0.5 * fraction).astype(np.int32), (self.resolution, 1))
        square, radius = apart[:, None] ** 2 + apart**2, (fraction / math.pi) ** 0.5
        if self.name == "spheres":
            square, radius = square + apart[:, None, None] ** 2, (0.75 * fraction / math.pi) ** (1.0 / 3.0)
        return (square < radius**2).astype(np.int32)

    def fractions(self, nphase: int) -> np.ndarray:
        """Area or volume fractions of the phases of an image, shape (nphase,)."""
        return np.bincount(self.labels.ravel(), minlength=nphase) / self.labels.size


def make_microstructure(
    microstructure,
    resolution: int | None,
    nphase: int,
    grid: str = "even",
    subsamples: int = 1,
    inclusions: bool | None = None,
) -> Microstructure:
    """Check a microstructure and how finely it is resolved.

    Args:
        microstructure: a name of NAMED, or an array of phase numbers 0, 1, ... [z,] y, x with equal sides.
        resolution: points a side, even; None: 32, or one per pixel of an image. For an image it
            must be a multiple of the pixels a side.
        nphase: number of phases there are properties for.
        grid: "even"; or, for cylinders and spheres, "fitted": lines of points move with the inclusion, which
            then lies at the same points for any fraction, so that K is a smooth function of it.
        subsamples: pixels of an image that make up a point, a side: 1, or an even number. What the phases in
            a point conduct then follows from how they lie in it.
        inclusions: whether phase 1 lies in pieces in phase 0, of images with subsamples; None: look.
    Raises:
        ConfigError: a name that does not exist, an image that does not fit, ...
    """
    if isinstance(microstructure, np.ndarray):
        check_grid(grid, microstructure)
        subsamples = checked_subsamples(subsamples, nphase)
        return _from_image(microstructure, resolution, nphase, subsamples, inclusions)
    if microstructure not in NAMED:
        close = difflib.get_close_matches(str(microstructure), NAMED, 1)
        advice = f"did you mean '{close[0]}'?" if close else "give one of them, or an image"
        raise ConfigError(
            f"microstructure must be one of {', '.join(NAMED)}, got '{microstructure}'; {advice}"
        )
    check_grid(grid, microstructure)
    if subsamples != 1:
        raise ConfigError(
            f"subsamples must be 1 for '{microstructure}', got {subsamples}; its faces know the exact shares "
            "of the phases"
        )
    if nphase != 2:
        raise ConfigError(
            f"microstructure '{microstructure}' must have 2 phases, got {nphase}; name matrix and inclusion"
        )
    ndim = 3 if microstructure in NAMED_IN_3D else 2
    resolution = _checked_resolution(DEFAULT_RESOLUTION if resolution is None else resolution, ndim)
    number, largest = NAMED[microstructure]
    labels = _checkerboard(resolution) if microstructure == "checkerboard" else None
    number = FITTED[microstructure] if grid == "fitted" else number
    return Microstructure(microstructure, number, resolution, labels, largest, grid)


def check_grid(grid: str, microstructure: str | np.ndarray, option: str = "grid") -> None:
    """Refuse a grid that does not exist, or that a microstructure cannot have.

    Raises:
        ConfigError: as said, naming the option.
    """
    if grid not in GRIDS:
        close = difflib.get_close_matches(str(grid), GRIDS, 1)
        advice = f"did you mean '{close[0]}'?" if close else "choose one of them"
        raise ConfigError(f"{option} must be one of {', '.join(GRIDS)}, got '{grid}'; {advice}")
    name = "an image" if isinstance(microstructure, np.ndarray) else f"'{microstructure}'"
    if grid == "fitted" and name.strip("'") not in FITTED:
        raise ConfigError(
            f"{option} must be 'even' for {name}, got 'fitted'; only {' and '.join(FITTED)} have one "
            "inclusion that lines can follow"
        )


def _checkerboard(resolution: int) -> np.ndarray:
    half = np.arange(resolution) // (resolution // 2)
    return (half[:, None] ^ half[None, :]).astype(np.int32)


def _checked_resolution(resolution: int, ndim: int) -> int:
    whole = isinstance(resolution, int | np.integer) and not isinstance(resolution, bool)
    if not whole or resolution % 2 or not SMALLEST <= resolution <= LARGEST[ndim]:
        raise ConfigError(
            f"resolution must be an even number from {SMALLEST} to {LARGEST[ndim]}, got {resolution}; "
            "powers of two are fastest"
        )
    return int(resolution)


def _from_image(
    image: np.ndarray, resolution: int | None, nphase: int, subsamples: int, inclusions: bool | None
) -> Microstructure:
    _check_shape(image.shape)
    labels = _labels(image, nphase)
    side = labels.shape[0]
    if resolution is None:
        if side % subsamples:
            raise ConfigError(
                f"subsamples must divide the {side} pixels of the image, got {subsamples}; give a resolution"
            )
        resolution = side // subsamples
        if subsamples > 1 and (resolution < SMALLEST or resolution % 2):
            raise ConfigError(
                f"subsamples must leave an even number of points from {SMALLEST} on, got {subsamples} for "
                f"{side} pixels; lower it or give a resolution"
            )
    fine = _checked_resolution(resolution, image.ndim) * subsamples
    if fine % side:
        raise ConfigError(
            f"resolution must be a multiple of the {side} pixels of the image, got {resolution}"
            + (f" times {subsamples} sub-samples; " if subsamples > 1 else "; ")
            + f"leave it out for one {'sub-sample' if subsamples > 1 else 'point'} per pixel"
        )
    check_size(resolution, subsamples, LARGEST[image.ndim])
    for axis in range(labels.ndim):
        labels = labels.repeat(fine // side, axis=axis)
    number = IMAGE
    if subsamples > 1:
        inclusions = are_inclusions(labels) if inclusions is None else inclusions
        number = SAMPLES_OF_INCLUSIONS if inclusions else SAMPLES
    return Microstructure(
        "image", number, resolution, np.ascontiguousarray(labels), None, subsamples=subsamples
    )


def _check_shape(shape: tuple[int, ...]) -> None:
    """Refuse an image whose sides differ, with what would make them equal."""
    if len(shape) not in (2, 3) or 0 in shape:
        raise ConfigError(f"image must be a square or a cube, got shape {shape}; save one labelled image")
    if len(set(shape)) > 1:
        side, whole = min(shape), math.lcm(*shape)
        cut = ", ".join([f":{side}"] * len(shape))
        repeats = tuple(whole // n for n in shape)
        raise ConfigError(
            f"image must have equal sides, got shape {shape}; crop it to image[{cut}], or repeat it "
            f"periodically by numpy.tile(image, {repeats}) to {whole} points a side"
        )


def _labels(image: np.ndarray, nphase: int) -> np.ndarray:
    """The image as int32, its values checked to be phase numbers."""
    if image.dtype.kind not in "biuf" or not np.array_equal(image, np.floor(image)):
        raise ConfigError(
            f"image must hold whole phase numbers, got {image.dtype} with other values; segment it first"
        )
    found = np.unique(image)
    if found[0] < 0:
        raise ConfigError(f"image must hold phase numbers from 0 on, got {found[0]:.0f}; renumber them")
    if found[-1] >= nphase:
        raise ConfigError(
            f"image must hold phase numbers below {nphase}, the number of phases, got {found[-1]:.0f}; "
            "name one more phase or renumber the image"
        )
    return image.astype(np.int32)
