"""Surrogates that see images: the cell problem in torch, structure that is built in, rows, restart."""

import numpy as np
import pytest
import torch
from mpi4py import MPI

from hpcmsm.errors import SurrogateError
from hpcmsm.fields import Field
from hpcmsm.surrogate import cell
from hpcmsm.surrogate.base import Samples
from hpcmsm.surrogate.registry import IMAGE_KINDS, make_image_surrogate
from tests.oracles import fft_pcg, image_faces, sparse_conductivity

INPUTS = (
    Field("contrast", lower=1.0, upper=100.0),
    Field("realisation", lower=0.0, upper=999.0, whole=True),
)
OUTPUTS = (Field("conductivity", 3, "W/(m K)", spd=True),)
SIDE = 12


def render(inputs):
    """Blobs of a conductivity 0.2 * contrast in a matrix of 0.2 W/(m K); NaN for numbers out of range."""
    images = []
    for contrast, number in inputs.T:
        if not (0 <= number <= 999 and number == np.rint(number)):
            images.append(np.full((SIDE, SIDE), np.nan))
            continue
        noise = np.random.default_rng(int(number)).normal(size=(SIDE, SIDE))
        smooth = sum(np.roll(noise, shift, (0, 1)) for shift in ((0, 0), (1, 0), (0, 1), (1, 1), (2, 1)))
        images.append(np.where(smooth > 0.3, 0.2 * contrast, 0.2))
    return np.array(images).reshape(-1, SIDE, SIDE)


def inputs_of(n, first=0):
    random = np.random.default_rng(first)
    return np.array([random.uniform(3, 8, n), first + np.arange(n)])


def make_samples(n, first=0):
    inputs = inputs_of(n, first)
    faces = [image_faces((image > 0.2).astype(int), np.unique(image)) for image in render(inputs)]
    kx, ky = (np.array([pair[axis] for pair in faces]) for axis in (0, 1))
    outputs, _ = fft_pcg((kx, ky), 1e-10)
    order = np.arange(n)
    return Samples(order * 0 - 1, order * 0, order + first, inputs, outputs, np.ones(n))


def make(kind, comm=MPI.COMM_SELF, **options):
    return make_image_surrogate(kind, INPUTS, OUTPUTS, comm, 1, render=render, **{"epochs": 3, **options})


@pytest.fixture(scope="module", params=IMAGE_KINDS)
def trained(request):
    surrogate = make(request.param)
    return surrogate, surrogate.train(make_samples(40))


def test_energy_and_residual_of_the_true_correctors():
    image = render(inputs_of(1))[0]
    k = torch.from_numpy(image[None])
    kx, ky = (face.numpy()[0] for face in cell.faces(k))
    for mine, theirs in zip((kx, ky), image_faces((image > 0.2).astype(int), np.unique(image)), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-14)
    chi = exact_correctors(kx, ky)
    tensor = cell.energy(cell.faces(k), chi)[0].numpy()
    np.testing.assert_allclose(tensor[[0, 1, 0], [0, 1, 1]], sparse_conductivity(kx, ky), rtol=1e-10)
    assert cell.residual(cell.faces(k), chi).abs().max() < 1e-12


def exact_correctors(kx, ky):
    """By a dense solve."""
    n = kx.shape[0]
    points = torch.eye(n * n, dtype=torch.float64).reshape(n * n, n, n)
    faces = torch.from_numpy(np.stack([kx, ky]))
    matrix = cell.adjoint(faces * cell.gradient(points)).reshape(n * n, n * n).numpy()
    loads = -cell.adjoint(faces * torch.eye(2, dtype=torch.float64)[:, :, None, None]).reshape(2, -1).numpy()
    chi = np.linalg.lstsq(matrix, loads.T, rcond=None)[0].T
    return torch.from_numpy(chi.reshape(1, 2, n, n))


def test_what_is_left_bounds_the_error_from_both_sides():
    """As quadratic forms, for correctors that are anything."""
    random = np.random.default_rng(3)
    for image in render(inputs_of(6)):
        k = torch.from_numpy(image[None])
        between = cell.faces(k)
        kx, ky = (face.numpy()[0] for face in between)
        chi = exact_correctors(kx, ky) + 0.3 * torch.from_numpy(random.normal(size=(1, 2, SIDE, SIDE)))
        xx, yy, xy = sparse_conductivity(kx, ky)
        error = cell.energy(between, chi)[0].numpy() - np.array([[xx, xy], [xy, yy]])
        eta = cell.excess(between, chi)[0].numpy()
        lowest, highest = min(kx.min(), ky.min()), max(kx.max(), ky.max())
        assert np.linalg.eigvalsh(error - eta / highest).min() > -1e-12
        assert np.linalg.eigvalsh(eta / lowest - error).min() > -1e-12


def test_the_laplacian_is_inverted():
    u = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 3, 8, 10)))
    u = u - u.mean(dim=(-2, -1), keepdim=True)
    again = cell.inverse_laplacian(cell.adjoint(cell.gradient(u)))
    np.testing.assert_allclose(again.numpy(), u.numpy(), atol=1e-12)


def test_training_lowers_the_loss_and_tells_of_it(trained):
    _, figures = trained
    assert figures["last_loss"] < figures["first_loss"]
    assert 0.0 < figures["held_out_p50"] <= figures["held_out_p99"] < 1.0
    assert figures["samples"] == 40


def test_an_answer_depends_on_its_cell_alone(trained):
    surrogate, _ = trained
    inputs = inputs_of(37, first=100)
    mean, score = surrogate.predict(inputs)
    assert np.isfinite(mean).all() and (score > 0).all()
    order = np.random.default_rng(1).permutation(37)
    for part in (order, order[:1], order[5:22]):
        other_mean, other_score = surrogate.predict(np.ascontiguousarray(inputs[:, part]))
        assert np.array_equal(other_mean, mean[:, part]) and np.array_equal(other_score, score[part])
    surrogate.alone, before = True, surrogate.alone
    lone_mean, lone_score = surrogate.predict(inputs)
    surrogate.alone = before
    np.testing.assert_allclose(lone_mean, mean, rtol=1e-4)
    np.testing.assert_allclose(lone_score, score, rtol=1e-2)


def test_answers_scale_with_the_conductivities(trained):
    surrogate, _ = trained
    inputs = inputs_of(8, first=200)
    mean, score = surrogate.predict(inputs)
    surrogate.render = lambda asked: 7.0 * render(asked)
    scaled, same = surrogate.predict(inputs)
    surrogate.render = render
    np.testing.assert_allclose(scaled, 7.0 * mean, rtol=1e-5)
    np.testing.assert_allclose(same, score, rtol=1e-3)


def test_bad_inputs_get_no_answer(trained):
    surrogate, _ = trained
    inputs = inputs_of(5)
    inputs[1, 2], inputs[0, 3] = 0.5, np.nan
    mean, score = surrogate.predict(inputs)
    assert np.isnan(mean[:, [2, 3]]).all() and np.isinf(score[[2, 3]]).all()
    whole, _ = surrogate.predict(inputs_of(5))
    assert np.array_equal(mean[:, [0, 1, 4]], whole[:, [0, 1, 4]])


def test_state_goes_there_and_back_and_training_continues_alike(trained):
    first, _ = trained
    kind = type(first).__name__.lower()
    pair = make(kind), make(kind)
    for one in pair:
        one.load_state({name: array.copy() for name, array in first.state().items()})
    inputs = inputs_of(9, first=300)
    for a, b in zip(first.predict(inputs), pair[0].predict(inputs), strict=True):
        assert np.array_equal(a, b)
    for one in pair:
        one.train(make_samples(30, first=400))
    states = [one.state() for one in pair]
    assert states[0]["version"][0] == 2
    assert all(np.array_equal(array, states[1][name]) for name, array in states[0].items())
    with pytest.raises(SurrogateError, match="must have shape"):
        make(kind).load_state({**states[0], "weights": np.zeros(5, np.float32)})


def test_saliency_sums_to_one_and_is_the_slope(trained):
    surrogate, _ = trained
    inputs = inputs_of(2, first=500)
    saliency = surrogate.saliency(inputs)
    np.testing.assert_allclose(saliency.sum(axis=(1, 2)), 1.0, rtol=1e-4)
    # The slope along all points of the inclusions: the contrast.
    more, less = inputs.copy(), inputs.copy()
    more[0] *= 1.01
    less[0] /= 1.01
    logs = [np.log(surrogate.predict(x)[0][:2].sum(axis=0)) for x in (more, less)]
    slopes = (logs[0] - logs[1]) / (2 * np.log(1.01))
    inside = render(inputs) > 0.2 * 1.0001
    np.testing.assert_allclose((saliency * inside).sum(axis=(1, 2)), slopes, rtol=0.02)


def test_energies_are_upper_bounds_and_errors_lie_between_theirs():
    surrogate = make("fno")
    surrogate.train(make_samples(30))
    unseen = make_samples(20, first=600)
    least, most = surrogate.error_bounds(unseen.inputs)
    told, score = surrogate.predict(unseen.inputs)
    part = float(surrogate.arrays["part"][0])
    energy = told[:2].sum(axis=0) * (1 + part * score)  # what was taken off is part of the score
    error = energy - unseen.outputs[:2].sum(axis=0)
    assert (error >= least * (1 - 1e-6)).all() and (error <= most * (1 + 1e-6)).all()
    assert 0.0 < part < 1.5


@pytest.mark.parametrize("kind", IMAGE_KINDS)
def test_options_of_the_loss_change_what_is_learnt(kind):
    samples = make_samples(30)
    uneven = Samples(
        *(getattr(samples, n) for n in ("step", "iteration", "ids", "inputs", "outputs")),
        np.linspace(0.1, 2.0, 30),
    )
    plain, bound, weighted = (make(kind, epochs=1, **o) for o in ({}, {"bounds": 1e3}, {"weighted": True}))
    for one in (plain, bound, weighted):
        one.train(uneven)
    # The energy of a field is never below the lower bound, and seldom above the upper one.
    for other in (bound, weighted)[kind == "fno" :]:
        assert not np.array_equal(plain.state()["weights"], other.state()["weights"])


def test_what_cannot_be_learnt_is_refused_in_one_line():
    with pytest.raises(SurrogateError, match="one conductivity in 2D, got heat"):
        make_image_surrogate("cnn", INPUTS, (Field("heat"),), MPI.COMM_SELF, 1, render=render)
    blind = make_image_surrogate("cnn", INPUTS, OUTPUTS, MPI.COMM_SELF, 1, render=lambda inputs: None)
    with pytest.raises(SurrogateError, match="scalar phases in 2D"):
        blind.train(make_samples(12))
