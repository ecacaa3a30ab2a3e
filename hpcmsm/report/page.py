"""The page of a run: one HTML file with everything in it, that needs no other file and no script."""

from __future__ import annotations

import base64
from html import escape
from typing import TYPE_CHECKING

from hpcmsm.report.rundata import Run
from hpcmsm.summary import headline, number, summary_sections

if TYPE_CHECKING:
    from hpcmsm.report.style import Picture

STYLE = """
:root { --ink: #1d2126; --soft: #5b626c; --line: #e1e4e8; --blue: #0072b2; }
* { box-sizing: border-box; }
body { font: 16px/1.5 system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; color: var(--ink);
  margin: 0; background: #f5f6f8; }
main { max-width: 1120px; margin: 0 auto; padding: 2rem 1.25rem 4rem; }
h1 { font-size: 1.8rem; margin: 0; }
h2 { font-size: 1.2rem; margin: 2.4rem 0 .8rem; }
p { margin: .3rem 0 .8rem; color: var(--soft); }
.state { font-size: .85rem; padding: .15rem .6rem; border-radius: 1rem; vertical-align: middle;
  color: #fff; background: #00805c; margin-left: .6rem; font-weight: 500; }
.unfinished { background: #b84c00; }
.figures { display: flex; flex-wrap: wrap; gap: .8rem; margin: 1.2rem 0; }
.figures div { background: #fff; border: 1px solid var(--line); border-radius: .5rem;
  padding: .7rem 1rem; flex: 1 1 10rem; }
.figures b { display: block; font-size: 1.45rem; font-variant-numeric: tabular-nums; }
.figures span { color: var(--soft); font-size: .85rem; }
figure { margin: 0 0 1.6rem; background: #fff; border: 1px solid var(--line); border-radius: .5rem;
  padding: 1rem; }
figure img { max-width: 100%; height: auto; display: block; margin: 0 auto; }
figcaption { color: var(--soft); font-size: .92rem; margin-top: .7rem; }
.tables { display: grid; grid-template-columns: repeat(auto-fit, minmax(30rem, 1fr)); gap: 1rem; }
table { border-collapse: collapse; background: #fff; width: 100%; font-size: .92rem;
  border: 1px solid var(--line); align-self: start; }
th, td { padding: .35rem .8rem; text-align: right; border-bottom: 1px solid var(--line);
  font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
th { background: #fafbfc; }
th:first-child, td:first-child, .text td { text-align: left; }
pre { background: #fff; border: 1px solid var(--line); border-radius: .5rem; padding: 1rem;
  overflow-x: auto; font-size: .85rem; line-height: 1.4; }
@media (max-width: 40rem) { .tables { grid-template-columns: 1fr; } }
"""


def page(run: Run, pictures: list[Picture]) -> str:
    """The HTML of a run with its pictures inside."""
    parts = [
        _head(run),
        _key_figures(run),
        *(_notes(run)),
        "<h2>Pictures</h2>" if pictures else "",
        *(_figure(picture) for picture in pictures),
        _tables(run),
        _provenance(run),
        _config(run),
    ]
    title = escape(run.name)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title} - hpcmsm report</title><style>{STYLE}</style></head>\n<body><main>\n"
        + "\n".join(part for part in parts if part)
        + "\n</main></body></html>\n"
    )


def _head(run: Run) -> str:
    state = "finished" if run.finished else "unfinished"
    mark = f'<span class="state {state}">{state}</span>'
    title = run.config.get("title")
    line = headline(run.summary) if run.finished else _how_far(run)
    return f"<h1>{escape(run.name)}{mark}</h1>" + "".join(
        f"<p>{escape(str(text))}</p>" for text in (title, line) if text
    )


def _how_far(run: Run) -> str:
    """One line on a run that has not written its summary."""
    step, time = run.column("step"), run.column("time")
    if not len(step):
        return "No step is finished yet."
    return f"The run stopped, or still runs, after step {step[-1]:.0f} at t = {number(float(time[-1]))} s."


def _notes(run: Run) -> list[str]:
    """What is left out of this page, and why."""
    notes = []
    if not run.finished:
        notes.append(
            "There is no summary.json, so totals, timings and provenance are missing; "
            "'hpcmsm resume' on this folder continues the run."
        )
    if not run.has_surrogate:
        notes.append(
            "This run had no surrogate: every cell was computed by the micro model, so the pictures of "
            "answers, gate and audits are left out."
        )
    if not run.histories:
        notes.append("There are no snapshots yet, so the pictures of the fields are left out.")
    return [f"<p>{escape(note)}</p>" for note in notes]


def _key_figures(run: Run) -> str:
    """The four or five numbers that a reader wants first."""
    summary = run.summary or {}
    closure, error = summary.get("closure") or {}, summary.get("audit_error") or {}
    calls = closure.get("calls")
    figures = [
        (number(summary.get("steps")), "steps") if summary.get("steps") is not None else None,
        (f"{calls:,}".replace(",", " "), "closure calls") if calls else None,
        (f"{100 * closure['accepted'] / calls:.2f} %", "answered by the surrogate")
        if calls and run.has_surrogate and closure.get("accepted") is not None
        else None,
        (number(error["p99"], 2), "audited error, 99th percentile") if error.get("p99") is not None else None,
        (f"{number(summary['wall_time'], 3)} s", "wall time")
        if summary.get("wall_time") is not None
        else None,
    ]
    cells = [
        f"<div><b>{escape(value)}</b><span>{escape(text)}</span></div>"
        for value, text in filter(None, figures)
    ]
    return f'<div class="figures">{"".join(cells)}</div>' if cells else ""


def _figure(picture: Picture) -> str:
    data = base64.b64encode(picture.png).decode("ascii")
    caption = escape(picture.caption)
    name = escape(picture.name.removesuffix(".png"))
    return (
        f'<figure id="{name}"><img alt="{caption}" src="data:image/png;base64,{data}">'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def _table(header: tuple[str, ...], rows: list[tuple[str, ...]], kind: str = "") -> str:
    def line(cells, tag):
        return "<tr>" + "".join(f"<{tag}>{escape(str(cell))}</{tag}>" for cell in cells) + "</tr>"

    body = "".join(line(row, "td") for row in rows)
    return f'<table class="{kind}"><thead>{line(header, "th")}</thead><tbody>{body}</tbody></table>'


def _tables(run: Run) -> str:
    if not run.finished:
        return ""
    tables = (
        _table((title, *columns), rows, "text" if title == "written" else "")
        for title, columns, rows in summary_sections(run.summary)
    )
    return f'<h2>Summary</h2><div class="tables">{"".join(tables)}</div>'


def _provenance(run: Run) -> str:
    rows = list(_flat((run.summary or {}).get("provenance") or {}))
    version = (run.summary or {}).get("hpcmsm")
    if version is not None and "hpcmsm" not in dict(rows):
        rows.insert(0, ("hpcmsm", version))
    return f"<h2>Provenance</h2>{_table(('what', ''), rows, 'text')}" if rows else ""


def _flat(tree: dict, prefix: str = ""):
    """Pairs (dotted key, value) of nested tables."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", " ".join(map(str, value)) if isinstance(value, list) else value


def _config(run: Run) -> str:
    if not run.config_text:
        return ""
    return f"<h2>Effective case</h2><pre>{escape(run.config_text)}</pre>"
