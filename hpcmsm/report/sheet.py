"""A sheet of maps: rows are fields, columns are times; every measure is in inches."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from hpcmsm.report.style import BLACK, BLUE, DPI, GREEN, RED, WIDTH
from hpcmsm.summary import number

# Perceptually even maps, safe for colour-blind readers; what is signed gets a diverging one.
COLOURS = {"K": "plasma", "1": "cividis"}
OTHER_COLOURS, SIGNED_COLOURS, NO_VALUE = "viridis", "RdBu_r", "#B8BDC4"
KINDS = (RED, BLUE, GREEN)
LEFT, RIGHT, TOP, BOTTOM = 0.72, 0.98, 0.34, 0.1
GAP, HEADING, TICKS, BAR, TALLEST = 0.12, 0.27, 0.42, 0.12, 2.7


@dataclass
class Row:
    """One row of maps: a component of a field, cut through the middle where the grid is 3D.

    Attributes:
        label, unit: for the heading.
        values: shape (ntimes, n vertical, n horizontal).
        plane: names of the horizontal and the vertical axis, such as "xy".
        extent: left, right, lower, upper border in m.
        limits: range of the colours; neighbours of one unit with equal limits share a colour bar.
        changes: whether the field changes in time; if not, the first time stands for all.
        labels: what the values 0, 1, ... stand for, where they are no amounts.
    """

    label: str
    unit: str
    values: np.ndarray
    plane: str
    extent: tuple[float, float, float, float]
    limits: tuple[float, float]
    changes: bool
    labels: tuple[str, ...] = ()

    @property
    def aspect(self) -> float:
        """Height of a map over its width."""
        left, right, lower, upper = self.extent
        return (upper - lower) / (right - left)

    @property
    def colours(self):
        """The colour map of its values."""
        if self.labels:
            return ListedColormap(KINDS[: len(self.labels)], "kinds")
        signed = self.limits[0] == -self.limits[1]
        name = SIGNED_COLOURS if signed else COLOURS.get(self.unit, OTHER_COLOURS)
        return colormaps[name].with_extremes(bad=NO_VALUE)


class Sheet:
    """Rows of maps below one another, one column per time; one colour bar per field.

    Args:
        times: of the columns, in s, shape (ntimes,).
        rows: from above to below.
    """

    def __init__(self, times: np.ndarray, rows: list[Row]):
        self.times = times
        self.rows = rows
        ncolumns = len(times)
        widest = (WIDTH - LEFT - RIGHT + GAP) / ncolumns - GAP
        self.map_width = min(widest, TALLEST / max(row.aspect for row in rows))
        self.pitch = self.map_width + GAP
        height = TOP + BOTTOM + sum(self._row_height(index) for index in range(len(rows)))
        self.canvas = Canvas(LEFT + ncolumns * self.pitch - GAP + RIGHT, height)

    def draw(self) -> Figure:
        """The finished figure."""
        top = self.canvas.height
        for column, time in enumerate(self.times):
            x = LEFT + column * self.pitch + 0.5 * self.map_width
            self.canvas.text(x, top - 0.25, f"t = {number(float(time))} s", ha="center")
        top -= TOP
        for _, group in groupby(range(len(self.rows)), key=lambda index: self._colour_key(index)):
            first = top - HEADING
            for index in group:
                image, lower = self._draw_row(index, top)
                top -= self._row_height(index)
            x = LEFT + len(self.times) * self.pitch - GAP
            self.canvas.colour_bar(x, lower, first - lower, image, self.rows[index].labels)
        return self.canvas.figure

    def _draw_row(self, index: int, top: float):
        """Draw a row below top; returns its last image and its lower border."""
        row = self.rows[index]
        lower = top - HEADING - row.aspect * self.map_width
        self.canvas.heading(LEFT, top, row)
        for column in range(len(self.times)):
            x = LEFT + column * self.pitch
            image = self.canvas.map(x, lower, self.map_width, row, column, column == 0, self._ends(index))
        return image, lower

    def _colour_key(self, index: int) -> tuple:
        return self.rows[index].unit, self.rows[index].limits

    def _ends(self, index: int) -> bool:
        """Whether the horizontal axis is written below a row: where the next has another one."""
        following = self.rows[index + 1 : index + 2]
        return not following or following[0].plane[0] != self.rows[index].plane[0]

    def _row_height(self, index: int) -> float:
        return HEADING + self.rows[index].aspect * self.map_width + TICKS * self._ends(index)


def gallery(rows: list[Row], heading: str = "") -> Figure:
    """Single maps side by side, for what does not change; each with its own colour bar."""
    ncolumns = min(len(rows), 3)
    pitch = (WIDTH - GAP) / max(ncolumns, 2)
    map_width = min(pitch - LEFT - RIGHT, TALLEST / max(row.aspect for row in rows))
    pitch = LEFT + map_width + RIGHT
    lines = [rows[first : first + ncolumns] for first in range(0, len(rows), ncolumns)]
    heights = [HEADING + max(row.aspect for row in line) * map_width + TICKS for line in lines]
    canvas = Canvas(max(ncolumns * pitch, 3.5), sum(heights) + BOTTOM + TOP * bool(heading))
    canvas.text(LEFT, canvas.height - 0.25, heading)
    top = canvas.height - TOP * bool(heading)
    for line, height in zip(lines, heights, strict=True):
        for column, row in enumerate(line):
            x, lower = LEFT + column * pitch, top - HEADING - row.aspect * map_width
            canvas.heading(x, top, row)
            image = canvas.map(x, lower, map_width, row, 0, True, True)
            canvas.colour_bar(x + map_width, lower, row.aspect * map_width, image, row.labels)
        top -= height
    return canvas.figure


class Canvas:
    """A figure measured in inches from its lower left corner."""

    def __init__(self, width: float, height: float):
        self.width = width
        self.height = height
        self.figure = Figure(figsize=(width, height), dpi=DPI)

    def axes(self, x: float, y: float, width: float, height: float):
        """Axes at a place."""
        return self.figure.add_axes(
            (x / self.width, y / self.height, width / self.width, height / self.height)
        )

    def text(self, x: float, y: float, text: str, **options) -> None:
        """Text at a place."""
        self.figure.text(x / self.width, y / self.height, text, color=BLACK, **options)

    def heading(self, x: float, top: float, row: Row) -> None:
        """Name and unit above a row."""
        unit = "" if row.unit == "1" else f" / {row.unit}"
        self.text(x, top - HEADING + 0.07, f"{row.label}{unit}", weight="bold")

    def colour_bar(self, x: float, y: float, height: float, image, labels=()) -> None:
        """The colour bar of an image at the right of x; with names where colours stand for kinds."""
        axes = self.axes(x + 0.12, y, BAR, height)
        bar = self.figure.colorbar(image, cax=axes, ticks=range(len(labels)) if labels else MaxNLocator(4))
        if labels:
            bar.set_ticklabels(labels)
        axes.tick_params(labelsize=8.5, length=2.5)
        axes.spines["outline"].set_linewidth(0.6)

    def map(self, x: float, y: float, width: float, row: Row, time: int, left: bool, below: bool):
        """The map of a row at a time; `left` and `below` say which axes are written."""
        axes = self.axes(x, y, width, row.aspect * width)
        image = axes.imshow(
            row.values[time],
            origin="lower",
            extent=row.extent,
            vmin=row.limits[0],
            vmax=row.limits[1],
            cmap=row.colours,
            interpolation="nearest",
            aspect="auto",
        )
        axes.grid(visible=False)
        axes.spines[:].set_visible(True)
        axes.xaxis.set_major_locator(MaxNLocator(max(1, min(4, int(width / 0.55)))))
        axes.yaxis.set_major_locator(MaxNLocator(3))
        axes.tick_params(
            labelleft=left, left=left, labelbottom=below, bottom=below, labelsize=8.5, length=2.5
        )
        if left:
            axes.set_ylabel(f"{row.plane[1]} / m", fontsize=9)
        if below:
            axes.set_xlabel(f"{row.plane[0]} / m", fontsize=9, labelpad=1)
            _keep_apart(axes, row.extent)
        return image


def _keep_apart(axes, extent) -> None:
    """Numbers at the ends of an axis lean inwards, or they run into those of the next map."""
    left, right = extent[:2]
    for tick, label in zip(axes.get_xticks(), axes.get_xticklabels(), strict=True):
        if abs(tick - left) < 0.08 * (right - left):
            label.set_horizontalalignment("left")
        elif abs(tick - right) < 0.08 * (right - left):
            label.set_horizontalalignment("right")
