"""How many samples of a fine unit cell are needed when a model of a coarse one is there already.

    python benchmarks/transfer.py --output benchmarks/results/transfer.json

The composite wall's unit cell at 32 points a side is cheap to sample, at 64 points it is what the run
asks. Ensembles are trained on few samples of the fine one: from scratch, from the weights of the coarse
model alone, and as `hpcmsm train --from` does, which learns the difference by a Gaussian process first.
All are judged on fine samples that none has seen. Printed is the 90th percentile of the relative error,
the median over several seeds, and how many samples each way needs for what training from scratch reaches
with a given number. The cells' grids are fitted to the fibres (`micro.grid`). With --grid even, K is
rough, as a growing circle crosses lines of points, and no way of learning gets below that: the roughness
is measured beside, as what a smooth function of the fraction leaves. There a quarter of the samples does
down to an error of 2e-3, and none gets below 3e-4; on fitted grids a quarter (once a third) does down to
7e-5.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from mpi4py import MPI
from numpy.polynomial import Chebyshev

from hpcmsm.config import load_case
from hpcmsm.io.modelfile import Model
from hpcmsm.offline.collect import collect, micro_of_text
from hpcmsm.offline.train import Recipe, learn, teacher
from hpcmsm.parallel import limit_threads
from hpcmsm.provenance import provenance

CASE = Path(__file__).resolve().parent.parent / "cases" / "composite_wall.toml"
RANGES = ["temperature=290:600"]  # and all fractions, up to fibres that touch
SIZES = (10, 12, 16, 24, 32, 48, 64, 96, 128, 192)
WAYS = ("scratch", "weights", "transfer")


def settings(resolution: int, grid: str) -> list[str]:
    """What is changed of the case."""
    return [f"micro.resolution={resolution}", f"micro.grid={grid}"]


def samples_of(resolution: int, count: int, seed: int, comm, grid: str = "even"):
    """Collective. Fields and samples of the composite wall's unit cell."""
    case = load_case(CASE, [*settings(resolution, grid), f"seed={seed}"])
    dataset = collect(case, CASE.parent, count, RANGES, comm)
    return dataset, dataset.keyed()


def roughness(resolution: int, grid: str) -> float:
    """90th percentile of the relative distance of K from a smooth function of the fraction, at 400 K."""
    micro = micro_of_text(load_case(CASE, settings(resolution, grid)).to_toml(), CASE.parent)
    fraction = np.sort(np.random.default_rng(0).uniform(0.02, 0.76, 600))
    logs = np.log(micro.solve(np.array([np.full(600, 400.0), fraction])).outputs[0])
    return float(np.quantile(np.abs(logs - Chebyshev.fit(fraction, logs, 14)(fraction)), 0.9))


def errors_of_seed(
    seed: int, sizes, ncoarse: int, ntest: int, comm, resolutions=(32, 64), grid: str = "even", **recipe
) -> dict[str, list[float]]:
    """Collective. By way, the 90th percentile of the errors for each number of fine samples."""
    recipe = Recipe(seed=seed, **recipe)
    coarse, cheap = samples_of(resolutions[0], ncoarse, seed, comm, grid)
    _, samples = samples_of(resolutions[1], max(sizes), seed + 1000, comm, grid)
    _, test = samples_of(resolutions[1], ntest, seed + 2000, comm, grid)
    fields = (coarse.inputs, coarse.outputs)
    base = learn(recipe, None, cheap, *fields, comm)
    none = np.zeros(0)
    start = Model(*fields, base.state(), cheap, cheap, none, none)
    found = {way: [] for way in WAYS}
    for size in sizes:
        some = samples.take(np.arange(size))
        answers = {
            "scratch": learn(recipe, None, some, *fields, comm),
            "weights": learn(recipe, start, some, *fields, comm),
            "transfer": teacher(recipe, *fields, comm, start, None)(some),
        }
        for way, ensemble in answers.items():
            errors = ensemble.misfit(ensemble.predict(test.inputs)[0], test.outputs)
            found[way].append(float(np.quantile(errors, 0.9)))
    errors = base.misfit(base.predict(test.inputs)[0], test.outputs)
    found["coarse"] = [float(np.quantile(errors, 0.9))] * len(sizes)
    return found


def needed(sizes, errors, wanted: float) -> int | None:
    """Fewest samples from which on no more have a larger error than wanted."""
    good = [size for place, size in enumerate(sizes) if max(errors[place:]) <= wanted]
    return min(good, default=None)


def savings(sizes, errors: dict[str, list[float]]) -> list[dict]:
    """For each number of samples: the error from scratch, and what the other ways need for it."""
    rows = []
    for size, wanted in zip(sizes, errors["scratch"], strict=True):
        row = {"samples": size, "error": wanted}
        rows.append(row | {way: needed(sizes, errors[way], wanted) for way in WAYS[1:]})
    return rows


def main(arguments=None) -> dict:
    """Run the study; returns what the JSON file holds."""
    limit_threads()
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--coarse", type=int, default=2048, help="samples of the coarse unit cell")
    parser.add_argument("--test", type=int, default=256, help="fine samples to be judged by")
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES))
    parser.add_argument(
        "--resolutions", type=int, nargs=2, default=[32, 64], help="points a side: coarse, fine"
    )
    parser.add_argument("--grid", default="fitted", help="micro.grid of the case")
    parser.add_argument("--goal", type=float, default=1e-5, help="of training, see hpcmsm train --goal")
    parser.add_argument("--epochs", type=int, default=300, help="of training")
    parser.add_argument("--hidden", type=int, nargs="+", default=[16, 16], help="units of the layers")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args(arguments)
    comm = MPI.COMM_WORLD
    asked = (options.sizes, options.coarse, options.test, comm, options.resolutions, options.grid)
    recipe = {"goal": options.goal, "epochs": options.epochs, "hidden": tuple(options.hidden)}
    each = [errors_of_seed(seed, *asked, **recipe) for seed in range(1, options.seeds + 1)]
    errors = {way: np.median([found[way] for found in each], axis=0).tolist() for way in each[0]}
    result = {
        "resolutions": options.resolutions,
        "grid": options.grid,
        "recipe": recipe,
        "roughness": [roughness(resolution, options.grid) for resolution in options.resolutions],
        "sizes": options.sizes,
        "errors": errors,
        "savings": savings(options.sizes, errors),
        "provenance": provenance(comm),
    }
    if comm.rank == 0:
        print_tables(result)
        if options.output:
            options.output.parent.mkdir(parents=True, exist_ok=True)
            options.output.write_text(json.dumps(result, indent=1))
    return result


def print_tables(result: dict) -> None:
    """Errors by way, then the samples needed for equal errors."""
    errors = result["errors"]
    pairs = zip(result["resolutions"], result["roughness"], strict=True)
    print("roughness: " + ", ".join(f"{rough:.1e} at {n} points a side" for n, rough in pairs))
    print(f"coarse model on fine samples: {errors['coarse'][0]:.2e}")
    print(f"{'samples':>8s}" + "".join(f"{way:>12s}" for way in WAYS))
    for place, size in enumerate(result["sizes"]):
        print(f"{size:>8d}" + "".join(f"{errors[way][place]:>12.2e}" for way in WAYS))
    print(f"\n{'scratch':>8s}{'error':>12s}{'weights':>12s}{'transfer':>12s}")
    for row in result["savings"]:
        print(f"{row['samples']:>8d}{row['error']:>12.2e}{row['weights']!s:>12s}{row['transfer']!s:>12s}")


if __name__ == "__main__":
    main()
