"""Images that are finer than the grid of their cell problem: several sub-samples to a point."""

from __future__ import annotations

import numpy as np
import scipy.ndimage

from hpcmsm.errors import ConfigError

# Numbers in the kernel, see kernels/unit_cell_samples.h: of any image, of inclusions in a matrix.
SAMPLES, SAMPLES_OF_INCLUSIONS = 6, 7
MOST_SUBSAMPLES = 16
# Labels keep five bits; the three above say along which axes a link is cut.
MOST_PHASES = 32


def checked_subsamples(subsamples: int, nphase: int) -> int:
    """Sub-samples of a point, a side: 1 for none, or an even number.

    Raises:
        ConfigError: it is something else, or there are too many phases.
    """
    whole = isinstance(subsamples, int | np.integer) and not isinstance(subsamples, bool)
    if not whole or (subsamples != 1 and (subsamples % 2 or not 2 <= subsamples <= MOST_SUBSAMPLES)):
        raise ConfigError(
            f"subsamples must be 1 or an even number up to {MOST_SUBSAMPLES}, got {subsamples}; 8 is enough"
        )
    if subsamples > 1 and nphase > MOST_PHASES:
        raise ConfigError(
            f"subsamples must be 1 for more than {MOST_PHASES} phases, got {subsamples} for {nphase}; "
            "raise the resolution instead"
        )
    return int(subsamples)


def check_size(resolution: int, subsamples: int, largest: int) -> None:
    """Raise a ConfigError if there are more sub-samples a side than a cell may have."""
    if resolution * subsamples > largest:
        raise ConfigError(
            f"resolution times subsamples must be at most {largest}, got {resolution} times {subsamples}; "
            "lower one of them"
        )


def marked(labels: np.ndarray, subsamples: int) -> np.ndarray:
    """Labels of sub-samples, the first one of each link marked where the link holds several phases.

    The link from a point along an axis reaches from its middle to that of the next point.

    Args:
        labels: shape (..., n * subsamples) in every dimension, phases below MOST_PHASES.
    Returns:
        the labels plus 32, 64 and 128 where the link along x, y and z is cut, same shape, uint8.
    """
    ndim, half = labels.ndim, subsamples // 2
    labels = labels.astype(np.uint8)
    found = labels.copy()
    for number, axis in enumerate(reversed(range(ndim))):
        blocks = np.roll(labels, -half, axis).reshape(
            [size for n in labels.shape for size in (n // subsamples, subsamples)]
        )
        inside = tuple(range(1, 2 * ndim, 2))
        cut = blocks.max(axis=inside) != blocks.min(axis=inside)
        first = tuple(slice(half if d == axis else 0, None, subsamples) for d in range(ndim))
        found[first] |= (cut * (MOST_PHASES << number)).astype(np.uint8)
    return found


def are_inclusions(labels: np.ndarray) -> bool:
    """Whether phase 1 lies in pieces in phase 0, which hangs together from cell to cell."""
    return labels.max() == 1 and _spans(labels == 0) and not _spans(labels == 1)


def _spans(phase: np.ndarray) -> bool:
    """Whether a piece of a periodic phase meets its own image in the next cell along some axis."""
    pieces, _ = scipy.ndimage.label(np.tile(phase, (2,) * phase.ndim))
    for axis, size in enumerate(phase.shape):
        here, next_cell = np.split(pieces, [size], axis)
        if np.any((here == next_cell) & (here > 0)):
            return True
    return False
