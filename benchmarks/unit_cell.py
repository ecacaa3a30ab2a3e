"""How fast unit cells are homogenised on one core, beside a batched NumPy solver of the same equations.

    OMP_NUM_THREADS=1 python benchmarks/unit_cell.py --output benchmarks/results/unit_cell.json

Square arrays of cylinders and simple cubic spheres whose fraction differs from cell to cell. A cell
problem is all of it: faces, levels, both or all three loads, K; microseconds through the micro model's own
`evaluate`. Two stopping rules: "conductivity": an error of 1e-6 in K, which is what a user asks for;
"residual": a residual of 1e-6, as solvers are usually compared. The NumPy solver (conjugate gradients with
an FFT preconditioner, the oracle of the tests) stops at the residual that belongs to it and is given its
faces for nothing. Both are asserted first: against each other, and against Rayleigh's multipole solution.

Beside each time stand operations and bytes, both by count, as part of the machine's own limits: the peak of
fused multiply-adds, and a triad over as many bytes as the solver works on at a time, which is what it can
get out of that level of the caches. Then iterations of three preconditioners on easy and hard cells, and
turned grains beside the same ones without cross terms.
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
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "benchmarks")]

import machine  # noqa: E402
import oracles  # noqa: E402
import sphere_oracle  # noqa: E402

from hpcmsm.batch import Batch  # noqa: E402
from hpcmsm.micro.cell_problem import SCRATCH_WORDS  # noqa: E402
from hpcmsm.micro.generators import Recipe  # noqa: E402
from hpcmsm.micro.tensors import IN_PLANE, drawn_angles, matrices, rotation, turned  # noqa: E402
from hpcmsm.micro.unit_cell import UnitCell  # noqa: E402
from hpcmsm.provenance import provenance  # noqa: E402

# Stopping rule: tolerance of ours, of the NumPy solver's residual, and how far both may be apart.
RULES = {"conductivity": (1e-6, 1e-3, 5e-5), "residual": (1e-13, 1e-6, 1e-10)}
# Dimension, points a side, cells of a batch (ours, NumPy).
SIZES = ((2, 32, 256, 16), (2, 64, 256, 16), (3, 16, 64, 4), (3, 32, 16, 2))
NAMES = {2: "cylinders", 3: "spheres"}
FRACTIONS = {2: (0.15, 0.65), 3: (0.1, 0.45)}
CONTRASTS = (10.0, 100.0, 1e4)
# Turned grains: dimension, points a side, cells of a batch; grains in a cell, and their anisotropy.
GRAINS, NGRAIN, CRYSTAL = ((2, 64, 64), (3, 32, 8)), 16, 10.0
HIGHEST = 100.0  # contrast up to which NumPy and the multipole solution are asked, too
GRID_ERROR = {10.0: 1.2e-2, 100.0: 0.12}  # of the coarsest grid, against the multipole solution
LANES = 8

# Counted in kernels/unit_cell_*.h, a fused multiply-add as two operations. With s = 2 ndim sides, per pair of
# a red and a black point, load and iteration on the finest level; the coarser ones come on top.
FLOP_SETUP = {2: 110, 3: 250}  # per point: faces, scaling, levels, the first V-cycle, energies


def flop_per_point(ndim: int) -> float:
    """Operations of an iteration, all loads."""
    sides = 2 * ndim
    finest, coarser = 12 * sides + 10, (8 * sides + 3) / (2**ndim - 1)
    return ndim * (finest + coarser) / 2


def bytes_per_point(ndim: int) -> float:
    """Bytes that an iteration reads and writes, all loads, each array once per sweep."""
    sides, together = 2 * ndim, {2: 2, 3: 1}[ndim]  # loads solved together share the faces
    finest = 32 * sides + 8 + 160 * together
    coarser = (16 * sides + 40 * together) / (2**ndim - 1)
    return ndim / together * (finest + coarser) / 2


def main(arguments: list[str] | None = None) -> dict:
    """Measure every size, contrast and stopping rule; what the JSON file holds."""
    options = _options(arguments)
    peak, _ = machine.peak_gflops("float64")
    rows = []
    for size in SIZES:
        streams = machine.Streams(working_bytes(size[0], size[1]) // 24)
        for contrast in CONTRASTS:
            for rule in RULES if contrast <= HIGHEST else ("conductivity",):
                rows.append(measure(size, contrast, rule, streams, peak, options))
    hard = [algorithms(ndim, n, contrast) for ndim, n in ((2, 32), (3, 16)) for contrast in CONTRASTS]
    grains = [turned_grains(ndim, n, ncells, options.repeats) for ndim, n, ncells in GRAINS]
    overhead = call_overhead(options.repeats)
    print(f"one cell of 4 x 4 points: {overhead:.1f} us a call")
    result = {
        "provenance": provenance(MPI.COMM_SELF),
        "peak_gflops": peak,
        "rows": rows,
        "iterations": hard,
        "turned_grains": grains,
        "us_smallest_call": overhead,
    }
    if options.output:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps(result, indent=2) + "\n")
    return result


def _options(arguments):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--output", type=Path)
    return parser.parse_args(arguments)


def working_bytes(ndim: int, n: int) -> int:
    """What a team of cells works on."""
    return SCRATCH_WORDS[ndim] * n**ndim * LANES * 8


def faces_of(ndim: int, fraction: float, contrast: float, n: int):
    make = oracles.cylinder_faces if ndim == 2 else sphere_oracle.sphere_faces
    return make(fraction, contrast, n)


def measure(size, contrast: float, rule: str, streams, peak: float, options) -> dict:
    """One row of the table; asserts the answers before anything is timed."""
    ndim, n, ncells, numpy_ncells = size
    ours, theirs, apart = RULES[rule]
    fraction = np.random.default_rng(1).uniform(*FRACTIONS[ndim], ncells)
    cell = UnitCell(
        NAMES[ndim],
        [np.ones_like, lambda temperature: np.full_like(temperature, contrast)],
        resolution=n,
        tolerance=ours,
    )
    inputs = np.stack([np.full(ncells, 300.0), fraction])
    batch = Batch(np.arange(ncells), inputs, np.empty((0, ncells)))
    answer, iterations = cell.evaluate(batch), cell.solve(inputs).iterations
    if answer.status.any():
        raise AssertionError(f"every cell must converge, got status {answer.status.max()}")
    row = {"ndim": ndim, "resolution": n, "contrast": contrast, "rule": rule}
    row |= {"iterations_mean": float(iterations.mean()), "iterations_max": int(iterations.max())}
    if contrast <= HIGHEST:
        some = [faces_of(ndim, f, contrast, n) for f in fraction[:numpy_ncells]]
        row |= _numpy(tuple(np.stack(k) for k in zip(*some, strict=True)), theirs, options)
        _check(answer, row.pop("k"), fraction, contrast, apart)
    least, middle = timed(lambda: cell.evaluate(batch), options.repeats)
    row |= {"us_per_cell": least / ncells * 1e6, "us_per_cell_median": middle / ncells * 1e6}
    row |= _limits(row, streams, peak)
    _show(row)
    return row


def _numpy(faces, tolerance: float, options) -> dict:
    k, iterations = oracles.fft_pcg(faces, tolerance)
    least, middle = timed(lambda: oracles.fft_pcg(faces, tolerance), max(2, options.repeats // 5))
    ncells = len(faces[0])
    return {
        "k": k,
        "numpy_us_per_cell": least / ncells * 1e6,
        "numpy_us_per_cell_median": middle / ncells * 1e6,
        "numpy_iterations_mean": float(iterations.mean()),
    }


def _check(answer, reference, fraction, contrast, apart) -> None:
    ndim = 2 if len(reference) == 3 else 3
    ncells = reference.shape[1]
    difference = np.max(np.abs(answer.outputs[:ndim, :ncells] / reference[:ndim] - 1.0))
    if difference > apart:
        raise AssertionError(f"both solvers must agree to {apart:g}, got {difference:.1e}")
    series = oracles.square_array if ndim == 2 else sphere_oracle.simple_cubic
    exact = np.array([series(f, contrast) for f in fraction[:ncells]])
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


def _limits(row: dict, streams, peak: float) -> dict:
    """Operations and bytes by count, and what part of the machine's limits they are."""
    ndim, points = row["ndim"], row["resolution"] ** row["ndim"]
    iterations = row["iterations_mean"]
    flop = points * (FLOP_SETUP[ndim] + flop_per_point(ndim) * iterations)
    # The first V-cycle, set-up and energies move about as much as an iteration and a half.
    nbytes = points * bytes_per_point(ndim) * (iterations + 1.5)
    seconds, _ = timed(lambda: [streams.triad() for _ in range(20)], 5)
    cache = 20 * streams.nbytes / seconds / 1e9
    gflops, moved = flop / row["us_per_cell"] * 1e-3, nbytes / row["us_per_cell"] * 1e-3
    return {
        "gflops_estimate": gflops,
        "part_of_peak": gflops / peak,
        "gb_per_s_estimate": moved,
        "triad_of_same_bytes_gb_per_s": cache,
        "working_bytes": working_bytes(ndim, row["resolution"]),
        "times_numpy": row["numpy_us_per_cell"] / row["us_per_cell"] if "numpy_us_per_cell" in row else None,
    }


def _show(row: dict) -> None:
    beside = ""
    if row["times_numpy"] is not None:
        beside = (
            f"; NumPy {row['numpy_us_per_cell']:.0f} us, {row['numpy_iterations_mean']:.1f} iterations: "
            f"{row['times_numpy']:.0f} times"
        )
    print(
        f"{row['resolution']}^{row['ndim']}, contrast {row['contrast']:g}, {row['rule']} 1e-6: "
        f"{row['us_per_cell']:.1f} us (median {row['us_per_cell_median']:.1f}), "
        f"{row['iterations_mean']:.1f} iterations, {row['gflops_estimate']:.0f} GFLOP/s "
        f"({row['part_of_peak']:.0%} of the peak), {row['gb_per_s_estimate']:.0f} GB/s of "
        f"{row['triad_of_same_bytes_gb_per_s']:.0f}{beside}",
        flush=True,
    )


def algorithms(ndim: int, n: int, contrast: float) -> dict:
    """Iterations to a residual of 1e-6 of three preconditioners: one inclusion, and voxels at random."""
    voxels = np.random.default_rng(2).integers(0, 2, [n] * ndim)
    centres = (np.arange(n) + 0.5) / n - 0.5
    ball = (sum(x**2 for x in np.meshgrid(*[centres] * ndim)) < 0.1).astype(np.int64)
    row = {"ndim": ndim, "resolution": n, "contrast": contrast}
    for name, labels in (("inclusion", ball), ("voxels", voxels)):
        functions = [np.ones_like, lambda temperature: np.full_like(temperature, contrast)]
        cell = UnitCell(labels, functions, tolerance=1e-13, max_iterations=2000)
        found = cell.solve(np.array([[300.0]]))
        faces = tuple(k[None] for k in oracles.image_faces(labels, np.array([1.0, contrast])))
        row[f"multigrid_{name}"] = int(found.iterations[0])
        row[f"fft_{name}"] = int(oracles.fft_pcg(faces, 1e-6, 3000)[1][0])
        row[f"jacobi_{name}"] = int(oracles.fft_pcg(faces, 1e-6, 3000, jacobi=True)[1][0])
    print("iterations: " + ", ".join(f"{name} {value:g}" for name, value in row.items()), flush=True)
    return row


def turned_grains(ndim: int, n: int, ncells: int, repeats: int) -> dict:
    """A polycrystal, 10 to 1 along one axis, and the same cell without the cross terms of its tensors.

    Asserts what is known of it: in 2D det K is that of the crystal, in 3D K lies between the extremes.
    """
    labels = Recipe("voronoi", ndim, n, nphase=NGRAIN, count=NGRAIN).labels()
    along = [np.ones_like, *[lambda temperature: np.full_like(temperature, 1.0 / CRYSTAL)] * 2]
    grains = []
    for grain in range(NGRAIN):
        turn = rotation(drawn_angles(1, grain, NGRAIN, ndim))
        parts = turned([*along, None, None, None], turn, "crystal")
        grains.append(parts if ndim == 3 else [parts[row] for row in IN_PLANE])
    inputs = np.full((1, ncells), 300.0)
    row = {"ndim": ndim, "resolution": n, "crystal": CRYSTAL, "grains": NGRAIN}
    for name, phases in (("full", grains), ("diagonal", [phase[:ndim] for phase in grains])):
        cell = UnitCell(labels, phases, tolerance=1e-6)
        found = cell.solve(inputs)
        k = matrices(found.outputs)[0]
        exact = abs(np.linalg.det(k) * CRYSTAL - 1.0) < 0.1 if ndim == 2 else True
        inside = 1.0 / CRYSTAL < np.linalg.eigvalsh(k)[0] < np.linalg.eigvalsh(k)[-1] < 1.0
        if found.status.any() or not inside or (name == "full" and not exact):
            raise AssertionError(f"K of a polycrystal must be near what is known of it, got {k.tolist()}")
        least, middle = timed(lambda cell=cell: cell.solve(inputs), max(3, repeats // 3))
        row[f"{name}_us_per_cell"], row[f"{name}_us_per_cell_median"] = (
            least / ncells * 1e6,
            middle / ncells * 1e6,
        )
        row[f"{name}_iterations"] = int(found.iterations[0])
    print(
        f"{n}^{ndim}, {NGRAIN} turned grains: {row['full_us_per_cell']:.0f} us, {row['full_iterations']} "
        f"iterations; without cross terms {row['diagonal_us_per_cell']:.0f} us, {row['diagonal_iterations']}",
        flush=True,
    )
    return row


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
