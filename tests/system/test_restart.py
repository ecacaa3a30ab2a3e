"""Same bits on any ranks, and after kill -9 at a random moment and resume on other ranks."""

import json
import random
import time
from pathlib import Path

import pytest

from hpcmsm.io.sealed import open_sealed
from tests.launch import kill_job, launch, start

CASE = """
title = "restart"
[grid]
cells = [37, 23]
size = ["18.5 mm", "11.5 mm"]
[time]
scheme = "{scheme}"
step = {step}
end = {end}
[fields]
fraction = "0.5 + 0.2 * sin(2000 * y)"
[macro]
initial = 293.15
heat_capacity = 1.4e6
coupling = "{coupling}"
[macro.boundary.y_low]
kind = "convection"
coefficient = 25.0
ambient = 293.15
flux = "60e3 * exp(-((x - 2e-3 * t) / 3e-3)**2)"
[micro]
model = "maxwell:{model}"
[surrogate]
enabled = {gated}
[gate]
tolerance = 3e-3
[checkpoint]
every = 7
keep = 2
[snapshots]
every = 20
"""
SCHEMES = {
    "rk2": dict(scheme="rk2", coupling="lagged", step=0.05, end=4.0),
    "rk2 stages": dict(scheme="rk2", coupling="stage", step=0.05, end=3.0),
    "backward_euler": dict(scheme="backward_euler", coupling="lagged", step=0.2, end=12.0),
    "bdf2": dict(scheme="bdf2", coupling="lagged", step=0.2, end=8.0),
    "picard": dict(scheme="backward_euler", coupling="picard", step=0.2, end=6.0),
}


def write_case(folder, scheme, model="Maxwell", gated=True):
    model_file = Path(__file__).parent / "models" / "maxwell.py"
    (folder / "maxwell.py").write_text(model_file.read_text())
    text = CASE.format(**SCHEMES[scheme], model=model, gated="true" if gated else "false")
    (folder / "case.toml").write_text(text)
    return folder / "case.toml"


def last(out):
    return max((out / "checkpoints").glob("step_*.h5"))


def run(nranks, case, out, *more, fails=False):
    result = launch(nranks, ["hpcmsm", "run", case, "-o", out, "--quiet", *more])
    assert (result.returncode != 0) == fails, result.stderr
    return last(out)


def killed_at_random(nranks, case, out, seed):
    """Start a run, kill every process of it at a random moment after its first checkpoint."""
    lot = random.Random(seed)
    process = start(nranks, ["hpcmsm", "run", case, "-o", out, "--quiet"])
    deadline = time.monotonic() + 60
    wanted = lot.randrange(0, 25)
    while process.poll() is None and time.monotonic() < deadline:
        log = out / "steps.csv"
        if log.exists() and (out / "checkpoints").exists() and log.read_text().count("\n") > wanted + 2:
            time.sleep(lot.random() * 0.05)
            break
        time.sleep(0.005)
    kill_job(process)
    assert not (out / "summary.json").exists(), "the run was over before it was killed"


def resume(nranks, out, *more):
    result = launch(nranks, ["hpcmsm", "resume", out, "--quiet", *more])
    assert result.returncode == 0, result.stderr
    return last(out)


def comparison(a, b):
    result = launch(0, ["hpcmsm", "compare", a, b])
    assert result.returncode in (0, 1), result.stderr
    return result


@pytest.mark.parametrize("scheme", ["rk2", "rk2 stages"])
def test_explicit_is_bitwise_equal_on_any_ranks(tmp_path, scheme):
    """Every dataset of the checkpoint: fields, weights, buffer, calibration, counts."""
    case = write_case(tmp_path, scheme)
    reference = run(1, case, tmp_path / "n1")
    summary = json.loads((tmp_path / "n1" / "summary.json").read_text())
    assert summary["closure"]["accepted"] > 0.5 * summary["closure"]["calls"]
    assert summary["closure"]["versions"] >= 2
    for nranks in (2, 3, 4):
        other = run(nranks, case, tmp_path / f"n{nranks}")
        result = comparison(reference, other)
        assert result.returncode == 0, result.stdout
    steps = [
        [row[: row.rindex(",")] for row in (tmp_path / f"n{n}/steps.csv").read_text().split()] for n in (1, 3)
    ]
    assert steps[0] == steps[1]


def test_adaptive_explicit_is_bitwise_equal_too(tmp_path):
    """The step follows the largest error of any cell, which no order of the ranks can change."""
    case = write_case(tmp_path, "rk2 stages")
    options = ["--set", "time.scheme=rk3", "--set", "time.adaptive=true", "--set", "time.tolerance=1e-5"]
    reference = run(1, case, tmp_path / "n1", *options)
    other = run(3, case, tmp_path / "n3", *options)
    assert reference.name == other.name
    result = comparison(reference, other)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("seed, before, after", [(1, 3, 2), (2, 1, 4), (3, 2, 1)])
def test_explicit_killed_and_resumed_on_other_ranks(tmp_path, seed, before, after):
    case = write_case(tmp_path, "rk2")
    reference = run(1, case, tmp_path / "whole")
    killed_at_random(before, case, tmp_path / "cut", seed)
    result = comparison(reference, resume(after, tmp_path / "cut"))
    assert result.returncode == 0, result.stdout
    whole, cut = (sorted(p.name for p in (tmp_path / n / "snapshots").iterdir()) for n in ("whole", "cut"))
    assert whole == cut
    for name in whole:
        if name.endswith(".h5"):
            paths = [tmp_path / n / "snapshots" / name for n in ("whole", "cut")]
            assert comparison(*paths).returncode == 0


def swap_step(checkpoint):
    """The step in which a training under way will end, -1 where there is none."""
    with open_sealed(checkpoint) as reader:
        return int(reader.array("closure/trainer/swap_step")[0])


def test_killed_while_a_training_is_under_way(tmp_path):
    """Versions swap four steps after their training began, also where it had to begin again."""
    case = write_case(tmp_path, "rk2")
    options = [
        "--set",
        "surrogate.swap_after=4",
        "--set",
        "checkpoint.every=1",
        "--set",
        "checkpoint.keep=99",
    ]
    options += ["--set", "surrogate.growth=0.15", "--set", "time.end=1"]
    reference = run(1, case, tmp_path / "whole", *options)
    busy = [path for path in (tmp_path / "whole" / "checkpoints").iterdir() if swap_step(path) >= 0]
    assert busy and swap_step(reference) == -1
    # As if killed right after a checkpoint in the middle of a training.
    path = sorted(busy)[-2]
    run(2, case, tmp_path / "cut", *options, "--set", f"time.max_steps={swap_step(path)}", fails=True)
    for later in (tmp_path / "cut" / "checkpoints").iterdir():
        if later.name > path.name:
            later.unlink()
    assert swap_step(last(tmp_path / "cut")) >= 0
    resumed = resume(3, tmp_path / "cut", "--set", "time.max_steps=1000000")
    result = comparison(reference, resumed)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("scheme", ["backward_euler", "bdf2", "picard"])
def test_implicit_killed_and_resumed_on_the_same_ranks(tmp_path, scheme):
    case = write_case(tmp_path, scheme)
    reference = run(2, case, tmp_path / "whole")
    killed_at_random(2, case, tmp_path / "cut", seed=5)
    result = comparison(reference, resume(2, tmp_path / "cut"))
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("scheme", ["backward_euler", "bdf2", "picard"])
def test_implicit_agrees_over_ranks_to_the_solver_tolerance(tmp_path, scheme):
    """Without a surrogate, whose training could turn a last bit into another decision."""
    case = write_case(tmp_path, scheme, gated=False)
    reference = run(1, case, tmp_path / "n1")
    for nranks in (2, 3):
        result = comparison(reference, run(nranks, case, tmp_path / f"n{nranks}"))
        (row,) = [line for line in result.stdout.splitlines() if line.startswith("macro/temperature")]
        assert "equal" in row or float(row.split()[2]) < 1e-5, row


def test_state_of_the_micro_model_survives(tmp_path):
    case = write_case(tmp_path, "rk2", model="Ageing", gated=False)
    reference = run(1, case, tmp_path / "whole")
    killed_at_random(3, case, tmp_path / "cut", seed=7)
    result = comparison(reference, resume(2, tmp_path / "cut"))
    assert result.returncode == 0, result.stdout
    assert "micro/age" in result.stdout


def test_surrogate_is_refused_where_every_step_counts(tmp_path):
    case = write_case(tmp_path, "rk2", model="Ageing", gated=True)
    result = launch(2, ["hpcmsm", "run", case, "-o", tmp_path / "out"])
    assert result.returncode == 2
    assert "surrogate.enabled must be false for Ageing" in result.stderr
