"""The output folder of a run: effective case, step log, summary."""

from __future__ import annotations

import csv
import difflib
import errno
import fcntl
import json
import math
import os
import shutil
import sys
from contextlib import suppress
from pathlib import Path

from hpcmsm.errors import ConfigError
from hpcmsm.fields import Field
from hpcmsm.parallel import together

SOURCE = Field("source", unit="1", about="who answered the cell: 0 micro model, 1 surrogate, 2 similar cell")
COLUMNS = [
    "step",
    "time",
    "dt",
    "calls",
    "accepted",
    "audited",
    "fallback",
    "missed",
    "q",
    "alpha",
    "version",
    "samples",
    "audit_error_mean",
    "audit_error_max",
    "iterations",
    "wall_time",
]
LOCK = ".lock"
OURS = ("case.toml", "steps.csv", "summary.json", "checkpoints", "snapshots", "report")


# A state of more components (a phase field, atoms) would fill the snapshots; it is in the checkpoints.
LARGEST_SHOWN = 64


def snapshot_fields(parts, chosen: list[str] | None = None) -> tuple[Field, ...]:
    """Fields that a snapshot of a run holds: those whose names are given, else all but large states.

    Raises:
        ConfigError: there is no field of a given name.
    """
    constant = tuple(field for field, _ in parts.cell_fields.values())
    macro = (*parts.macro.unknowns, *parts.macro.kept)
    fields = (*macro, *parts.closure.outputs, *parts.micro.state, *constant, SOURCE)
    if chosen is None:
        large = {field.name for field in parts.micro.state if field.size > LARGEST_SHOWN}
        return tuple(field for field in fields if field.name not in large)
    names = [field.name for field in fields]
    for name in chosen:
        if name not in names:
            close = difflib.get_close_matches(name, names, 1)
            advice = f"did you mean '{close[0]}'?" if close else f"known are {', '.join(names)}"
            raise ConfigError(f"snapshots.fields must name fields of the run, got '{name}'; {advice}")
    return tuple(field for field in fields if field.name in chosen)


class Output:
    """Files of a run that are not fields; only rank 0 writes them.

    Args:
        folder: output folder.
        comm: ranks that agree on failures.
    """

    def __init__(self, folder: Path, comm):
        self.folder, self.comm = Path(folder), comm
        self._log = None

    def create(self, case_text: str, overwrite: bool) -> None:
        """Collective. Make the folder; one that already holds a run is refused or, if asked, emptied.

        Raises:
            ConfigError: it cannot be written, or holds a run.
        """
        with together(self.comm):
            if self.comm.rank == 0:
                self._prepare(case_text, overwrite)

    def _prepare(self, case_text: str, overwrite: bool) -> None:
        present = [name for name in OURS if (self.folder / name).exists()]
        if present and not overwrite:
            raise ConfigError(
                f"--output must be a folder without a run, got '{self.folder}' with {', '.join(present)}; "
                "choose another, give --overwrite, or continue it with 'hpcmsm resume'"
            )
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock()
            for name in present:
                path = self.folder / name
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            (self.folder / "case.toml").write_text(case_text, encoding="utf-8")
            self._open_log([])
        except OSError as error:
            raise ConfigError(
                f"--output must be a folder that can be written, got '{self.folder}' ({error.strerror}); "
                "choose another folder or its permissions"
            ) from None

    def _lock(self) -> None:
        """Keep other runs out of the folder until this process ends, however it ends.

        Raises:
            ConfigError: another run writes there.
        """
        self._lock_file = (self.folder / LOCK).open("a")
        try:
            fcntl.lockf(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES):
                raise ConfigError(
                    f"--output must be a folder that no other run is writing, got '{self.folder}'; "
                    "wait for its end, stop it, or choose another folder"
                ) from None
            # Some shared file systems have no locks; a run is not refused for that.

    def reopen(self, step: int) -> None:
        """Collective. Go on with the step log, without the rows after `step`.

        Raises:
            ConfigError: another run writes there.
        """
        with together(self.comm):
            if self.comm.rank == 0:
                self._lock()
                path = self.folder / "steps.csv"
                rows = list(csv.DictReader(path.open(newline=""))) if path.exists() else []
                kept = [row for row in rows if (row["step"] or "").isdigit() and int(row["step"]) <= step]
                self._open_log(kept)

    def _open_log(self, rows: list[dict]) -> None:
        """Write the header and the rows to keep under a temporary name, then go on appending."""
        path = self.folder / "steps.csv"
        temporary = path.with_suffix(".csv.tmp")
        with temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(rows)
        os.replace(temporary, path)
        self._log = path.open("a", newline="", buffering=1)
        self._writer = csv.DictWriter(self._log, COLUMNS, extrasaction="ignore")

    def log(self, step, time, dt, figures: dict, iterations: int, wall_time: float) -> None:
        """Append the row of a step."""
        if self._log is None:
            return
        row = {"step": step, "time": repr(time), "dt": repr(dt), "iterations": iterations}
        row["wall_time"] = f"{wall_time:.6f}"
        for name, value in figures.items():
            missing = isinstance(value, float) and math.isnan(value)
            row[name] = "" if missing else f"{value:.6g}" if isinstance(value, float) else value
        self._writer.writerow(row)

    def rewrite_case(self, case_text: str) -> None:
        """Renew the effective case, which a resumed run may have changed."""
        if self.comm.rank == 0:
            temporary = self.folder / "case.toml.tmp"
            temporary.write_text(case_text, encoding="utf-8")
            os.replace(temporary, self.folder / "case.toml")

    def remove_summary(self) -> None:
        """While a run goes on there is none."""
        if self.comm.rank == 0:
            (self.folder / "summary.json").unlink(missing_ok=True)

    def read_summary(self) -> dict | None:
        """Collective. The summary of a run that had ended before, None if there is none."""
        summary = None
        if self.comm.rank == 0:
            with suppress(OSError, ValueError):
                summary = json.loads((self.folder / "summary.json").read_text(encoding="utf-8"))
        return self.comm.bcast(summary)

    def write_summary(self, summary: dict) -> None:
        """Write summary.json, whole or not at all."""
        if self.comm.rank == 0:
            path = self.folder / "summary.json"
            temporary = path.with_suffix(".json.tmp")
            temporary.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
            os.replace(temporary, path)

    def files(self) -> dict[str, str]:
        """What a user finds in the folder."""
        return {
            "summary": str(self.folder / "summary.json"),
            "step log": str(self.folder / "steps.csv"),
            "snapshots": str(self.folder / "snapshots" / "fields.vtkhdf"),
            "checkpoints": str(self.folder / "checkpoints"),
        }

    def say(self, text: str) -> None:
        """A line on the terminal, from rank 0."""
        if self.comm.rank == 0:
            print(text, file=sys.stderr, flush=True)
