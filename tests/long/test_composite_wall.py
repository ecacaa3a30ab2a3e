"""The flagship case as a user runs it: with and without the surrogate."""

import json

import numpy as np
import pytest

from hpcmsm.io.snapshots import read_snapshots
from tests.launch import ROOT, launch

CASE = ROOT / "cases" / "composite_wall.toml"


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Output folders of the case with and without surrogate, on 2 ranks."""
    folder = tmp_path_factory.mktemp("wall")
    for name, gated in (("on", "true"), ("off", "false")):
        command = ["hpcmsm", "run", CASE, "-o", folder / name, "--set", f"surrogate.enabled={gated}"]
        result = launch(2, command, timeout=600)
        assert result.returncode == 0, result.stderr
        (folder / f"{name}.txt").write_text(result.stdout)
    return folder


def summary(folder):
    return json.loads((folder / "summary.json").read_text())


def test_surrogate_answers_most_cells_and_changes_the_field_little(runs):
    on, off = (read_snapshots(runs / name).arrays["temperature"] for name in ("on", "off"))
    assert on.shape == off.shape and on.shape[0] > 20
    difference, spread = np.abs(on - off).max(), np.ptp(off)
    assert spread > 100.0
    assert difference < 1e-3 * spread, (difference, spread)
    assert difference > 0.0, "the surrogate was never used"
    closure = summary(runs / "on")["closure"]
    assert closure["accepted"] >= 0.95 * closure["calls"], closure
    assert closure["accepted"] + closure["audited"] + closure["fallback"] == closure["calls"]


def test_summary_states_what_a_reader_needs(runs):
    on = summary(runs / "on")
    assert set(on["audit_error"]) == {"mean_signed", "p50", "p99", "max"}
    assert on["audit_error"]["p50"] <= on["audit_error"]["p99"] <= on["audit_error"]["max"]
    assert on["coverage"]["obtained"] >= on["coverage"]["asked"]
    assert {"micro", "surrogate", "gate", "train", "macro", "checkpoint"} <= set(on["phases"])
    printed = (runs / "on.txt").read_text()
    for word in ("answered by the surrogate", "steps.csv", "train"):
        assert word in printed


def test_report_of_the_run(runs):
    result = launch(0, ["hpcmsm", "report", runs / "on"])
    assert result.returncode == 0, result.stderr
    page = (runs / "on" / "report" / "index.html").read_text()
    assert "composite wall" in page and "data:image/png;base64," in page
