"""What a run has left in its folder, read once and checked."""

from __future__ import annotations

import csv
import json
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from hpcmsm.errors import CheckpointError, ConfigError
from hpcmsm.fields import SPD_COMPONENTS, Field


@dataclass
class History:
    """One field over the snapshots.

    Attributes:
        components: names of the components, ("",) for a scalar.
        values: shape (nsnapshots, ncomponent, [nz,] ny, nx), in `unit`.
    """

    name: str
    unit: str
    components: tuple[str, ...]
    values: np.ndarray

    @property
    def changes(self) -> bool:
        """Whether any cell ever has another value than in the first snapshot."""
        return bool(np.any(self.values[1:] != self.values[:1]))


@dataclass
class Run:
    """A run as the report sees it; what is missing is empty.

    Attributes:
        config, config_text: the effective case.
        summary: summary.json, None for an unfinished run.
        steps: columns of steps.csv, each of shape (nrows,); nan where a field is empty.
        times: times of the snapshots in s, shape (nsnapshots,).
        size: side lengths of the grid in m along x, y[, z].
        centring: "cell" or "vertex", see `Grid`.
    """

    folder: Path
    config: dict = field(default_factory=dict)
    config_text: str = ""
    summary: dict | None = None
    steps: dict[str, np.ndarray] = field(default_factory=dict)
    times: np.ndarray = field(default_factory=lambda: np.empty(0))
    histories: list[History] = field(default_factory=list)
    size: tuple[float, ...] = ()
    centring: str = "cell"

    def edges(self, axis: int, n: int) -> np.ndarray:
        """Borders of the n cells along an axis in m, shape (n + 1,); cells cut off by a side are whole."""
        if self.centring == "vertex":
            return (np.arange(n + 1) - 0.5) * (self.size[axis] / (n - 1))
        return np.linspace(0.0, self.size[axis], n + 1)

    def centres(self, axis: int, n: int) -> np.ndarray:
        """Centres of the n cells along an axis in m, shape (n,)."""
        edges = self.edges(axis, n)
        return 0.5 * (edges[:-1] + edges[1:])

    @property
    def name(self) -> str:
        return (self.summary or {}).get("case") or self.folder.resolve().name

    @property
    def finished(self) -> bool:
        return self.summary is not None

    @property
    def has_surrogate(self) -> bool:
        """What the case says; where there is none, whether any cell was answered by a surrogate."""
        enabled = self.config.get("surrogate", {}).get("enabled")
        if enabled is not None:
            return bool(enabled)
        return any(np.nansum(self.column(name)) > 0 for name in ("accepted", "audited"))

    @property
    def tolerance(self) -> float | None:
        """Error that the gate allows, relative to the size of the output; 1 where it was given in units."""
        given = (self.summary or {}).get("tolerance")
        gate = self.config.get("gate", {})
        if given is None and gate.get("macro_tolerance") is None:
            given = gate.get("tolerance")
        return 1.0 if isinstance(given, str | dict) else given

    @property
    def tolerance_text(self) -> str:
        """The tolerance in the user's words: a number, or numbers with units."""
        return (self.summary or {}).get("tolerance_text") or f"{self.tolerance:g}"

    def column(self, name: str) -> np.ndarray:
        """A column of steps.csv, all nan if it has none of that name."""
        nrows = len(next(iter(self.steps.values()), ()))
        return self.steps.get(name, np.full(nrows, np.nan))


def read_run(folder: Path) -> Run:
    """Read the output folder of a run.

    Raises:
        ConfigError: there is no such folder.
        CheckpointError: it holds no run, or a damaged file.
    """
    if not folder.is_dir():
        raise ConfigError(f"DIR must be the output folder of a run, got '{folder}'; check the path")
    parts = ("case.toml", "summary.json", "steps.csv", "snapshots")
    if not any((folder / part).exists() for part in parts):
        raise CheckpointError(
            f"DIR must hold a run ({', '.join(parts)}), got '{folder}' with none of them; "
            "give the folder that 'hpcmsm run -o' wrote"
        )
    run = Run(folder, summary=_read_json(folder / "summary.json"), steps=_read_steps(folder / "steps.csv"))
    if (folder / "case.toml").exists():
        run.config_text = _read_text(folder / "case.toml")
        run.config = _parse(tomllib.loads, run.config_text, folder / "case.toml")
    _read_fields(run)
    return run


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise _damaged(path, error) from None


def _parse(parser, text: str, path: Path):
    try:
        return parser(text)
    except ValueError as error:  # what json and tomllib raise derives from it
        raise _damaged(path, error) from None


def _damaged(path: Path, error) -> CheckpointError:
    reason = " ".join(str(error).split())
    return CheckpointError(
        f"'{path.name}' must be as the run wrote it, got something unreadable in '{path}' ({reason}); "
        "restore it, or resume the run to write it anew"
    )


def _read_json(path: Path) -> dict | None:
    if not path.exists():
        return None
    tree = _parse(json.loads, _read_text(path), path)
    if not isinstance(tree, dict):
        raise _damaged(path, "not a table")
    return tree


def _read_steps(path: Path) -> dict[str, np.ndarray]:
    """Columns of steps.csv; a last row cut short by the end of the run is left out."""
    if not path.exists():
        return {}
    header, *rows = list(csv.reader(_read_text(path).splitlines())) or [[]]
    if header and header[:2] != ["step", "time"]:
        raise _damaged(path, "the first columns are not step and time")
    if rows and len(rows[-1]) < len(header):
        rows.pop()
    # A resumed run may have repeated steps that lay behind its checkpoint: the later row counts.
    latest = {}
    for number, row in enumerate(rows, start=2):
        if len(row) != len(header):
            raise _damaged(path, f"line {number} has {len(row)} fields, not {len(header)}")
        latest[row[0]] = [_parse(lambda text: float(text or "nan"), cell, path) for cell in row]
    ordered = sorted(latest.values(), key=lambda row: row[0])
    table = np.array(ordered, dtype=float).reshape(len(ordered), len(header))
    return dict(zip(header, table.T, strict=True))


def _read_fields(run: Run) -> None:
    """The fields of all snapshots, if there are any."""
    if not (run.folder / "snapshots").is_dir():
        return
    # Only here: a run without snapshots can be reported where HDF5 is missing.
    from hpcmsm.io.snapshots import read_snapshots, snapshot_paths

    if not snapshot_paths(run.folder / "snapshots"):
        return
    snapshots = read_snapshots(run.folder)
    run.times, run.size, run.centring = snapshots.times, snapshots.size, snapshots.centring
    histories = [
        History(name, declared.unit, component_labels(declared), snapshots.arrays[name])
        for name, declared in snapshots.fields.items()
    ]
    run.histories = sorted(histories, key=lambda history: _place(run, history))


def _place(run: Run, history: History) -> tuple:
    """Place of a field in the report: as in the summary, then scalars, then fields of many components."""
    summarised = list((run.summary or {}).get("fields") or {})
    first = f"{history.name}_{history.components[0]}".rstrip("_")
    return (summarised.index(first) if first in summarised else len(summarised)), len(history.components)


def component_labels(declared: Field) -> tuple[str, ...]:
    """What tells the components of a field apart in a picture: xx, yy, xy; or 0, 1, ...; or nothing."""
    if declared.size == 1:
        return ("",)
    return SPD_COMPONENTS[declared.size] if declared.spd else tuple(map(str, range(declared.size)))
