"""The ready case with a phase field in every cell: what it shows, its variant, restart and other ranks."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.launch import launch
from tests.restart_harness import assert_bitwise, finished_run, last_checkpoint, resumed_copy

CASE = Path(__file__).resolve().parents[2] / "cases" / "dissolving_grain.toml"
SMALL = ("grid.cells=[13, 5]", "micro.resolution=16", "time.end=0.1", "checkpoint.every=5")
CORNER = 'macro.boundary.x_low={kind="convection", ambient=0.0, coefficient="where(y < 0.02, 1e9, 0)"}'


def ranges(folder):
    return json.loads((folder / "summary.json").read_text())["fields"]


def fields(folder, *names):
    """Arrays of the last checkpoint, shape (size, ny, nx)."""
    import h5py

    with h5py.File(last_checkpoint(folder)) as file:
        return [file[f"cells/{name}"][()] for name in names]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return finished_run(2, CASE, tmp_path_factory.mktemp("grain") / "whole")


def test_what_the_case_shows(whole):
    found = ranges(whole)
    assert found["porosity"]["max"] == pytest.approx(0.96, abs=0.01)
    assert found["porosity"]["min"] == pytest.approx(0.58, abs=0.01)
    assert found["diffusivity_xx"]["max"] == pytest.approx(0.94, abs=0.01)
    u, phase = fields(whole, "macro/concentration", "micro/phase")
    assert np.all(np.diff(u[0], axis=1) > 0)  # falls to the left
    assert np.ptp(u[0], axis=0).max() < 1e-8  # the same in every row
    porosity = phase.mean(axis=0)
    assert np.ptp(porosity, axis=0).max() < 1e-8
    moving = porosity[0] < 0.95
    assert np.all(np.diff(porosity[0][moving]) < 0)
    assert moving.sum() > 30


def test_its_report_looks_into_the_cells(whole):
    result = launch(0, ["hpcmsm", "report", whole])
    assert result.returncode == 0, result.stderr
    assert (whole / "report" / "cells_phase.png").stat().st_size > 10_000
    snapshots = sum(path.stat().st_size for path in (whole / "snapshots").iterdir())
    assert snapshots < 2e6  # the phase fields alone would be 100 MB


def test_the_corner_variant_starts_from_the_corner(tmp_path):
    folder = finished_run(2, CASE, tmp_path / "corner", *SMALL, CORNER.replace("0.02", "0.1"))
    (u,) = fields(folder, "macro/concentration")
    assert u[0].argmin() == 0
    assert u[0, 0, 0] < 0.5 * u[0, -1, 0] < 0.25


def test_the_same_bits_after_a_restart_and_the_same_answer_on_other_ranks(tmp_path):
    run = finished_run(2, CASE, tmp_path / "whole", *SMALL)
    assert_bitwise(run, resumed_copy(2, run, tmp_path / "again"))
    other = resumed_copy(3, run, tmp_path / "other")
    names = ("macro/concentration", "micro/phase")
    for mine, theirs in zip(fields(run, *names), fields(other, *names), strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-8)
