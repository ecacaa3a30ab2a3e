"""Surrogates of images through the command line, on microstructures that they have never seen."""

import csv
from pathlib import Path

import numpy as np
import pytest
from mpi4py import MPI

from hpcmsm.config import SurrogateSection
from hpcmsm.io.dataset import read_dataset
from hpcmsm.io.modelfile import read_model
from hpcmsm.offline.collect import micro_of_text
from hpcmsm.offline.explain import surrogate_of
from hpcmsm.surrogate.registry import make_surrogate
from tests.launch import launch
from tests.oracles import fft_pcg

CASE = Path(__file__).resolve().parents[2] / "cases" / "random_composite.toml"
NSAMPLE, NTEST = 240, 96


def good(result):
    assert result.returncode == 0, (result.stdout, result.stderr)
    return result


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """data.h5 and test.h5: fibres where chance has put them, each sample with its own; cnn.h5 and fno.h5."""
    folder = tmp_path_factory.mktemp("images")
    for name, first, count in (("data", 0, NSAMPLE), ("test", 10**6, NTEST)):
        ranges = ["--input", f"realisation={first}:{first + count - 1}", "--input", "temperature=290:600"]
        options = ("micro.realisations=own", "micro.resolution=16", "micro.count=4")
        own = [word for option in options for word in ("--set", option)]
        good(
            launch(1, ["hpcmsm", "collect", CASE, "-n", count, *own, *ranges, "-o", f"{name}.h5"], cwd=folder)
        )
    for kind, epochs in (("cnn", 150), ("fno", 40)):
        train = ["hpcmsm", "train", "data.h5", "--kind", kind, "--epochs", epochs, "-o", f"{kind}.h5"]
        good(launch(1, train, timeout=400, cwd=folder))
    return folder


def error_and_score(surrogate, samples):
    mean, score = surrogate.predict(samples.inputs)
    return surrogate.misfit(mean, samples.outputs), score


def baselines(folder):
    """Median errors of the mean field, k0 times one ratio, and of an RBF of temperature and realisation."""
    data, test = read_dataset(folder / "data.h5"), read_dataset(folder / "test.h5").samples
    micro = micro_of_text(data.case, folder)
    known, asked = (reference(micro.images(s.inputs)) for s in (data.samples, test))
    ratio = (data.samples.outputs / known).mean(axis=1)
    rbf = make_surrogate(SurrogateSection(kind="rbf"), data.inputs, data.outputs, MPI.COMM_SELF, 1, 1e-3)
    rbf.train(data.keyed())
    mean_field = rbf.misfit(ratio[:, None] * asked, test.outputs)
    return np.median(mean_field), np.median(rbf.misfit(rbf.predict(test.inputs)[0], test.outputs))


def reference(images):
    """Geometric mean of Wiener's bounds."""
    return np.sqrt(images.mean(axis=(1, 2)) / (1.0 / images).mean(axis=(1, 2)))


@pytest.mark.filterwarnings("ignore:An ill-conditioned")  # numbers of realisations tell an RBF nothing
@pytest.mark.parametrize("kind, better", [("cnn", 1.5), ("fno", 8.0)])
def test_better_than_what_sees_no_image(folder, kind, better):
    test = read_dataset(folder / "test.h5").samples
    error, score = error_and_score(surrogate_of(read_model(folder / f"{kind}.h5"), folder), test)
    mean_field, rbf = baselines(folder)
    assert np.median(error) * better < min(mean_field, rbf)
    assert 0.3 < np.quantile(score, 0.5) / np.quantile(error, 0.9) < 30


def test_what_the_field_leaves_tells_the_error_of_its_energy(folder):
    test = read_dataset(folder / "test.h5").samples
    fno = surrogate_of(read_model(folder / "fno.h5"), folder)
    fno.arrays["part"][:] = 0.0  # the energy as it is
    told, score = fno.predict(test.inputs)
    error = told[:2].sum(axis=0) / test.outputs[:2].sum(axis=0) - 1.0
    assert np.corrcoef(np.log(score), np.log(error))[0, 1] > 0.7
    least, most = fno.error_bounds(test.inputs)
    trace = test.outputs[:2].sum(axis=0)
    assert (least <= error * trace * (1 + 1e-4)).all() and (error * trace <= most).all()


def test_its_field_is_a_warm_start_for_a_solver(folder):
    test = read_dataset(folder / "test.h5")
    fno = surrogate_of(read_model(folder / "fno.h5"), folder)
    inputs = np.ascontiguousarray(test.samples.inputs[:, :32])
    k = fno.render(inputs)
    faces = tuple(2.0 / (1.0 / k + 1.0 / np.roll(k, -1, axis)) for axis in (-1, -2))
    start = np.moveaxis(fno.warm_start(inputs), 1, 0)
    for tolerance in (1e-1, 1e-2):
        _, cold = fft_pcg(faces, tolerance)
        _, warm = fft_pcg(faces, tolerance, start=start)
        assert warm.mean() < 0.85 * cold.mean(), (tolerance, warm.mean(), cold.mean())
    truth, _ = fft_pcg(faces, 1e-9, start=start)
    np.testing.assert_allclose(truth, test.samples.outputs[:, :32], atol=1e-5 * truth[0].max())


def test_explain_shows_where_in_a_cell_the_conductivity_comes_from(folder):
    for kind in ("cnn", "fno"):
        told = ["hpcmsm", "explain", f"{kind}.h5", "test.h5", "-o", f"told_{kind}"]
        good(launch(0, told, timeout=300, cwd=folder))
        assert (folder / f"told_{kind}" / "saliency.png").read_bytes().startswith(b"\x89PNG")
        rows = list(csv.DictReader((folder / f"told_{kind}" / "saliency.csv").open()))
        for sample in {row["sample"] for row in rows}:
            cell = [row for row in rows if row["sample"] == sample]
            assert sum(float(row["sensitivity"]) for row in cell) == pytest.approx(1.0, abs=1e-3)
            matrix = min(cell, key=lambda row: float(row["conductivity"]))
            # Fibres that conduct better are carried by the matrix between them: it decides.
            assert float(matrix["sensitivity"]) > 0.5


def test_models_of_images_are_refused_where_they_do_not_fit(folder):
    refused = launch(1, ["hpcmsm", "train", "data.h5", "--from", "cnn.h5", "-o", "x.h5"], cwd=folder)
    assert refused.returncode == 2 and "--kind" in refused.stderr
    load = ["--set", f"surrogate.load={folder / 'cnn.h5'}", "--set", "surrogate.kind=ensemble"]
    refused = launch(1, ["hpcmsm", "run", CASE, "-o", "run", "--quiet", *load], cwd=folder)
    assert refused.returncode == 2 and "kind 'ensemble'" in refused.stderr, refused.stderr
