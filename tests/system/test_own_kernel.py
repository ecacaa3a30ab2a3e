"""The ready case with a micro model in C: the same bits on other ranks and after a restart, and bad input."""

import json
import shutil
from pathlib import Path

from tests.launch import launch
from tests.restart_harness import assert_bitwise, finished_run, resumed_copy

CASE = Path(__file__).resolve().parents[2] / "cases" / "own_kernel.toml"
SMALL = ("grid.cells=[17, 9]", "time.scheme=rk2", "time.end=400", "checkpoint.every=50", "snapshots.every=0")


def test_the_same_bits_on_other_ranks_and_after_a_restart(tmp_path):
    """And a word where the C file is no longer the one that the run began with."""
    for name in ("own_kernel.toml", "own_kernel.c"):
        shutil.copy(CASE.with_name(name), tmp_path)
    whole = finished_run(1, tmp_path / CASE.name, tmp_path / "whole", *SMALL)
    summary = json.loads((whole / "summary.json").read_text())
    assert summary["fields"]["conductivity_xx"]["max"] > 0.6  # cured: before, the largest is 0.57
    with open(tmp_path / "own_kernel.c", "a") as file:
        file.write("/* another comment */\n")
    cut = resumed_copy(3, whole, tmp_path / "cut", note="the file of the micro model has changed")
    assert_bitwise(whole, cut)


def test_a_kernel_that_does_not_fit_ends_in_one_line(tmp_path):
    result = launch(2, ["hpcmsm", "run", CASE, "-o", tmp_path, "--set", "micro.outputs.conductivity.size=6"])
    lines = [line for line in result.stderr.splitlines() if "Error: " in line]
    assert result.returncode == 2, result.stderr
    assert len(lines) == 1, result.stderr
    assert "argument 'conductivity' must be of shape (6, ncells)" in lines[0]
    assert "kernel 'curing' of own_kernel.c" in lines[0]
