"""The picture that explains the gate: drawn with the gate's own parts on a made-up material.

    python benchmarks/gate_picture.py --output cases/gate.png

Left: a conductivity learnt from a few samples, the calibrated bound of its error and who answers. Middle:
where the bound comes from. Right: what happens without audits, while the score drifts from the error.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter
from mpi4py import MPI

from hpcmsm.closure.calibration import Calibration
from hpcmsm.fields import Field
from hpcmsm.report.style import BLACK, BLUE, DPI, GREEN, GREY, ORANGE, RED, render, styled
from hpcmsm.surrogate.base import Samples
from hpcmsm.surrogate.ensemble import Ensemble
from hpcmsm.surrogate.replay import ReplayBuffer

INPUTS = (Field("temperature", unit="K", lower=300.0, upper=900.0),)
OUTPUTS = (Field("conductivity", unit="W/(m K)", lower=0.0),)
TOLERANCE, COVERAGE, NOVELTY = 0.01, 0.9, 0.05
STEPS, CELLS, AUDIT = 400, 2000, 0.01


def material(temperature: np.ndarray) -> np.ndarray:
    """A conductivity with a transition, W/(m K)."""
    x = (temperature - 300.0) / 600.0
    return 1.0 + 0.8 * x + 0.5 * np.tanh(14.0 * (x - 0.45)) + 0.12 * np.sin(20.0 * x)


def samples(temperature: np.ndarray) -> Samples:
    """True answers at these temperatures."""
    number = np.arange(temperature.size)
    none = np.zeros_like(number)
    k = material(temperature)
    return Samples(none, none, number, temperature[None], k[None], np.ones(temperature.size))


def learnt():
    """A trained ensemble, what it knows, and a calibration from other true answers."""
    random = np.random.default_rng(4)
    known = np.sort(np.concatenate([np.linspace(310, 505, 9), np.linspace(545, 790, 8)]))
    replay = ReplayBuffer(INPUTS, OUTPUTS, spacing=1e-6)
    replay.add(samples(known))
    surrogate = Ensemble(INPUTS, OUTPUTS, MPI.COMM_SELF, 3, members=5, hidden=(12, 12), goal=2e-3)
    surrogate.train(replay.samples)
    near = random.uniform(300, 800, 600)
    near = near[replay.distance(near[None]) <= NOVELTY]
    calibration = Calibration(1, 1, COVERAGE)
    calibration.add(samples(near), surrogate)
    return surrogate, replay, calibration


def draw_decisions(axes, surrogate, replay, calibration) -> None:
    """Bound and true error over temperature, coloured by who answers."""
    temperature = np.linspace(300.0, 900.0, 1201)
    answer, score = surrogate.predict(temperature[None])
    error = surrogate.misfit(answer, material(temperature)[None])
    bound, far = calibration.bound(score), replay.distance(temperature[None]) > NOVELTY
    accepted = ~far & (bound <= TOLERANCE)
    kinds = (
        (accepted, GREEN, "the surrogate answers"),
        (~far & ~accepted, ORANGE, "bound too large: micro model answers"),
        (far, GREY, "no sample near: micro model answers"),
    )
    for which, colour, label in kinds:
        axes.fill_between(temperature, 1e-5, bound, where=which, color=colour, alpha=0.35, lw=0, label=label)
    axes.semilogy(temperature, bound, color=BLACK, lw=1.2, label="bound of the error")
    axes.semilogy(temperature, error, color=BLUE, lw=1.2, label="true error (unknown in a run)")
    axes.axhline(TOLERANCE, color=GREEN, ls="--", lw=1.2, label="tolerance")
    known = replay.samples.inputs[0]
    axes.plot(known, np.full(known.size, 1.5e-5), "^", color=BLACK, ms=5, label="learnt from")
    axes.set(xlabel="temperature / K", ylabel="error of the conductivity", title="1  Who may answer")
    axes.set_ylim(1e-5, 2e2)
    axes.set_yticks(10.0 ** np.arange(-5, 1))
    axes.legend(loc="upper left", fontsize=8, ncols=2)


def draw_bound(axes, calibration) -> None:
    """Score against true error of the calibration cells, and the line that nine of ten lie below."""
    score, error = calibration.scores, np.maximum(calibration.errors, 2e-6)
    bound = calibration.bound(score)
    missed = error > bound
    axes.loglog(score[~missed], error[~missed], ".", color=BLUE, ms=4, alpha=0.6, label="9 of 10 lie below")
    axes.loglog(score[missed], error[missed], ".", color=RED, ms=5, label="1 in 10 lies above")
    line = np.geomspace(score.min(), score.max(), 200)
    axes.loglog(line, calibration.bound(line), color=BLACK, label="bound: q x score, never below a floor")
    axes.axhline(TOLERANCE, color=GREEN, ls="--", lw=1.2, label="tolerance")
    axes.set(
        xlabel="score: how far five networks differ", ylabel="true error", title="2  What the score is worth"
    )
    axes.set_ylim(1e-5, 30 * error.max())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.legend(loc="upper left", fontsize=8)


class Told:
    """A surrogate whose error and score are the inputs themselves."""

    version = 1

    def predict(self, inputs):
        return inputs[:1], inputs[1].copy()

    def misfit(self, predicted, truth):
        return predicted[0]


def coverage_in_time(audited: bool) -> np.ndarray:
    """Part of the accepted answers within their bound, step by step, while the score falls threefold."""
    random, calibration = np.random.default_rng(1), Calibration(2, 1, COVERAGE)
    covered = np.full(STEPS, np.nan)
    for step in range(STEPS):
        error = 10.0 ** random.normal(-2.7, 0.2, CELLS)
        drift = 0.5 * np.clip((step - 120) / 120, 0, 1)
        score = error * 10.0 ** -random.normal(drift, 0.3, CELLS)
        bound = calibration.bound(score)
        accepted = bound <= 0.01
        looked = accepted & (random.uniform(size=CELLS) < AUDIT)
        if accepted.any():
            covered[step] = np.mean((error <= bound)[accepted])
        weight = np.where(accepted, 1.0 / AUDIT, 1.0)
        known = np.flatnonzero((looked & audited) | (~accepted & (random.uniform(size=CELLS) < 0.1)))
        zeros, inputs = np.zeros(known.size, dtype=np.int64), np.array([error, score])[:, known]
        given = Samples(zeros, zeros, known, inputs, np.zeros((1, known.size)), weight[known])
        if audited:
            calibration.follow(int(looked.sum()), int((error > bound)[looked].sum()))
        calibration.add(given, Told())
    return covered


def draw_coverage(axes) -> None:
    """Coverage of the accepted cells with audits and without, smoothed over 10 steps."""
    cases = ((True, GREEN, "1 % of the accepted cells audited"), (False, RED, "only refused cells looked at"))
    for audited, colour, label in cases:
        covered = 100 * coverage_in_time(audited)
        smooth = np.convolve(covered[2:], np.ones(10) / 10, mode="valid")
        axes.plot(np.arange(smooth.size) + 12, smooth, color=colour, label=label)
    axes.axhline(100 * COVERAGE, color=BLACK, ls="--", lw=1.0, label="asked")
    axes.set(
        xlabel="step (the score drifts from 120 to 240)", ylabel="accepted answers within their bound / %"
    )
    axes.set_title("3  Why accepted answers are audited")
    axes.set_ylim(0, 102)
    axes.legend(loc="lower left", fontsize=8)


@styled
def picture() -> bytes:
    """The PNG."""
    drawing = Figure(figsize=(15.0, 4.6), dpi=DPI, layout="constrained")
    first, second, third = drawing.subplots(1, 3)
    parts = learnt()
    draw_decisions(first, *parts)
    draw_bound(second, parts[2])
    draw_coverage(third)
    return render(drawing)


def main(arguments: list[str] | None = None) -> None:
    """Write the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("gate.png"))
    parser.parse_args(arguments).output.write_bytes(picture())


if __name__ == "__main__":
    main()
