"""The parts of the offline chain against answers known otherwise."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from mpi4py import MPI

from benchmarks.transfer import errors_of_seed
from hpcmsm.assembly import _preload
from hpcmsm.cli import main
from hpcmsm.config import parse_case
from hpcmsm.errors import CheckpointError, ConfigError, MicroError, SetupError, SurrogateError
from hpcmsm.fields import Field
from hpcmsm.io.dataset import NOWHERE, Dataset, read_dataset, write_dataset
from hpcmsm.io.inspect import describe
from hpcmsm.io.modelfile import read_model, write_model
from hpcmsm.offline import explain, tune
from hpcmsm.offline.collect import collect, input_ranges, sobol_points
from hpcmsm.offline.merge import merge, merge_files
from hpcmsm.offline.train import (
    Recipe,
    learn,
    read_datasets,
    set_apart,
    split,
    teacher,
    train,
    without_samples,
)
from hpcmsm.surrogate.base import Samples
from tests.gate_harness import make_gate

COMM = MPI.COMM_SELF
CASE = """
[grid]
cells = [4, 4]
size = [1.0, 1.0]
[time]
end = 1.0
step = 0.1
[materials.a]
conductivity = 1.0
[materials.b]
conductivity = 3.0
[micro]
model = "unit_cell"
microstructure = "laminate"
phases = ["a", "b"]
resolution = 8
"""
INPUTS = (Field("a", unit="K", about="drives", lower=0.0, upper=1.0), Field("b", unit="m"))
OUTPUTS = (Field("f", unit="W"),)
QUICK = Recipe((8,), members=2, goal=1e-3, epochs=30)


def truth(inputs):
    """A function of the first input alone."""
    return np.sin(2.0 * inputs[:1]) + 2.0


def dataset(count, function=truth, seed=1):
    inputs = sobol_points(np.array([[0.0, -1.0], [1.0, 1.0]]), count, seed)
    nowhere, zeros = np.full(count, NOWHERE), np.zeros(count, np.int64)
    samples = Samples(nowhere, zeros, nowhere, inputs, function(inputs), np.ones(count))
    return Dataset(INPUTS, OUTPUTS, samples, np.arange(count), "title = 'x'", "{}", {"host": "h"})


def trained(count=80, function=truth, **options):
    data = dataset(count, function)
    return train(data, data.keyed(), QUICK, COMM, **options)


@pytest.fixture(scope="module")
def model():
    return trained()


def test_a_dataset_comes_back_bit_by_bit(tmp_path):
    data = dataset(20)
    write_dataset(COMM, tmp_path / "d.h5", data)
    back = read_dataset(tmp_path / "d.h5")
    assert (back.inputs, back.outputs) == (data.inputs, data.outputs)
    assert (back.case, back.microstructure, back.provenance) == (data.case, "{}", {"host": "h"})
    np.testing.assert_array_equal(back.index, data.index)
    for name in Samples.__dataclass_fields__:
        np.testing.assert_array_equal(getattr(back.samples, name), getattr(data.samples, name))


def test_show_tells_what_a_dataset_and_a_model_hold(model, tmp_path):
    write_dataset(COMM, tmp_path / "d.h5", dataset(20))
    write_model(COMM, tmp_path / "m.h5", model)
    for name, kind, array in (("d.h5", "dataset", "samples/inputs"), ("m.h5", "model", "surrogate/weights")):
        text = describe(tmp_path / name)
        assert text.startswith(f"{kind} {name}") and array in text
        assert "a [K], b [m]" in text and "f [W]" in text


def test_samples_of_several_datasets_have_keys_of_their_own(tmp_path):
    for name, count in (("a.h5", 20), ("b.h5", 30)):
        write_dataset(COMM, tmp_path / name, dataset(count))
    _, samples = read_datasets([tmp_path / "a.h5", tmp_path / "b.h5"])
    keys = set(zip(samples.step.tolist(), samples.iteration.tolist(), samples.ids.tolist(), strict=True))
    assert len(keys) == len(samples) == 50
    assert keys.isdisjoint(zip(samples.step, set_apart(samples).iteration, samples.ids, strict=True))


def test_a_failed_cell_is_left_out_and_a_range_is_asked_for(tmp_path):
    (tmp_path / "halves.py").write_text(
        "import numpy as np\n"
        "from hpcmsm.batch import Answer\n"
        "from hpcmsm.fields import Field\n"
        "from hpcmsm.micro.base import MicroModel\n"
        "class Halves(MicroModel):\n"
        "    inputs = (Field('x'),)\n"
        "    outputs = (Field('y'),)\n"
        "    def evaluate(self, batch):\n"
        "        return Answer(2 * batch.inputs, batch.state, (batch.inputs[0] > 0.75).astype(np.int32))\n"
    )
    text = (
        "[grid]\ncells = [4, 4]\nsize = [1.0, 1.0]\n[time]\nend = 1.0\nstep = 0.1\n"
        '[micro]\nmodel = "halves:Halves"\n'
    )
    case = parse_case(text, "case.toml")
    with pytest.raises(ConfigError, match="--input x must be given"):
        collect(case, tmp_path, 16, [], COMM)
    data = collect(case, tmp_path, 64, ["x=0:1"], COMM)
    assert len(data.samples) == 48 and data.samples.inputs.max() <= 0.75
    np.testing.assert_array_equal(data.samples.outputs, 2 * data.samples.inputs)
    np.testing.assert_array_equal(
        data.index, np.flatnonzero(sobol_points(np.array([[0.0], [1.0]]), 64, 1)[0] <= 0.75)
    )
    with pytest.raises(MicroError, match="at least half of the points, got 0 of 8"):
        collect(case, tmp_path, 8, ["x=0.8:1"], COMM)


@pytest.mark.parametrize("text", ["c=0:1", "a", "a=1:0", "a=0:2", "a=x:1", "b=0:inf"])
def test_wrong_ranges_are_refused(text):
    class Micro:
        inputs = INPUTS

    with pytest.raises(ConfigError, match="--input"):
        input_ranges(Micro(), [text])


def test_the_parts_of_a_split_are_disjoint_and_keep_their_samples():
    small, large = dataset(100).keyed(), dataset(400).keyed()
    few, many = split(small, 1), split(large, 1)
    for name in ("training", "calibration", "test"):
        before, after = set(getattr(few, name).ids.tolist()), set(getattr(many, name).ids.tolist())
        assert before == {number for number in after if number < 100}
    sizes = [len(part) for part in (many.training, many.calibration, many.test)]
    assert sum(sizes) == 400 and np.allclose(np.array(sizes) / 400, [0.6, 0.25, 0.15], atol=0.06)
    with pytest.raises(ConfigError, match="collect more"):
        split(dataset(8).keyed(), 1)


def test_a_model_comes_back_bit_by_bit(model, tmp_path):
    write_model(COMM, tmp_path / "m.h5", model)
    back = read_model(tmp_path / "m.h5")
    inputs = dataset(50, seed=5).samples.inputs
    before, after = (explain.ensemble_of(m).predict(inputs) for m in (model, back))
    np.testing.assert_array_equal(before[0], after[0])
    np.testing.assert_array_equal(before[1], after[1])
    assert np.abs(before[0] - truth(inputs)).max() < 2e-2
    assert json.loads(json.dumps(model.history)) == back.history


def broken(model, **arrays):
    return replace(model, state=model.state | arrays)


@pytest.mark.parametrize(
    "spoil, said",
    [
        (lambda m: broken(m, widths=np.array([2, 10**9, 1])), "widths"),
        (lambda m: broken(m, widths=np.array([3, 8, 1])), "widths"),
        (lambda m: broken(m, widths=np.array([2.0, 8.0, 1.0])), "widths"),
        (lambda m: broken(m, weights=m.state["weights"][:, 1:]), "weights"),
        (lambda m: broken(m, weights=np.full_like(m.state["weights"], np.nan)), "not finite"),
        (lambda m: broken(m, weights=m.state["weights"][:1]), "members"),
        (lambda m: broken(m, version=np.array([0])), "version"),
        (lambda m: broken(m, field_scales=np.array([0.0])), "positive"),
        (lambda m: replace(m, outputs=()), "components"),
        (lambda m: replace(m, errors=m.errors[1:]), "errors"),
        (lambda m: replace(m, training=replace(m.training, inputs=m.training.inputs[:1])), "inputs"),
        (lambda m: replace(m, nsample="many"), "many"),
    ],
)
def test_a_model_with_a_valid_seal_but_wrong_content_is_refused(model, tmp_path, spoil, said):
    """What a stranger may have written on purpose."""
    write_model(COMM, tmp_path / "m.h5", spoil(model))
    with pytest.raises(CheckpointError, match=said) as caught:
        read_model(tmp_path / "m.h5")
    assert "m.h5 is damaged" in str(caught.value) and "\n" not in str(caught.value)


def test_other_files_are_no_models(model, tmp_path):
    write_dataset(COMM, tmp_path / "d.h5", dataset(5))
    with pytest.raises(CheckpointError, match="dataset, not a model"):
        read_model(tmp_path / "d.h5")
    (tmp_path / "t.h5").write_text("weights = 1")
    with pytest.raises(CheckpointError, match="not an HDF5 file"):
        read_model(tmp_path / "t.h5")
    write_model(COMM, tmp_path / "m.h5", model)
    whole = (tmp_path / "m.h5").read_bytes()
    (tmp_path / "m.h5").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match="truncated"):
        read_model(tmp_path / "m.h5")


def test_transfer_needs_few_samples_where_two_systems_differ_smoothly():
    """From 400 samples of a wavy function to the same one scaled and shifted, with 12 samples."""

    def wavy(inputs):
        return 2.0 + np.sin(9.0 * inputs[:1]) * np.cos(2.0 * inputs[1:])

    recipe = Recipe((16, 16), members=2)
    old = dataset(200, wavy)
    start = train(old, old.keyed(), recipe, COMM)
    few = dataset(12, lambda x: 1.1 * wavy(x) + 0.1, seed=7).keyed()
    unseen = dataset(256, lambda x: 1.1 * wavy(x) + 0.1, seed=8).samples
    more = dataset(48, lambda x: 1.1 * wavy(x) + 0.1, seed=7).keyed()

    def error(ensemble):
        return np.quantile(ensemble.misfit(ensemble.predict(unseen.inputs)[0], unseen.outputs), 0.9)

    transferred = teacher(recipe, INPUTS, OUTPUTS, COMM, start, None)(few)
    scratch = learn(recipe, None, more, INPUTS, OUTPUTS, COMM)
    assert error(transferred) < error(scratch), "a quarter of the samples"


def test_transfer_to_a_finer_unit_cell_needs_a_quarter_of_the_samples():
    """The composite wall's unit cell, from 32 to 64 points a side; benchmarks/transfer.py has more."""
    rows = [errors_of_seed(seed, (12, 48), 256, 128, COMM) for seed in (1, 2, 3)]
    few, many = (np.median([row[way][k] for row in rows]) for way, k in (("transfer", 0), ("scratch", 1)))
    assert few < many < 3e-3
    assert few < np.median([row["coarse"][0] for row in rows]), "better than the coarse model as it is"


def test_the_difference_to_a_cheap_model_is_learnt():
    cheap = set_apart(dataset(150, lambda x: truth(x) - 0.2 * x[:1]).keyed())
    model = trained(40, truth, cheap=cheap)
    assert model.history["curve"][-1]["p99"] < 5e-3
    assert set(model.training.outputs.ravel()) <= set(truth(dataset(40).samples.inputs).ravel())


def test_a_model_without_samples_is_a_start_but_tells_none(model):
    bare = without_samples(model)
    assert len(bare.training) == len(bare.calibration) == bare.errors.size == 0
    assert bare.nsample == model.nsample > 0
    assert trained(start=bare).history["curve"][-1]["p99"] < 2e-2


def test_the_mean_of_models_weighs_by_samples(model, tmp_path):
    other = broken(model, weights=model.state["weights"] + 1.0)
    joined = merge([replace(model, nsample=30), replace(other, nsample=10)], COMM)
    np.testing.assert_allclose(joined.state["weights"], model.state["weights"] + 0.25, rtol=1e-12)
    assert joined.nsample == 40


def test_the_mean_of_one_function_at_two_scalings_is_that_function(model):
    """Models trained in two places have other scales; averaging must undo that first."""
    ensemble = explain.ensemble_of(model)
    scaling = (np.array([0.3, 0.1]), np.array([0.7, 0.9])), (np.array([1.5]), np.array([2.0]))
    old = model.state["input_scaling"], model.state["output_scaling"]
    moved = [ensemble.network.rescale(w, old[0], scaling[0], old[1], scaling[1]) for w in ensemble.weights]
    other = broken(
        model,
        weights=np.array(moved),
        input_scaling=np.array(scaling[0]),
        output_scaling=np.array(scaling[1]),
    )
    inputs = dataset(64, seed=9).samples.inputs
    joined = explain.ensemble_of(merge([model, other], COMM)).predict(inputs)[0]
    np.testing.assert_allclose(joined, ensemble.predict(inputs)[0], rtol=1e-10)


def test_models_without_a_common_start_are_not_merged(model, tmp_path):
    write_model(COMM, tmp_path / "a.h5", model)
    with pytest.raises(ConfigError, match="one common model"):
        merge_files([tmp_path / "a.h5", tmp_path / "a.h5"], COMM)
    write_model(COMM, tmp_path / "b.h5", trained(start=model))
    assert merge_files([tmp_path / "b.h5", tmp_path / "b.h5"], COMM).start


def test_tuning_goes_on_from_its_journal_as_if_never_interrupted(tmp_path, monkeypatch):
    """A known error in place of training: the tuner must find its smallest value among its trials."""

    def known(recipe, *_):
        return abs(np.log(recipe.goal / 3e-5)) + len(recipe.hidden) + 0.01 * recipe.epochs

    monkeypatch.setattr(tune, "_try", known)
    training = dataset(30).keyed()

    def run(count, name):
        return tune.tune(QUICK, training, INPUTS, OUTPUTS, count, tmp_path / name, COMM)

    best, trials = run(12, "whole.json")
    assert trials[0]["parameters"] == {"first": 8, "second": 0, "goal": 1e-3, "epochs": 40}
    assert known(best) == min(trial["error"] for trial in trials) < known(QUICK)
    run(8, "parts.json")
    assert run(12, "parts.json") == (best, trials)
    assert (tmp_path / "parts.json").read_bytes() == (tmp_path / "whole.json").read_bytes()


def test_tuning_without_optuna_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(SetupError, match=r"pip install 'hpcmsm\[tune\]'"):
        tune.tune(QUICK, dataset(30).keyed(), INPUTS, OUTPUTS, 4, tmp_path / "j.json", COMM)


def test_a_trial_that_cannot_be_trained_loses(monkeypatch):
    def fails(*_):
        raise SurrogateError("no")

    monkeypatch.setattr("hpcmsm.surrogate.ensemble.Ensemble.train", fails)
    assert tune._try(QUICK, dataset(30).keyed(), INPUTS, OUTPUTS) == tune.FAILED


@pytest.mark.parametrize("content", ["", "[]", '{"mark": "x", "trials": []}', '{"mark": 1, "trials": [3]}'])
def test_a_foreign_journal_is_refused(tmp_path, content):
    journal = tmp_path / "j.json"
    journal.write_text(content)
    with pytest.raises(ConfigError, match="--journal") as caught:
        tune.tune(QUICK, dataset(30).keyed(), INPUTS, OUTPUTS, 4, journal, COMM)
    assert "\n" not in str(caught.value)


def test_explanations_of_a_function_of_one_input(model):
    found = explain.explain(explain.ensemble_of(model), dataset(128, seed=4))
    first, second = found.importance
    assert first["shuffled"] > 20 * first["error"]
    assert second["shuffled"] < 2 * second["error"]
    curves = {name: [r for r in found.dependence if r["input"] == name] for name in "ab"}
    values, means = (np.array([r[key] for r in curves["a"]]) for key in ("value", "mean"))
    np.testing.assert_allclose(means, truth(values[None])[0], atol=2e-2)
    assert np.ptp([r["mean"] for r in curves["b"]]) < 2e-2


def test_what_drives_fallback_is_found_where_it_was_put():
    inputs = np.random.default_rng(1).uniform(size=(2, 4000))
    scores = 1e-3 * np.exp(5.0 * (np.abs(inputs[1] - 0.8) < 0.1))
    first, second = explain.fallback_drivers(scores, scores, inputs, ["calm", "wild"])
    assert (first["input"], second["input"]) == ("wild", "calm")
    assert second["explains_score"] < 0.02 < 0.6 < first["explains_score"] <= 1.0
    assert 0.7 < (first["worst_from"] + first["worst_to"]) / 2 < 0.9


def test_the_correlation_ratio_between_its_extremes():
    bins = np.repeat([0, 1], 50)
    assert explain.correlation_ratio(bins, np.exp(bins)) == pytest.approx(1.0)
    assert explain.correlation_ratio(bins, np.exp(np.tile([0, 1], 50))) == pytest.approx(0.0, abs=1e-12)
    # Variance 1/4 between the bins, 1/4 inside them.
    assert explain.correlation_ratio(bins, np.exp(bins + np.tile([0, 1], 50))) == pytest.approx(0.5)


def test_pictures_are_the_same_every_time(tmp_path):
    from hpcmsm.offline.pictures import write_learning_curve

    rows = [{"samples": n, "p50": 1 / n, "p99": 2 / n, "max": 3 / n} for n in (10, 20, 40)]
    first = [Path(path).read_bytes() for path in write_learning_curve(tmp_path / "m.h5", rows)]
    assert first == [Path(path).read_bytes() for path in write_learning_curve(tmp_path / "m.h5", rows)]
    assert first[1].decode().splitlines()[1] == "10,0.1,0.2,0.3"


@pytest.mark.parametrize(
    "words, said",
    [
        (["collect", "case.toml", "-o", "x.h5", "--input", "temprature=1:2"], "did you mean 'temperature'"),
        (["collect", "case.toml", "-o", "x.h5", "--input", "fraction=0.5:7"], "fraction=0.5:7"),
        (["collect", "case.toml", "-o", "x.h5", "-n", "0"], "-n must lie between"),
        (["collect", "-o", "x.h5"], "--from"),
        (["collect", "case.toml", "-o", "x.h5", "--weigh-by", "temperature"], "--weigh-by must go with"),
        (["train", "d.h5", "-o", "x.h5", "--weight", "wieght"], "--weight"),
        (["train", "d.h5", "-o", "x.h5", "--weight", "-1"], "--weight must be positive"),
        (["train", "d.h5", "-o", "x.h5", "--kind", "cnn", "--tune", "3"], "--kind cnn must go without"),
        (["train", "d.h5", "-o", "x.h5", "--kind", "fno", "--from", "m.h5"], "--from must name a model of"),
        (["collect", "--from", "nowhere", "-o", "x.h5"], "checkpoint"),
        (["train", "nowhere.h5", "-o", "x.h5"], "nowhere.h5"),
        (["train", "d.h5", "-o", "x.h5", "--from", "m.h5", "--tune", "3"], "--tune"),
        (["train", "d.h5", "other.h5", "-o", "x.h5"], "other.h5"),
        (["train", "d.h5", "-o", "x.h5", "--bounds", "1"], "--bounds must go with --kind cnn or fno"),
        (["train", "d.h5", "-o", "x.h5", "--goal", "7"], "--goal must lie between"),
        (["train", "d.h5", "-o", "x.h5", "--hidden", "0"], "--hidden must be"),
        (["explain", "d.h5", "d.h5", "-o", "x"], "not a model"),
        (["explain", "m.h5", "other.h5", "-o", "x"], "other.h5"),
    ],
)
def test_wrong_words_get_one_line(model, tmp_path, monkeypatch, capsys, words, said):
    (tmp_path / "case.toml").write_text(CASE)
    write_dataset(COMM, tmp_path / "d.h5", dataset(60))
    write_dataset(COMM, tmp_path / "other.h5", replace(dataset(60), outputs=(Field("f", unit="K"),)))
    write_model(COMM, tmp_path / "m.h5", model)
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 1 and said in told[0], told
    assert not (tmp_path / "x.h5").exists()


def test_weights_in_the_loss_do_not_move_the_bound_of_a_run():
    """Else a formula that favours well known samples would make the gate as sure of all others."""
    calls, factors = [], (np.ones(200), np.geomspace(1e-6, 1e6, 200))
    for weight in factors:
        gate = make_gate(COMM, version=0)
        x = np.linspace(-1.0, 1.0, 200)
        inputs = np.stack([x, np.geomspace(1e-1, 1e-5, 200), np.full(200, 1e-3)])
        known = np.arange(200)
        samples = Samples(known, known * 0, known, inputs, 1.0 + inputs[:1] ** 2, weight)
        _preload(gate, SimpleNamespace(state={"version": [1]}, training=samples, calibration=samples))
        calls.append(gate.calibration.q)
    assert calls[0] == calls[1] and np.isfinite(calls[0])


@pytest.mark.parametrize("name", ["collect", "train", "merge", "explain"])
def test_every_option_is_explained(name, capsys):
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])
    assert ended.value.code == 0
    lines = capsys.readouterr().out.partition("options:")[2].splitlines()
    options = [line for line in lines if line.startswith("  -")]
    assert len(options) >= 2
    for line, after in zip(lines, [*lines[1:], ""], strict=True):
        if line.startswith("  -"):
            assert len(line.split("  ")) > 2 or after.startswith("         "), line
