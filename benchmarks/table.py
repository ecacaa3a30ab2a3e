"""The table of benchmarks/README.md, made from the JSON files in benchmarks/results/.

python benchmarks/table.py
"""

from __future__ import annotations

import json
from pathlib import Path

RESULTS = Path(__file__).resolve().parent / "results"


def main() -> str:
    """Print the table, one row per result that is there."""
    makers = {
        "composite_wall": wall_rows,
        "coupling": coupling_rows,
        "macro_step": macro_rows,
        "unit_cell": unit_cell_rows,
        "grain": grain_rows,
        "tt06": tt06_rows,
        "lennard_jones": atom_rows,
        "chemistry": chemistry_rows,
        "engine": engine_rows,
        "vectorised": vectorised_rows,
        "ensemble": ensemble_rows,
        "scaling": scaling_rows,
        "checkpoint": checkpoint_rows,
    }
    lines = ["| what | measured | beside it, in the same run | command: `python benchmarks/...` |"]
    lines.append("| --- | --- | --- | --- |")
    for name, rows in makers.items():
        path = RESULTS / f"{name}.json"
        if path.exists():
            lines += [f"| {' | '.join(row)} | `{name}.py` |" for row in rows(json.loads(path.read_text()))]
    text = "\n".join(lines)
    print(text)
    return text


def wall_rows(result: dict) -> list[tuple[str, str, str]]:
    times, closure = result["wall_time"], result["closure"]
    share = 100 * closure["accepted"] / closure["calls"]
    difference = result["largest_difference_of_range"]
    return [
        (
            f"composite wall, {result['nranks']} ranks, {share:.1f} % answered by the surrogate",
            f"{times['on']['median']:.1f} s; temperature within {difference:.0e} of its range",
            f"{times['off']['median']:.1f} s without surrogate",
        )
    ]


def chemistry_rows(result: dict) -> list[tuple[str, str, str]]:
    rows = [
        (
            f"chemistry by {row['mechanism']} ({row['species']} species), {result['dt'] * 1e6:g} us to "
            f"{row['tolerances'][0]:g}, one core",
            f"{row['us_per_cell']:.0f} us a cell, dearest over cheapest {row['dearest_over_cheapest']:.0f}",
            f"bare Cantera {row['us_bare']:.0f} us",
        )
        for row in result["rows"]
    ]
    case = result["ignition"]
    if case:
        told = f"{case['wall_time']:.1f} s, rank with the most over the mean {case['imbalance']:.2f}"
        work = f"{case['seconds']:.1f} s of chemistry on both"
        rows.append((f"ignition, {case['cells']} cells, {case['nranks']} ranks", told, work))
    return rows


def coupling_rows(result: dict) -> list[tuple[str, str, str]]:
    rows = []
    for ncells in sorted({row["ncells"] for row in result["rows"]}):
        told = ", ".join(
            f"{row['us_per_cell_and_step']:.3f} us ({row['nranks']} rank{'s' * (row['nranks'] > 1)})"
            for row in result["rows"]
            if row["ncells"] == ncells
        )
        rows.append((f"all the framework adds, per cell and step, {ncells:.0e} cells", told, "target 0.5 us"))
    return rows


def macro_rows(result: dict) -> list[tuple[str, str, str]]:
    rows = []
    for row in result["rows"]:
        rate = {work: f"{value['best']:.0f}" for work, value in row["mcells_per_s"].items()}
        rows.append(
            (
                f"macro step, {row['case']}, {row['nranks']} rank{'s' * (row['nranks'] > 1)}, float64",
                f"whole explicit step {rate['step']}, with rho c of each cell {rate['step_rho_c']} Mcells/s",
                f"plain C's stencil {rate['plain_c']}, NumPy {rate['numpy']}{_devito(rate)} Mcells/s; "
                f"step at {100 * row['part_of_triad']['step']:.0f} % of the triad bandwidth",
            )
        )
    return rows


def _devito(rate: dict[str, str]) -> str:
    if "devito_faces" not in rate:
        return ""
    return f", Devito's step {rate['devito_faces']}, with rho c of each cell {rate['devito_faces_rho_c']}"


def unit_cell_rows(result: dict) -> list[tuple[str, str, str]]:
    return [
        (
            f"unit cell {row['resolution']}{'²³'[row.get('ndim', 2) - 2]}, contrast {row['contrast']:.0f}, "
            "K to 1e-6, all loads, one core",
            f"{row['us_per_cell']:.0f} us, {row['iterations_mean']:.0f} iterations, "
            f"{row['gflops_estimate']:.0f} GFLOP/s",
            f"batched NumPy FFT-PCG {row['numpy_us_per_cell']:.0f} us",
        )
        for row in result["rows"]
        if row["rule"] == "conductivity" and row["contrast"] == 10.0
    ]


def grain_rows(result: dict) -> list[tuple[str, str, str]]:
    return [
        (
            f"dissolving grain {row['resolution']}², phase field advanced and K to 1e-6, one core",
            f"{row['us_per_cell']:.0f} us per cell and step, {100 * row['part_of_peak']:.0f} % of the peak",
            f"NumPy/SciPy twin {row['twin_us_per_cell'] / 1e3:.0f} ms",
        )
        for row in result["rows"]
        if row["cells"] == "later"
    ]


def tt06_rows(result: dict) -> list[tuple[str, str, str]]:
    rows = []
    for dtype in ("float64", "float32"):
        found = [row for row in result["kernel"] if row["dtype"] == dtype]
        told = ", ".join(
            f"{row['mcellsteps_per_s']:.1f} M cell-steps/s ({row['nsubstep']} a call)" for row in found
        )
        share = 100 * max(row["share_of_fma_peak"] for row in found)
        beside = f"{share:.0f} % of the peak; NumPy {found[0]['numpy_mcellsteps_per_s']:.1f}"
        rows.append((f"heart cell (ten Tusscher 2006), {dtype}, one core", told, beside))
    told = ", ".join(
        f"{row['mcells_per_s']:.1f} Mcells/s ({row['nranks']} rank{'s' * (row['nranks'] > 1)})"
        for row in result["slab"]
    )
    one = result["slab"][0]
    nanoseconds = 1e9 * one["seconds"]["micro"] / (one["cells"] * one["steps"])
    beside = f"the cells alone {1e3 / nanoseconds:.1f} Mcells/s on one core"
    return [*rows, ("slab of heart 0.2 mm, whole step, float64", told, beside)]


def atom_rows(result: dict) -> list[tuple[str, str, str]]:
    rows = []
    for row in result["rows"]:
        theirs = row.get("lammps_matom_steps_per_s")
        beside = f"LAMMPS lj/cut {theirs:.1f}" if theirs else "LAMMPS was not at hand"
        told = f"{row['free_matom_steps_per_s']:.1f} M atom-steps/s"
        if "of_peak" in row:
            told += f", {100 * row['of_peak']:.0f} % of the peak"
        kind = f"{row['phase']}s of {row['atoms']} atoms"
        what = f"{kind}, {row['ncells']} boxes, T = {row['temperature']}, one core"
        rows.append((what, told, beside))
    static = result["cauchy_born"]
    told = f"{static['us_per_cell']:.2f} us per cell"
    return [*rows, ("stress by the Cauchy-Born rule", told, f"NumPy {static['numpy_us_per_cell']:.0f} us")]


def engine_rows(result: dict) -> list[tuple[str, str, str]]:
    told = {
        row["narguments"]: row["us"] for row in result["calls"] if row["way"] == "name" and not row["debug"]
    }
    times = ", ".join(f"{us:.1f} us ({count} arguments)" for count, us in told.items())
    return [("call of a kernel for one cell", times, f"goal {result['us_goal']:.0f} us")]


def vectorised_rows(result: dict) -> list[tuple[str, str, str]]:
    rows = result["kernels"]
    loops, vectorised, packed, scalar = (
        sum(row[name] for row in rows) for name in ("loops", "vectorised", "packed", "scalar_loops")
    )
    return [
        (
            f"vector code of {len({row['kernel'] for row in rows})} functions, float64 and float32",
            f"{vectorised} of {loops} vector loops vectorised, {100 * packed / (packed + scalar):.0f} % of "
            f"their arithmetic packed, on registers of {max(row['bytes'] for row in rows)} bytes",
            "remainders left out",
        )
    ]


def ensemble_rows(result: dict) -> list[tuple[str, str, str]]:
    return [
        (
            f"answer of 5 networks of {'x'.join(str(n) for n in row['hidden'])}, float64, one core",
            f"{row['us_per_cell']:.2f} us per cell, {100 * row['part_of_peak']:.0f} % of the peak",
            f"torch {row['torch_us_per_cell']:.2f} us",
        )
        for row in result["inference"]
        if row["hidden"] == [64, 64]
    ]


def scaling_rows(result: dict) -> list[tuple[str, str, str]]:
    rows = []
    for study in ("strong", "weak"):
        told = ", ".join(
            f"{point['seconds']['median']:.2f} s ({point['nranks']} rank{'s' * (point['nranks'] > 1)})"
            for point in result[study]
        )
        efficiency = f"efficiency {100 * result[study][-1]['efficiency']:.0f} %"
        rows.append((f"composite wall without surrogate, {study} scaling", told, efficiency))
    return rows


def checkpoint_rows(result: dict) -> list[tuple[str, str, str]]:
    large = max(row["bytes"] for row in result["rows"])
    best = {
        row["what"]: row["bytes"] / row["seconds_fastest"] / 1e9
        for row in result["rows"]
        if row["bytes"] == large and row["nranks"] == 2 and row["cut"] == "slow"
    }
    return [
        (
            f"checkpoint of {large / 2**20:.0f} MiB, 2 ranks, checksums and fsync included",
            f"write {best['checkpoint write']:.2f}, read {best['checkpoint read']:.2f} GB/s",
            f"plain write {best['plain write']:.2f}, read {best['plain read']:.2f} GB/s",
        )
    ]


if __name__ == "__main__":
    main()
