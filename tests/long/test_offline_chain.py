"""Models of data that may not leave their place, and of two fidelities, through the command line."""

import numpy as np
import pytest
from mpi4py import MPI

from benchmarks.transfer import errors_of_seed
from hpcmsm.io.dataset import read_dataset
from hpcmsm.io.modelfile import read_model
from hpcmsm.offline.explain import ensemble_of
from tests.launch import ROOT, launch

CASE = ROOT / "cases" / "composite_wall.toml"
COMM = MPI.COMM_SELF


def hpcmsm(folder, *words, nranks=1):
    result = launch(nranks, ["hpcmsm", *words], timeout=200, cwd=folder)
    assert result.returncode == 0, (result.stdout, result.stderr)


def collected(folder, name, count, temperatures, *options):
    words = ["-n", count, "--input", f"temperature={temperatures}", "-o", f"{name}.h5"]
    hpcmsm(folder, "collect", CASE, *words, "--set", "micro.resolution=32", *options)


def error(folder, model, data):
    """90th percentile of the relative error of a model on a dataset."""
    ensemble, samples = (
        ensemble_of(read_model(folder / f"{model}.h5")),
        read_dataset(folder / f"{data}.h5").samples,
    )
    return np.quantile(ensemble.misfit(ensemble.predict(samples.inputs)[0], samples.outputs), 0.9)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("chain")


def test_the_mean_of_two_places_knows_more_though_no_sample_left_either(folder):
    """Both begin with the model of a few samples, go on for four steps, and send home weights alone."""
    collected(folder, "few", 40, "290:600", "--set", "seed=7")
    hpcmsm(folder, "train", "few.h5", "--without-samples", "-o", "start.h5")
    for place, seed in (("north", 20), ("south", 21)):
        collected(folder, place, 160, "290:600", "--set", f"seed={seed}")
        words = ["--from", "start.h5", "--epochs", 4, "--without-samples", "-o", f"{place}_model.h5"]
        hpcmsm(folder, "train", f"{place}.h5", *words, nranks=2)
        assert len(read_model(folder / f"{place}_model.h5").training) == 0
    hpcmsm(folder, "merge", "north_model.h5", "south_model.h5", "-o", "both.h5")
    collected(folder, "test", 128, "290:600", "--set", "seed=9")
    merged, start = error(folder, "both", "test"), error(folder, "start", "test")
    assert merged < 0.6 * start, (merged, start)
    assert read_model(folder / "both.h5").nsample == sum(
        read_model(folder / f"{place}_model.h5").nsample for place in ("north", "south")
    )


def test_few_fine_samples_do_where_many_cheap_ones_are_there(folder):
    """Cells of 32 points a side are cheap; of those of 64 there are 40, of which 24 are learnt from."""
    collected(folder, "cheap", 256, "290:600")
    collected(folder, "fine", 40, "290:600", "--set", "micro.resolution=64", "--set", "seed=5")
    collected(folder, "unseen", 128, "290:600", "--set", "micro.resolution=64", "--set", "seed=6")
    hpcmsm(folder, "train", "fine.h5", "-o", "alone.h5")
    hpcmsm(folder, "train", "fine.h5", "--cheap", "cheap.h5", "-o", "helped.h5", nranks=2)
    hpcmsm(folder, "train", "cheap.h5", "-o", "coarse.h5")
    helped, alone, coarse = (error(folder, name, "unseen") for name in ("helped", "alone", "coarse"))
    assert helped < 0.5 * alone and helped < 0.7 * coarse, (helped, alone, coarse)


def test_on_fitted_grids_a_quarter_of_the_samples_does_far_below_a_thousandth():
    """On even ones the lines that a growing fibre crosses make K rough, and errors stay above 3e-4."""
    learnt = {"grid": "fitted", "goal": 1e-5, "epochs": 300}
    rows = [errors_of_seed(seed, (12, 32, 48, 128), 2048, 256, COMM, **learnt) for seed in (1, 2, 3)]
    error = {way: np.median([row[way] for row in rows], axis=0) for way in ("transfer", "scratch")}
    for few, many, small in ((0, 2, 8e-4), (1, 3, 1.5e-4)):
        assert error["transfer"][few] < error["scratch"][many] < small, error


def test_a_weight_makes_the_errors_small_where_it_is_large(folder):
    """Hot cells matter: networks too small to meet the goal everywhere meet it there."""
    collected(folder, "plain", 200, "290:600")
    collected(folder, "hot", 100, "560:600", "--set", "seed=11")
    small = ["--hidden", 3, "--goal", "1e-6"]
    hpcmsm(folder, "train", "plain.h5", *small, "-o", "even.h5")
    weight = ["--weight", "1e-3 + smoothstep(temperature, 520, 580)"]
    hpcmsm(folder, "train", "plain.h5", *small, *weight, "-o", "weighted.h5")
    assert error(folder, "weighted", "hot") < 0.7 * error(folder, "even", "hot")
