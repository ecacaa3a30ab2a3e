"""What a resumed run may change, and what becomes of its clock, its summary and its case."""

import csv
import json

import pytest

from tests.launch import launch
from tests.system.test_bad_input import SMALL, refused


def rows(out):
    with (out / "steps.csv").open(newline="") as file:
        return [(int(r["step"]), float(r["time"]), float(r["dt"])) for r in csv.DictReader(file)]


@pytest.fixture
def finished(tmp_path):
    """A run of four and a half steps of 1 s."""
    (tmp_path / "case.toml").write_text(SMALL)
    out = tmp_path / "out"
    command = ["hpcmsm", "run", tmp_path / "case.toml", "-o", out, "--quiet", "--set", "time.end=4.5"]
    assert launch(0, command).returncode == 0
    assert rows(out)[-1] == (5, 4.5, 0.5)
    return out


@pytest.mark.parametrize(
    "change, expected",
    [
        (["time.end=7"], [(6, 5.5, 1.0), (7, 6.5, 1.0), (8, 7.0, 0.5)]),
        (["time.end=5.5", "time.step=0.5"], [(6, 5.0, 0.5), (7, 5.5, 0.5)]),
    ],
)
def test_clock_goes_on_from_where_it_was(finished, change, expected):
    options = [word for key in change for word in ("--set", key)]
    result = launch(2, ["hpcmsm", "resume", finished, "--quiet", *options])
    assert result.returncode == 0, result.stderr
    assert rows(finished)[6:] == expected
    assert "end = 7.0" in (finished / "case.toml").read_text() or change != ["time.end=7"]
    assert json.loads((finished / "summary.json").read_text())["timed_from_step"] == 5


@pytest.mark.parametrize(
    "change",
    ["micro.microstructure=laminate", "materials.epoxy.conductivity=0.5", "surrogate.enabled=true", "seed=7"],
)
def test_another_problem_is_refused(finished, change):
    result = launch(2, ["hpcmsm", "resume", finished, "--set", "time.end=7", "--set", change])
    refused(result, change.partition("=")[0], "must stay")


def test_a_finished_run_keeps_its_summary(finished):
    before = (finished / "summary.json").read_text()
    assert launch(0, ["hpcmsm", "resume", finished, "--quiet"]).returncode == 0
    assert (finished / "summary.json").read_text() == before
