"""Go back to an older checkpoint of a finished run, as a run that was cut off there would have it."""

from __future__ import annotations

import shutil
from pathlib import Path

from launch import launch


def last_checkpoint(folder: Path) -> Path:
    return max((folder / "checkpoints").glob("step_*.h5"))


def finished_run(nranks: int, case: Path, folder: Path, *overrides: str) -> Path:
    """Run a case to its end; its output folder."""
    words = [word for override in overrides for word in ("--set", override)]
    result = launch(nranks, ["hpcmsm", "run", case, "-o", folder, "--quiet", *words])
    assert result.returncode == 0, result.stderr
    return folder


def resumed_copy(nranks: int, folder: Path, copy: Path, note: str = "") -> Path:
    """Resume a copy of a finished run from the checkpoint before its last; the copy's folder.

    Args:
        note: what must be said on the way.
    """
    shutil.copytree(folder, copy)
    last_checkpoint(copy).unlink()
    (copy / "summary.json").unlink()
    result = launch(nranks, ["hpcmsm", "resume", copy, "--quiet"])
    assert result.returncode == 0, result.stderr
    assert note in result.stderr
    assert last_checkpoint(copy).name == last_checkpoint(folder).name
    return copy


def assert_bitwise(folder: Path, other: Path) -> None:
    """The last checkpoints of two runs hold the same bits."""
    result = launch(0, ["hpcmsm", "compare", last_checkpoint(folder), last_checkpoint(other)])
    assert result.returncode == 0, result.stdout + result.stderr
