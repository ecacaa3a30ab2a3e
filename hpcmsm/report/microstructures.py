"""Pictures of single cells: where their phases lie, and the fields inside one."""

from __future__ import annotations

import math

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import ListedColormap, to_hex
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from hpcmsm.report.style import BLACK, DPI, SEQUENCE, Picture, render, styled

# A matrix is light, so that inclusions stand out.
PHASES = ("#DDE3EA", *SEQUENCE)
MANY = colormaps["twilight"]
PER_ROW = 4
PANEL = 2.6  # inches


def section(values: np.ndarray) -> np.ndarray:
    """The picture of a cell: itself in 2D, in 3D the layer in the middle of z; last two axes y, x."""
    return values if values.ndim == 2 else values[values.shape[0] // 2]


@styled
def microstructures(shown: list[tuple[str, np.ndarray, tuple[str, ...]]]) -> Picture | None:
    """Where the phases lie; see `MicroModel.microstructures`. None where there is nothing to see."""
    if not shown:
        return None
    ncolumn = min(PER_ROW, len(shown))
    nrow = math.ceil(len(shown) / ncolumn)
    drawing = Figure(figsize=(PANEL * ncolumn, (PANEL + 0.55) * nrow), dpi=DPI, layout="constrained")
    panels = drawing.subplots(nrow, ncolumn, squeeze=False).ravel()
    for panel, (title, labels, names) in zip(panels, shown, strict=False):
        nphase = max(len(names), int(labels.max()) + 1)
        _phases(panel, section(labels), nphase)
        panel.set_title(title if labels.ndim == 2 else f"{title}, z = 1/2")
        if len(set(names)) == 1 < len(names):  # grains of one material
            panel.set_xlabel(f"{len(names)} orientations of {names[0]}")
            continue
        handles = [
            Patch(facecolor=_colour(phase, nphase), label=f"{_name(names, phase)} {100 * part:.1f} %")
            for phase, part in enumerate(np.bincount(labels.ravel()) / labels.size)
            if part > 0
        ]
        panel.legend(
            handles=handles,
            loc="upper center",
            bbox_to_anchor=(0.5, 0.0),
            ncols=2,
            fontsize=8.5,
            handlelength=1,
        )
    for panel in panels[len(shown) :]:
        panel.set_axis_off()
    caption = "Where the phases lie in a cell" + (" (some of them)." if len(shown) > 1 else ".")
    return Picture("microstructure.png", caption, render(drawing))


def _name(names: tuple[str, ...], phase: int) -> str:
    return names[phase] if phase < len(names) else f"phase {phase}"


def _colour(phase: int, nphase: int) -> str:
    """Of one phase; many have a circle of colours, as orientations do."""
    return PHASES[phase % len(PHASES)] if nphase <= len(PHASES) else to_hex(MANY(phase / nphase))


def _phases(panel, labels: np.ndarray, nphase: int) -> None:
    colours = ListedColormap([_colour(phase, nphase) for phase in range(nphase)])
    limits = {"vmin": 0, "vmax": max(1, nphase - 1)}
    panel.imshow(labels, origin="lower", extent=(0, 1, 0, 1), cmap=colours, **limits, interpolation="nearest")
    panel.set(xticks=[], yticks=[])
    panel.grid(False)


@styled
def fields(found: list) -> Picture:
    """Correctors, gradients and fluxes inside a cell, one row per direction of the macro gradient.

    Args:
        found: pairs of a Field and its values, see `MicroModel.inside`.
    """
    values = {field.name: array for field, array in found}
    loads = [name[-1] for name in values if name.startswith("flux_")]
    drawing = Figure(figsize=(3.5 * 4, 3.15 * len(loads)), dpi=DPI, layout="constrained")
    rows = drawing.subplots(len(loads), 4, squeeze=False)
    flat = values["phase"].ndim == 3
    at = "" if flat else ", at z = 1/2"
    for panels, axis in zip(rows, loads, strict=True):
        labels = section(values["phase"][0]).astype(int)
        flux, gradient = (np.stack([section(c) for c in values[f"{n}_{axis}"]]) for n in ("flux", "gradient"))
        _phases(panels[0], labels, int(labels.max()) + 1)
        if axis != "z":  # which would come towards the reader
            _streams(panels[0], flux)
        panels[0].set_title(f"warmer by 1 K/m along {axis}{at}")
        chi = section(values[f"corrector_{axis}"][0])
        _map(drawing, panels[1], chi, "deviation of T / (K/m · side)", "RdBu_r", np.abs(chi).max())
        _map(drawing, panels[2], np.linalg.norm(gradient, axis=0), "|grad T| / (K/m)", "magma")
        _map(drawing, panels[3], np.linalg.norm(flux, axis=0), "|flux| / (W/m²)", "viridis")
    caption = "Inside one cell, for unit temperature gradients: phases and heat flow, deviation of the "
    caption += "temperature from its mean course, temperature gradient, heat flux."
    return Picture("cell.png", caption, render(drawing))


def _streams(panel, flux: np.ndarray) -> None:
    """Lines along which heat flows, towards the cold."""
    n = flux.shape[1]
    points = (np.arange(n) + 0.5) / n
    panel.streamplot(
        points, points, -flux[0], -flux[1], color=BLACK, linewidth=0.7, density=0.8, arrowsize=0.7
    )
    panel.set(xlim=(0, 1), ylim=(0, 1))


def _map(
    drawing, panel, values: np.ndarray, title: str, colours: str, symmetric: float | None = None
) -> None:
    limits = {} if symmetric is None else {"vmin": -symmetric, "vmax": symmetric}
    image = panel.imshow(
        values, origin="lower", extent=(0, 1, 0, 1), cmap=colours, interpolation="nearest", **limits
    )
    panel.set(title=title, xticks=[], yticks=[])
    panel.grid(False)
    drawing.colorbar(image, ax=panel, shrink=0.85)
