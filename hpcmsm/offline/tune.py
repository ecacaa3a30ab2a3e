"""Tuning: trials of widths, goal and epochs, proposed by Optuna and spread over the ranks.

Trials are proposed in rounds of fixed size from those of the rounds before, with a seed of their
number. So neither the number of ranks nor an interruption between two rounds changes what is tried.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from hpcmsm.errors import ConfigError, SetupError, SurrogateError
from hpcmsm.io.checksum import array_digest
from hpcmsm.offline.train import Fields, Recipe
from hpcmsm.parallel import together
from hpcmsm.surrogate.base import Samples

ROUND = 4
FAILED = 1e3  # error that is noted for a trial that could not be trained
FEWER_MEMBERS = 3  # of the ensembles that are only tried
LIMITS = {"first": (8, 32), "second": (0, 32), "goal": (1e-6, 1e-3), "epochs": (20, 120)}


def tune(recipe: Recipe, training: Samples, inputs: Fields, outputs: Fields, count: int, journal: Path, comm):
    """Collective. Try recipes on the training part; the best one, and all trials.

    A trial is judged by the 99th percentile of the errors of single members on the samples that they
    were not shown, so that calibration and test part stay untouched.

    Args:
        count: number of trials in all, those in the journal included.
        journal: JSON file that takes every finished round; a run that was interrupted goes on from it.
    Returns:
        the best recipe and a list of {"parameters": ..., "error": ...}, equal on every rank.
    Raises:
        SetupError: Optuna is missing, or the journal cannot be written.
        ConfigError: the journal is damaged or belongs to other data.
    """
    mark = f"{array_digest(training.inputs)} {array_digest(training.outputs)} {asdict(recipe)}"
    with together(comm):
        trials = _read_journal(journal, mark)
    while len(trials) < count:
        proposed = None
        with together(comm):
            if comm.rank == 0:
                proposed = _propose(recipe, trials, count)
        proposed = comm.bcast(proposed)
        errors = _try_all(recipe, proposed, training, inputs, outputs, comm)
        trials += [{"parameters": p, "error": e} for p, e in zip(proposed, errors, strict=True)]
        with together(comm):
            if comm.rank == 0:
                _write_journal(journal, mark, trials)
    best = min(trials, key=lambda trial: trial["error"])  # the first of equals
    return with_parameters(recipe, best["parameters"]), trials


def with_parameters(recipe: Recipe, parameters: dict) -> Recipe:
    """The recipe with what a trial changed; a second width of 0 means one hidden layer."""
    widths = (int(parameters["first"]), int(parameters["second"]))
    hidden = tuple(width for width in widths if width)
    return replace(recipe, hidden=hidden, goal=float(parameters["goal"]), epochs=int(parameters["epochs"]))


def _propose(recipe: Recipe, trials: list[dict], count: int) -> list[dict]:
    """The next round, at most ROUND trials; the very first of all is the recipe as it stands."""
    optuna = _optuna()
    limits = {
        "first": optuna.distributions.IntDistribution(*LIMITS["first"], step=4),
        "second": optuna.distributions.IntDistribution(*LIMITS["second"], step=4),
        "goal": optuna.distributions.FloatDistribution(*LIMITS["goal"], log=True),
        "epochs": optuna.distributions.IntDistribution(*LIMITS["epochs"], step=20),
    }
    sampler = optuna.samplers.TPESampler(seed=(recipe.seed + len(trials)) % 2**32, n_startup_trials=2 * ROUND)
    study = optuna.create_study(sampler=sampler)
    for trial in trials:
        study.add_trial(
            optuna.trial.create_trial(
                params=trial["parameters"], distributions=limits, value=float(np.log(trial["error"]))
            )
        )
    wanted = min(ROUND, count - len(trials))
    asked = [study.ask(limits).params for _ in range(wanted)]
    if not trials:
        asked[0] = _parameters_of(recipe)
    return asked


def _parameters_of(recipe: Recipe) -> dict:
    """The recipe as a trial, moved into the limits."""
    first, second, *_ = (*recipe.hidden, 0)
    given = {"first": first, "second": second, "goal": recipe.goal, "epochs": recipe.epochs}
    steps = {"first": 4, "second": 4, "epochs": 20}
    for name, (lower, upper) in LIMITS.items():
        step = steps.get(name)
        value = round(given[name] / step) * step if step else given[name]
        given[name] = min(max(value, lower), upper)
    return given


def _optuna():
    try:
        import optuna
    except ImportError:
        raise SetupError(
            "--tune needs optuna, got none in this environment; pip install 'hpcmsm[tune]'"
        ) from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _try_all(recipe: Recipe, proposed: list[dict], training, inputs, outputs, comm) -> list[float]:
    """Collective. Errors of the trials; trial i runs on rank i mod nranks, alone."""
    mine = np.zeros(len(proposed))
    with together(comm):
        for place in range(comm.rank, len(proposed), comm.size):
            mine[place] = _try(with_parameters(recipe, proposed[place]), training, inputs, outputs)
    errors = np.empty_like(mine)
    comm.Allreduce(mine, errors)  # each is a number on one rank and zero on the others
    return errors.tolist()


def _try(recipe: Recipe, training: Samples, inputs: Fields, outputs: Fields) -> float:
    from mpi4py import MPI

    ensemble = replace(recipe, members=min(FEWER_MEMBERS, recipe.members)).ensemble(
        inputs, outputs, MPI.COMM_SELF
    )
    try:
        error = ensemble.train(training)["held_out_p99"]
    except SurrogateError:
        return FAILED
    return float(error) if 0.0 < error < FAILED else FAILED


def _read_journal(path: Path, mark: str) -> list[dict]:
    if not path.exists():
        return []
    try:
        journal = json.loads(path.read_text(encoding="utf-8"))
        same = journal["mark"] == mark
        trials = [_checked(trial) for trial in journal["trials"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"--journal must be a journal of earlier trials, got '{path}' ({type(error).__name__}: "
            f"{str(error).splitlines()[0] if str(error) else ''}); remove it or name another"
        ) from None
    if not same:
        raise ConfigError(
            f"--journal must belong to the same data and options, got '{path}' of others; remove it or "
            "name another"
        )
    return trials


def _checked(trial: dict) -> dict:
    parameters = {name: trial["parameters"][name] for name in LIMITS}
    for name, (lower, upper) in LIMITS.items():
        if not lower <= parameters[name] <= upper:
            raise ValueError(f"{name} is {parameters[name]}")
    error = float(trial["error"])
    if not 0.0 < error <= FAILED:
        raise ValueError(f"error is {error}")
    return {"parameters": parameters, "error": error}


def _write_journal(path: Path, mark: str, trials: list[dict]) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps({"mark": mark, "trials": trials}, indent=1), encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        raise SetupError(
            f"--journal must be a file that can be written, got '{path}' ({error.strerror}); choose another"
        ) from None


def trial_table(trials: list[dict]) -> str:
    """What was tried, best first."""
    lines = [f"{'hidden':>10s}{'goal':>11s}{'epochs':>8s}{'error':>12s}"]
    for trial in sorted(trials, key=lambda trial: trial["error"]):
        p = trial["parameters"]
        hidden = "x".join(str(width) for width in (p["first"], p["second"]) if width)
        lines.append(f"{hidden:>10s}{p['goal']:>11.1e}{p['epochs']:>8d}{trial['error']:>12.2e}")
    return "\n".join(lines)
