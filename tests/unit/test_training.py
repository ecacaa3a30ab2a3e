"""Levenberg-Marquardt in NumPy: its Jacobian against torch, its step against least squares."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import hpcmsm
from hpcmsm.surrogate import training
from hpcmsm.surrogate.equations import (
    SAMPLES_AT_ONCE,
    Linearised,
    ManySamples,
    ManyWeights,
    augmented,
    forward,
)
from hpcmsm.surrogate.lbfgs import forward as torch_forward
from hpcmsm.surrogate.network import Network

NETWORK = Network((2, 5, 4, 3))


def problem(nsample, seed=0):
    """Weights and data (x, y)."""
    random = np.random.default_rng(seed)
    return NETWORK.start(seed, 1, 0), (random.normal(size=(nsample, 2)), random.normal(size=(nsample, 3)))


def torch_jacobian(flat, x):
    """Outputs (n, noutput) and their derivatives by the weights (n, noutput, nweight)."""
    inputs = torch.from_numpy(x)
    outputs = torch_forward(NETWORK, torch.from_numpy(flat), inputs).numpy()
    jacobian = torch.autograd.functional.jacobian(
        lambda weights: torch_forward(NETWORK, weights, inputs), torch.from_numpy(flat)
    )
    return outputs, jacobian.numpy()


def test_outputs_and_products_of_the_jacobian_are_those_of_torch():
    flat, (x, y) = problem(7)
    outputs, jacobian = torch_jacobian(flat, x)
    jacobian = jacobian.transpose(1, 0, 2)[..., augmented(NETWORK)]  # (noutput, n, nweight)
    linear = Linearised(NETWORK, flat, x)
    np.testing.assert_allclose(linear.outputs.T, outputs, rtol=1e-13, atol=1e-14)
    np.testing.assert_allclose(forward(NETWORK, flat, x), outputs, rtol=1e-13, atol=1e-14)
    whole = jacobian.reshape(outputs.size, -1)
    close = dict(rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(np.tril(linear.normal()), np.tril(whole.T @ whole), **close)
    np.testing.assert_allclose(linear.gram(), whole @ whole.T, **close)
    np.testing.assert_allclose(linear.transposed(y.T), y.T.ravel() @ whole, **close)


def damped(equations, damping):
    """(J'J + damping I)^-1 J' r for the residuals r of the equations."""
    return training.solve(NETWORK, equations, training.factorised(equations, damping), equations.residuals)


@pytest.mark.parametrize("equations", [ManyWeights, ManySamples])
def test_a_sample_with_a_factor_counts_as_often_as_its_square(equations):
    flat, (x, y) = problem(20)
    factor = np.array([2.0, *np.ones(18), 0.0])
    weighted = damped(equations(NETWORK, flat, (x, y, factor)), 1e-2)
    often = np.array([0, 0, 0, 0, *range(1, 19)])
    expected = damped(equations(NETWORK, flat, (x[often], y[often])), 1e-2)
    np.testing.assert_allclose(weighted, expected, rtol=1e-8, atol=1e-11)
    squares = training.sum_of_squares(NETWORK, flat, (x, y, factor))
    assert squares == pytest.approx(training.sum_of_squares(NETWORK, flat, (x[often], y[often])))


@pytest.mark.parametrize("nsample", [5, 40, SAMPLES_AT_ONCE + 3])
@pytest.mark.parametrize("equations", [ManyWeights, ManySamples])
def test_step_is_that_of_damped_least_squares(nsample, equations):
    """min |J d - r|^2 / N + damping |d|^2, by the singular values of numpy."""
    flat, (x, y) = problem(nsample)
    damping = 1e-2
    step = damped(equations(NETWORK, flat, (x, y)), damping * y.size)
    outputs, jacobian = torch_jacobian(flat, x)
    n = y.size
    jacobian = jacobian.reshape(n, -1)
    matrix = np.concatenate([jacobian / np.sqrt(n), np.sqrt(damping) * np.eye(NETWORK.nweight)])
    right = np.concatenate([(outputs - y).ravel() / np.sqrt(n), np.zeros(NETWORK.nweight)])
    expected = np.linalg.lstsq(matrix, right, rcond=None)[0]
    np.testing.assert_allclose(step, expected, rtol=1e-8, atol=1e-11)


def test_a_step_is_bent_by_the_second_derivative_along_it():
    """Half the acceleration of Transtrum and Sethna, with torch's own derivatives."""
    random = np.random.default_rng(1)
    flat, (x, _) = problem(40)
    y = forward(NETWORK, flat, x) + 1e-3 * random.normal(size=(40, 3))
    damping = 1e-2 * y.size
    step = training.damped_step(NETWORK, flat, (x, y), ManySamples(NETWORK, flat, (x, y)), damping)
    outputs, jacobian = torch_jacobian(flat, x)
    jacobian = jacobian.reshape(y.size, -1)
    normal = jacobian.T @ jacobian + damping * np.eye(NETWORK.nweight)
    straight = -np.linalg.solve(normal, jacobian.T @ (outputs - y).ravel())
    inputs, way = torch.from_numpy(x), torch.from_numpy(straight)

    def along(t):
        return torch_forward(NETWORK, torch.from_numpy(flat) + t * way, inputs).ravel()

    zero = torch.zeros((), dtype=torch.float64)
    slope = lambda t: torch.autograd.functional.jvp(along, t, torch.ones_like(t), create_graph=True)[1]  # noqa: E731
    second = torch.autograd.functional.jvp(slope, zero, torch.ones_like(zero))[1].numpy()
    bend = -0.5 * np.linalg.solve(normal, jacobian.T @ second)
    assert 0.0 < np.linalg.norm(bend) < 0.5 * training.LARGEST_BEND * np.linalg.norm(straight)
    np.testing.assert_allclose(step - straight, bend, rtol=1e-2, atol=1e-3 * np.abs(bend).max())


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
