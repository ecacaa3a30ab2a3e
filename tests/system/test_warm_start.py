"""Cells that start from their last solution: the same bits on other ranks and after a restart."""

import json
from pathlib import Path

from tests.restart_harness import assert_bitwise, finished_run, resumed_copy

CASE = Path(__file__).resolve().parents[2] / "cases" / "composite_wall.toml"
SMALL = (
    *("grid.cells=[11, 7]", "time.scheme=rk2", "time.step=1.5", "time.end=24", "surrogate.enabled=false"),
    *("micro.resolution=8", "micro.warm_start=true", "checkpoint.every=8", "snapshots.every=0"),
)


def test_the_same_bits_on_other_ranks_and_after_a_restart(tmp_path):
    whole = finished_run(1, CASE, tmp_path / "whole", *SMALL)
    assert json.loads((whole / "summary.json").read_text())["fields"]["temperature"]["max"] > 300.0
    assert_bitwise(whole, resumed_copy(3, whole, tmp_path / "cut"))
    assert_bitwise(whole, finished_run(4, CASE, tmp_path / "four", *SMALL))
