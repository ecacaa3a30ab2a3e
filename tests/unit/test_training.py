"""Levenberg-Marquardt in NumPy: its Jacobian against torch, its step against least squares."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import hpcmsm
from hpcmsm.surrogate import training
from hpcmsm.surrogate.lbfgs import forward as torch_forward
from hpcmsm.surrogate.network import Network

NETWORK = Network((2, 5, 4, 3))


def problem(nsample, seed=0):
    """Weights and data (x, y)."""
    random = np.random.default_rng(seed)
    return NETWORK.start(seed, 1, 0), (random.normal(size=(nsample, 2)), random.normal(size=(nsample, 3)))


def test_outputs_and_jacobian_are_those_of_torch():
    flat, (x, _) = problem(7)
    outputs, jacobian = training._jacobian(NETWORK, flat, x)
    inputs = torch.from_numpy(x)
    expected = torch_forward(NETWORK, torch.from_numpy(flat), inputs).numpy()
    np.testing.assert_allclose(outputs, expected, rtol=1e-13, atol=1e-14)
    np.testing.assert_allclose(training.forward(NETWORK, flat, x), expected, rtol=1e-13, atol=1e-14)
    by_torch = torch.autograd.functional.jacobian(
        lambda weights: torch_forward(NETWORK, weights, inputs).reshape(-1), torch.from_numpy(flat)
    )
    np.testing.assert_allclose(jacobian, by_torch.numpy(), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("nsample", [5, 40, training.SAMPLES_AT_ONCE + 3])
@pytest.mark.parametrize("equations", [training._many_weights, training._many_samples])
def test_step_is_that_of_damped_least_squares(nsample, equations):
    """min |J d - r|^2 / N + damping |d|^2, by the singular values of numpy."""
    flat, (x, y) = problem(nsample)
    damping = 1e-2
    step = training._solve(*equations(NETWORK, flat, (x, y)), damping)
    outputs, jacobian = training._jacobian(NETWORK, flat, x)
    n = y.size
    matrix = np.concatenate([jacobian / np.sqrt(n), np.sqrt(damping) * np.eye(NETWORK.nweight)])
    right = np.concatenate([(outputs - y).ravel() / np.sqrt(n), np.zeros(NETWORK.nweight)])
    expected = np.linalg.lstsq(matrix, right, rcond=None)[0]
    np.testing.assert_allclose(step, expected, rtol=1e-8, atol=1e-11)


def test_training_a_small_network_loads_no_torch():
    """It would hold up the first step of every run by about a second."""
    program = (
        "import sys, numpy as np\n"
        "from hpcmsm.surrogate.network import Network\n"
        "from hpcmsm.surrogate.training import Schedule, fit\n"
        "network, x = Network((1, 4, 1)), np.linspace(-1, 1, 30)[:, None]\n"
        "trained = fit(network, network.start(1, 0, 0), 1e-3, (x, x**2), (x[:3], x[:3]**2), Schedule())\n"
        "sys.exit(10 if 'torch' in sys.modules else 20 if trained.loss > 1e-4 else 0)\n"
    )
    folder = Path(hpcmsm.__file__).resolve().parent.parent
    assert subprocess.run([sys.executable, "-c", program], cwd=folder, timeout=60).returncode == 0
