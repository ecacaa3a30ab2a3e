"""The cases with drawn microstructures and with cells in cells, as a user runs them."""

import json

import numpy as np

from hpcmsm.io.snapshots import read_snapshots
from tests.launch import ROOT, launch


def run(case, folder, *settings):
    """Summary and snapshots of a case on 2 ranks."""
    words = [word for setting in settings for word in ("--set", setting)]
    result = launch(2, ["hpcmsm", "run", ROOT / "cases" / case, "-o", folder, "--quiet", *words], timeout=600)
    assert result.returncode == 0, result.stderr
    return json.loads((folder / "summary.json").read_text()), read_snapshots(folder).arrays


def check_close(found, exact):
    """Temperatures with surrogates and without: not the same, but within a thousandth of their range."""
    difference, spread = np.abs(found - exact).max(), np.ptp(exact)
    assert spread > 100.0
    assert 0.0 < difference < 1e-3 * spread, (difference, spread)


def test_random_composite(tmp_path):
    summary, fields = run("random_composite.toml", tmp_path / "on")
    closure = summary["closure"]
    assert closure["accepted"] >= 0.95 * closure["calls"], closure
    assert set(np.unique(fields["realisation"])) == set(range(32))
    conductivity = fields["conductivity"][0]  # at the start all cells have one temperature
    spread = conductivity[0].std() / conductivity[0].mean()
    assert 0.02 < spread < 0.1, spread
    _, exact = run("random_composite.toml", tmp_path / "off", "surrogate.enabled=false")
    check_close(fields["temperature"], exact["temperature"])
    report = launch(0, ["hpcmsm", "report", tmp_path / "on"])
    assert report.returncode == 0, report.stderr
    assert "microstructure.png" in report.stdout


def test_three_scales(tmp_path):
    yarns = ("warp", "weft")
    coarse = ["time.end=30", *(f"materials.{name}.micro.resolution=16" for name in yarns)]
    summary, fields = run("three_scales.toml", tmp_path / "on", *coarse)
    calls = summary["closure"]["calls"]
    for name in yarns:
        below = summary["nested"][name]["closure"]
        assert below["calls"] == calls
        assert below["accepted"] + below["audited"] + below["fallback"] == calls
        assert below["accepted"] > 0.85 * calls, below  # learning is most of so short a run
    k = fields["conductivity"][-1]
    assert 1.5 < (k[1] / k[0]).mean() < 2.2
    off = [f"materials.{name}.surrogate.enabled=false" for name in yarns]
    summary, exact = run("three_scales.toml", tmp_path / "off", *coarse, *off)
    assert all(summary["nested"][name]["closure"]["fallback"] == calls for name in yarns)
    check_close(fields["temperature"], exact["temperature"])


def test_a_surrogate_over_surrogates(tmp_path):
    coarse = [f"materials.{name}.micro.resolution=16" for name in ("warp", "weft")]
    summary, _ = run("three_scales.toml", tmp_path / "both", "surrogate.enabled=true", *coarse)
    above = summary["closure"]
    assert above["accepted"] > 0.9 * above["calls"]
    for below in summary["nested"].values():
        assert below["closure"]["calls"] == above["fallback"] + above["audited"]
        assert below["closure"]["accepted"] > 0.1 * below["closure"]["calls"]
    assert summary["coverage"]["obtained"] >= 0.97


def test_polycrystal(tmp_path):
    coarse = "micro.resolution=32"
    summary, fields = run("polycrystal.toml", tmp_path / "on", coarse)
    closure = summary["closure"]
    assert closure["accepted"] >= 0.9 * closure["calls"], closure
    xx, yy, xy = fields["conductivity"][0]
    crystal = 10.0**0.5 * 300.0 / fields["temperature"][0].ravel()[0]
    # Exact but for the grid, in every cell; the off-diagonal parts are no rounding.
    np.testing.assert_allclose(np.sqrt(xx * yy - xy**2), crystal, rtol=0.1)
    assert 0.1 < xy.std() / crystal < 0.3
    _, exact = run("polycrystal.toml", tmp_path / "off", coarse, "surrogate.enabled=false")
    difference = np.abs(fields["temperature"] - exact["temperature"]).max()
    assert 0.0 < difference < 1e-3 * np.ptp(exact["temperature"]), difference
