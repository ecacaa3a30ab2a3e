"""What the chemistry of a cell costs on one core, what our model adds to Cantera, and how uneven it is.

    OMP_NUM_THREADS=1 python benchmarks/chemistry.py --output benchmarks/results/chemistry.json

Partly burnt states of hydrogen (h2o2.yaml, 1300 to 1590 K) and methane (gri30.yaml, 1900 to 2770 K) in air
at 1 atm, over 1 us. Beside our model stand loops over bare Cantera: with a new integrator for every cell,
as in our model, and with one that is used again, whose answers depend on the cell before. What bounds all
of them is the evaluation of the rates: its time and its number give the share. Asserted first: our answers
are those of the bare loop to the integrator's tolerance, elements are kept, no cell fails.

The last part runs cases/ignition.toml on 2 ranks and tells how the work falls on them.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter

import cantera
import numpy as np
from mpi4py import MPI

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

import machine  # noqa: E402

from hpcmsm.batch import Batch  # noqa: E402
from hpcmsm.micro.chemistry import Chemistry  # noqa: E402
from hpcmsm.provenance import provenance  # noqa: E402

DT = 1e-6
# Fuel, temperatures at the start of a trajectory, and those between which states are taken.
GASES = {
    "h2o2.yaml": ("H2", (1000.0, 1200.0), (1300.0, 1590.0)),
    "gri30.yaml": ("CH4", (1500.0, 1800.0), (1900.0, 2770.0)),
}
TOLERANCES = ((1e-6, 1e-12), (1e-9, 1e-15))


def main(arguments: list[str] | None = None) -> dict:
    """Measure both mechanisms at both tolerances; what the JSON file holds."""
    options = _options(arguments)
    rows = []
    for mechanism in GASES:
        states = partly_burnt(mechanism, options.ncells)
        rows += [measure(mechanism, states, *both, options.repeats) for both in TOLERANCES]
    result = {
        "provenance": provenance(MPI.COMM_SELF) | {"cantera": cantera.__version__},
        "machine": machine.facts(),
        "dt": DT,
        "rows": rows,
        "ignition": None if options.no_case else ignition(),
    }
    if options.output:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps(result, indent=2) + "\n")
    return result


def _options(arguments):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ncells", type=int, default=100, help="states of each mechanism")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--no-case", action="store_true", help="leave the run of the case out")
    parser.add_argument("--output", type=Path)
    return parser.parse_args(arguments)


def partly_burnt(mechanism: str, ncells: int) -> np.ndarray:
    """Temperatures and mass fractions (1 + nspecies, ncells) from the course of ignitions."""
    fuel, starts, wanted = GASES[mechanism]
    gas, lot, states = cantera.Solution(mechanism), np.random.default_rng(1), []
    while len(states) < ncells:
        gas.TP = lot.uniform(*starts), cantera.one_atm
        gas.set_equivalence_ratio(lot.uniform(0.4, 1.2), fuel, "O2:1, N2:3.76")
        reactor = cantera.IdealGasConstPressureReactor(gas, clone=False)
        net, target = cantera.ReactorNet([reactor]), lot.uniform(*wanted)
        while target > reactor.T and net.time < 0.1:
            net.step()
        if wanted[0] <= reactor.T <= wanted[1]:
            states.append([reactor.T, *reactor.phase.Y])
    return np.ascontiguousarray(np.array(states).T)


class Bare:
    """Cantera in a plain loop, a new integrator for every cell or one that is used again."""

    def __init__(self, mechanism: str, tolerances: tuple[float, float], again: bool):
        self.gas, self.tolerances, self.again = cantera.Solution(mechanism), tolerances, again
        self.net = None

    def __call__(self, states: np.ndarray) -> tuple[np.ndarray, int]:
        """Mass fractions after DT (nspecies, ncells), and evaluations of the rates in all."""
        after, evaluations = np.empty((len(states) - 1, states.shape[1])), 0
        for cell in range(states.shape[1]):
            self.gas.TPY = states[0, cell], cantera.one_atm, states[1:, cell]
            if self.net is None or not self.again:
                self.reactor = cantera.IdealGasConstPressureReactor(self.gas, clone=False)
                self.net = cantera.ReactorNet([self.reactor])
                self.net.rtol, self.net.atol = self.tolerances
            else:
                self.reactor.syncState()
                self.net.initial_time = 0.0
                self.net.reinitialize()
            self.net.advance(DT)
            after[:, cell] = self.reactor.phase.Y
            evaluations += self.net.solver_stats["rhs_evals"]
        return after, evaluations


def measure(mechanism: str, states: np.ndarray, relative: float, absolute: float, repeats: int) -> dict:
    """One row: asserts the answers, then times our model and both loops in turns."""
    ncells = states.shape[1]
    model = Chemistry(mechanism, cantera.one_atm, relative, absolute)
    batch = Batch(np.arange(ncells), states, np.empty((0, ncells)), 0.0, DT, 1)
    anew, again = (Bare(mechanism, (relative, absolute), used) for used in (False, True))
    evaluations = _check(model, batch, anew, relative)
    apart = float(np.abs(again(states)[0] - again(states[:, ::-1])[0][:, ::-1]).max())
    works = {
        "ours": lambda: model.evaluate(batch),
        "new integrator": lambda: anew(states),
        "integrator used again": lambda: again(states),
        "rates": lambda: _rates(model, states),
    }
    seconds = {name: [] for name in works}
    for _ in range(repeats):
        for name, work in works.items():
            start = perf_counter()
            work()
            seconds[name].append(perf_counter() - start)
    us = {name: 1e6 * min(times) / ncells for name, times in seconds.items()}
    row = {
        "mechanism": mechanism,
        "species": model.mixture.nspecies,
        "tolerances": [relative, absolute],
        "ncells": ncells,
        "us_per_cell": us["ours"],
        "us_per_cell_median": 1e6 * median(seconds["ours"]) / ncells,
        "us_bare": us["new integrator"],
        "us_bare_used_again": us["integrator used again"],
        "used_again_depends_on_order_by": apart,
        "overhead": us["ours"] / us["new integrator"] - 1.0,
        "rates_per_cell": evaluations / ncells,
        "share_of_rates": us["rates"] * evaluations / ncells / us["new integrator"],
        **_unevenness(model, batch),
    }
    print(
        f"{mechanism} {relative:g}: {row['us_per_cell']:.0f} us a cell, {100 * row['overhead']:+.1f} % to "
        f"bare Cantera ({row['us_bare']:.0f}; used again {row['us_bare_used_again']:.0f}, order matters by "
        f"{apart:.0e}), {row['rates_per_cell']:.0f} evaluations of the rates are "
        f"{100 * row['share_of_rates']:.0f} %; dearest over cheapest cell {row['dearest_over_cheapest']:.0f}",
        flush=True,
    )
    return row


def _check(model: Chemistry, batch: Batch, bare: Bare, relative: float) -> int:
    """Assert our answers; evaluations of the rates of the bare loop."""
    answer = model.evaluate(batch)
    if answer.status.any():
        raise AssertionError(f"every cell must be solved, got status {answer.status.max()}")
    lost = np.abs(model.mixture.share @ answer.outputs).max()
    if lost > 1e-15:
        raise AssertionError(f"elements must be kept to rounding, got a loss of {lost:.1e}")
    expected, evaluations = bare(batch.inputs)
    apart = np.abs(batch.inputs[1:] + answer.outputs - expected).max()
    if apart > relative:
        raise AssertionError(f"answers must agree to {relative:g}, got {apart:.1e}")
    return evaluations


def _rates(model: Chemistry, states: np.ndarray) -> None:
    """Rates of every cell once, through Python: an upper bound of what the integrator pays for them."""
    gas = model._gas
    for temperature, fractions in zip(states[0], states[1:].T, strict=True):
        gas.TPY = temperature, cantera.one_atm, fractions
        gas.net_production_rates  # noqa: B018


def _unevenness(model: Chemistry, batch: Batch) -> dict:
    """Cost of these cells and of the same gases unburnt and cold, as a flame holds them side by side."""
    cold = batch.inputs.copy()
    cold[0] = 300.0
    cold[1:] = batch.inputs[1:, :1]
    costs = [
        np.median([model.evaluate(b).cost for _ in range(3)], axis=0) for b in (batch, _with(batch, cold))
    ]
    together = np.concatenate(costs)
    return {
        "us_dearest": 1e6 * float(together.max()),
        "us_cheapest": 1e6 * float(together.min()),
        "dearest_over_cheapest": float(together.max() / together.min()),
    }


def _with(batch: Batch, inputs: np.ndarray) -> Batch:
    return Batch(batch.ids, inputs, batch.state, batch.time, batch.dt, batch.step)


def ignition() -> dict:
    """The case of that name on 2 ranks: cells, steps, wall time, and the imbalance of the work."""
    folder = Path(tempfile.mkdtemp())
    code = "import sys; from hpcmsm.cli import main; sys.exit(main())"
    case = ROOT / "cases" / "ignition.toml"
    command = ["mpirun", "-n", "2", sys.executable, "-c", code, "run", case, "-o", folder / "out", "--quiet"]
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    try:
        subprocess.run([str(word) for word in command], env=os.environ | {"PYTHONPATH": paths}, check=True)
        summary = json.loads((folder / "out" / "summary.json").read_text())
    finally:
        shutil.rmtree(folder)
    work = summary["micro_work"]
    row = {"nranks": 2, **{name: summary[name] for name in ("cells", "steps", "wall_time")}, **work}
    print(
        f"ignition, 2 ranks: {row['wall_time']:.1f} s, chemistry {work['seconds']:.1f} s of both ranks, "
        f"rank with the most over the mean {work['imbalance']:.2f}"
    )
    return row


if __name__ == "__main__":
    main()
