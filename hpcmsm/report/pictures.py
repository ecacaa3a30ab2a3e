"""The pictures over steps and phases: who answered, the gate, the audits, the time it took."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.ticker import MaxNLocator, PercentFormatter

from hpcmsm.config import parse_case
from hpcmsm.errors import HpcmsmError
from hpcmsm.evaluate import micro_of
from hpcmsm.report.cells import insides
from hpcmsm.report.lines import profiles
from hpcmsm.report.maps import extremes, fields
from hpcmsm.report.microstructures import microstructures
from hpcmsm.report.rundata import Run
from hpcmsm.report.style import BLACK, BLUE, GREEN, GREY, ORANGE, PURPLE, RED, Picture, figure, render, styled


@styled
def draw_all(run: Run) -> list[Picture]:
    """Every picture that the data of the run allow, in the order of the page."""
    drawn = [*(profiles(run) if len(run.size) == 1 else fields(run)), *insides(run), extremes(run)]
    if run.has_surrogate and len(run.column("step")):
        drawn += [answers(run), gate(run), audits(run)]
    drawn += [phases_of_cells(run), phases(run)]
    return [picture for picture in drawn if picture is not None]


def phases_of_cells(run: Run) -> Picture | None:
    """Where the phases of the cells lie, if the case still makes one of our own micro models."""
    materials = run.config.get("materials", {}).values()
    tables = [
        run.config.get("micro", {}),
        *(material["micro"] for material in materials if "micro" in material),
    ]
    if any(":" in table.get("model", ":") for table in tables):  # no code of a user runs for a picture
        return None
    folder = Path((run.summary or {}).get("provenance", {}).get("case_folder", "."))
    try:
        shown = micro_of(parse_case(run.config_text, "case.toml"), folder).microstructures()
    except HpcmsmError:  # an image that is gone, a library that is not here
        return None
    return microstructures(shown)


def answers(run: Run) -> Picture | None:
    """Who answered the closure calls, step by step."""
    calls = run.column("calls")
    kinds = ("accepted", "audited", "fallback")
    share = {
        kind: 100 * np.nan_to_num(run.column(kind) / np.where(calls > 0, calls, np.nan)) for kind in kinds
    }
    if not np.nansum(calls):
        return None
    drawing, (whole, close) = figure(5.2, 2, ratios=(3, 2))
    edges = step_edges(run.column("step"))
    colours = {"fallback": RED, "audited": ORANGE, "accepted": BLUE}
    labels = {
        "fallback": "fallback: micro model",
        "audited": "audited: surrogate and micro model",
        "accepted": "accepted: surrogate",
    }
    floor = np.zeros(len(calls))
    for kind, colour in colours.items():
        top = floor + share[kind]
        whole.stairs(top, edges, baseline=floor, fill=True, color=colour, label=labels[kind], alpha=0.9)
        floor = top
    whole.set(ylim=(0, 100), ylabel="share of the cells")
    whole.yaxis.set_major_formatter(PercentFormatter())
    for kind in ("fallback", "audited"):
        values = np.where(share[kind] > 0, share[kind], np.nan)
        close.plot(run.column("step"), values, ".-", color=colours[kind], markersize=3, linewidth=0.8)
    close.set(yscale="log", ylim=(min(0.5, 0.7 * close.dataLim.minposy), 140))
    close.set(ylabel="share (log scale)", xlabel="step")
    close.yaxis.set_major_formatter(lambda value, _: f"{value:g}%")
    finish(run, whole, close)
    return Picture(
        "answers.png",
        "Who answered the closure calls of each step; dashed lines mark the steps from which on a newly "
        "trained version of the surrogate was used.",
        render(drawing),
    )


def gate(run: Run) -> Picture | None:
    """The calibration of the gate: the factor q on the scores, and the level alpha."""
    step, q, alpha = (run.column(name) for name in ("step", "q", "alpha"))
    if not (np.isfinite(q).any() or np.isfinite(alpha).any()):
        return None
    drawing, (upper, lower) = figure(4.6, 2)
    finite = np.where(np.isfinite(q) & (q > 0), q, np.nan)
    upper.plot(step, finite, color=BLUE, drawstyle="steps-mid")
    wide = np.nanmax(finite, initial=0) > 20 * np.nanmin(finite, initial=np.inf)
    upper.set(yscale="log" if wide else "linear", ylabel="q (factor on the score)")
    shade_closed(upper, step, ~np.isfinite(finite))
    if not np.isfinite(finite).any():
        upper.set_yticks([])
    lower.plot(step, 100 * alpha, color=GREEN, drawstyle="steps-mid", label="level alpha: misses allowed")
    audited = np.nancumsum(run.column("audited"))
    if audited[-1] > 0:
        rate = np.where(
            audited > 0, 100 * np.nancumsum(run.column("missed")) / np.maximum(audited, 1), np.nan
        )
        lower.plot(step, rate, color=PURPLE, linewidth=1.1, label="audits that missed their bound, so far")
    lower.set(ylabel="share", xlabel="step", ylim=(0, 1.1 * lower.dataLim.ymax or 1))
    lower.yaxis.set_major_formatter(lambda value, _: f"{value:g}%")
    finish(run, upper, lower)
    return Picture(
        "gate.png",
        "Calibration of the gate: a cell is accepted where q times its score stays below the tolerance; "
        "where the band is grey q is infinite and every cell falls back to the micro model.",
        render(drawing),
    )


def audits(run: Run) -> Picture | None:
    """What the audits found, against the tolerance."""
    step, mean, largest = (run.column(name) for name in ("step", "audit_error_mean", "audit_error_max"))
    if not (np.isfinite(mean).any() or np.isfinite(largest).any()):
        return None
    drawing, (axes,) = figure(3.6)
    kind = ", relative" if run.tolerance == 1.0 else ""
    axes.plot(step, positive(largest), ".", color=RED, markersize=5, label="largest of the step")
    axes.plot(step, positive(mean), "^", color=BLUE, markersize=4, label=f"mean of the step{kind}, too high")
    if (mean < 0).any():
        label = f"mean of the step{kind}, too low"
        axes.plot(step, positive(-mean), "v", color=BLUE, markersize=4, markerfacecolor="white", label=label)
    if run.tolerance:
        label = f"tolerance {run.tolerance_text}"
        axes.axhline(run.tolerance, color=BLACK, linewidth=1.2, label=label)
    parts = "\nin parts of the tolerance" if run.tolerance == 1.0 else ""
    axes.set(yscale="log", ylabel=f"error of audited answers{parts}", xlabel="step")
    finish(run, axes)
    return Picture(
        "audits.png",
        "Error of the surrogate in the audited cells, which were also given to the micro model, "
        "against the tolerance of the gate.",
        render(drawing),
    )


def phases(run: Run) -> Picture | None:
    """Where the wall time went."""
    table = sorted(((run.summary or {}).get("phases") or {}).items(), key=lambda item: item[1]["mean"])
    if not table:
        return None
    whole = sum(phase["mean"] for _, phase in table) or 1.0
    drawing, (axes,) = figure(0.9 + 0.36 * len(table))
    longest = max(phase["max"] for _, phase in table) or 1.0
    for row, (_, phase) in enumerate(table):
        axes.barh(row, phase["mean"], color=BLUE, height=0.62)
        axes.plot(
            [phase["min"], phase["max"]], [row, row], color=BLACK, linewidth=1.4, marker="|", markersize=8
        )
        text = f"{phase['mean']:.3g} s   {100 * phase['mean'] / whole:.1f} %"
        axes.text(phase["max"] + 0.012 * longest, row, text, va="center", fontsize=9.5)
    axes.set_yticks(range(len(table)), [name for name, _ in table], color=BLACK)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", visible=False)
    axes.set(xlabel="wall time of a rank / s", xlim=(0, 1.18 * longest))
    return Picture(
        "phases.png",
        "Wall time per phase: bars show the mean over the ranks, black lines reach from the fastest rank "
        "to the slowest; inner phases are not counted twice.",
        render(drawing),
    )


def positive(values: np.ndarray) -> np.ndarray:
    """Values as a log axis can show them, nan elsewhere."""
    return np.where(values > 0, values, np.nan)


def step_edges(step: np.ndarray) -> np.ndarray:
    """Borders of the bars of the steps, shape (nsteps + 1,)."""
    return np.append(step - 0.5, step[-1] + 0.5)


def shade_closed(axes, step: np.ndarray, closed: np.ndarray) -> None:
    """A grey band over the steps in which the gate let nothing through."""
    edges = step_edges(step)
    starts = np.flatnonzero(closed & ~np.append(False, closed[:-1]))
    ends = np.flatnonzero(closed & ~np.append(closed[1:], False)) + 1
    for number, (start, end) in enumerate(zip(starts, ends, strict=True)):
        label = None if number else "gate closed (q infinite)"
        axes.axvspan(edges[start], edges[end], color=GREY, alpha=0.22, linewidth=0, label=label)


def finish(run: Run, *panels) -> None:
    """What all pictures over steps share: marks of new versions, whole numbers, legends above the axes."""
    version, step = np.nan_to_num(run.column("version")), run.column("step")
    swaps = np.flatnonzero(np.diff(version) != 0) + 1
    for panel in panels:
        for swap in swaps:
            panel.axvline(step[swap] - 0.5, color=BLACK, linestyle=(0, (4, 3)), linewidth=0.8, alpha=0.7)
        panel.set_xlim(step[0] - 0.5, step[-1] + 0.5)
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        _legend(panel, 1.0 if panel is not panels[0] or not len(swaps) else 1.07)
    _name_versions(panels[0], step[swaps] - 0.5, version[swaps])


def _legend(panel, height: float) -> None:
    handles, _ = panel.get_legend_handles_labels()
    if handles:
        panel.legend(
            loc="lower left",
            bbox_to_anchor=(0, height),
            ncols=len(handles),
            borderaxespad=0.2,
            handlelength=1.4,
            columnspacing=1.6,
        )


def _name_versions(panel, places: np.ndarray, versions: np.ndarray) -> None:
    """v1, v2, ... above the marks; a name without room beside the one before is left out."""
    left, right = panel.get_xlim()
    last = -np.inf
    for place, version in zip(places, versions, strict=True):
        if place - last > 0.03 * (right - left):
            panel.text(
                place,
                1.01,
                f"v{version:.0f}",
                transform=panel.get_xaxis_transform(),
                ha="center",
                va="bottom",
                fontsize=8.5,
                color=BLACK,
            )
            last = place
