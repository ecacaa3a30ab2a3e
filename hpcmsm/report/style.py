"""How the pictures look: one set of colours, fonts and lines for all of them."""

from __future__ import annotations

import io
from dataclasses import dataclass

from matplotlib import rc_context
from matplotlib.figure import Figure

# Okabe and Ito's colours, told apart by colour-blind readers too.
BLUE, ORANGE, GREEN, RED = "#0072B2", "#E69F00", "#009E73", "#D55E00"
SKY, PURPLE, BLACK, GREY = "#56B4E9", "#CC79A7", "#222222", "#8A8F98"
SEQUENCE = (BLUE, RED, GREEN, PURPLE, ORANGE, SKY)
WIDTH = 11.0
DPI = 160

STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.titlesize": 10.5,
    "axes.labelsize": 10,
    "axes.edgecolor": GREY,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.titlelocation": "left",
    "grid.color": "#E4E7EB",
    "grid.linewidth": 0.8,
    "xtick.color": "#4A4F57",
    "ytick.color": "#4A4F57",
    "lines.linewidth": 1.6,
    "legend.frameon": False,
    "legend.fontsize": 9.5,
    "figure.facecolor": "white",
}


@dataclass(frozen=True)
class Picture:
    """A finished picture: file name, one sentence, the bytes of the PNG."""

    name: str
    caption: str
    png: bytes


def styled(draw):
    """Run a drawing function in our style, without touching the settings of the process."""

    def wrapper(*args, **options):
        with rc_context(STYLE):
            return draw(*args, **options)

    return wrapper


def figure(height: float, nrows: int = 1, ratios=None, sharex: bool = True):
    """A figure of the common width with axes below one another; returns (figure, list of axes)."""
    # Figure, not pyplot: no window system is asked for, nothing is kept between pictures.
    drawing = Figure(figsize=(WIDTH, height), dpi=DPI, layout="constrained")
    axes = drawing.subplots(nrows, 1, sharex=sharex, squeeze=False, height_ratios=ratios)
    return drawing, list(axes[:, 0])


def render(drawing: Figure) -> bytes:
    """The PNG of a figure; the same data gives the same bytes."""
    buffer = io.BytesIO()
    drawing.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
