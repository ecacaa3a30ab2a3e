"""What the framework itself costs: a coupled run whose micro model returns at once.

    python benchmarks/coupling.py --output benchmarks/results/coupling.json

Wall time of whole steps (macro step, batch, closure, outputs to the macro model, step log), divided
by the cells of the grid. Asserts the temperature against the exact decay of a sine first.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

CASE = """
title = "coupling overhead"
[grid]
cells = [{nx}, {ny}]
size = [1.0, {height}]
[time]
scheme = "euler"
end = {end}
step = {step}
[macro]
initial = "300 + 50 * sin(pi * x)"
heat_capacity = 1.0
[macro.boundary.x_low]
kind = "temperature"
temperature = 300.0
[macro.boundary.x_high]
kind = "temperature"
temperature = 300.0
[micro]
model = "constant"
[surrogate]
enabled = false
[checkpoint]
every = 0
"""
SIZES = {10_000: (125, 80), 100_000: (400, 250)}
WARM_UP = 10


def main(arguments: list[str] | None = None) -> dict:
    """Run every size on every rank count; what the JSON file holds."""
    options = _options(arguments)
    rows = []
    for ncells in SIZES:
        for nranks in options.ranks:
            rows.append(measure(ncells, nranks, options.steps, options.repeats))
            print(
                f"{ncells:7d} cells, {nranks} rank(s): {rows[-1]['us_per_cell_and_step']:.4f} us a cell and "
                f"step (median of steps), {rows[-1]['us_fastest_repeat']:.4f} in the fastest repeat"
            )
    result = {"host": platform.node(), "ncores": os.cpu_count(), "steps": options.steps, "rows": rows}
    if options.output:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps(result, indent=2) + "\n")
    return result


def _options(arguments):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ranks", type=lambda text: [int(n) for n in text.split(",")], default=[1, 2])
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--output", type=Path)
    return parser.parse_args(arguments)


def measure(ncells: int, nranks: int, steps: int, repeats: int) -> dict:
    """Median wall time per cell and step over the repeats, and of the fastest repeat."""
    medians = [_run(ncells, nranks, steps) for _ in range(repeats)]
    per_cell = [seconds / ncells * 1e6 for seconds in medians]
    return {
        "ncells": ncells,
        "nranks": nranks,
        "us_per_cell_and_step": median(per_cell),
        "us_fastest_repeat": min(per_cell),
    }


def _run(ncells: int, nranks: int, steps: int) -> float:
    nx, ny = SIZES[ncells]
    # Half the largest stable step of the explicit scheme.
    step = 0.125 / nx**2
    with tempfile.TemporaryDirectory() as folder:
        case = Path(folder) / "case.toml"
        case.write_text(CASE.format(nx=nx, ny=ny, height=ny / nx, step=step, end=step * steps))
        out = Path(folder) / "out"
        command = ["mpirun", "-n", str(nranks), sys.executable, "-m", "hpcmsm.cli", "run", str(case)]
        subprocess.run([*command, "-o", str(out), "--quiet"], check=True, env=_environment())
        summary = json.loads((out / "summary.json").read_text())
        with (out / "steps.csv").open(newline="") as file:
            seconds = [float(row["wall_time"]) for row in csv.DictReader(file)][WARM_UP:]
    _check(summary, nx)
    return median(seconds)


def _check(summary: dict, nx: int) -> None:
    """The hottest cell against exp(-pi^2 t), at the centre of the cell nearest to the middle."""
    centre = (nx // 2 + 0.5) / nx
    exact = 300 + 50 * math.sin(math.pi * centre) * math.exp(-(math.pi**2) * summary["time"])
    found = summary["fields"]["temperature"]["max"]
    if abs(found - exact) > 0.02:
        raise AssertionError(f"temperature must be {exact:.4f} K, got {found:.4f} K")


def _environment() -> dict[str, str]:
    allowed = {
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
        "OMPI_MCA_rmaps_base_oversubscribe": "1",
    }
    return {**os.environ, **allowed, "OMP_NUM_THREADS": "1", "H5PY_ALWAYS_USE_MPI": "1"}


if __name__ == "__main__":
    main()
