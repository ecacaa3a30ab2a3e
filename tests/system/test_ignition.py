"""A small reacting flow: the same bits on any ranks and after a restart, a report, one line for errors."""

import json

import pytest

from tests.launch import ROOT, launch

CASE = ROOT / "cases" / "ignition.toml"
SMALL = {
    "grid.cells": "[15, 9]",
    "grid.size": "['2.4 mm', '1.5 mm']",
    "time.end": "'6 us'",
    "macro.velocity": "['3e3 * y', 0.5]",
    "checkpoint.every": "3",
    "checkpoint.keep": "9",
    "snapshots.every": "3",
}


def settings(**changes):
    return [word for key, value in (SMALL | changes).items() for word in ("--set", f"{key}={value}")]


def run(nranks, out):
    result = launch(nranks, ["hpcmsm", "run", CASE, "-o", out, "--quiet", *settings()])
    assert result.returncode == 0, result.stderr
    return max((out / "checkpoints").glob("step_*.h5"))


def equal(a, b):
    result = launch(0, ["hpcmsm", "compare", a, b])
    assert result.returncode == 0, result.stdout
    assert "macro/temperature" in result.stdout and "macro/HO2" in result.stdout


def test_the_same_bits_on_other_ranks_and_after_a_restart(tmp_path):
    reference = run(1, tmp_path / "one")
    equal(reference, run(3, tmp_path / "three"))
    # As if it had been cut off after step 3.
    for path in (tmp_path / "three" / "checkpoints").glob("step_*.h5"):
        if path.name != "step_00000003.h5":
            path.unlink()
    result = launch(2, ["hpcmsm", "resume", tmp_path / "three"])
    assert result.returncode == 0, result.stderr
    equal(reference, tmp_path / "three" / "checkpoints" / reference.name)
    summary = json.loads((tmp_path / "three" / "summary.json").read_text())
    assert summary["fields"]["H2O"]["max"] > 1e-3
    assert 1.0 < summary["micro_work"]["imbalance"] <= 2.0
    assert "rank with the most over the mean" in result.stdout
    result = launch(0, ["hpcmsm", "report", tmp_path / "three"])
    assert result.returncode == 0 and "Warning" not in result.stderr, result.stderr
    assert "rank with the most over the mean" in (tmp_path / "three" / "report" / "index.html").read_text()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"macro.initial.H2": "'1e-3 - y'"}, "macro.initial must give a positive temperature"),
        ({"macro.boundary": "{y_high={kind='flux', flux=3.0}}"}, "macro.boundary.y_high must be"),
    ],
)
def test_what_one_rank_alone_can_see_ends_on_all(tmp_path, change, message):
    out = tmp_path / "out"
    result = launch(3, ["hpcmsm", "run", CASE, "-o", out, "--quiet", *settings(**change)], timeout=60)
    lines = [line for line in result.stderr.splitlines() if "Error: " in line]
    assert result.returncode == 2 and len(lines) == 1 and message in lines[0], result.stderr


def test_a_front_that_the_grid_cannot_resolve_ends_in_one_line(tmp_path):
    coarse = settings(**{"macro.velocity": "['200', 0]", "grid.cells": "[12, 4]", "time.end": "'100 us'"})
    coarse += ["--set", "macro.initial.H2O='2 * smoothstep(x, 1e-3, 1.01e-3)'"]
    result = launch(2, ["hpcmsm", "run", CASE, "-o", tmp_path / "out", "--quiet", *coarse])
    lines = [line for line in result.stderr.splitlines() if "Error: " in line]
    assert result.returncode == 3 and len(lines) == 1, result.stderr
    assert "mass fractions must not swing below" in lines[0] and "use a finer grid" in lines[0]
