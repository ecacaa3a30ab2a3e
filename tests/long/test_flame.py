"""The speed of a freely propagating flame against Cantera's own, and the ignition case as a user runs it."""

import json

import cantera
import numpy as np
import pytest
from mpi4py import MPI

from hpcmsm.config import parse_case
from hpcmsm.io.snapshots import read_snapshots
from hpcmsm.simulation import Simulation
from tests.launch import ROOT, launch

# Hydrogen and air at 300 K flow in from the left with a given flux of mass; the flame drifts with the
# difference between its own speed and theirs, until the flux is right.
TEXT = """
[grid]
cells = [{n}]
size = ["4 mm"]
[time]
scheme = "strang"
step = {dt}
end = 1.0
[macro]
model = "reacting_flow"
mass_flux = [{flux}]
[macro.initial]
temperature = "300 + 2000 * smoothstep(x, 1.8e-3, 2.2e-3)"
H2 = "2 * (1 - smoothstep(x, 1.8e-3, 2.2e-3))"
O2 = "1 - smoothstep(x, 1.8e-3, 2.2e-3)"
H2O = "2 * smoothstep(x, 1.8e-3, 2.2e-3)"
N2 = 3.76
[macro.boundary.x_low]
kind = "temperature"
temperature = 300
[micro]
model = "cantera"
[surrogate]
enabled = false
"""


@pytest.fixture(scope="module")
def reference():
    """Cantera's flame at unity Lewis number on a fine grid: its density ahead in kg/m3, speed in m/s."""
    gas = cantera.Solution("h2o2.yaml")
    gas.TPX = 300.0, 101325.0, "H2:2, O2:1, N2:3.76"
    flame = cantera.FreeFlame(gas, width=0.02)
    flame.transport_model = "unity-Lewis-number"
    flame.set_max_grid_points(flame.flame, 3000)
    for slope in (0.03, 0.01, 0.005):
        flame.set_refine_criteria(ratio=2, slope=slope, curve=2 * slope)
        flame.solve(loglevel=0, auto=True)
    return flame.density[0], flame.velocity[0]


def drift(folder, n, dt, flux, duration, unknown=None):
    """Speed of the flame on the grid at the end in m/s, and its last state."""
    case = parse_case(TEXT.format(n=n, dt=dt, flux=flux), "flame.toml")
    run = Simulation(case, MPI.COMM_SELF, folder, folder / "out", quiet=True)
    if unknown is not None:
        run.stepper.set_unknown(unknown)
    x, nstep = run.grid.coordinates()["x"], round(duration / dt)
    before, places = round(25e-6 / dt), []
    for step in range(nstep):
        run.step = step
        run.stepper.advance(step + 1, step * dt, dt)
        places.append(np.interp(1200.0, run.unknown[0], x))
    return (places[-1] - places[-1 - before]) / (before * dt), run.unknown.copy()


def flame_speed(folder, n, dt, density, guess):
    """The speed at which the flame does not drift, by two steps of the secant method."""
    first = guess * density
    drifted, state = drift(folder, n, dt, first, 250e-6)
    second = first + 0.5 * drifted
    drifted_then, state = drift(folder, n, dt, second, 150e-6, state)
    third = second - drifted_then * (second - first) / (drifted_then - drifted)
    left, _ = drift(folder, n, dt, third, 150e-6, state)
    assert abs(left) < 0.01 * guess  # it stands still
    best = third - left * (third - second) / (left - drifted_then)
    return best / density


def test_flame_speed_converges_to_that_of_cantera(tmp_path, reference):
    density, speed = reference
    assert 1.60 < speed < 1.66
    coarse = flame_speed(tmp_path, 100, 2e-6, density, speed)
    fine = flame_speed(tmp_path, 200, 1e-6, density, speed)
    apart = np.array([coarse, fine]) / speed - 1.0
    print(f"Cantera {speed:.4f} m/s, 40 um and 2 us {coarse:.4f}, 20 um and 1 us {fine:.4f}")
    assert abs(apart[0]) < 0.02 and abs(apart[1]) < 0.008
    # Both errors are of second order, so that the limit is much nearer still.
    limit = fine + (fine - coarse) / 3.0
    assert abs(limit / speed - 1.0) < 0.005


def test_the_ignition_case(tmp_path):
    case = ROOT / "cases" / "ignition.toml"
    result = launch(2, ["hpcmsm", "run", case, "-o", tmp_path / "out"], timeout=600)
    assert result.returncode == 0, result.stderr
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["micro_work"]["imbalance"] > 1.1
    arrays = read_snapshots(tmp_path / "out").arrays
    temperature, water, hydroperoxyl = (arrays[name][:, 0] for name in ("temperature", "H2O", "HO2"))
    assert 2250.0 < temperature[-1].max() < 2450.0 and abs(temperature[-1].min() - 700.0) < 1.0
    # The burnt region grows from snapshot to snapshot, and the shear tilts it.
    burnt = (water > 0.1).sum(axis=(1, 2))
    assert burnt[0] == 0 and (np.diff(burnt) > 0).all() and burnt[-1] > 800
    y, x = np.nonzero(water[-1] > 0.1)
    assert np.corrcoef(x, y)[0, 1] > 0.15
    # The front is where hydroperoxyl is, around the burnt gas and not in it.
    front = hydroperoxyl[-1]
    assert front.max() > 5 * front[water[-1] > 0.19].mean()
