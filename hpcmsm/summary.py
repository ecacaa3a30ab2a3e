"""The summary of a run as tables: one content for the terminal and for the report page."""

from __future__ import annotations

import math

TABLE_WIDTH = 96
FIRST_COLUMN = 36


def summary_table(summary: dict) -> str:
    """The table printed at the end of a run, plain text below 100 columns (paths are never cut).

    Args:
        summary: what summary.json holds; parts that are missing are left out.
    """
    lines = [headline(summary)]
    for title, columns, rows in summary_sections(summary):
        lines += ["", *_text_table((title, *columns), rows)]
    return "\n".join(line.rstrip() for line in lines)


def headline(summary: dict) -> str:
    """One line: the case, how far it came, how long it took, on how many ranks."""
    nranks = summary.get("nranks", 1)
    return (
        f"{summary.get('case') or 'run'}: {number(summary.get('steps'))} steps to t = "
        f"{number(summary.get('time'))} s in {number(summary.get('wall_time'))} s wall time on "
        f"{nranks} rank{'s' if nranks != 1 else ''}"
    )


def summary_sections(summary: dict) -> list[tuple[str, tuple[str, ...], list[tuple[str, ...]]]]:
    """The tables of a summary as (title, column names, rows of text): one content for text and HTML."""
    sections = [
        *_asked_sections(summary),
        ("work of the micro model", ("value",), _work_rows(summary)),
        ("wall time of a rank", ("mean / s", "min / s", "max / s", "share", "calls"), _phase_rows(summary)),
        ("field", ("unit", "min", "max"), _field_rows(summary)),
        *_probe_sections(summary),
        ("written", ("",), _items(summary.get("files"))),
    ]
    return [section for section in sections if section[2]]


def _asked_sections(summary: dict, of: str = "") -> list[tuple]:
    """Calls and audited errors of a closure, and of those that its micro model asks."""
    sections = [
        (f"closure calls{of}", ("cells", "share"), _closure_rows(summary)),
        (f"audited error{of}", ("value",), _error_rows(summary)),
    ]
    for name, below in (summary.get("nested") or {}).items():
        sections += _asked_sections(below, f" of {name}")
    return sections


def _items(files) -> list[tuple[str, str]]:
    """Files as (what, path), whether they are listed by name or not."""
    if isinstance(files, dict):
        pairs = [(what, path) for what, paths in files.items() for path in _as_list(paths)]
    else:
        pairs = [("file", path) for path in _as_list(files)]
    return [(str(what), str(path)) for what, path in pairs]


def _as_list(value) -> list:
    return value if isinstance(value, list) else [] if value is None else [value]


def _closure_rows(summary: dict) -> list[tuple[str, ...]]:
    closure = summary.get("closure") or {}
    calls = closure.get("calls")
    if not calls:
        return []
    names = {
        "accepted": "answered by the surrogate",
        "audited": "audited (surrogate and micro model)",
        "fallback": "fallback (micro model)",
    }
    if not any(closure.get(key) for key in ("accepted", "audited", "versions")):
        return [("asked, answered by the micro model", f"{calls:d}", "100.00 %")]
    rows = [("asked", f"{calls:d}", "100.00 %")]
    rows += [
        (text, f"{closure[key]:d}", f"{100 * closure[key] / calls:.2f} %")
        for key, text in names.items()
        if closure.get(key) is not None
    ]
    if closure.get("versions") is not None:
        rows.append(("surrogate versions", number(closure["versions"]), ""))
    return rows


def _error_rows(summary: dict) -> list[tuple[str, ...]]:
    error, coverage = summary.get("audit_error") or {}, summary.get("coverage") or {}
    names = {
        "mean_signed": "mean, signed, relative",
        "p50": "median",
        "p99": "99th percentile",
        "max": "largest",
    }
    rows = [(text, number(error[key], 3)) for key, text in names.items() if error.get(key) is not None]
    if not rows:
        return []
    text = summary.get("tolerance_text")
    if text is not None and summary.get("tolerance") == 1.0:  # a relative one is below 1
        rows.append(("tolerance; errors are in parts of the tolerance", text))
    elif summary.get("tolerance") is not None:
        rows.append(("tolerance", number(summary["tolerance"], 3)))
    elif text is not None:
        rows.append(("tolerance", text))
    if coverage.get("obtained") is not None:
        asked = f" (asked {100 * coverage['asked']:.1f} %)" if coverage.get("asked") is not None else ""
        rows.append(("audits within the tolerance", f"{100 * coverage['obtained']:.1f} %{asked}"))
    return rows


def _work_rows(summary: dict) -> list[tuple[str, ...]]:
    work = summary.get("micro_work") or {}
    if not work.get("imbalance"):
        return []
    rows = [("of all ranks together / s", number(work["seconds"]))]
    if summary.get("nranks", 1) > 1:
        rows.append(("rank with the most over the mean", f"{work['imbalance']:.2f}"))
    return rows


def _phase_rows(summary: dict) -> list[tuple[str, ...]]:
    phases = summary.get("phases") or {}
    whole = sum(phase["mean"] for phase in phases.values()) or 1.0
    return [
        (
            name,
            *(f"{phase[key]:.3f}" for key in ("mean", "min", "max")),
            f"{100 * phase['mean'] / whole:.1f} %",
            number(phase.get("calls")),
        )
        for name, phase in sorted(phases.items(), key=lambda item: -item[1]["mean"])
    ]


def _field_rows(summary: dict) -> list[tuple[str, ...]]:
    fields = summary.get("fields") or {}
    return [
        (name, field.get("unit", "1"), number(field.get("min"), 6), number(field.get("max"), 6))
        for name, field in fields.items()
    ]


def _probe_sections(summary: dict) -> list[tuple[str, tuple[str, ...], list[tuple[str, ...]]]]:
    """The table of the probes of a model, with their coordinates; none where there are none."""
    probes = summary.get("probes") or {}
    name = probes.get("field")
    rows = [
        (probe, *(number(x) for x in facts["at"]), number(facts[name], 6))
        for probe, facts in (probes.get("points") or {}).items()
    ]
    axes = tuple(f"{axis} / m" for axis in "xyz"[: len(rows[0]) - 2]) if rows else ()
    return [("probe", (*axes, f"{name} / {probes['unit']}"), rows)] if rows else []


def _text_table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    """Header, rule and rows; the first column to the left, numbers to the right."""
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]
    widths[0] = max(widths[0], min(FIRST_COLUMN, TABLE_WIDTH - sum(widths[1:]) - 2 * len(widths)))
    written = header[0] == "written"

    def line(cells):
        first, *rest = cells
        numbers = (
            cell if written else cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True)
        )
        return "  ".join((first.ljust(widths[0]), *numbers))

    rule = "-" * min(TABLE_WIDTH, sum(widths) + 2 * (len(widths) - 1))
    return [line(header), rule, *(line(row) for row in rows)]


def number(value, digits: int = 4) -> str:
    """A number as short as it can be read: 4 significant digits, counts in full, "-" for nothing."""
    if value is None or isinstance(value, str):
        return value or "-"
    if isinstance(value, int):
        return str(value)
    return "-" if math.isnan(value) else f"{value:.{digits}g}"
