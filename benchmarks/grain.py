"""How fast cells with a grain are advanced on one core, beside the same step by numpy and scipy.

    OMP_NUM_THREADS=1 python benchmarks/grain.py --output benchmarks/results/grain.json

Microseconds per cell and step of the micro model's own `evaluate`: one step of backward Euler of the phase
field (dt = 0.01, residual to 1e-10) and the cell problem (diffusivity to 1e-6), for concentrations from 0
to the equilibrium, from the initial grain on and, as "later", after ten such steps. "At rest" are cells
that have stopped. The numpy and scipy twin of the tests (sparse factorisations, one cell at a time) gets
the same cells; both are compared first. For scale: the public two-scale coupler whose tutorial states
this problem takes 7 s for a micro solve there (adaptive quadratic elements in Python, 48 cells; measured
on such a machine); its error is not compared here.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from time import perf_counter

import numpy as np
from mpi4py import MPI

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "benchmarks")]

import grain_oracle as oracle  # noqa: E402
import machine  # noqa: E402

from hpcmsm.batch import Batch  # noqa: E402
from hpcmsm.micro.grain import Grain  # noqa: E402
from hpcmsm.provenance import provenance  # noqa: E402

RESOLUTIONS = (32, 48, 64)
DT = 0.01
NCHECKED = 3  # cells that the twin answers
COUPLER_SECONDS = 7.0

# Operations per point, counted in kernels/grain.c and kernels/unit_cell_*.h, a fused multiply-add as two:
# of an iteration of Newton's method, of its conjugate gradients, of the cell problem, and its set-up.
FLOP_NEWTON, FLOP_LINEAR, FLOP_ITERATION, FLOP_SETUP = 35, 11, 73, 110


def main(arguments: list[str] | None = None) -> dict:
    """Measure every resolution; what the JSON file holds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ncells", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args(arguments)
    peak, _ = machine.peak_gflops("float64")
    rows = [row for n in RESOLUTIONS for row in measure(n, peak, options)]
    result = {
        "provenance": provenance(MPI.COMM_SELF),
        "peak_gflops": peak,
        "coupler_seconds_per_micro_solve": COUPLER_SECONDS,
        "rows": rows,
    }
    if options.output:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps(result, indent=2) + "\n")
    return result


def measure(resolution: int, peak: float, options) -> list[dict]:
    """Rows of one resolution; asserts the answers before anything is timed."""
    model, ncells = Grain(resolution=resolution), options.ncells
    u = np.linspace(0.0, 0.5, ncells)[None]
    batch = Batch(np.arange(ncells), u, model.initial_state(u), 0.0, DT, 1)
    twin_seconds = compare(model, batch)
    later = batch
    for _ in range(10):
        later = Batch(batch.ids, u, model.evaluate(later).state, 0.0, DT, 1)
    resting = Batch(batch.ids, u, np.ones_like(batch.state), 0.0, DT, 1)
    rows = []
    for name, asked in (("first", batch), ("later", later), ("at rest", resting)):
        seconds = machine.timed(lambda: model.evaluate(asked), options.repeats)  # noqa: B023
        rows.append(_row(resolution, name, model.solve(asked), seconds, twin_seconds, peak))
    return rows


def compare(model: Grain, batch: Batch) -> float:
    """Hold some cells against the twin; its seconds per cell and step."""
    found = model.solve(batch)
    check(not found.status.any(), "every cell must converge")
    cells, spent = np.linspace(0, batch.ncells - 1, NCHECKED).astype(int), []
    for cell in cells:
        start = perf_counter()
        square = batch.state[:, cell].reshape(model.resolution, -1)
        phase = oracle.step(square, batch.inputs[0, cell], batch.dt)
        k = oracle.conductivity(phase, 1.0, model.options.grain)
        spent.append(perf_counter() - start)
        apart = np.abs(found.phase[:, cell] - phase.ravel()).max()
        check(apart < 1e-8, f"the phase field must be that of the twin, got a difference of {apart:.1e}")
        apart = np.abs(found.diffusivity[:2, cell] / k[:2] - 1.0).max()
        check(apart < 1e-6, f"the diffusivity must be that of the twin to 1e-6, got {apart:.1e}")
    return min(spent)


def _row(resolution, name, found, seconds, twin_seconds, peak) -> dict:
    ncells = found.porosity.size
    least, middle = (1e6 * s / ncells for s in (min(seconds), sorted(seconds)[len(seconds) // 2]))
    counts = {what: float(getattr(found, what).mean()) for what in ("newton", "linear", "iterations")}
    flop = resolution**2 * (
        FLOP_SETUP
        + FLOP_NEWTON * counts["newton"]
        + FLOP_LINEAR * counts["linear"]
        + FLOP_ITERATION * counts["iterations"]
    )
    gflops = flop / least * 1e-3
    print(
        f"{resolution}^2, {name}: {least:.1f} us per cell and step (median {middle:.1f}); "
        f"{counts['newton']:.1f} Newton, {counts['linear']:.1f} linear, {counts['iterations']:.1f} cell "
        f"iterations; {gflops:.0f} GFLOP/s, {100 * gflops / peak:.0f} % of the peak; twin "
        f"{1e6 * twin_seconds:.0f} us: {1e6 * twin_seconds / least:.0f} times",
        flush=True,
    )
    return {
        "resolution": resolution,
        "cells": name,
        "us_per_cell": least,
        "us_per_cell_median": middle,
        **counts,
        "gflops_estimate": gflops,
        "part_of_peak": gflops / peak,
        "twin_us_per_cell": 1e6 * twin_seconds,
        "times_twin": 1e6 * twin_seconds / least,
    }


def check(fine: bool, text: str) -> None:
    """Raises AssertionError with the text unless fine."""
    if not fine:
        raise AssertionError(text)


if __name__ == "__main__":
    main()
