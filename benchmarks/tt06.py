"""How fast cells of the heart are advanced, beside the core's fused multiply-adds and NumPy; and a slab.

    OMP_NUM_THREADS=1 python benchmarks/tt06.py --output benchmarks/results/tt06.json

Kernel: ten Tusscher and Panfilov 2006, cells spread over all phases of a beat, one core, in float64 and
float32, 1 and 10 substeps a call; first asserted to be the step of the NumPy twin of the tests, which is
timed in turns with it. Slab: the case niederer.toml at 0.2 mm on 1 rank and more, as a user runs it; first
asserted to reach the same points at the same times, bit by bit, on any ranks. Its rates are of the phases
that its steps consist of: the micro model, the coupling, the diffusion.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
from mpi4py import MPI

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks"), str(ROOT / "tests")]

import machine  # noqa: E402
import oracle_tt06 as oracle  # noqa: E402

from hpcmsm.kernels import Kernel  # noqa: E402
from hpcmsm.micro.tt06 import BLOCK  # noqa: E402
from hpcmsm.provenance import provenance  # noqa: E402

DT = 0.02  # ms
NSUBSTEP = (1, 10)
# Largest difference from the twin after ten steps, in mV of a voltage and relative of a state.
APART = {"float64": 1e-10, "float32": 1e-3}
# Operations of a cell and step, counted in the machine code of the remainder loop, a fused multiply-add as
# two: (570 fused, 311 x, 303 + -, 49 /, 1 root) and (379, 311, 303, 49, 1). Comparisons do not count.
FLOP = {"float64": 1804, "float32": 1422}
SLAB = {"grid.cells": "[101, 36, 16]", "snapshots.every": "0", "checkpoint.every": "0"}


def main(arguments: list[str] | None = None) -> dict:
    """Measure kernel and slab; what the JSON file holds."""
    options = _options(arguments)
    result = {**machine.facts(), "provenance": provenance(MPI.COMM_SELF)}
    result["limits"] = machine.limits(options.repeats)
    result["kernel"] = kernel_rows(options, result["limits"])
    result["slab"] = slab_rows(options)
    if options.output:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps(result, indent=2) + "\n")
    return result


def _options(arguments):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ncells", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--ranks", type=lambda text: [int(n) for n in text.split(",")], default=[1, 2])
    parser.add_argument("--end", default="10 ms", help="of the slab's run")
    parser.add_argument("--launcher", default="mpirun -n {}", help="{} stands for the number of ranks")
    parser.add_argument("--output", type=Path)
    return parser.parse_args(arguments)


# --- the kernel


class Cells:
    """Cells in all phases of a beat, and a kernel that advances them."""

    def __init__(self, dtype: str, beat, ncells: int):
        voltage, state = repeated(beat, ncells)
        self.given = [np.ascontiguousarray(array, dtype) for array in (np.zeros(ncells), voltage, state)]
        self.after = [np.empty_like(array) for array in self.given[1:]]
        self.status = np.empty(ncells, np.int32)
        self.kernel = Kernel.load("tt06", "tt06_advance", dtype=dtype, debug=False)
        self.ncells = ncells

    def advance(self, nsubstep: int) -> None:
        """One call."""
        block = BLOCK["cpu"]
        blocks = -(-self.ncells // block)
        self.kernel(self.ncells, blocks, block, nsubstep, DT, *self.given, *self.after, self.status)


def repeated(beat, ncells: int):
    """Voltages and states of the beat, again and again."""
    return np.resize(beat[0], ncells), np.stack([np.resize(row, ncells) for row in beat[1]])


def kernel_rows(options, limits: dict) -> list[dict]:
    """A row for each type and number of substeps, after the answers are checked."""
    beat = oracle.states_along_a_beat(500)
    wanted = beat
    for _ in range(10):
        wanted = oracle.step(*wanted, 0.0, DT)
    seconds = {}
    sets = {dtype: Cells(dtype, beat, options.ncells) for dtype in APART}
    for dtype, cells in sets.items():
        cells.advance(10)
        _check(dtype, cells, wanted)
    twin = repeated(beat, 20_000)
    for _ in range(options.repeats):
        for dtype, cells in sets.items():
            for nsubstep in NSUBSTEP:
                seconds.setdefault((dtype, nsubstep), []).append(
                    _timed(lambda c=cells, n=nsubstep: c.advance(n))
                )
        seconds.setdefault("numpy", []).append(_timed(lambda: oracle.step(*twin, 0.0, DT)))
    theirs = 20_000 / min(seconds["numpy"]) / 1e6
    return [
        _kernel_row(*key, seconds[key], options.ncells, limits, theirs) for key in seconds if key != "numpy"
    ]


def _timed(work) -> float:
    start = perf_counter()
    work()
    return perf_counter() - start


def _check(dtype: str, cells: Cells, wanted) -> None:
    if cells.status.any():
        raise AssertionError(f"every cell must be advanced, got status {cells.status.max()}")
    count = wanted[0].size
    apart = np.abs(cells.after[0][:count] - wanted[0]).max()
    scale = np.abs(wanted[1]).max(axis=1)
    relative = (np.abs(cells.after[1][:, :count] - wanted[1]).max(axis=1) / scale).max()
    if max(apart, relative) > APART[dtype]:
        raise AssertionError(
            f"{dtype} must be within {APART[dtype]:g} of NumPy, got {apart:.1e}, {relative:.1e}"
        )


def _kernel_row(dtype, nsubstep, seconds, ncells, limits, theirs) -> dict:
    rate, middle = (ncells * nsubstep / s / 1e6 for s in (min(seconds), median(seconds)))
    gflops = rate * FLOP[dtype] * 1e-3
    peak = limits[f"fma_gflops_{dtype}"]
    print(
        f"{dtype}, {nsubstep} substeps a call: {rate:.1f} M cell-steps/s (median {middle:.1f}), "
        f"{gflops:.1f} GFLOP/s, {100 * gflops / peak:.0f} % of the peak {peak:.0f}; NumPy {theirs:.2f}",
        flush=True,
    )
    return {
        "dtype": dtype,
        "nsubstep": nsubstep,
        "ncells": ncells,
        "mcellsteps_per_s": rate,
        "mcellsteps_per_s_median": middle,
        "flop_per_cellstep": FLOP[dtype],
        "gflops": gflops,
        "share_of_fma_peak": gflops / peak,
        "numpy_mcellsteps_per_s": theirs,
    }


# --- the slab


def slab_rows(options) -> list[dict]:
    """A row for each number of ranks, after the activation times are compared."""
    summaries = {nranks: _run(nranks, options) for nranks in options.ranks}
    first = next(iter(summaries.values()))
    points = first["probes"]["points"]
    if not 1e-3 < points["P1"]["activation_time"] < 2e-3:
        raise AssertionError(f"the stimulated corner must be active within 2 ms, got {points['P1']}")
    for nranks, summary in summaries.items():
        if summary["probes"] != first["probes"]:
            raise AssertionError(f"activation times must be the same on {nranks} ranks, got others")
    return [_slab_row(nranks, summary) for nranks, summary in summaries.items()]


def _run(nranks: int, options) -> dict:
    """The summary of a run; of three the one with the shortest steps."""
    settings = [word for key, value in SLAB.items() for word in ("--set", f"{key}={value}")]
    settings += ["--set", f"time.end={options.end}"]
    launcher = shlex.split(options.launcher.format(nranks))
    found = []
    for _ in range(3):
        with tempfile.TemporaryDirectory() as folder:
            command = [
                *launcher,
                sys.executable,
                "-m",
                "hpcmsm.cli",
                "run",
                str(ROOT / "cases/niederer.toml"),
            ]
            command += ["-o", f"{folder}/out", "--quiet", *settings]
            environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)
            found.append(json.loads(Path(folder, "out", "summary.json").read_text()))
    return min(found, key=_seconds)


def _seconds(summary: dict) -> float:
    """Seconds of the steps, of the slowest rank in each phase."""
    return sum(summary["phases"][name]["max"] for name in ("micro", "coupling", "macro"))


def _slab_row(nranks: int, summary: dict) -> dict:
    cells, steps = summary["cells"], summary["steps"]
    phases = {name: summary["phases"][name]["max"] for name in ("micro", "coupling", "macro")}
    rate = cells * steps / _seconds(summary) / 1e6
    told = ", ".join(f"{name} {1e9 * s / (cells * steps):.1f} ns" for name, s in phases.items())
    print(f"slab of {cells} cells, {nranks} ranks: {rate:.2f} Mcells/s; a cell and step: {told}", flush=True)
    return {"nranks": nranks, "cells": cells, "steps": steps, "mcells_per_s": rate, "seconds": phases}


if __name__ == "__main__":
    main()
