"""The offline chain as a user goes through it: collect, train with tuning, load, run, explain."""

import csv
import json

import numpy as np
import pytest

from hpcmsm.io.dataset import read_dataset
from hpcmsm.io.modelfile import read_model
from tests.launch import launch

CASE = """
seed = 3
[grid]
cells = [16, 8]
size = ["16 mm", "8 mm"]
[time]
step = "1 s"
end = "6 s"
[fields]
fraction = "0.4 + 0.1 * sin(2*pi*y/4e-3)"
[materials.epoxy]
conductivity = "0.2 + 3e-4 * (temperature - 273)"
heat_capacity = 1.4e6
[materials.fibre]
conductivity = "2.5 + 2e-3 * (temperature - 273)"
heat_capacity = 1.4e6
[macro.boundary.x_low]
kind = "temperature"
temperature = 450
[micro]
model = "unit_cell"
microstructure = "laminate"
phases = ["epoxy", "fibre"]
resolution = 16
[gate]
tolerance = 5e-3
coverage = 0.95
"""
RANGES = ["--input", "temperature=290:460", "--input", "fraction=0.25:0.55"]


def good(result):
    assert result.returncode == 0, (result.stdout, result.stderr)
    return result


def refused(result, *words):
    """Exit code 2 and one line that holds the words."""
    lines = [line for line in result.stderr.splitlines() if "Error: " in line]
    assert result.returncode == 2 and len(lines) == 1, (result.returncode, result.stderr)
    assert "Traceback" not in result.stderr
    for word in words:
        assert word in lines[0], (word, lines[0])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with case.toml, data.h5, model.h5 and the trials of its tuning."""
    folder = tmp_path_factory.mktemp("offline")
    (folder / "case.toml").write_text(CASE)
    good(launch(1, ["hpcmsm", "collect", "case.toml", "-n", 128, *RANGES, "-o", "data.h5"], cwd=folder))
    tune = ["--tune", 4, "--members", 2]
    good(launch(2, ["hpcmsm", "train", "data.h5", "-o", "model.h5", *tune], cwd=folder))
    return folder


def test_the_dataset_is_the_same_file_on_three_ranks(folder):
    command = ["hpcmsm", "collect", "case.toml", "-n", 128, *RANGES, "-o", "three.h5"]
    good(launch(3, command, cwd=folder))
    assert (folder / "three.h5").read_bytes() == (folder / "data.h5").read_bytes()


def test_the_samples_are_true_and_fill_the_asked_ranges(folder):
    samples = read_dataset(folder / "data.h5").samples
    temperature, fraction = samples.inputs
    epoxy, fibre = 0.2 + 3e-4 * (temperature - 273), 2.5 + 2e-3 * (temperature - 273)
    along = (1 - fraction) * epoxy + fraction * fibre
    across = 1 / ((1 - fraction) / epoxy + fraction / fibre)
    np.testing.assert_allclose(samples.outputs[:2], [across, along], rtol=1e-5)
    for values, low, high in ((temperature, 290, 460), (fraction, 0.25, 0.55)):
        assert low <= values.min() and values.max() <= high
        # 128 points of a Sobol sequence: 16 in each eighth of a range
        assert np.histogram(values, 8, (low, high))[0].tolist() == [16] * 8


def test_training_tells_how_good_it_is(folder):
    curve = list(csv.DictReader((folder / "model.learning.csv").open()))
    assert len(curve) >= 3 and float(curve[-1]["p99"]) < float(curve[0]["p99"])
    assert (folder / "model.learning.png").read_bytes().startswith(b"\x89PNG")
    trials = json.loads((folder / "model.trials.json").read_text())["trials"]
    model = read_model(folder / "model.h5")
    best = min(trials, key=lambda trial: trial["error"])["parameters"]
    assert len(trials) == 4
    assert model.hidden == tuple(n for n in (best["first"], best["second"]) if n)
    predicted = float(curve[-1]["p99"])
    assert np.quantile(model.errors, 0.9) < 5 * predicted, "calibration and test part tell the same"


def test_a_run_that_loads_the_model_starts_with_it(folder):
    common = ["--quiet", "--set", "checkpoint.every=2"]
    good(launch(2, ["hpcmsm", "run", "case.toml", "-o", "bare", *common], cwd=folder))
    load = ["--set", "surrogate.load=model.h5"]
    for nranks in (1, 2):
        run = ["hpcmsm", "run", "case.toml", "-o", f"loaded{nranks}", *common, *load]
        good(launch(nranks, run, cwd=folder))
    first = [next(csv.DictReader((folder / run / "steps.csv").open())) for run in ("bare", "loaded2")]
    assert int(first[0]["accepted"]) == 0
    assert int(first[1]["accepted"]) + int(first[1]["audited"]) > 0.9 * int(first[1]["calls"])
    summaries = [
        json.loads((folder / run / "summary.json").read_text()) for run in ("bare", "loaded2", "loaded1")
    ]
    assert summaries[1]["closure"]["fallback"] < 0.2 * summaries[0]["closure"]["fallback"]
    assert summaries[1]["closure"] == summaries[2]["closure"], "decisions on 1 and 2 ranks"
    assert summaries[1]["audit_error"]["max"] < 5e-3
    # What the surrogate answered changes the field by less than the tolerance.
    hottest = [summary["fields"]["conductivity_yy"]["max"] for summary in summaries]
    assert hottest[1] == pytest.approx(hottest[0], rel=5e-3)
    # What the model brought lies in the checkpoint: a run goes on without its file.
    (folder / "model.h5").rename(folder / "elsewhere.h5")
    good(launch(1, ["hpcmsm", "resume", "loaded2", "--quiet", "--set", "time.end=8 s"], cwd=folder))
    (folder / "elsewhere.h5").rename(folder / "model.h5")


def test_a_run_is_harvested_and_trained_on_from_the_model(folder):
    short = ["--quiet", "--set", "time.end=2 s"]
    good(launch(1, ["hpcmsm", "run", "case.toml", "-o", "source", *short], cwd=folder))
    good(launch(1, ["hpcmsm", "collect", "--from", "source", "-o", "run1.h5"], cwd=folder))
    good(launch(2, ["hpcmsm", "collect", "--from", "source", "-o", "run2.h5"], cwd=folder))
    assert (folder / "run1.h5").read_bytes() == (folder / "run2.h5").read_bytes()
    samples = read_dataset(folder / "run1.h5").samples
    assert samples.ids.min() >= 0 and samples.ids.max() < 16 * 8 and samples.step.min() >= 0
    weighed = ["hpcmsm", "collect", "--from", "source", "--weigh-by", "temperature", "-o", "run3.h5"]
    good(launch(1, weighed, cwd=folder))
    weights = read_dataset(folder / "run3.h5").samples.weight
    # Heat has come in from x = 0, and not far: there the field is steep.
    column = samples.ids % 16
    assert weights.min() > 0 and weights[column < 2].mean() > 10 * weights[column >= 8].mean()
    train = ["hpcmsm", "train", "run3.h5", "--from", "model.h5", "--weight", "weight", "-o", "more.h5"]
    good(launch(1, train, cwd=folder))
    more, model = read_model(folder / "more.h5"), read_model(folder / "model.h5")
    assert more.hidden == model.hidden
    assert more.history["curve"][0]["p99"] < 5e-3, "few samples do, from a model that knows the rest"


def test_explain_names_the_inputs(folder):
    told = good(launch(0, ["hpcmsm", "explain", "model.h5", "data.h5", "-o", "told"], cwd=folder))
    assert "temperature" in told.stdout and "fraction" in told.stdout
    for name in ("importance", "dependence", "fallback"):
        assert (folder / "told" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert len(list(csv.DictReader((folder / "told" / f"{name}.csv").open()))) >= 2
    rows = list(csv.DictReader((folder / "told" / "dependence.csv").open()))
    along = [
        float(row["mean"]) for row in rows if (row["input"], row["output"]) == ("fraction", "conductivity_yy")
    ]
    assert np.all(np.diff(along) > 0), "more fibres conduct better"


def test_damaged_models_and_those_of_other_fields_are_refused(folder):
    run = ["hpcmsm", "run", "case.toml", "-o", "refused", "--quiet", "--set"]
    content = bytearray((folder / "model.h5").read_bytes())
    weights = read_model(folder / "model.h5").state["weights"].tobytes()
    content[content.index(weights[:64]) + 5] ^= 1
    (folder / "damaged.h5").write_bytes(content)
    refused(launch(2, [*run, "surrogate.load=damaged.h5"], cwd=folder), "damaged.h5", "checksum")
    other = [*run, "surrogate.load=model.h5", "--set", "micro.fraction=0.3"]
    refused(launch(1, other, cwd=folder), "surrogate.load", "temperature", "fraction")
