"""Strong and weak scaling of a case, through the command line as a user runs it.

    python benchmarks/scaling.py --case cases/composite_wall.toml --ranks 1,2 --repeats 3 --output DIR

Strong: the case as it is on every number of ranks. Weak: as many more cells along one axis (of the
same size each) as there are more ranks. Writes scaling.json, scaling.md and scaling.png. Before it
reports, it asserts that the strong runs agree in their final fields.

A surrogate makes the micro work depend on how alike the cells are, not on how many there are; add
--set surrogate.enabled=false to measure the ranks alone.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import shlex
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

HPCMSM = [sys.executable, "-m", "hpcmsm.cli"]
AXES = "xyz"
TAIL = 15  # lines of a failed run to show


class ScalingError(Exception):
    """A run failed, or runs that must agree do not."""


def main(arguments: list[str] | None = None) -> dict:
    """Run both studies; what scaling.json holds."""
    options = _options(arguments)
    runs = run_studies(options)
    agreement = check_agreement(runs["strong"], options.agree)
    result = {
        "case": str(options.case),
        "overrides": options.set,
        "host": platform.node(),
        "processor": _processor(),
        "ncores": os.cpu_count(),
        "date": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "repeats": options.repeats,
        "launcher": options.launcher,
        "versions": versions(runs["strong"][0]["summaries"][0].get("provenance", {})),
        "largest_difference": agreement,
        **{study: study_table(points, weak=study == "weak") for study, points in runs.items()},
    }
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "scaling.json").write_text(json.dumps(result, indent=2) + "\n")
    (options.output / "scaling.md").write_text(markdown(result))
    draw(result, options.output / "scaling.png")
    print(markdown(result))
    return result


def _options(arguments):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--case", type=Path, default=Path("cases/composite_wall.toml"))
    parser.add_argument("--ranks", type=_ranks, default=[1, 2], help="numbers of ranks, as 1,2,4")
    parser.add_argument(
        "--ranks-per-node", type=int, default=0, help="for {nodes} in the launcher; 0: one node"
    )
    parser.add_argument("--repeats", type=int, default=3, help="runs of each point; the median counts")
    parser.add_argument(
        "--weak-axis", choices=AXES, default="x", help="the axis along which the weak study grows"
    )
    parser.add_argument(
        "--launcher", default="mpirun -n {n}", help="with {n} ranks and {nodes} nodes filled in"
    )
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="passed on to hpcmsm")
    parser.add_argument(
        "--agree", type=float, default=1e-3, help="allowed difference, as a share of a field's range"
    )
    parser.add_argument("--output", type=Path, default=Path("results/scaling"))
    return parser.parse_args(arguments)


def _ranks(text: str) -> list[int]:
    ranks = sorted({int(part) for part in text.split(",")})
    if ranks[0] < 1 or any(n % ranks[0] for n in ranks):
        raise argparse.ArgumentTypeError(f"must be positive multiples of the smallest, got {text}")
    return ranks


def run_studies(options) -> dict[str, list[dict]]:
    """All runs: for each study a list of points with nranks, cells, folder and the runs' summaries."""
    cells, size = grid_of(options.case, options.set)
    first, *more = options.ranks
    # Compiles the kernels and fills the file cache; the largest job is the shortest.
    run(options, options.ranks[-1], [], options.output / "runs" / "warm_up")
    start = point(options, "strong", first, cells, [])
    strong = [start, *(point(options, "strong", n, cells, []) for n in more)]
    weak = [start]
    axis = AXES.index(options.weak_axis)
    for n in more:
        grown, longer = list(cells), list(size)
        grown[axis], longer[axis] = cells[axis] * (n // first), size[axis] * (n // first)
        weak.append(point(options, "weak", n, grown, [f"grid.cells={grown}", f"grid.size={longer}"]))
    return {"strong": strong, "weak": weak}


def grid_of(case: Path, overrides: list[str]) -> tuple[list[int], list[float]]:
    """Cells and side lengths in m of a case, as hpcmsm reads it."""
    from hpcmsm.config import load_case

    grid = load_case(case, overrides).grid
    return list(grid.cells), list(grid.size)


def point(options, study: str, nranks: int, cells: list[int], overrides: list[str]) -> dict:
    """One point of a study: the summaries of its repeated runs."""
    summaries = []
    for repeat in range(options.repeats):
        folder = options.output / "runs" / f"{study}_{nranks}_{repeat}"
        summaries.append(run(options, nranks, overrides, folder))
        print(f"{study}, {nranks} ranks, {summaries[-1]['wall_time']:.2f} s", file=sys.stderr, flush=True)
    return {"nranks": nranks, "cells": cells, "folder": folder, "summaries": summaries}


def run(options, nranks: int, overrides: list[str], folder: Path) -> dict:
    """Run the case once; its summary."""
    nodes = math.ceil(nranks / options.ranks_per_node) if options.ranks_per_node else 1
    command = shlex.split(options.launcher.format(n=nranks, nodes=nodes)) + HPCMSM
    command += ["run", str(options.case), "-o", str(folder), "--overwrite", "--quiet"]
    for text in [*options.set, *overrides]:
        command += ["--set", text]
    environment = dict(os.environ)
    environment.setdefault("OMP_NUM_THREADS", "1")
    environment.setdefault("H5PY_ALWAYS_USE_MPI", "1")
    done = subprocess.run(
        command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if done.returncode:
        said = "\n".join((done.stdout + done.stderr).splitlines()[-TAIL:])
        raise ScalingError(f"{shlex.join(command)}\nended with return code {done.returncode}:\n{said}")
    return json.loads((folder / "summary.json").read_text())


def check_agreement(points: list[dict], allowed: float) -> dict[str, float]:
    """Largest difference of the macro field over the rank counts, as a share of its range.

    Raises:
        ScalingError: a difference is above `allowed`.
    """
    largest: dict[str, float] = {}
    for other in points[1:]:
        for name, difference in differences(points[0], other).items():
            largest[name] = max(largest.get(name, 0.0), difference)
            if not difference <= allowed:
                raise ScalingError(
                    f"{name} must agree to {allowed:g} of its range, got {difference:.3g} between "
                    f"{points[0]['nranks']} and {other['nranks']} ranks; the runs are not the same problem"
                )
    return largest


def differences(one: dict, other: dict) -> dict[str, float]:
    """Difference of two points' last runs in the macro field, as a share of the field's range."""
    fields, others = (each["summaries"][-1]["fields"] for each in (one, other))
    # The macro field stands first; what the closure answered follows from it.
    name, field = next(iter(fields.items()))
    span = field["max"] - field["min"] or abs(field["max"]) or 1.0
    files = [newest_checkpoint(each["folder"]) for each in (one, other)]
    if None in files:  # then the extremes have to do
        return {name: max(abs(field[key] - others[name][key]) for key in ("min", "max")) / span}
    from hpcmsm.io.inspect import compare

    rows, _ = compare(*files)
    return {name: next(row.absolute for row in rows if row.name.split("/")[-1] == name) / span}


def newest_checkpoint(folder: Path) -> Path | None:
    """The last checkpoint of a run; names sort as steps do."""
    return max((folder / "checkpoints").glob("*.h5"), default=None)


def versions(provenance: dict) -> dict[str, str]:
    """What was measured, without what belongs to one run or one machine's folders."""
    private = ("command", "started", "host", "nranks", "case_folder")
    return {name: value for name, value in provenance.items() if name not in private}


def study_table(points: list[dict], weak: bool) -> list[dict]:
    """Per point the median times in s (slowest rank), speed-up and efficiency, whole and per phase."""
    rows = []
    for each in points:
        times = [summary["wall_time"] for summary in each["summaries"]]
        row = {
            "nranks": each["nranks"],
            "cells": each["cells"],
            "steps": each["summaries"][-1]["steps"],
            "seconds": {"median": median(times), "min": min(times), "max": max(times)},
            "phases": {name: {"seconds": seconds} for name, seconds in phase_seconds(each).items()},
        }
        rows.append(row)
        base = rows[0]
        more = row["nranks"] / base["nranks"]
        # A weak study does `more` times the work, so its speed-up counts that too.
        work = more if weak else 1.0
        row["speed_up"] = work * base["seconds"]["median"] / row["seconds"]["median"]
        row["efficiency"] = row["speed_up"] / more
        for name, phase in row["phases"].items():
            before = base["phases"].get(name, {}).get("seconds", 0.0)
            phase["efficiency"] = work * before / phase["seconds"] / more if phase["seconds"] else None
    return rows


def phase_seconds(each: dict) -> dict[str, float]:
    """Median over the runs of the slowest rank's time in every phase, the longest first."""
    names = {name for summary in each["summaries"] for name in summary["phases"]}
    seconds = {
        name: median(summary["phases"].get(name, {}).get("max", 0.0) for summary in each["summaries"])
        for name in names
    }
    return dict(sorted(seconds.items(), key=lambda item: (-item[1], item[0])))


def markdown(result: dict) -> str:
    """Both studies as tables: time, speed-up and efficiency, whole and per phase."""
    lines = [
        f"# Scaling of {result['case']}",
        "",
        f"{result['processor']}, {result['ncores']} cores, median of {result['repeats']} runs. Time of a "
        "phase: the slowest rank's; in brackets its efficiency.",
    ]
    for study in ("strong", "weak"):
        rows = result[study]
        phases = list(rows[0]["phases"])
        lines += ["", f"## {study.capitalize()}", ""]
        lines.append("| ranks | cells | time / s | speed-up | efficiency | " + " | ".join(phases) + " |")
        lines.append("| ---: " * (5 + len(phases)) + "|")
        lines += [_markdown_row(row, phases) for row in rows]
    worst = max(result["largest_difference"].values(), default=0.0)
    lines += ["", f"Final fields of the strong runs agree to {worst:.1e} of their range."]
    return "\n".join(lines) + "\n"


def _markdown_row(row: dict, phases: list[str]) -> str:
    cells = [
        str(row["nranks"]),
        " x ".join(map(str, row["cells"])),
        f"{row['seconds']['median']:.3f}",
        f"{row['speed_up']:.2f}",
        f"{row['efficiency']:.0%}",
    ]
    for name in phases:
        phase = row["phases"].get(name)
        share = f" ({phase['efficiency']:.0%})" if phase and phase["efficiency"] is not None else ""
        cells.append(f"{phase['seconds']:.3f}{share}" if phase else "-")
    return "| " + " | ".join(cells) + " |"


def draw(result: dict, path: Path) -> None:
    """Speed-up of the strong and efficiency of the weak study over ranks, each with its ideal line."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
    ranks = [row["nranks"] for row in result["strong"]]
    left.plot(ranks, [n / ranks[0] for n in ranks], "--", color="0.6", label="ideal")
    left.plot(ranks, [row["speed_up"] for row in result["strong"]], "o-", color="C0", label="measured")
    left.set(title="strong: the same problem", ylabel="speed-up", xscale="log", yscale="log")
    right.axhline(1.0, linestyle="--", color="0.6", label="ideal")
    right.plot(ranks, [row["efficiency"] for row in result["weak"]], "s-", color="C1", label="measured")
    right.set(title="weak: cells grow with the ranks", ylabel="efficiency", xscale="log")
    right.set_ylim(0.0, max(1.1, 1.05 * max(row["efficiency"] for row in result["weak"])))
    for axes in (left, right):
        axes.set_xlabel("ranks")
        axes.set_xticks(ranks, [str(n) for n in ranks])
        axes.minorticks_off()
        axes.grid(color="0.9")
        axes.legend(frameon=False)
    speeds = sorted({2**k for k in range(30) if 2**k <= max(ranks) / ranks[0] * 1.5})
    left.set_yticks(speeds, [str(n) for n in speeds])
    figure.suptitle(f"{Path(result['case']).stem} on {result['processor']}", fontsize=10)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def _processor() -> str:
    """Name of the processor, where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


if __name__ == "__main__":
    try:
        main()
    except ScalingError as error:
        sys.exit(f"scaling: {error}")
