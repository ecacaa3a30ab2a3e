"""Waves in a crystal from the case file to the report; atoms as a closure; and a fluid of known pressure."""

import json

import crystal_oracles as oracle
import numpy as np
import pytest

from hpcmsm.io.snapshots import read_snapshots
from hpcmsm.kernels import Kernel
from hpcmsm.micro.crystal import Crystal
from hpcmsm.micro.lennard_jones import LennardJones, list_words
from tests.launch import ROOT, launch

CASE = ROOT / "cases" / "crystal_wave.toml"


def run(nranks, out, *overrides, command=("run", CASE)):
    words = [word for override in overrides for word in ("--set", override)]
    first, *rest = command
    target = ["-o", out] if first == "run" else []
    done = launch(nranks, ["hpcmsm", first, *rest, *target, "--quiet", *words], timeout=170)
    assert done.returncode == 0, done.stderr
    return read_snapshots(out)


def last(out):
    return max((out / "checkpoints").glob("step_*.h5"))


def same(first, second):
    done = launch(0, ["hpcmsm", "compare", last(first), last(second)])
    assert done.returncode == 0, done.stdout


def test_the_case_becomes_a_shock_and_comes_back_as_a_tension(tmp_path):
    snapshots = run(1, tmp_path / "run", "snapshots.every=50")
    stretch = snapshots.arrays["stretch"][:, 0]
    times = snapshots.times
    before = stretch[np.abs(times - 3.3e-7).argmin()]
    # Behind the shock a ramp over a third of the bar, in front of it nothing, within some cells.
    assert before.min() < 0.957
    steepest = np.diff(before).max() / np.diff(stretch[0]).max()
    assert steepest > 6.0
    assert np.count_nonzero((before > 0.96) & (before < 0.998) & (np.arange(400) > before.argmin())) < 6
    after = stretch[-1]
    assert after.max() > 1.04 and after.min() > 0.995
    momentum = snapshots.arrays["velocity"][:, 0].sum(axis=1)
    inside = (times > 2e-7) & (times < 3.8e-7)  # while all but the tail of the start is off the ends
    assert np.ptp(momentum[inside]) < 2e-4 * momentum[0]
    done = launch(0, ["hpcmsm", "report", tmp_path / "run"])
    assert done.returncode == 0 and (tmp_path / "run" / "report" / "fields.png").exists(), done.stderr


PERIODIC = [f"macro.boundary.x_{end}.kind=periodic" for end in ("low", "high")]
ATOMS = [
    *("micro.model=lennard_jones", "micro.cutoff=2.5", "micro.temperature=12", "micro.equilibration=100"),
    *("micro.blocks=4", "micro.samples=10", "grid.cells=[12]", "time.step=1.7e-8", "time.end=1.36e-7"),
    *("snapshots.every=1", "checkpoint.every=3", "checkpoint.keep=5", *PERIODIC),
]


def test_atoms_carry_a_wave_with_the_same_bits_on_any_ranks_and_after_a_restart(tmp_path):
    alone = run(1, tmp_path / "alone", *ATOMS)
    run(3, tmp_path / "shared", *ATOMS)
    same(tmp_path / "alone", tmp_path / "shared")
    for path in sorted((tmp_path / "shared" / "checkpoints").glob("step_*.h5"))[1:]:
        path.unlink()
    run(2, tmp_path / "shared", command=("resume", tmp_path / "shared"))
    same(tmp_path / "alone", tmp_path / "shared")
    # The lattice at 0 K carries the same wave; heat adds a pressure, which is the same everywhere.
    cold = run(1, tmp_path / "cold", *ATOMS[7:], "micro.cutoff=2.5", "grid.cells=[12]")
    stretch, exact = (found.arrays["stretch"][:, 0] for found in (alone, cold))
    np.testing.assert_allclose(alone.arrays["velocity"].sum(axis=(1, 2)), alone.arrays["velocity"][0].sum())
    assert np.abs(exact[-1] - exact[0]).max() > 0.01
    assert np.abs(stretch[-1] - exact[-1]).max() < 0.004
    unit = Crystal().stress_unit
    error = alone.arrays["stress_error"] / unit
    assert error.min() > 1e-3 and error.max() < 0.1
    heat = (alone.arrays["stress"][0] - cold.arrays["stress"][0]) / unit
    assert np.all(np.abs(heat + 1.0) < 0.4), heat


def test_a_surrogate_carries_the_wave_where_it_has_learnt_the_lattice(tmp_path):
    settings = ["time.end=1.2e-7", "grid.cells=[200]", "time.step=1.2e-9", *PERIODIC]
    truth = run(1, tmp_path / "truth", *settings)
    gated = run(1, tmp_path / "gated", *settings, "surrogate.enabled=true", "gate.tolerance=5e-3")
    summary = json.loads((tmp_path / "gated" / "summary.json").read_text())
    assert summary["closure"]["accepted_fraction"] > 0.5, summary["closure"]
    assert summary["audit_error"]["p99"] < 1e-2
    apart = np.abs(gated.arrays["stretch"][-1] - truth.arrays["stretch"][-1]).max()
    assert 0.0 < apart < 1e-3, apart


def test_a_surrogate_learns_atoms_through_their_noise(tmp_path):
    # The noise is 0.2 % of the stresses, so the tolerance must be well above it; it is not learnt itself.
    settings = ["grid.cells=[24]", "time.step=8e-9", "time.end=1.6e-7", "micro.cutoff=2.5", *PERIODIC]
    atoms = [*ATOMS[:4], "micro.blocks=4", "micro.samples=15", "micro.noise=false"]
    gate = ["surrogate.enabled=true", "gate.tolerance=0.03"]
    found = run(1, tmp_path / "gated", *settings, *atoms, *gate)
    summary = json.loads((tmp_path / "gated" / "summary.json").read_text())
    assert summary["closure"]["accepted_fraction"] > 0.5, summary["closure"]
    assert summary["coverage"]["obtained"] > 0.95 and summary["audit_error"]["max"] < 0.03, summary
    cold = run(1, tmp_path / "cold", *settings)
    stretch, exact = (run.arrays["stretch"][-1, 0] for run in (found, cold))
    assert np.abs(exact - cold.arrays["stretch"][0, 0]).max() > 0.01
    assert np.abs(stretch - exact).max() < 0.004
    assert "stress_error" not in found.arrays


def test_a_fluid_has_its_known_pressure_and_energy():
    # 256 atoms at density 0.7 and temperature 2: P = 3.564 +- 0.016, U = -3.555 with the potential shifted
    # to zero at the cut-off.
    n, density, temperature = 8, 0.7, 2.0
    crystal = Crystal(1.0, 1.0, 1.0, lattice_constant=(4.0 / density) ** (1.0 / 3.0))
    model, box = LennardJones(crystal), 4 * crystal.lattice
    positions = np.repeat(oracle.fcc(4, crystal.lattice).reshape(-1, 1), n, axis=1)
    velocities = np.random.default_rng(5).standard_normal(positions.shape) * np.sqrt(temperature)
    stress, error, energy = np.empty((9, n)), np.empty((9, n)), np.empty((2, n))
    kernel, status = Kernel.load("lennard_jones", "lennard_jones"), np.empty(n, np.int32)
    words = list_words(256, model.most, kernel)
    head = (n, 4, 256, model.most, words, 1000, 15, 30, 10, 0.005, 1.0, 2.5, 0.3, crystal.lattice)
    identity = np.repeat(np.eye(3).reshape(9, 1), n, axis=1)
    arrays = (np.full(n, temperature), np.arange(n), identity, positions, velocities)
    kernel(*head, *arrays, stress, error, energy, status)
    assert not status.any()
    pressure = -stress[[0, 4, 8]].mean(axis=0)
    noise = np.hypot(pressure.std(ddof=1) / np.sqrt(n), 0.016)
    assert noise < 0.04 and abs(pressure.mean() - 3.564) < 3 * noise, pressure
    assert energy[1].mean() == pytest.approx(1.5 * temperature, rel=0.01)
    counts = []
    for c in range(n):
        d = positions[:, c].reshape(-1, 1, 3) - positions[:, c].reshape(1, -1, 3)
        d -= np.rint(d / box) * box
        counts.append((np.count_nonzero((d**2).sum(axis=-1) < 2.5**2) - 256) / 2 / 256)
    shift = -oracle.potential(np.array([2.5**2]))[0][0] * np.mean(counts)
    assert energy[0].mean() + shift == pytest.approx(-3.555, abs=0.015)
