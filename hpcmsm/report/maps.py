"""The pictures of the fields: maps over time, and extreme values over time."""

from __future__ import annotations

from dataclasses import replace
from itertools import groupby

import numpy as np

from hpcmsm.output import SOURCE
from hpcmsm.report.rundata import History, Run
from hpcmsm.report.sheet import Row, Sheet, gallery
from hpcmsm.report.style import BLACK, SEQUENCE, Picture, figure, render
from hpcmsm.summary import number

NTIMES = 5
MOST_COMPONENTS = 6
# What the values of the field SOURCE stand for, see hpcmsm.batch.
ANSWERED_BY = ("micro", "surrogate", "similar")
# An off-diagonal entry below this part of the diagonal is round-off or a surrogate's error and not
# worth a picture.
NEGLIGIBLE = 1e-3


def fields(run: Run) -> list[Picture]:
    """Maps of every field: at about five times where it changes, once where it does not."""
    if not len(run.times) or not run.histories:
        return []
    chosen = chosen_times(run.times)
    # Where all cells are answered alike all the time, a map of who answered says nothing.
    shown = [history for history in run.histories if history.name != SOURCE.name or history.changes]
    rows = [row for history in shown for row in rows_of(run, history, chosen)]
    moving, fixed = [row for row in rows if row.changes], [row for row in rows if not row.changes]
    pictures = []
    if moving:
        caption = "Fields over time; each field has one colour bar for all its times."
        pictures.append(Picture("fields.png", caption, render(Sheet(run.times[chosen], moving).draw())))
    if fixed:
        name = "constant_fields.png" if moving else "fields.png"
        heading = "" if moving else f"t = {number(float(run.times[-1]))} s"
        caption = (
            "Fields that stay the same during the whole run." if moving else "Fields of the only snapshot."
        )
        pictures.append(Picture(name, caption, render(gallery(fixed, heading))))
    return pictures


def chosen_times(times: np.ndarray) -> np.ndarray:
    """Indices of the snapshots closest to NTIMES even times from the first to the last."""
    wanted = np.linspace(times[0], times[-1], NTIMES)
    return np.unique(np.abs(times[:, None] - wanted).argmin(axis=0))


def shown_components(history: History) -> list[int]:
    """Components worth a picture: the diagonal of a tensor, its other entries where they are not zero."""
    count = len(history.components)
    if not all(is_tensor_entry(name) for name in history.components):
        return list(range(min(count, MOST_COMPONENTS)))
    scale = np.nanmax(np.abs(history.values), initial=0.0)
    return [
        index
        for index, name in enumerate(history.components)
        if name[0] == name[1] or np.nanmax(np.abs(history.values[:, index])) > NEGLIGIBLE * scale
    ]


def is_tensor_entry(name: str) -> bool:
    """Whether a component is called xx, yy, xy, ..."""
    return len(name) == 2 and set(name) <= set("xyz")


def rows_of(run: Run, history: History, chosen: np.ndarray) -> list[Row]:
    """The rows of maps of a field; in 3D one through the middle of y and one through the middle of z."""
    rows = []
    if history.name == SOURCE.name:
        return _source_rows(run, history, chosen)
    shown = shown_components(history)
    signed = [is_tensor_entry(history.components[i]) and len(set(history.components[i])) == 2 for i in shown]
    for off_diagonal, group in groupby(zip(shown, signed, strict=True), key=lambda pair: pair[1]):
        indices = [index for index, _ in group]
        limits = colour_limits(history.values[chosen][:, indices], off_diagonal)
        for index in indices:
            rows += _cuts(run, history, chosen, index, limits)
    return rows


def _source_rows(run: Run, history: History, chosen: np.ndarray) -> list[Row]:
    nkinds = max(2, int(history.values.max()) + 1)
    rows = _cuts(run, history, chosen, 0, (-0.5, nkinds - 0.5))
    return [
        replace(row, label=row.label.replace(history.name, "answered by"), labels=ANSWERED_BY[:nkinds])
        for row in rows
    ]


def _cuts(run: Run, history: History, chosen: np.ndarray, index: int, limits) -> list[Row]:
    values = history.values[chosen, index]
    label = f"{history.name} {history.components[index]}".strip()
    if values.ndim == 3:
        return [
            Row(
                label,
                history.unit,
                values,
                "xy",
                _extent(run, "xy", values.shape[1:]),
                limits,
                history.changes,
            )
        ]
    nz, ny = values.shape[1:3]
    cuts = {
        "xz": (values[:, :, ny // 2], f"y = {number(_place(run, 1, ny), 3)} m"),
        "xy": (values[:, nz // 2], f"z = {number(_place(run, 2, nz), 3)} m"),
    }
    return [
        Row(
            f"{label} at {place}",
            history.unit,
            cut,
            plane,
            _extent(run, plane, cut.shape[1:]),
            limits,
            history.changes,
        )
        for plane, (cut, place) in cuts.items()
    ]


def _place(run: Run, axis: int, n: int) -> float:
    """Where the middle one of n cells along an axis lies, in m."""
    return float(run.centres(axis, n)[n // 2])


def _extent(run: Run, plane: str, shape: tuple[int, ...]) -> tuple[float, float, float, float]:
    """Borders of the cells (rows, columns) of a plane: left, right, lower, upper, in m."""
    ends = [run.edges("xyz".index(axis), n)[[0, -1]] for axis, n in zip(plane, shape[::-1], strict=True)]
    return tuple(float(end) for pair in ends for end in pair)


def colour_limits(values: np.ndarray, signed: bool) -> tuple[float, float]:
    """Range of the colours: of the finite values, symmetric about zero where the sign matters."""
    finite = values[np.isfinite(values)]
    low, high = (finite.min(), finite.max()) if finite.size else (0.0, 1.0)
    if signed:
        high = max(abs(low), abs(high))
        low = -high
    margin = 0.01 * (abs(low) or 1.0) if low == high else 0.0
    return float(low - margin), float(high + margin)


def _over_cells(function, values: np.ndarray) -> np.ndarray:
    """A function of each row of (nsnapshots, ncells) that knows nan; nan where there is nothing else."""
    known = ~np.isnan(values).all(axis=1)
    result = np.full(values.shape[0], np.nan)
    result[known] = function(values[known], axis=1)
    return result


def extremes(run: Run) -> Picture | None:
    """Least, mean and largest value of every field that changes, over time."""
    moving = [history for history in run.histories if history.changes and history.name != SOURCE.name]
    if not moving:
        return None
    drawing, panels = figure(0.6 + 1.75 * len(moving), len(moving))
    for panel, history in zip(panels, moving, strict=True):
        for index, colour in zip(shown_components(history), SEQUENCE, strict=False):
            values = history.values[:, index].reshape(len(run.times), -1)
            least, mean, largest = (_over_cells(f, values) for f in (np.nanmin, np.nanmean, np.nanmax))
            panel.fill_between(run.times, least, largest, color=colour, alpha=0.16, linewidth=0)
            panel.plot(run.times, largest, color=colour, linewidth=1.1)
            panel.plot(run.times, least, color=colour, linewidth=1.1)
            label = f"{history.components[index]} mean".strip()
            panel.plot(run.times, mean, color=colour, linestyle=(0, (4, 2)), label=label)
        panel.set(ylabel=f"{history.name}\n/ {history.unit}", xlim=(run.times[0], run.times[-1]))
        panel.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), handlelength=1.8)
    panels[-1].set_xlabel("time / s", color=BLACK)
    return Picture(
        "extremes.png",
        "Range of each field over time: the band reaches from its least to its largest value in the "
        "domain, the dashed line is the mean.",
        render(drawing),
    )
