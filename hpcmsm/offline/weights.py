"""How much an error in a cell moves the macro field: V |grad u| of the cell, for weights in a loss."""

from __future__ import annotations

import difflib

import numpy as np

from hpcmsm.errors import ConfigError
from hpcmsm.io.sealed import SealedReader

# Part of the mean below which no weight lies: samples without a gradient count a little, too.
SMALLEST = 1e-3
PREFIX = "macro/"


def gradient_weights(reader: SealedReader, name: str, ids: np.ndarray) -> np.ndarray:
    """V |grad u| in the cells of these global ids, of a checkpoint's field u; the mean over the cells is 1.

    In steady diffusion an error of the conductivity in a cell changes the field by no more than in
    proportion to this.

    Raises:
        ConfigError: there is no such field.
    """
    known = [other.removeprefix(PREFIX) for other in reader.names("cells") if other.startswith(PREFIX)]
    if name not in known:
        close = difflib.get_close_matches(name, known, 1)
        advice = f"did you mean '{close[0]}'?" if close else f"there are {', '.join(known)}"
        raise ConfigError(f"--weigh-by must name a field of the macro model, got '{name}'; {advice}")
    values = reader.dataset(f"cells/{PREFIX}{name}")[()]
    spacing = np.array(reader.header["size"]) / np.array(reader.header["cells"])
    values = values.reshape(values.shape[0], *reader.header["grid_shape"])
    total = np.zeros(values.shape[1:])
    # Arrays are [component, [z,] y, x], lengths x, y[, z]; cells are all of one volume.
    for axis, length in enumerate(spacing[::-1], start=1):
        if values.shape[axis] > 1:
            total += (np.gradient(values, length, axis=axis) ** 2).sum(axis=0)
    slopes = np.sqrt(total).ravel()
    mean = slopes.mean() or 1.0
    return np.maximum(slopes / mean, SMALLEST)[ids]
