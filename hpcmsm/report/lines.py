"""The pictures of fields on a line: profiles at some times, and the whole history in space and time."""

from __future__ import annotations

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator, ScalarFormatter

from hpcmsm.output import SOURCE
from hpcmsm.report.maps import ANSWERED_BY, chosen_times, colour_limits, is_tensor_entry, shown_components
from hpcmsm.report.rundata import History, Run
from hpcmsm.report.sheet import COLOURS, KINDS, OTHER_COLOURS, SIGNED_COLOURS
from hpcmsm.report.style import BLACK, BLUE, DPI, WIDTH, Picture, render

ROW_HEIGHT, MARGIN = 2.3, 0.7
# Profiles become darker with time; the lightest is still seen on white.
LIGHTEST, DARKEST = 0.25, 0.95


def profiles(run: Run) -> list[Picture]:
    """Every field of a 1D run over x, and over x and time where it changes."""
    if not len(run.times) or not run.histories:
        return []
    shown = [history for history in run.histories if history.name != SOURCE.name or history.changes]
    rows = [(history, index) for history in shown for index in shown_components(history)]
    drawing = Figure(figsize=(WIDTH, MARGIN + ROW_HEIGHT * len(rows)), dpi=DPI, layout="constrained")
    panels = drawing.subplots(len(rows), 2, sharex=True, squeeze=False, width_ratios=(1.25, 1))
    for (left, right), (history, index) in zip(panels, rows, strict=True):
        _draw_profiles(left, run, history, index, legend=left is panels[0][0])
        if history.changes:
            _draw_history(drawing, right, run, history, index)
        else:
            right.set_axis_off()
    for panel in panels[-1]:
        panel.set_xlabel("x", color=BLACK)
        panel.xaxis.set_major_formatter(EngFormatter("m"))
        panel.tick_params(labelbottom=True)
    caption = "Fields over the line: profiles at some times, darker with time (left), and all times (right)."
    return [Picture("fields.png", caption, render(drawing))]


def _label(history: History, index: int) -> str:
    return f"{history.name} {history.components[index]}".strip()


def _draw_profiles(panel, run: Run, history: History, index: int, legend: bool) -> None:
    x = run.centres(0, history.values.shape[-1])
    chosen = chosen_times(run.times) if history.changes else np.array([len(run.times) - 1])
    shades = colormaps["Blues"](np.linspace(LIGHTEST, DARKEST, len(chosen))) if history.changes else [BLUE]
    seconds = EngFormatter("s", places=3)
    for snapshot, shade in zip(chosen, shades, strict=True):
        label = f"t = {_trimmed(seconds(run.times[snapshot]))}"
        kinds = {"drawstyle": "steps-mid"} if history.name == SOURCE.name else {}
        panel.plot(x, history.values[snapshot, index], color=shade, linewidth=1.4, label=label, **kinds)
    panel.set_xlim(0.0, run.size[0])
    panel.margins(y=0.08)
    if history.name == SOURCE.name:
        panel.set_yticks(range(len(ANSWERED_BY)), ANSWERED_BY)
        panel.set_ylabel("answered by", color=BLACK)
    else:
        panel.yaxis.set_major_formatter(ScalarFormatter(useMathText=True))
        unit = "" if history.unit == "1" else f"\n/ {history.unit}"
        panel.set_ylabel(f"{_label(history, index)}{unit}", color=BLACK)
    if legend:
        panel.legend(
            loc="lower left", bbox_to_anchor=(0, 1), ncols=len(chosen), handlelength=1.2, columnspacing=1.2
        )


def _trimmed(text: str) -> str:
    """A number with its unit, without zeros at its end."""
    number, _, unit = text.partition(" ")
    number = number.rstrip("0").rstrip(".") if "." in number else number
    return f"{number} {unit}"


def _draw_history(drawing, panel, run: Run, history: History, index: int) -> None:
    """All snapshots over x (across) and time (upwards)."""
    values = history.values[:, index]
    edges = run.edges(0, values.shape[1])
    if history.name == SOURCE.name:
        nkinds = max(2, int(values.max()) + 1)
        limits, colours = (-0.5, nkinds - 0.5), ListedColormap(KINDS[:nkinds], "kinds")
    else:
        signed = is_tensor_entry(history.components[index]) or values.min() < 0.0 < values.max()
        limits = colour_limits(values, signed and -values.min() > 0.1 * values.max())
        name = SIGNED_COLOURS if limits[0] == -limits[1] else COLOURS.get(history.unit, OTHER_COLOURS)
        colours = colormaps[name]
    image = panel.pcolormesh(
        edges, time_edges(run.times), values, cmap=colours, vmin=limits[0], vmax=limits[1], rasterized=True
    )
    panel.grid(visible=False)
    panel.set_ylim(run.times[0], run.times[-1])
    panel.yaxis.set_major_formatter(EngFormatter("s"))
    panel.yaxis.set_major_locator(MaxNLocator(5))
    bar = drawing.colorbar(image, ax=panel, pad=0.02, aspect=18, format=ScalarFormatter(useMathText=True))
    if history.name == SOURCE.name:
        bar.set_ticks(range(nkinds), labels=ANSWERED_BY[:nkinds])


def time_edges(times: np.ndarray) -> np.ndarray:
    """Borders between snapshots, half way; shape (ntimes + 1,)."""
    if len(times) == 1:
        return np.array([times[0] - 0.5, times[0] + 0.5])
    middle = 0.5 * (times[:-1] + times[1:])
    return np.concatenate([[2 * times[0] - middle[0]], middle, [2 * times[-1] - middle[-1]]])
