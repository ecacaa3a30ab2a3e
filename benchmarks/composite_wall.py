"""The composite wall with and without its surrogate: what it saves, what it costs, time per phase.

    python benchmarks/composite_wall.py --ranks 2 --output benchmarks/results/composite_wall.json

Asserts that the temperatures differ by less than 1e-3 of their range in every snapshot, that the
surrogate answers at least 95 % of the calls, and that less than 5 % of the time is spent waiting for its
training, before it reports a time. In a third variant, "waiting", no step goes on while it is trained.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

import numpy as np

from hpcmsm.io.snapshots import read_snapshots

CASE = Path(__file__).resolve().parent.parent / "cases" / "composite_wall.toml"
VARIANTS = {
    "on": "surrogate.enabled=true",
    "waiting": "surrogate.swap_after=0",
    "off": "surrogate.enabled=false",
}
ENVIRONMENT = {
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "OMPI_MCA_rmaps_base_oversubscribe": "1",
    "OMP_NUM_THREADS": "1",
    "H5PY_ALWAYS_USE_MPI": "1",
}


def main(arguments: list[str] | None = None) -> dict:
    """Run all variants `repeats` times; what the JSON file holds."""
    options = _options(arguments)
    with tempfile.TemporaryDirectory() as folder:
        runs = {"on": [], "waiting": [], "off": []}
        for repeat in range(options.repeats):
            for name in runs:
                out = Path(folder) / f"{name}{repeat}"
                runs[name].append(_run(out, VARIANTS[name], options.ranks))
                print(f"surrogate {name}: {runs[name][-1]['wall_time']:.2f} s", flush=True)
        difference = largest_difference(Path(folder) / "on0", Path(folder) / "off0")
    on, waiting, off = (min(summaries, key=lambda one: one["wall_time"]) for summaries in runs.values())
    _check(difference, on)
    result = {
        "host": platform.node(),
        "ncores": os.cpu_count(),
        "nranks": options.ranks,
        "largest_difference_of_range": difference,
        "training_share": {"on": training_share(on), "waiting": training_share(waiting)},
        "closure": on["closure"],
        "audit_error": on["audit_error"],
        "coverage": on["coverage"],
        "wall_time": {name: _times(summaries) for name, summaries in runs.items()},
        "phases": {"on": on["phases"], "waiting": waiting["phases"], "off": off["phases"]},
        "provenance": {k: v for k, v in on["provenance"].items() if k not in ("command", "case_folder")},
    }
    print(_text(result))
    if options.output:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps(result, indent=2) + "\n")
    return result


def _options(arguments):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--output", type=Path)
    return parser.parse_args(arguments)


def _run(out: Path, setting: str, nranks: int) -> dict:
    command = [
        "mpirun",
        "-n",
        str(nranks),
        sys.executable,
        "-m",
        "hpcmsm.cli",
        "run",
        str(CASE),
        "-o",
        str(out),
    ]
    command += ["--quiet", "--set", setting]
    subprocess.run(command, check=True, env={**os.environ, **ENVIRONMENT})
    return json.loads((out / "summary.json").read_text())


def largest_difference(first: Path, second: Path) -> float:
    """Largest difference of the temperatures over all snapshots, as a part of their range."""
    one, other = (read_snapshots(path, ["temperature"]).arrays["temperature"] for path in (first, second))
    return float(np.abs(one - other).max() / np.ptp(other))


def training_share(summary: dict) -> float:
    """Part of the wall time that the ranks wait for training."""
    return summary["phases"]["train"]["max"] / summary["wall_time"]


def _check(difference: float, on: dict) -> None:
    if not 0.0 < difference < 1e-3:
        raise AssertionError(
            f"temperatures must differ by less than 1e-3 of their range, got {difference:.2e}"
        )
    if on["closure"]["accepted"] < 0.95 * on["closure"]["calls"]:
        raise AssertionError(f"the surrogate must answer 95 % of the calls, got {on['closure']}")
    if not training_share(on) < 0.05:
        raise AssertionError(f"training must take less than 5 % of the time, got {training_share(on):.1%}")


def _times(summaries: list[dict]) -> dict[str, float]:
    seconds = [summary["wall_time"] for summary in summaries]
    return {"median": median(seconds), "min": min(seconds)}


def _text(result: dict) -> str:
    closure, times = result["closure"], result["wall_time"]
    difference = result["largest_difference_of_range"]
    share = 100 * closure["accepted"] / closure["calls"]
    lines = [
        f"answered by the surrogate: {share:.2f} % of {closure['calls']} calls",
        f"largest difference of the temperature: {difference:.1e} of its range",
        f"wall time: {times['on']['median']:.2f} s with, {times['off']['median']:.2f} s without surrogate",
        "waiting for training: {on:.1%}, and {waiting:.1%} where no step goes on meanwhile".format(
            **result["training_share"]
        ),
        f"{'phase / s':14s}{'with':>9s}{'without':>9s}",
    ]
    names = sorted(result["phases"]["on"], key=lambda name: -result["phases"]["on"][name]["mean"])
    for name in names:
        values = [result["phases"][key].get(name, {}).get("mean", 0.0) for key in ("on", "off")]
        lines.append(f"{name:14s}{values[0]:9.3f}{values[1]:9.3f}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
