"""Every kind of surrogate, and a plain cache, on the composite wall in one run: who saves how much.

    python benchmarks/surrogates.py --output benchmarks/results/surrogates.json [--quick]

Every row is the case cases/composite_wall.toml with another closure, at each tolerance the median of three
seeds (of the coverage the smallest). The reference asks the micro model for every cell; it and the caches
know neither tolerance nor seed, and are run once. A witness evaluates all cells truly in every tenth step,
which is not counted in the times, and so sees the error of every accepted answer of that step; the gate
itself sees its audits alone. The coverage that the witness saw is asserted: at least what the case asks for.
Calls saved are the closure calls that needed no micro model; audits do. Writes a table in Markdown beside
the JSON file.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter, process_time

import numpy as np

from hpcmsm.parallel import limit_threads

limit_threads()

from mpi4py import MPI  # noqa: E402

from hpcmsm.batch import MICRO  # noqa: E402
from hpcmsm.closure.base import Closure  # noqa: E402
from hpcmsm.closure.cache import Cache  # noqa: E402
from hpcmsm.config import load_case  # noqa: E402
from hpcmsm.fields import rows_of  # noqa: E402
from hpcmsm.provenance import provenance  # noqa: E402
from hpcmsm.simulation import Simulation  # noqa: E402
from hpcmsm.surrogate import transform  # noqa: E402
from hpcmsm.surrogate.registry import KINDS  # noqa: E402

CASE = Path(__file__).resolve().parents[1] / "cases" / "composite_wall.toml"
QUIET = ["checkpoint.every=0", "snapshots.every=0"]
QUICK = ["grid.cells=[48, 24]", "micro.resolution=32", "time.end=60"]
TOLERANCES, SEEDS = (1e-2, 3e-3, 1e-3), (1, 2, 3)
CACHES = (1e-4, 3e-4, 1e-3)
WITNESSED = 10  # every so many steps
NETWORK = "ensemble"
# Column, key of a row, format.
COLUMNS = (
    ("tolerance", "tolerance", "{:g}"),
    ("closure", "name", "{}"),
    ("calls saved", "calls_saved", "{:.2%}"),
    ("fallback", "fallback", "{:.2%}"),
    ("audited error p99", "audited_p99", "{:.1e}"),
    ("true error p99", "true_p99", "{:.1e}"),
    ("coverage", "coverage", "{:.3%}"),
    ("macro error", "macro_error", "{:.1e}"),
    ("largest [K]", "macro_largest_kelvin", "{:.3f}"),
    ("wall time [s]", "wall_time", "{:.2f}"),
    ("processor [s]", "processor_time", "{:.2f}"),
    ("micro [s]", "micro_time", "{:.2f}"),
    ("surrogate [s]", "surrogate_time", "{:.2f}"),
    ("training [s]", "training_time", "{:.2f}"),
    ("samples", "samples", "{:d}"),
)


class Witness(Closure):
    """Hands every answer on; notes the temperatures, and in some steps the errors of all reused answers."""

    def __init__(self, closure: Closure, micro):
        self.closure, self.micro = closure, micro
        self.inputs, self.outputs, self.micro_state = closure.inputs, closure.outputs, closure.micro_state
        self.errors, self.temperatures, self.samples = [], [], 0
        self.seconds = np.zeros(2)  # its own, to be taken off

    def evaluate(self, batch):
        answer = self.closure.evaluate(batch)
        start = now()
        if batch.iteration == 0:
            self.temperatures.append(batch.inputs[rows_of(self.inputs)["temperature"]][0].copy())
        reused = answer.source != MICRO
        if batch.step % WITNESSED == 0 and reused.any():
            truth = self.micro.evaluate(batch.take(reused)).outputs
            given = np.ascontiguousarray(answer.outputs[:, reused])
            self.errors.append(transform.misfit(self.outputs, np.ones(len(self.outputs)), given, truth))
        self.seconds += now() - start
        return answer

    def finish_step(self, step):
        figures = self.closure.finish_step(step)
        self.samples = int(figures.get("samples", 0))
        return figures

    def totals(self):
        return self.closure.totals()


def main(arguments: list[str] | None = None) -> dict:
    """Run all; what the JSON file holds."""
    options = _options(arguments)
    settings = [*QUIET, *(QUICK if options.quick else []), *options.set]
    plans = _plans(options.kinds)
    for name in plans:  # kernels compiled, libraries loaded
        run_once(plans, name, [*settings, *QUICK, "time.end=4.5"])
    reference, history, _ = run_once(plans, "pure", settings)
    case = load_case(CASE, settings)
    result = {
        "provenance": provenance(MPI.COMM_SELF),
        "ncores": os.cpu_count(),
        "settings": settings,
        "seeds": list(options.seeds),
        "gate": {"coverage": case.gate.coverage, "audit": case.gate.audit},
        "rows": [reference],
        "verdict": {},
    }
    once = {}  # runs that know no tolerance
    for tolerance in options.tolerances:
        group = []
        for name in plans:
            if name != "pure":
                group.append(run_seeds(plans, name, settings, tolerance, options.seeds, history, once))
                result["rows"].append(group[-1])
                write(result, options.output)
                print(", ".join(_cells(group[-1])), flush=True)
        check_coverage(group, case.gate.coverage)
        result["verdict"][f"{tolerance:g}"] = verdict(group, case.gate.coverage)
        write(result, options.output)
    print(markdown(result))
    return result


def write(result: dict, output: Path | None) -> None:
    """Files of the rows so far: a long benchmark that is cut off leaves what it found."""
    if output:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(json.dumps(result, indent=2) + "\n")
        output.with_suffix(".md").write_text(markdown(result))


def _options(arguments):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a coarser wall, a fifth of the time")
    parser.add_argument("--kinds", type=lambda text: text.split(","), default=list(KINDS))
    parser.add_argument("--tolerances", type=float, nargs="+", default=list(TOLERANCES))
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--set", action="append", default=[], help="section.key=value of the case")
    parser.add_argument("--output", type=Path)
    return parser.parse_args(arguments)


def _plans(kinds: list[str]) -> dict[str, tuple[list[str], float | None]]:
    """Rows by name: settings of the case, and the tolerance of a cache."""
    if "random_forest" in kinds and find_spec("sklearn") is None:
        raise SystemExit("random_forest needs scikit-learn; install it, or leave the kind out of --kinds")
    plans = {"pure": (["surrogate.enabled=false"], None)}
    plans |= {kind: ([f"surrogate.kind={kind}"], None) for kind in kinds}
    return plans | {f"cache {limit:g}": (["surrogate.enabled=false"], limit) for limit in CACHES}


def run_seeds(plans, name, settings, tolerance, seeds, history, once) -> dict:
    """The row of a closure at a tolerance: the middle of its runs, and of the coverage the smallest."""
    runs = []
    for seed in seeds if plans[name][1] is None else seeds[:1]:
        more = [f"seed={seed}", f"gate.tolerance={tolerance}"]
        if name not in once:
            run = run_once(plans, name, [*settings, *more])
            if plans[name][1] is not None:
                once[name] = run
        row, temperatures, errors = once.get(name, None) or run
        covered = None if errors is None else float(np.mean(errors <= tolerance))
        runs.append(row | macro_errors(temperatures, history) | {"coverage": covered, "tolerance": tolerance})
    return middle(runs)


def middle(runs: list[dict]) -> dict:
    """Medians of the figures of some runs; of what is a promise, the worst."""
    worst = {"coverage": min, "true_largest": max, "macro_largest_kelvin": max}
    row = dict(runs[0])
    for key, value in runs[0].items():
        values = [run[key] for run in runs if run[key] is not None]
        if values and not isinstance(value, str):
            row[key] = type(values[0])(worst.get(key, np.median)(values))
    return row


def run_once(plans, name: str, settings: list[str]) -> tuple[dict, np.ndarray, np.ndarray | None]:
    """One run: its row, its temperatures (nstep, ncells), and errors of all reused answers it saw."""
    own, cache = plans[name]
    case = load_case(CASE, [*settings, *own])
    with tempfile.TemporaryDirectory() as folder:
        start = now()
        simulation = Simulation(case, MPI.COMM_SELF, CASE.parent, Path(folder) / "out", quiet=True)
        closure = simulation.closure if cache is None else Cache(simulation.closure, cache)
        simulation.closure = witness = Witness(closure, simulation.micro)
        simulation.start()
        summary = simulation.run()
        wall, processor = now() - start - witness.seconds
    counts, phases = summary["closure"], summary["phases"]
    errors = np.concatenate(witness.errors) if witness.errors else None
    row = {
        "name": name,
        "calls": counts["calls"],
        "calls_saved": counts["accepted"] / counts["calls"],
        "fallback": counts["fallback"] / counts["calls"],
        "audited_p99": (summary["audit_error"] or {}).get("p99"),
        "true_p99": None if errors is None else float(np.quantile(errors, 0.99)),
        "true_largest": None if errors is None else float(errors.max()),
        "nwitnessed": 0 if errors is None else errors.size,
        "wall_time": float(wall),
        "processor_time": float(processor),
        "samples": witness.samples or None,
        "versions": counts["versions"],
    }
    for phase, key in (("micro", "micro_time"), ("surrogate", "surrogate_time"), ("train", "training_time")):
        row[key] = phases[phase]["mean"] if phase in phases else 0.0
    return row, np.array(witness.temperatures), errors


def now() -> np.ndarray:
    """Seconds on the clock, and of this process on a processor, which neighbours disturb less."""
    return np.array([perf_counter(), process_time()])


def macro_errors(temperatures: np.ndarray, reference: np.ndarray) -> dict:
    """Against the pure run: root mean square at the end in parts of the rise; the largest of all steps."""
    apart = temperatures - reference
    rise = np.sqrt(np.mean((reference[-1] - reference[0]) ** 2))
    return {
        "macro_error": float(np.sqrt(np.mean(apart[-1] ** 2)) / rise),
        "macro_largest_kelvin": float(np.abs(apart).max()),
    }


def check_coverage(rows: list[dict], asked: float) -> None:
    """Every gated closure must keep its word; a cache gives none."""
    for row in rows:
        gated = row["coverage"] is not None and not row["name"].startswith("cache")
        if gated and row["coverage"] < asked:
            raise AssertionError(
                f"{row['name']}: coverage must be at least {asked}, got {row['coverage']:.5f}"
            )


def verdict(rows: list[dict], coverage: float) -> list[str]:
    """Sentences: where another closure beats the network, and where none does."""
    network = next((row for row in rows if row["name"] == NETWORK), None)
    if network is None:
        return []
    contests = (
        ("calls saved", "calls_saved", "{:.2%}", True),
        ("processor time", "processor_time", "{:.2f} s", False),
        ("training time", "training_time", "{:.2f} s", False),
        ("macro error", "macro_error", "{:.1e}", False),
    )
    sentences = []
    for text, key, form, larger in contests:
        # Whose answers are worse than asked competes for nothing; nor does who saves next to nothing.
        others = [row for row in rows if (row["coverage"] or 0) >= coverage and row["calls_saved"] > 0.5]
        better = [row for row in others if (row[key] > network[key]) == larger and row[key] != network[key]]
        better.sort(key=lambda row: row[key], reverse=larger)
        mine = form.format(network[key])
        if better:
            names = ", ".join(f"{row['name']} ({form.format(row[key])})" for row in better)
            sentences.append(f"{text}: the network ({mine}) does not win; better: {names}")
        else:
            sentences.append(f"{text}: no other beats the network ({mine})")
    return sentences


def _cells(row: dict) -> list[str]:
    return ["-" if row.get(key) is None else form.format(row[key]) for _, key, form in COLUMNS]


def markdown(result: dict) -> str:
    """The table and the verdict as text."""
    gate = result["gate"]
    lines = [
        "# Surrogates on the composite wall",
        "",
        f"Coverage {gate['coverage']:g}, audits {gate['audit']:g}; settings: "
        f"{', '.join(result['settings'])}. Medians of the seeds {', '.join(map(str, result['seeds']))}, "
        "of the coverage the smallest and of the largest error the largest. One rank, one thread. "
        "Calls saved: closure calls that needed no micro model (audits did). True error and coverage: of all "
        f"reused answers of every {WITNESSED}th step. Macro error: root mean square at the end against the "
        "pure run, in parts of the temperature rise; largest: of all cells and steps. "
        "The caches promise nothing about their error.",
        "",
        "| " + " | ".join(title for title, _, _ in COLUMNS) + " |",
        "|" + " --- |" * len(COLUMNS),
        *("| " + " | ".join(_cells(row)) + " |" for row in result["rows"]),
        "",
    ]
    for tolerance, sentences in result["verdict"].items():
        lines += [f"At a tolerance of {tolerance}:", "", *(f"* {sentence}" for sentence in sentences), ""]
    return "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    main()
