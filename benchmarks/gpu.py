"""Every micro model on a GPU beside one core: do they agree, and how many cells a second does each answer?

    python benchmarks/gpu.py --output benchmarks/results/gpu.json          # needs a GPU and CuPy
    python benchmarks/gpu.py --backend cpu --small                         # tries the program itself

Each model answers the same batch on both; the answers must agree to its tolerance (the iterations of a
solver may stop one apart, atoms move chaotically) before a time is told. Times are of whole answers, what is
copied to the device and back included, after one that compiles and warms up. Needs no PETSc and no MPI.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import numpy as np

FOLDER = Path(__file__).resolve().parent
sys.path[:0] = [str(FOLDER.parent), str(FOLDER)]

import machine  # noqa: E402

from hpcmsm.batch import Batch  # noqa: E402
from hpcmsm.micro.cauchy_born import CauchyBorn  # noqa: E402
from hpcmsm.micro.crystal import Crystal  # noqa: E402
from hpcmsm.micro.grain import Grain  # noqa: E402
from hpcmsm.micro.lennard_jones import LennardJones  # noqa: E402
from hpcmsm.micro.tt06 import TT06  # noqa: E402
from hpcmsm.micro.unit_cell import UnitCell  # noqa: E402


@dataclass(frozen=True)
class Model:
    """A micro model to be compared.

    Args:
        make: backend -> model.
        ranges: lowest and highest value of each input component.
        cells, few: number of cells of the batch, and of the small one.
        dt: length of a step in s.
        tolerance: largest difference of the outputs, of the largest value of each.
        work: what a cell counts for in the rate (substeps, atom-steps).
    """

    make: Callable
    ranges: tuple[tuple[float, float], ...]
    cells: int
    few: int
    dt: float = 0.0
    tolerance: float = 1e-12
    work: float = 1.0
    unit: str = "cells/s"


def composite(microstructure: str, resolution: int) -> Callable:
    """A unit cell of contrast 10."""
    return lambda backend: UnitCell(
        microstructure, (lambda t: 1.0, lambda t: 10.0), resolution, backend=backend
    )


def atoms(backend: str) -> LennardJones:
    """A few steps only: two roundings of one trajectory part exponentially."""
    short = {"equilibration": 10, "blocks": 2, "samples": 2, "every": 5}
    return LennardJones(temperature=40.0, backend=backend, **short)


CELL = ((300.0, 600.0), (0.1, 0.6))
MODELS = {
    "unit cell 2D 32^2": Model(composite("cylinders", 32), CELL, 20_000, 50, tolerance=2e-6),
    "unit cell 2D 64^2": Model(composite("cylinders", 64), CELL, 10_000, 20, tolerance=2e-6),
    "unit cell 3D 16^3": Model(
        composite("spheres", 16), ((300.0, 600.0), (0.1, 0.5)), 4000, 10, tolerance=2e-6
    ),
    "unit cell 3D 32^3": Model(
        composite("spheres", 32), ((300.0, 600.0), (0.1, 0.5)), 1000, 3, tolerance=2e-6
    ),
    "grain 48^2": Model(
        lambda backend: Grain(backend=backend), ((0.1, 0.5),), 4000, 5, dt=0.01, tolerance=1e-6
    ),
    "heart cell": Model(
        lambda backend: TT06(10, backend),
        ((-85.0, 20.0), (0.0, 10.0)),
        1_000_000,
        500,
        dt=2e-4,
        tolerance=1e-9,
        work=10.0,
        unit="cell-steps/s",
    ),
    "Cauchy-Born sum": Model(
        lambda backend: CauchyBorn(Crystal(backend=backend), "stretch"),
        ((0.95, 1.05),),
        100_000,
        100,
        tolerance=1e-11,
    ),
    "Lennard-Jones, 256 atoms": Model(
        atoms, ((0.99, 1.01),), 1000, 4, dt=1e-9, tolerance=1e-6, work=256 * 30.0, unit="atom-steps/s"
    ),
}


def main(arguments: list[str] | None = None) -> dict:
    """Compare all models; what the JSON file holds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backend", choices=("gpu", "cpu"), default="gpu")
    parser.add_argument("--small", action="store_true", help="a few cells of each, to try it")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args(arguments)
    result = {**machine.facts(), "limits": machine.limits(5), "backend": options.backend}
    if options.backend == "gpu":
        result["device"] = device()
    result["rows"] = [compared(name, model, options) for name, model in MODELS.items()]
    if options.output:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps(result, indent=2) + "\n")
    return result


def device() -> dict[str, object]:
    """The GPU's name, and the bandwidth of a = b + s c over 1 GiB arrays, best of 10."""
    import cupy

    a, b, c = (cupy.ones(2**27) for _ in range(3))
    triad = cupy.ElementwiseKernel("float64 b, float64 c", "float64 a", "a = b + 3.0 * c", "triad")
    triad(b, c, a)
    seconds = []
    for _ in range(10):
        cupy.cuda.Device().synchronize()
        start = perf_counter()
        triad(b, c, a)
        cupy.cuda.Device().synchronize()
        seconds.append(perf_counter() - start)
    name = cupy.cuda.runtime.getDeviceProperties(0)["name"].decode()
    return {"name": name, "triad_gb_per_s": 3 * a.nbytes / min(seconds) / 1e9}


def compared(name: str, model: Model, options) -> dict:
    """One row: the largest difference, then the rates of both."""
    rows = {backend: model.make(backend) for backend in ("cpu", options.backend)}
    ncells = model.few if options.small else model.cells
    # One core answers a part of the batch, and that part is compared: answers do not depend on the batch.
    part = min(ncells, max(model.few, ncells // 20))
    batch = question(model, rows["cpu"], ncells)
    wanted, _ = answered(rows["cpu"], batch.take(np.arange(part)), 1)
    found, seconds = answered(rows[options.backend], batch, options.repeats)
    _, alone = answered(rows["cpu"], batch.take(np.arange(part)), 2)
    difference = largest_difference(wanted, found, part)
    assert difference <= model.tolerance, f"{name}: {difference:.1e} apart, more than {model.tolerance:g}"
    row = {
        "model": name,
        "cells": ncells,
        "largest_difference": difference,
        "tolerance": model.tolerance,
        "unit": model.unit,
        "per_s": model.work * ncells / seconds,
        "per_s_of_one_core": model.work * part / alone,
    }
    print(
        f"{name}: {row['per_s']:.3g} {model.unit}, one core {row['per_s_of_one_core']:.3g}, "
        f"{difference:.1e} apart",
        flush=True,
    )
    return row


def question(model: Model, micro, ncells: int) -> Batch:
    """The same batch for every backend."""
    draw = np.random.default_rng(1)
    inputs = np.stack([draw.uniform(low, high, ncells) for low, high in model.ranges])
    ids = np.arange(ncells, dtype=np.int64)
    return Batch(ids, inputs, micro.initial_state(inputs), 0.0, model.dt, 1)


def answered(micro, batch: Batch, repeats: int):
    """The answer, and the shortest time in s of a repeat; the first answer is not timed."""
    answer = micro.evaluate(batch)
    seconds = []
    for _ in range(repeats):
        start = perf_counter()
        micro.evaluate(batch)
        seconds.append(perf_counter() - start)
    assert not answer.status.any(), f"{type(micro).__name__}: {np.count_nonzero(answer.status)} cells failed"
    return answer, min(seconds)


def largest_difference(wanted, found, part: int) -> float:
    """Of all outputs and states, each relative to its largest value."""
    worst = 0.0
    for mine, theirs in ((wanted.outputs, found.outputs), (wanted.state, found.state)):
        for row, other in zip(mine, theirs[:, :part], strict=True):
            size = np.abs(row).max()
            worst = max(worst, float(np.abs(row - other).max() / size)) if size else worst
    return worst


if __name__ == "__main__":
    main()
