"""What cells hold: a state that is a square of points, in some cells of the last checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from math import isqrt

import numpy as np
from matplotlib.figure import Figure

from hpcmsm.errors import CheckpointError
from hpcmsm.output import LARGEST_SHOWN
from hpcmsm.report.rundata import Run
from hpcmsm.report.style import DPI, WIDTH, Picture, render
from hpcmsm.summary import number

NCELLS = 5


@dataclass(frozen=True)
class Inside:
    """A state of some cells: values (ncells, n, n) as [y, x], and where along x the cells are, in m."""

    name: str
    values: np.ndarray
    x: np.ndarray


def insides(run: Run) -> list[Picture]:
    """A row of squares for each such state."""
    pictures = []
    for inside in _read(run):
        drawing = Figure(figsize=(WIDTH, 0.9 + WIDTH / (NCELLS + 0.6)), dpi=DPI, layout="constrained")
        panels = np.atleast_1d(drawing.subplots(1, len(inside.values)))
        limits = {"vmin": inside.values.min(), "vmax": inside.values.max()}
        for panel, square, x in zip(panels, inside.values, inside.x, strict=True):
            shown = panel.imshow(square, origin="lower", extent=(0, 1, 0, 1), cmap="cividis", **limits)
            panel.set(title=f"x = {number(float(x), 3)} m", xticks=[], yticks=[])
            panel.grid(visible=False)
        drawing.colorbar(shown, ax=list(panels), shrink=0.7, pad=0.01)
        caption = (
            f"State {inside.name} inside some cells along the middle of the domain, in the last checkpoint."
        )
        pictures.append(Picture(f"cells_{inside.name}.png", caption, render(drawing)))
    return pictures


def _read(run: Run) -> list[Inside]:
    """From the newest checkpoint; nothing where there is none, or one that cannot be read."""
    checkpoints = sorted((run.folder / "checkpoints").glob("step_*.h5"))
    if not checkpoints or not run.size:
        return []
    from hpcmsm.io.blocks import Block
    from hpcmsm.io.sealed import open_sealed

    found = []
    try:
        with open_sealed(checkpoints[-1], "checkpoint") as reader:
            *slow, nx = shape = reader.header["grid_shape"]
            places = np.unique(np.linspace(0, nx - 1, NCELLS).round().astype(int))
            for name in reader.names("cells"):
                size = reader.field(name).size
                if not name.startswith("micro/") or size <= LARGEST_SHOWN or isqrt(size) ** 2 != size:
                    continue
                squares = []
                for place in places:
                    owned = (*(slice(n // 2, n // 2 + 1) for n in slow), slice(int(place), int(place) + 1))
                    cell = Block(None, tuple(shape), owned, np.empty(0))
                    squares.append(reader.cells(name, cell).reshape(isqrt(size), isqrt(size)))
                x = run.centres(0, nx)[places]
                found.append(Inside(name.removeprefix("micro/"), np.array(squares), x))
    except CheckpointError:
        return []
    return found
