"""A small slab of heart: the same bits on any ranks and after a restart, a report, a step too long."""

import json

from tests.launch import ROOT, launch

CASE = ROOT / "cases" / "niederer.toml"
SMALL = {
    "grid.cells": "[13, 7, 5]",
    "grid.size": "['6 mm', '3 mm', '2 mm']",
    "time.end": "'13 ms'",
    "time.scheme": "strang",
    "macro.probes": "{near=[0.0, 0.0, 0.0], far=['6 mm', '3 mm', '2 mm'], edge=['6 mm', 0.0, 0.0]}",
    "macro.lines.diagonal.end": "['6 mm', '3 mm', '2 mm']",
    "checkpoint.every": "60",
    "checkpoint.keep": "9",
    "snapshots.every": "60",
}


def run(nranks, out, *more, **changes):
    settings = [word for key, value in (SMALL | changes).items() for word in ("--set", f"{key}={value}")]
    result = launch(nranks, ["hpcmsm", "run", CASE, "-o", out, "--quiet", *settings, *more])
    assert result.returncode == 0, result.stderr
    return max((out / "checkpoints").glob("step_*.h5"))


def equal(a, b):
    result = launch(0, ["hpcmsm", "compare", a, b])
    assert result.returncode == 0, result.stdout
    assert "macro/activation_time" in result.stdout and "micro/calcium" in result.stdout


def summary(out):
    return json.loads((out / "summary.json").read_text())


def test_the_same_bits_on_other_ranks_and_after_a_restart(tmp_path):
    reference = run(1, tmp_path / "one")
    equal(reference, run(3, tmp_path / "three"))
    assert summary(tmp_path / "one")["probes"] == summary(tmp_path / "three")["probes"]
    # As if it had been cut off after step 60.
    for path in (tmp_path / "three" / "checkpoints").glob("step_*.h5"):
        if path.name != "step_00000060.h5":
            path.unlink()
    result = launch(2, ["hpcmsm", "resume", tmp_path / "three", "--quiet"])
    assert result.returncode == 0, result.stderr
    equal(reference, tmp_path / "three" / "checkpoints" / reference.name)
    points = summary(tmp_path / "three")["probes"]["points"]
    assert points == summary(tmp_path / "one")["probes"]["points"]
    near, edge, far = (points[name]["activation_time"] for name in ("near", "edge", "far"))
    # Along the fibres it is there soon; the far corner waits for the slow way across.
    assert 1e-3 < near < 2e-3 < edge < 0.02 and far is None
    the_report_shows(tmp_path / "three")


def the_report_shows(out):
    result = launch(0, ["hpcmsm", "report", out])
    assert result.returncode == 0 and "Warning" not in result.stderr, result.stderr
    assert (out / "report" / "fields.png").stat().st_size > 10_000
    page = (out / "report" / "index.html").read_text()
    assert "activation_time / s" in page and "diagonal_10" in page


def test_too_long_a_step_ends_in_one_line(tmp_path):
    settings = [word for key, value in SMALL.items() for word in ("--set", f"{key}={value}")]
    long = ["--set", "time.step='0.9 ms'"]
    result = launch(2, ["hpcmsm", "run", CASE, "-o", tmp_path / "out", "--quiet", *settings, *long])
    lines = [line for line in result.stderr.splitlines() if "Error: " in line]
    assert result.returncode == 3 and len(lines) == 1 and "Traceback" not in result.stderr, result.stderr
    assert "lower time.step" in lines[0]
