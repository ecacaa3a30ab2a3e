"""How fast the macro equation is stepped, beside a plain C loop, NumPy and the memory's bandwidth.

    python benchmarks/macro_step.py --output benchmarks/results/macro_step.json

Explicit heat conduction in float64 with a conductivity that differs from cell to cell and axis to axis,
insulated sides, on 1 rank and through mpirun on more. All of these are first asserted to give the same
numbers, and are then timed in turns:

    step         the whole step of Forward Euler: ghost exchange, sides, stencil; K frozen, one heat capacity
    step_rho_c   the same with a heat capacity that differs from cell to cell: an array more to read
    spatial      div(K grad T): ghost exchange, sides, stencil
    cross        the same where K has cross terms
    use          what a new K costs: its exchange and the conductances of the faces, whose divisions are here
    plain_c      a C loop over the same arrays and the same harmonic means, as one writes it
    plain_c_mean a C loop with one conductivity and arithmetic means: two (three) arrays fewer, no division
    numpy        slices of whole arrays
    devito_...   the step as Devito compiles it, see devito_step.py; with --devito, after the others
    triad        a = b + s c over arrays that no cache holds, for the bandwidth: again and again, and in turns

A repeat on several ranks takes as long as its slowest rank.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import shlex
import subprocess
import sys
import tempfile
from itertools import permutations
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np

FOLDER = Path(__file__).resolve().parent
sys.path[:0] = [str(FOLDER.parent), str(FOLDER)]

import machine  # noqa: E402

CASES = {"2D 2048^2": (2048, 2048), "3D 128^3": (128, 128, 128)}
SMALL = {"2D 48x32": (48, 32), "3D 12^3": (12, 12, 12)}
TOLERANCE = 1e-12  # of the largest value
SOURCE = """
#define HARMONIC(a, b) (2 * (a) * (b) / ((a) + (b)))
#define ARITHMETIC(a, b) (0.5 * ((a) + (b)))
#define ALONG(mean, k, step) \\
    (mean(k[c], k[c + step]) * (t[c + step] - t[c]) - mean(k[c - step], k[c]) * (t[c] - t[c - step]))
#define LOOPS(name, mean)                                                                                  \\
    void name##_2d(const long *n, const double *w, const double *restrict kx, const double *restrict ky,   \\
                   const double *restrict t, double *restrict out)                                         \\
    {                                                                                                      \\
        long nx = n[0], ny = n[1], s = nx + 2;                                                             \\
        double wx = w[0], wy = w[1];                                                                       \\
        for (long y = 0; y < ny; ++y)                                                                      \\
            for (long x = 0; x < nx; ++x) {                                                                \\
                long c = (y + 1) * s + x + 1;                                                              \\
                out[y * nx + x] = wx * ALONG(mean, kx, 1) + wy * ALONG(mean, ky, s);                       \\
            }                                                                                              \\
    }                                                                                                      \\
    void name##_3d(const long *n, const double *w, const double *restrict kx, const double *restrict ky,   \\
                   const double *restrict kz, const double *restrict t, double *restrict out)              \\
    {                                                                                                      \\
        long nx = n[0], ny = n[1], nz = n[2], s = nx + 2, l = s * (ny + 2);                                \\
        double wx = w[0], wy = w[1], wz = w[2];                                                            \\
        for (long z = 0; z < nz; ++z)                                                                      \\
            for (long y = 0; y < ny; ++y)                                                                  \\
                for (long x = 0; x < nx; ++x) {                                                            \\
                    long c = (z + 1) * l + (y + 1) * s + x + 1;                                            \\
                    out[(z * ny + y) * nx + x] =                                                           \\
                        wx * ALONG(mean, kx, 1) + wy * ALONG(mean, ky, s) + wz * ALONG(mean, kz, l);       \\
                }                                                                                          \\
    }
LOOPS(harmonic, HARMONIC)
LOOPS(arithmetic, ARITHMETIC)
"""


def main(arguments: list[str] | None = None) -> dict:
    """Measure every case on every number of ranks; what the JSON file holds."""
    options = _options(arguments)
    if options.worker:
        return worker(options)
    result = {**machine.facts(), "repeats": options.repeats, "limits": machine.limits(options.repeats)}
    result["rows"] = []
    for nranks in options.ranks:
        part = _launch(nranks, options)
        # Not the hidden command of a worker, nor its ranks, which stand in the rows.
        command = " ".join(["benchmarks/macro_step.py", *sys.argv[1:]])
        result["provenance"] = {**part["provenance"], "command": command}
        del result["provenance"]["nranks"]
        result["rows"] += part["rows"]
    if options.devito:
        _add_devito(result, options)
    if options.output:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps(result, indent=2) + "\n")
    return result


def _options(arguments):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ranks", type=lambda text: [int(n) for n in text.split(",")], default=[1, 2])
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--small", action="store_true", help="grids of some 1000 cells, to try it")
    parser.add_argument("--launcher", default="mpirun -n {}", help="{} stands for the number of ranks")
    parser.add_argument("--devito", help="a Python that has Devito, in an environment of its own")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def _add_devito(result: dict, options) -> None:
    """Put Devito's rates into the rows of one rank."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "devito.json"
        command = [options.devito, str(FOLDER / "devito_step.py"), str(target)]
        subprocess.run(command + ["--small"] * options.small, check=True)
        found = json.loads(target.read_text())
    result["devito"] = found["devito"]
    for row in result["rows"]:
        if row["nranks"] == 1:
            rates = found["mcells_per_s"][row["case"]]
            row["mcells_per_s"] |= {f"devito_{form}": rate for form, rate in rates.items()}
            print(row["case"], *(f"devito_{form} {rate['best']:.0f}" for form, rate in rates.items()))


def _launch(nranks: int, options) -> dict:
    """This program on so many ranks; what rank 0 wrote."""
    allowed = (
        "OMPI_ALLOW_RUN_AS_ROOT",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM",
        "OMPI_MCA_rmaps_base_oversubscribe",
    )
    # Not bound to cores: each launcher would choose the first, whoever else is there.
    given = {**dict.fromkeys(allowed, "1"), "OMPI_MCA_hwloc_base_binding_policy": "none"}
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "part.json"
        command = [
            *shlex.split(options.launcher.format(nranks)),
            sys.executable,
            str(Path(__file__).resolve()),
        ]
        command += ["--worker", str(target), "--repeats", str(options.repeats)]
        command += ["--small"] if options.small else []
        subprocess.run(command, check=True, env={**os.environ, **given, "OMP_NUM_THREADS": "1"})
        return json.loads(target.read_text())


def worker(options) -> dict:
    """Collective. One rank of a measurement."""
    from mpi4py import MPI

    from hpcmsm.provenance import provenance

    comm = MPI.COMM_WORLD
    cases = SMALL if options.small else CASES
    rows = [measure(name, cells, comm, options.repeats) for name, cells in cases.items()]
    result = {"provenance": provenance(comm), "rows": rows}
    if comm.rank == 0:
        options.worker.write_text(json.dumps(result))
    return result


class Problem:
    """One case on this rank: the program's own parts, and the same numbers for the other codes.

    Args:
        cells: along x, y[, z].
    """

    def __init__(self, cells: tuple[int, ...]):
        from hpcmsm.config import MacroSection, TimeSection
        from hpcmsm.grid import Grid
        from hpcmsm.macro.heat import Heat
        from hpcmsm.macro.stepping import make_stepper

        self.grid = Grid(cells, tuple(n / max(cells) for n in cells))
        self.weights = np.array([1.0 / h**2 for h in self.grid.spacing])
        self.n = np.array(self.grid.rank_shape[::-1], dtype=np.int64)
        # A fifth of the largest stable step, for conductivities up to 10.
        self.dt = 0.2 / (2 * 10.0 * self.weights.sum())
        macro = MacroSection(initial="1 + sin(7 * x) * cos(5 * y) / 2")
        time = TimeSection(scheme="euler", end=1.0, step=self.dt)
        self.capacities = {"step": np.float64(1.25), "step_rho_c": 1.0 + self._random(1)[0]}
        self.heat, self.crossed = (
            Heat(self.grid, macro, lambda temperature: self.capacities["step"]) for _ in range(2)
        )
        self.stepper = make_stepper(self.heat, self.grid, time, macro, lambda *_: None)
        self.stepper.set_unknown(self.heat.initial() + 0.1 * self._random(2))
        self._choose_conductivity()
        self.out = np.full(self.grid.ncells, 0.0)

    def _random(self, seed: int, rows: int = 1) -> np.ndarray:
        """Numbers in [0, 1) that belong to the cells, whoever owns them, shape (rows, ncells)."""
        draw = np.random.default_rng(seed)
        return np.stack([draw.random(self.grid.total_cells)[self.grid.ids] for _ in range(rows)])

    def _choose_conductivity(self) -> None:
        """Normal components in 1..10, cross terms that leave K positive definite."""
        ndim = self.grid.ndim
        normal = 1.0 + 9.0 * self._random(3, ndim)
        cross = 0.3 * (self._random(4, ndim * (ndim - 1) // 2) - 0.5)
        self.conductivity = np.concatenate([normal, 0.0 * cross])
        self.crossed.use(self.stepper.unknown, {"conductivity": np.concatenate([normal, cross])})
        self.normal = [self._ghosted(row) for row in normal]
        terms = [self._ghosted(row) for row in cross]
        self.cross = terms[0] if ndim == 2 else np.stack(terms)
        self.temperature = self._ghosted(self.stepper.unknown[0])

    def _ghosted(self, values: np.ndarray) -> np.ndarray:
        """Collective. The values with those of neighbouring ranks, and 0 beyond the sides of the box."""
        vector, local = self.grid.new_vector(), self.grid.new_local()
        vector.setArray(values)
        # np.full and a copy: memory as numpy gives it, the same for every code.
        found = np.full(tuple(self.n[::-1] + 2), 0.0)
        found[...] = self.grid.ghosted(vector, local)
        return found

    def spatial(self, cross: bool = False) -> np.ndarray:
        """Collective. div(K grad T) as the program evaluates it."""
        heat = self.crossed if cross else self.heat
        return heat.spatial(0.0, self.stepper.vector, self.out)

    def step(self, name: str = "step") -> None:
        """Collective. One explicit step of the program, with one of the heat capacities."""
        self.heat.capacity = self.capacities[name]
        self.stepper.advance(1, 0.0, self.dt)

    def use(self) -> None:
        """Collective. What the program does with a new conductivity."""
        self.heat.use(self.stepper.unknown, {"conductivity": self.conductivity})

    def plain_c(self, mean: str = "harmonic") -> np.ndarray:
        """The loop in C; arithmetic means are of one conductivity for all axes."""
        ndim = self.grid.ndim
        k = self.normal if mean == "harmonic" else self.normal[:1] * ndim
        arrays = [array.ctypes.data_as(ctypes.c_void_p) for array in (*k, self.temperature, self.out)]
        function = getattr(machine.compiled(SOURCE), f"{mean}_{ndim}d")
        function(
            self.n.ctypes.data_as(ctypes.c_void_p), self.weights.ctypes.data_as(ctypes.c_void_p), *arrays
        )
        return self.out

    def numpy(self, mean: str = "harmonic") -> np.ndarray:
        """Slices of whole arrays."""
        ndim, t = self.grid.ndim, self.temperature
        total = 0.0
        for axis in range(ndim):
            k = self.normal[axis if mean == "harmonic" else 0]
            inner = [slice(1, -1)] * ndim
            inner[ndim - 1 - axis] = slice(None)
            k, u = (np.moveaxis(array[tuple(inner)], ndim - 1 - axis, 0) for array in (k, t))
            both = k[:-1] + k[1:]
            face = 2 * k[:-1] * k[1:] / both if mean == "harmonic" else 0.5 * both
            change = np.diff(face * np.diff(u, axis=0), axis=0) * self.weights[axis]
            total = total + np.moveaxis(change, 0, ndim - 1 - axis)
        return total.ravel()

    def numpy_cross(self) -> np.ndarray:
        """What cross terms add, in the cells that have a cell of this rank on every side."""
        ndim, t, h, total = self.grid.ndim, self.temperature, self.grid.spacing, 0.0
        for axis, other in permutations(range(ndim), 2):
            # The order of the components is yz, xz, xy.
            k = self.cross if ndim == 2 else self.cross[3 - axis - other]
            slope = np.gradient(t, h[other], axis=ndim - 1 - other)
            k, slope = (np.moveaxis(array, ndim - 1 - axis, 0) for array in (k, slope))
            flux = (k[:-1] + k[1:]) * (slope[:-1] + slope[1:]) / 4
            change = np.moveaxis(np.diff(flux, axis=0) / h[axis], 0, ndim - 1 - axis)
            inner = [slice(2, -2)] * ndim
            inner[ndim - 1 - axis] = slice(1, -1)
            total = total + change[tuple(inner)]
        return total


def measure(name: str, cells: tuple[int, ...], comm, repeats: int) -> dict:
    """Collective. One row: rates of every code, after they have been found to agree."""
    problem, streams = Problem(cells), machine.Streams()
    check(problem, comm)
    works = {
        "triad": streams.triad,
        "plain_c": problem.plain_c,
        "cross": lambda: problem.spatial(cross=True),
        "plain_c_mean": lambda: problem.plain_c("arithmetic"),
        "use": problem.use,
        "step": problem.step,
        "step_rho_c": lambda: problem.step("step_rho_c"),
        "spatial": problem.spatial,
        "numpy": problem.numpy,
    }
    alone = in_turns({"triad": streams.triad}, comm, repeats)["triad"]
    seconds = in_turns(works, comm, repeats)
    row = {"case": name, "cells": list(cells), "nranks": comm.size}
    triad = streams.nbytes * comm.size / 1e9
    # In turns it also waits until what the others have written is out of the cache.
    for key, times in (("triad_gb_per_s", alone), ("triad_gb_per_s_in_turns", seconds["triad"])):
        row[key] = {what: triad / value for what, value in _summary(times).items()}
    row["mcells_per_s"] = {
        work: {key: problem.grid.total_cells / value / 1e6 for key, value in _summary(times).items()}
        for work, times in seconds.items()
        if work != "triad"
    }
    row["part_of_triad"] = _parts(row, len(cells))
    if comm.rank == 0:
        print(told(row), flush=True)
    return row


def _summary(seconds: list[float]) -> dict:
    return {"best": min(seconds), "median": median(seconds)}


def _parts(row: dict, ndim: int) -> dict:
    """How near to the triad's bandwidth they are: bytes that must move, counted as in the triad."""
    # The conductivity of every axis (one for all in plain_c_mean), the temperature, and the result.
    nbytes = {"step": 8 * (ndim + 2), "step_rho_c": 8 * (ndim + 3)}
    nbytes |= {"plain_c": nbytes["step"], "plain_c_mean": 24}
    limit = row["triad_gb_per_s"]["best"] * 1e3
    return {work: row["mcells_per_s"][work]["best"] * n / limit for work, n in nbytes.items()}


def check(problem: Problem, comm) -> None:
    """Collective. All codes must give the same numbers.

    Raises:
        AssertionError: they do not.
    """
    problem.use()
    wanted = problem.numpy()
    agree("spatial", problem.spatial(), wanted, comm)
    agree("plain_c", problem.plain_c(), wanted, comm)
    agree("plain_c_mean", problem.plain_c("arithmetic"), problem.numpy("arithmetic"), comm)
    block, inner = problem.grid.rank_shape, (slice(1, -1),) * problem.grid.ndim
    crossed = wanted.reshape(block)[inner] + problem.numpy_cross()
    agree("cross", problem.spatial(cross=True).reshape(block)[inner], crossed, comm)
    start = problem.stepper.unknown.copy()
    for name, capacity in problem.capacities.items():
        problem.step(name)
        agree(name, (problem.stepper.unknown - start)[0], problem.dt * wanted / capacity, comm)
        problem.stepper.set_unknown(start)


def agree(name: str, found: np.ndarray, wanted: np.ndarray, comm) -> None:
    """Collective. Raises AssertionError on every rank unless they agree on all."""
    from mpi4py import MPI

    mine = np.array([np.abs(found - wanted).max(), np.abs(wanted).max()])
    error, size = comm.allreduce(mine[0], MPI.MAX), comm.allreduce(mine[1], MPI.MAX)
    if not error <= TOLERANCE * size:
        raise AssertionError(f"{name} must agree with NumPy to {TOLERANCE:g}, got {error / size:.1e}")


def in_turns(works: dict, comm, repeats: int) -> dict[str, list[float]]:
    """Collective. Seconds of the slowest rank, every work once in each round; the first round warms up.

    Each round has an order of its own, as a work is faster after one that left its arrays in the cache.
    """
    from mpi4py import MPI

    seconds, order = np.empty((repeats + 1, len(works))), np.random.default_rng(5)
    functions = list(works.values())
    for mine in seconds:
        for place in order.permutation(len(works)):
            comm.Barrier()
            start = perf_counter()
            functions[place]()
            mine[place] = perf_counter() - start
    comm.Allreduce(MPI.IN_PLACE, seconds, op=MPI.MAX)
    return {name: [float(s) for s in seconds[1:, place]] for place, name in enumerate(works)}


def told(row: dict) -> str:
    """A row in words."""
    rates = ", ".join(
        f"{work} {rate['best']:.0f} ({rate['median']:.0f})" for work, rate in row["mcells_per_s"].items()
    )
    triad, in_turns_too = row["triad_gb_per_s"], row["triad_gb_per_s_in_turns"]
    return (
        f"{row['case']}, {row['nranks']} rank(s), Mcells/s, best (median): {rates}; "
        f"triad {triad['best']:.1f} ({triad['median']:.1f}) GB/s, in turns {in_turns_too['best']:.1f}; "
        f"step at {100 * row['part_of_triad']['step']:.0f} %, step_rho_c at "
        f"{100 * row['part_of_triad']['step_rho_c']:.0f} % of it"
    )


if __name__ == "__main__":
    main()
