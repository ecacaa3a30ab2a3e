"""The fused inference kernel against the same networks in torch, and its independence of the batch."""

import numpy as np
import pytest
import torch

from hpcmsm.fields import Field
from hpcmsm.kernels import Kernel, compile_for_gpu
from hpcmsm.surrogate import transform
from hpcmsm.surrogate.ensemble import Ensemble
from hpcmsm.surrogate.network import Network

INPUTS = (Field("temperature", unit="K"), Field("fraction"), Field("load", size=2))
TENSOR_2D = Field("conductivity", 3, "W/m/K", spd=True)
TENSOR_3D = Field("permeability", 6, "m2", spd=True)
NUMBER = Field("heat_capacity", unit="J/m3/K")
VECTOR = Field("flux", size=3, unit="W/m2")
OUTPUTS = [(TENSOR_2D,), (TENSOR_3D,), (NUMBER,), (VECTOR, TENSOR_2D, NUMBER, TENSOR_3D)]
SHAPES = [(5,), (16, 16), (7, 33, 12)]


def filled_ensemble(comm_self, outputs, hidden, members=3):
    """An ensemble with random weights and scales, as if it had been trained."""
    ensemble = Ensemble(INPUTS, outputs, comm_self, members=members, hidden=hidden)
    random = np.random.default_rng(7)
    state = ensemble.state()
    state["weights"] = random.normal(size=state["weights"].shape) * 0.5
    for name in ("input_scaling", "output_scaling"):
        state[name] = random.uniform(0.5, 1.5, state[name].shape)
    state["field_scales"] = random.uniform(0.5, 1.5, state["field_scales"].shape)
    state["version"] = np.array([1])
    ensemble.load_state(state)
    return ensemble, state


@pytest.fixture
def comm_self():
    from mpi4py import MPI

    return MPI.COMM_SELF


def random_inputs(n, seed=0):
    return np.random.default_rng(seed).normal(size=(4, n)) * 2.0


def torch_members(network: Network, state, inputs):
    """What the networks' last layers give, (nmember, noutput, n), by torch.nn in float64."""
    (mean, scale), (middle, width) = state["input_scaling"], state["output_scaling"]
    x = torch.from_numpy((inputs.T - mean) / scale)
    answers = []
    for flat in state["weights"]:
        modules = []
        for weights, biases in network.split(flat):
            linear = torch.nn.Linear(weights.shape[1], weights.shape[0], dtype=torch.float64)
            linear.weight.data, linear.bias.data = torch.from_numpy(weights), torch.from_numpy(biases)
            modules += [linear, torch.nn.Tanh()]
        answers.append(torch.nn.Sequential(*modules[:-1])(x).detach().numpy() * width + middle)
    return np.array(answers).transpose(0, 2, 1)


def tensors_of(field, learnt):
    """K = L D L' by matrix products, (n, d, d), and as rows xx yy .. of the field."""
    dimension = 2 if field.size == 3 else 3
    pairs = [(1, 0)] if dimension == 2 else [(2, 1), (2, 0), (1, 0)]
    lower = np.tile(np.eye(dimension), (learnt.shape[1], 1, 1))
    for row, pair in zip(learnt[dimension:], pairs, strict=True):
        lower[:, pair[0], pair[1]] = row
    k = lower @ (np.exp(learnt[:dimension]).T[:, :, None] * lower.transpose(0, 2, 1))
    places = [(i, i) for i in range(dimension)] + pairs
    return k, np.array([k[:, i, j] for i, j in places])


def expected(ensemble, state, inputs):
    """Mean and score from torch's networks and plain matrix algebra."""
    learnt = torch_members(ensemble.network, state, inputs)
    members, parts, first = [], [], 0
    for field in ensemble.outputs:
        rows = learnt[:, first : first + field.size]
        first += field.size
        if field.spd:
            both = [tensors_of(field, row) for row in rows]
            tensors, rows = np.array([k for k, _ in both]), np.array([row for _, row in both])
            mean = tensors.mean(axis=0)
            norm = np.linalg.norm(mean, axis=(1, 2))
            parts.append(np.linalg.norm(tensors - mean, axis=(2, 3)) / norm)
        else:
            scale = state["field_scales"][len(parts)]
            parts.append(np.linalg.norm(rows - rows.mean(axis=0), axis=1) / scale)
        members.append(rows)
    members = np.concatenate(members, axis=1)
    return members, members.mean(axis=0), np.sqrt((np.max(parts, axis=0) ** 2).mean(axis=0))


@pytest.mark.parametrize("outputs", OUTPUTS)
@pytest.mark.parametrize("hidden", SHAPES)
def test_agrees_with_torch(comm_self, outputs, hidden):
    ensemble, state = filled_ensemble(comm_self, outputs, hidden)
    inputs = random_inputs(101)
    members, mean, score = expected(ensemble, state, inputs)
    got_mean, got_score = ensemble.predict(inputs)
    np.testing.assert_allclose(ensemble.predict_members(inputs), members, rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(got_mean, mean, rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(got_score, score, rtol=1e-9)


@pytest.mark.parametrize("hidden", SHAPES)
def test_a_cell_alone_permuted_or_in_any_batch_gives_the_same_bits(comm_self, hidden):
    ensemble, _ = filled_ensemble(comm_self, OUTPUTS[3], hidden, members=5)
    inputs = random_inputs(1003)
    mean, score = ensemble.predict(inputs)
    shuffled = np.random.default_rng(1).permutation(1003)
    orders = [shuffled, np.arange(1003)[::-1], *(np.arange(n) for n in (1, 2, 7, 8, 9, 500))]
    orders += [np.array([c]) for c in range(0, 1003, 37)]
    for order in orders:
        part_mean, part_score = ensemble.predict(inputs[:, order])
        assert (part_mean == mean[:, order]).all()
        assert (part_score == score[order]).all()


def test_neighbours_that_are_not_finite_change_nothing(comm_self):
    ensemble, _ = filled_ensemble(comm_self, OUTPUTS[3], (16, 16))
    inputs = random_inputs(40)
    mean, score = ensemble.predict(inputs)
    bad = inputs.copy()
    bad[0, ::3], bad[1, 1::3] = np.nan, np.inf
    bad_mean, bad_score = ensemble.predict(bad)
    assert (bad_mean[:, 2::3] == mean[:, 2::3]).all()
    assert (bad_score[2::3] == score[2::3]).all()
    assert np.isnan(bad_score[::3]).all()


def test_single_precision_is_the_same_to_its_round_off(comm_self):
    ensemble, _ = filled_ensemble(comm_self, OUTPUTS[3], (16, 16))
    inputs = random_inputs(50)
    mean, score = ensemble.predict(inputs)
    arguments = {
        name: value.astype(np.float32) if getattr(value, "dtype", None) == np.float64 else value
        for name, value in {**ensemble._arguments, "inputs": inputs, "mean": mean, "score": score}.items()
    }
    Kernel.load("ensemble", "ensemble_forward", dtype="float32")(**arguments, ncells=50, members=None)
    scale = np.abs(mean).max(axis=1)[:, None]
    np.testing.assert_allclose(arguments["mean"] / scale, mean / scale, atol=2e-5)
    np.testing.assert_allclose(arguments["score"], score, rtol=1e-3)


def test_hyperbolic_tangent_of_the_kernel(comm_self):
    """One neuron, so that the answer is its tanh: over the whole range, and at its ends."""
    ensemble = Ensemble((Field("x"),), (Field("y"),), comm_self, members=2, hidden=(1,))
    state = ensemble.state()
    state["weights"] = np.tile([1.0, 0.0, 1.0, 0.0], (2, 1))  # tanh(1 x + 0) 1 + 0
    state["version"] = np.array([1])
    ensemble.load_state(state)
    ends = [0.0, 1e-300, 1e-9, 0.17328, 0.34657, 19.9, 20.1, 354.0, 800.0, 1e15, 1e20, 1e60]
    x = np.concatenate([np.linspace(-22, 22, 20001), ends, np.negative(ends)])
    got = ensemble.predict(x[None])[0][0]
    assert np.max(np.abs(got - np.tanh(x.astype(np.longdouble)))) < 4e-16
    beyond = ensemble.predict(np.array([[np.inf, -np.inf, np.nan, 1e300]]))[0][0]
    assert np.all(np.isnan(beyond) | (np.abs(beyond) == 1.0))


def test_compiles_for_a_gpu_in_both_precisions():
    assert compile_for_gpu("ensemble")[:4] == b"\x7fELF"
    assert compile_for_gpu("ensemble", dtype="float32")[:4] == b"\x7fELF"


@pytest.mark.parametrize("field", [TENSOR_2D, TENSOR_3D])
def test_cholesky_factors_there_and_back(field):
    dimension = 2 if field.size == 3 else 3
    random = np.random.default_rng(3)
    factors = random.normal(size=(200, dimension, dimension)) * np.exp(random.normal(size=(200, 1, 1)) * 4)
    k = factors @ factors.transpose(0, 2, 1)
    pairs = [(0, 1)] if dimension == 2 else [(1, 2), (0, 2), (0, 1)]
    rows = np.array([k[:, i, j] for i, j in [(i, i) for i in range(dimension)] + pairs])
    learnt = transform.encode((field,), rows)
    again, by_products = tensors_of(field, learnt)
    scale = np.linalg.norm(k, axis=(1, 2))
    assert np.max(np.linalg.norm(again - k, axis=(1, 2)) / scale) < 1e-12
    np.testing.assert_allclose(transform.decode((field,), learnt) / scale, by_products / scale, atol=1e-13)


def test_whatever_the_network_says_the_tensor_is_positive_definite(comm_self):
    ensemble, _ = filled_ensemble(comm_self, (TENSOR_3D,), (16, 16))
    mean, _ = ensemble.predict(random_inputs(2000) * 50)
    xx, yy, zz, yz, xz, xy = mean
    k = np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]]).transpose(2, 0, 1)
    assert (np.linalg.eigvalsh(k) > 0).all()
