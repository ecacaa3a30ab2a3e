"""Pictures of the offline chain: learning curve, importance, partial dependence, errors over inputs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from hpcmsm.io.dataset import Dataset
from hpcmsm.offline.explain import csv_text, input_names, units_of, write_result
from hpcmsm.report.style import BLUE, DPI, GREY, RED, SEQUENCE, WIDTH, figure, render, styled


def write_learning_curve(model: Path, rows: list[dict]) -> list[Path]:
    """Picture and table of a learning curve beside the model file."""
    return [
        write_result(model.with_suffix(".learning.png"), draw_learning_curve(rows)),
        write_result(model.with_suffix(".learning.csv"), csv_text(rows)),
    ]


@styled
def draw_learning_curve(rows: list[dict]) -> bytes:
    """Errors on the test part against the number of samples, both logarithmic."""
    drawing, (axes,) = figure(4.5)
    sizes = [row["samples"] for row in rows]
    for name, colour in (("p50", BLUE), ("p99", RED)):
        axes.loglog(sizes, [row[name] for row in rows], "o-", color=colour, label=name)
    axes.set(xlabel="samples to learn from", ylabel="relative error on the test part", title="Learning curve")
    axes.legend()
    return render(drawing)


@styled
def draw_importance(rows: list[dict]) -> bytes:
    """Errors with the values of one input shuffled, against the error as it is."""
    drawing, (axes,) = figure(1.5 + 0.5 * len(rows))
    places = np.arange(len(rows))
    axes.barh(places, [row["shuffled"] for row in rows], xerr=[row["spread"] for row in rows], color=BLUE)
    axes.axvline(rows[0]["error"], color=RED, label="nothing shuffled")
    axes.set(xscale="log", xlabel="root mean square relative error", title="Error if an input is shuffled")
    axes.set_yticks(places, [row["input"] for row in rows])
    axes.legend()
    return render(drawing)


@styled
def draw_dependence(rows: list[dict], units: dict[str, str]) -> bytes:
    """Mean answers, and the range of most of them, as functions of each input."""
    inputs = list(dict.fromkeys(row["input"] for row in rows))
    outputs = list(dict.fromkeys(row["output"] for row in rows))
    drawing, panels = figure(3.0 * len(inputs), len(inputs), sharex=False)
    for axes, name in zip(panels, inputs, strict=True):
        for place, output in enumerate(outputs):
            part = [row for row in rows if (row["input"], row["output"]) == (name, output)]
            colour, values = SEQUENCE[place % len(SEQUENCE)], [row["value"] for row in part]
            axes.plot(values, [row["mean"] for row in part], color=colour, label=output)
            low, high = ([row[key] for row in part] for key in ("p10", "p90"))
            axes.fill_between(values, low, high, color=colour, alpha=0.15, linewidth=0)
        axes.set(xlabel=f"{name} [{units[name]}]", ylabel=f"[{units[outputs[0]]}]")
    panels[0].set_title("Answers as a function of one input: mean, and 10 % to 90 % over the samples")
    panels[0].legend()
    return render(drawing)


@styled
def draw_fallback(errors: np.ndarray, scores: np.ndarray, data: Dataset) -> bytes:
    """Errors and scores of all samples over each input."""
    names, units = input_names(data), units_of(data)
    drawing, panels = figure(3.0 * len(names), len(names), sharex=False)
    for axes, name, values in zip(panels, names, data.samples.inputs, strict=True):
        axes.semilogy(values, np.maximum(scores, 1e-16), ".", color=GREY, markersize=3, label="score")
        axes.semilogy(values, np.maximum(errors, 1e-16), ".", color=RED, markersize=3, label="true error")
        axes.set(xlabel=f"{name} [{units[name]}]", ylabel="relative")
    panels[0].set_title("Where scores are large, cells fall back")
    panels[0].legend()
    return render(drawing)


@styled
def draw_saliency(images: np.ndarray, saliency: np.ndarray) -> bytes:
    """Cells (n, ny, nx) above, and below them how much K depends on the conductivity of each point."""
    drawing = Figure(figsize=(WIDTH, 5.6), dpi=DPI, layout="constrained")
    axes = drawing.subplots(2, len(images), squeeze=False)
    # In parts of what a point of a uniform cell has.
    shares = saliency * images[0].size
    limits = {"vmin": 0.0, "vmax": float(np.quantile(shares, 0.99))}
    for column, (image, share) in enumerate(zip(images, shares, strict=True)):
        above = axes[0, column].imshow(image, origin="lower", cmap="Greys", vmin=0.0, vmax=images.max())
        below = axes[1, column].imshow(share, origin="lower", cmap="viridis", **limits)
    for place in axes.flat:
        place.set_xticks([])
        place.set_yticks([])
        place.grid(False)
        place.spines[:].set_visible(False)
    drawing.colorbar(above, ax=axes[0], label="conductivity [W/(m K)]", shrink=0.8)
    drawing.colorbar(below, ax=axes[1], label="sensitivity, mean 1", shrink=0.8)
    drawing.suptitle("Cells, and how much their conductivity depends on each point")
    return render(drawing)
