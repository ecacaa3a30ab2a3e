"""How fast an ensemble answers, next to torch in the same run; and how well it learns in how much time.

    python benchmarks/ensemble.py --output benchmarks/results/ensemble.json

Inference: five members of two hidden layers, float64, one thread, for a 2D conductivity of two inputs.
The whole answer (standardise, networks, tensors from Cholesky factors, mean, spread) by the fused kernel
and by torch, which must agree; torch also for its networks alone. GFLOP/s count the multiplications and
additions of the layers only; the peak is that of a loop of independent fused multiply-adds. All times
are processor time of one thread, so that neighbours on the machine count little.
Training: the project's method against L-BFGS and Adam from the same first weights.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path
from statistics import median
from time import process_time

import numpy as np
import torch
from mpi4py import MPI

from hpcmsm.fields import Field
from hpcmsm.kernels import Kernel
from hpcmsm.provenance import provenance
from hpcmsm.surrogate import transform
from hpcmsm.surrogate.ensemble import Ensemble
from hpcmsm.surrogate.lbfgs import forward
from hpcmsm.surrogate.training import Schedule, fit

INPUTS = (Field("temperature", unit="K"), Field("fraction", lower=0.0, upper=1.0))
OUTPUTS = (Field("conductivity", 3, "W/m/K", spd=True),)
MEMBERS = 5
TARGET = 4
CHUNKS = (1024, 4096, 16384)  # torch takes the one that suits it best

PEAK = """
KERNEL peak(
    long ncells,      // lanes
    long nstep,       // steps, each of 8 fused multiply-adds that do not wait for one another
    real *values      // (ncells) [1] start and end
) {
    FOR_EACH_TEAM(team, ncells) FOR_EACH_LANE(l) {
        real x = values[CELL_OF(team, l, ncells)], f = R(0.999);
        real a = x, b = 2 * x, c = 3 * x, d = 4 * x, e = 5 * x, g = 6 * x, h = 7 * x, i = 8 * x;
        long k = 0;
        do {
            a = MUL_ADD(a, f, x); b = MUL_ADD(b, f, x); c = MUL_ADD(c, f, x); d = MUL_ADD(d, f, x);
            e = MUL_ADD(e, f, x); g = MUL_ADD(g, f, x); h = MUL_ADD(h, f, x); i = MUL_ADD(i, f, x);
        } while (++k < nstep);
        values[CELL_OF(team, l, ncells)] = ((a + b) + (c + d)) + ((e + g) + (h + i));
    }
}
"""


def main(arguments: list[str] | None = None) -> dict:
    """Run it; what the JSON file holds."""
    options = _options(arguments)
    torch.set_num_threads(1)
    result = {
        "provenance": provenance(MPI.COMM_SELF),
        "ncores": os.cpu_count(),
        "ncells": options.cells,
        "peak_gflops": peak_gflops(options.repeats),
        "inference": [],
    }
    for width in (16, 32, 64):
        result["inference"].append(inference(width, options, result["peak_gflops"]))
        print("{hidden}: {text}".format(**result["inference"][-1]))
    check(result["inference"][-1])
    result["training"] = [row for nsample in (100, 300) for row in training(nsample)]
    for row in result["training"]:
        print(
            "{samples} samples, {method}: {seconds:.2f} s, error p50 {p50:.1e}, p99 {p99:.1e}".format(**row)
        )
    if options.output:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps(result, indent=2) + "\n")
    return result


def check(row: dict) -> None:
    """The target of the widest networks, 2 x 64 neurons."""
    if not row["times_faster_than_torch"] >= TARGET:
        raise AssertionError(
            f"the kernel must be {TARGET} times as fast as torch, got {row['times_faster_than_torch']:.2f}"
        )


def _options(arguments):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", type=int, default=16384)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--output", type=Path)
    return parser.parse_args(arguments)


def composite(inputs: np.ndarray) -> np.ndarray:
    """Maxwell's formula across fibres, the rule of mixtures along them, the fibres turned with x."""
    temperature, fraction = inputs
    matrix, fibre = 0.2 * (1 + 1e-3 * (temperature - 300)), 3000.0 / temperature
    contrast = (fibre - matrix) / (fibre + matrix)
    across = matrix * (1 + fraction * contrast) / (1 - fraction * contrast)
    along = matrix * (1 - fraction) + fibre * fraction
    c, s = np.cos(fraction / 2), np.sin(fraction / 2)
    return np.array(
        [across * c * c + along * s * s, across * s * s + along * c * c, (along - across) * c * s]
    )


def random_inputs(n: int, seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    return np.array([random.uniform(300, 600, n), random.uniform(0.1, 0.65, n)])


def timed(works: list, repeats: int) -> list[tuple[float, float]]:
    """Smallest and median seconds of each work, taken in turns after one round that warms up."""
    seconds = [[] for _ in works]
    for repeat in range(repeats + 1):
        for work, list_ in zip(works, seconds, strict=True):
            start = process_time()
            work()
            if repeat:
                list_.append(process_time() - start)
    return [(min(list_), median(list_)) for list_ in seconds]


def peak_gflops(repeats: int) -> float:
    """Multiplications and additions a second of this core, from independent fused multiply-adds."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "peak.c"
        source.write_text(PEAK)
        kernel = Kernel.load(source, "peak")
        values, nstep = np.ones(kernel.lanes), 200_000
        ((best, _),) = timed([lambda: kernel(ncells=values.size, nstep=nstep, values=values)], repeats)
    return 16 * values.size * nstep / best / 1e9


def inference(width: int, options, peak: float) -> dict:
    """One width of hidden layers: agreement first, then times of this project and of torch."""
    ensemble = trained_for_show(width)
    inputs = random_inputs(options.cells, 1)
    networks, whole = torch_networks(ensemble), torch_answer(ensemble)
    mean, score = ensemble.predict(inputs)
    torch_mean, torch_score = whole(inputs)
    np.testing.assert_allclose(mean, torch_mean, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(score, torch_score, rtol=1e-6)
    works = [lambda: ensemble.predict(inputs)]
    works += [lambda w=w, c=c: in_chunks(w, inputs, c) for w in (whole, networks) for c in CHUNKS]
    ours, *rest = timed(works, options.repeats)
    theirs, alone = min(rest[: len(CHUNKS)]), min(rest[len(CHUNKS) :])
    flop = 2 * MEMBERS * sum(below * above for below, above in ensemble.network.layers)
    gflops = flop * options.cells / ours[0] / 1e9
    row = {
        "hidden": [width, width],
        "us_per_cell": ours[0] / options.cells * 1e6,
        "us_per_cell_median": ours[1] / options.cells * 1e6,
        "torch_us_per_cell": theirs[0] / options.cells * 1e6,
        "torch_networks_alone_us_per_cell": alone[0] / options.cells * 1e6,
        "gflops": gflops,
        "part_of_peak": gflops / peak,
        "times_faster_than_torch": theirs[0] / ours[0],
        "times_faster_than_torch_networks_alone": alone[0] / ours[0],
    }
    row["text"] = (
        "{us_per_cell:.3f} us per cell, {gflops:.1f} GFLOP/s ({part_of_peak:.0%} of the peak), torch "
        "{torch_us_per_cell:.2f} us ({times_faster_than_torch:.1f} times as long), its networks alone "
        "{torch_networks_alone_us_per_cell:.2f} us ({times_faster_than_torch_networks_alone:.1f} times)"
    ).format(**row)
    return row


def trained_for_show(width: int) -> Ensemble:
    """An ensemble with its first weights and sensible scales; its speed does not depend on them."""
    ensemble = Ensemble(INPUTS, OUTPUTS, MPI.COMM_SELF, 1, members=MEMBERS, hidden=(width, width))
    state = ensemble.state()
    state["weights"] = np.array([ensemble.network.start(1, 0, member) for member in range(MEMBERS)])
    state["input_scaling"] = np.array([[450.0, 0.4], [90.0, 0.15]])
    state["version"] = np.array([1])
    ensemble.load_state(state)
    return ensemble


def torch_networks(ensemble: Ensemble):
    """The members as torch.nn modules; a function from inputs to a list of their outputs."""
    members = []
    for flat in ensemble.weights:
        modules = []
        for weights, biases in ensemble.network.split(flat):
            linear = torch.nn.Linear(weights.shape[1], weights.shape[0], dtype=torch.float64)
            linear.weight.data, linear.bias.data = torch.from_numpy(weights), torch.from_numpy(biases)
            modules += [linear, torch.nn.Tanh()]
        members.append(torch.nn.Sequential(*modules[:-1]))
    mean, scale = (torch.from_numpy(part) for part in ensemble.input_scaling)

    def run(inputs):
        with torch.inference_mode():
            x = (torch.from_numpy(inputs).T - mean) / scale
            return [member(x) for member in members]

    return run


def torch_answer(ensemble: Ensemble):
    """Mean and score in torch, as one would write them there."""
    networks = torch_networks(ensemble)
    middle, width = (torch.from_numpy(part) for part in ensemble.output_scaling)
    times = torch.tensor([1.0, 1.0, 2.0], dtype=torch.float64)

    def run(inputs):
        with torch.inference_mode():
            log1, log2, l21 = (torch.stack(networks(inputs)) * width + middle).unbind(-1)
            d1 = torch.exp(log1)
            xy = l21 * d1
            k = torch.stack([d1, torch.exp(log2) + l21 * xy, xy], -1)
            mean = k.mean(0)
            misfit_squared = ((k - mean) ** 2 @ times) / (mean**2 @ times)
            return mean.T.numpy(), misfit_squared.mean(0).sqrt().numpy()

    return run


def in_chunks(work, inputs: np.ndarray, size: int) -> None:
    for first in range(0, inputs.shape[1], size):
        work(np.ascontiguousarray(inputs[:, first : first + size]))


def training(nsample: int) -> list[dict]:
    """Methods from the same first weights: seconds for all members, and the error of their mean."""
    inputs, unseen = random_inputs(nsample, 2), random_inputs(4000, 3)
    learnt = transform.encode(OUTPUTS, composite(inputs))
    scaling = transform.input_scaling(INPUTS, inputs), transform.output_scaling(OUTPUTS, learnt)
    ensemble = Ensemble(INPUTS, OUTPUTS, MPI.COMM_SELF, 1, members=MEMBERS)
    x, y, asked = (
        np.ascontiguousarray((rows.T - mean) / scale)
        for rows, (mean, scale) in zip((inputs, learnt, unseen), (*scaling, scaling[0]), strict=True)
    )
    methods = {
        "gauss_newton": lambda flat, *data: (
            fit(ensemble.network, flat, 1e-3, *data, Schedule(goal=2e-4)).flat
        ),
        "lbfgs, 400 steps": lambda flat, *data: (
            fit(ensemble.network, flat, 1e-3, *data, Schedule(400, 2e-4, 400, "lbfgs")).flat
        ),
        "adam, 1000 steps": lambda flat, data, _: adam(ensemble.network, flat, data, 1000),
    }
    rows = []
    for name, method in methods.items():
        start, members = process_time(), []
        for member in range(MEMBERS):
            out = np.random.default_rng(member).permutation(nsample) < nsample // 10
            data, held_out = (x[~out], y[~out]), (x[out], y[out])
            flat = method(ensemble.network.start(1, 0, member), data, held_out)
            answer = forward(ensemble.network, torch.from_numpy(flat), torch.from_numpy(asked)).numpy()
            members.append(transform.decode(OUTPUTS, (answer * scaling[1][1] + scaling[1][0]).T))
        seconds = process_time() - start
        error = ensemble.misfit(np.mean(members, axis=0), composite(unseen))
        p50, p99 = np.quantile(error, [0.5, 0.99])
        rows.append({"samples": nsample, "method": name, "seconds": seconds, "p50": p50, "p99": p99})
    return rows


def adam(network, flat: np.ndarray, data, steps: int) -> np.ndarray:
    """Full batches, rate 0.01 falling as a cosine."""
    flat = torch.from_numpy(flat.copy()).requires_grad_()
    x, y = (torch.from_numpy(array) for array in data)
    optimiser = torch.optim.Adam([flat], lr=0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(steps):
        optimiser.zero_grad()
        ((forward(network, flat, x) - y) ** 2).mean().backward()
        optimiser.step()
        schedule.step()
    return flat.detach().numpy()


if __name__ == "__main__":
    main()
