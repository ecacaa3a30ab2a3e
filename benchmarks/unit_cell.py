"""How fast unit cells are homogenised on one core, beside a batched NumPy solver of the same equations.

    OMP_NUM_THREADS=1 python benchmarks/unit_cell.py --output benchmarks/results/unit_cell.json

Square arrays of cylinders whose fraction differs from cell to cell; microseconds per cell problem
(set-up of the faces, both loads, K) through the micro model's own `evaluate`. Two stopping rules:
"conductivity": an error of 1e-6 in K, which is what a user asks for; "residual": a residual of 1e-6, as
solvers are usually compared. The NumPy solver (conjugate gradients with an FFT preconditioner, the
oracle of the tests) stops at the residual that belongs to it and is given its faces for nothing. Both
are asserted first: against each other, and against Rayleigh's multipole solution.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
from mpi4py import MPI

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import oracles  # noqa: E402

from hpcmsm.batch import Batch  # noqa: E402
from hpcmsm.micro.unit_cell import UnitCell  # noqa: E402
from hpcmsm.provenance import provenance  # noqa: E402

# Stopping rule: tolerance of ours, of the NumPy solver's residual, and how far both may be apart.
RULES = {"conductivity": (1e-6, 1e-3, 2e-5), "residual": (1e-13, 1e-6, 1e-10)}
RESOLUTIONS = (32, 64)
CONTRASTS = (10.0, 100.0)
GRID_ERROR = {10.0: 5e-3, 100.0: 4e-2}  # of the coarsest grid, against the multipole solution

# Operations per point: counted in kernels/unit_cell.c, a fused multiply-add as two. Six half sweeps of
# eight on half of the points, coarser levels a third of four such, vectors and transfers; both loads.
FLOP_ITERATION = 2 * (6 * 8 / 2 + 4 * 8 / 2 / 3 + 7)
FLOP_SETUP = 110  # faces, scaling, levels, the first V-cycle, energies


def main(arguments: list[str] | None = None) -> dict:
    """Measure every resolution, contrast and stopping rule; what the JSON file holds."""
    options = _options(arguments)
    rows = [
        measure(resolution, contrast, rule, options)
        for resolution in RESOLUTIONS
        for contrast in CONTRASTS
        for rule in RULES
    ]
    overhead = call_overhead(options.repeats)
    print(f"one cell of 4 x 4 points: {overhead:.1f} us a call")
    result = {"provenance": provenance(MPI.COMM_SELF), "rows": rows, "us_smallest_call": overhead}
    if options.output:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps(result, indent=2) + "\n")
    return result


def _options(arguments):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ncells", type=int, default=256, help="cells of a batch (ours)")
    parser.add_argument("--numpy-ncells", type=int, default=16, help="cells of a batch (NumPy)")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--output", type=Path)
    return parser.parse_args(arguments)


def measure(resolution: int, contrast: float, rule: str, options) -> dict:
    """One row of the table; asserts the answers before anything is timed."""
    ours, theirs, apart = RULES[rule]
    fraction = np.random.default_rng(1).uniform(0.15, 0.65, options.ncells)
    cell = UnitCell(
        "cylinders",
        [np.ones_like, lambda temperature: np.full_like(temperature, contrast)],
        resolution=resolution,
        tolerance=ours,
    )
    batch = Batch(
        np.arange(options.ncells),
        np.stack([np.full(options.ncells, 300.0), fraction]),
        np.empty((0, options.ncells)),
    )
    some = fraction[: options.numpy_ncells]
    kx, ky = (
        np.stack(k)
        for k in zip(*(oracles.cylinder_faces(f, contrast, resolution) for f in some), strict=True)
    )
    answer = cell.evaluate(batch)
    reference, their_iterations = oracles.fft_pcg((kx, ky), theirs)
    _check(answer, reference, fraction, contrast, apart)
    seconds = timed(lambda: cell.evaluate(batch), options.repeats)
    their_seconds = timed(lambda: oracles.fft_pcg((kx, ky), theirs), max(3, options.repeats // 5))
    iterations = cell.solve(batch.inputs).iterations, their_iterations
    return _row(resolution, contrast, rule, iterations, seconds, their_seconds, options)


def _check(answer, reference, fraction, contrast, apart) -> None:
    ncells = reference.shape[1]
    if answer.status.any():
        raise AssertionError(f"every cell must converge, got status {answer.status.max()}")
    difference = np.max(np.abs(answer.outputs[:2, :ncells] / reference[:2] - 1.0))
    if difference > apart:
        raise AssertionError(f"both solvers must agree to {apart:g}, got {difference:.1e}")
    exact = np.array([oracles.square_array(f, contrast) for f in fraction[:ncells]])
    error = np.max(np.abs(answer.outputs[0, :ncells] / exact - 1.0))
    if error > GRID_ERROR[contrast]:
        raise AssertionError(f"grid error must be below {GRID_ERROR[contrast]:g}, got {error:.1e}")


def timed(work, repeats: int) -> tuple[float, float]:
    """Least and median seconds of `work`, the first call dropped."""
    work()
    seconds = []
    for _ in range(repeats):
        start = perf_counter()
        work()
        seconds.append(perf_counter() - start)
    return min(seconds), median(seconds)


def _row(resolution, contrast, rule, iterations, seconds, their_seconds, options) -> dict:
    iterations, their_iterations = iterations
    least, middle = (s / options.ncells * 1e6 for s in seconds)
    numpy_least, numpy_middle = (s / options.numpy_ncells * 1e6 for s in their_seconds)
    flop = resolution**2 * (FLOP_SETUP + FLOP_ITERATION * iterations.mean())
    print(
        f"{resolution}^2, contrast {contrast:g}, {rule} 1e-6: {least:.1f} us (median {middle:.1f}), "
        f"{iterations.mean():.1f} iterations, {flop / least * 1e-3:.0f} GFLOP/s; NumPy {numpy_least:.0f} us, "
        f"{their_iterations.mean():.1f} iterations: {numpy_least / least:.0f} times",
        flush=True,
    )
    return {
        "resolution": resolution,
        "contrast": contrast,
        "rule": rule,
        "us_per_cell": least,
        "us_per_cell_median": middle,
        "iterations_mean": float(iterations.mean()),
        "iterations_max": int(iterations.max()),
        "gflops_estimate": flop / least * 1e-3,
        "numpy_us_per_cell": numpy_least,
        "numpy_us_per_cell_median": numpy_middle,
        "numpy_iterations_mean": float(their_iterations.mean()),
        "times_numpy": numpy_least / least,
    }


def call_overhead(repeats: int) -> float:
    """Microseconds of asking for one cell of 4 x 4 points."""
    cell = UnitCell("checkerboard", [np.ones_like, np.ones_like], resolution=4)
    batch = Batch(np.arange(1), np.full((1, 1), 300.0), np.empty((0, 1)))

    def work():
        for _ in range(1000):
            cell.evaluate(batch)

    return timed(work, max(3, repeats // 5))[0] * 1e3


if __name__ == "__main__":
    main()
