"""Training of one network with torch: Levenberg-Marquardt, for the large ones L-BFGS.

Networks that answer for a closure are small, their data exact and few. There the squared error is
minimised far better by Gauss-Newton steps than by first-order methods: on 100 samples of a conductivity
of two inputs, 30 steps leave an error that Adam does not reach in minutes (benchmarks/ensemble.py).

Everything runs on one thread and in one order, so that it depends on nothing but its arguments.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch

from hpcmsm.errors import SurrogateError
from hpcmsm.surrogate.network import Network

# Above this many weights the normal equations cost more than they gain.
LARGEST_FOR_GAUSS_NEWTON = 2000
SAMPLES_AT_ONCE = 512  # bounds the memory of the Jacobian
SMALLEST_DAMPING, LARGEST_DAMPING = 1e-12, 1e6
START_DAMPING = 1e-3
STEPS_OF_A_ROUND = 20  # of L-BFGS between two looks at the held-out samples


@dataclass(frozen=True)
class Schedule:
    """When to stop.

    Args:
        epochs: largest number of steps, each over all samples.
        goal: root mean square error, as a part of the outputs' scale, below which all is well.
        patience: steps without a gain of a tenth after which training ends.
        method: "gauss_newton", "lbfgs", or "auto" to choose by the number of weights.
    """

    epochs: int = 60
    goal: float = 1e-4
    patience: int = 6
    method: str = "auto"


@dataclass
class Trained:
    """What comes out: the best weights met, their mean squared error and the steps taken."""

    flat: np.ndarray
    damping: float
    loss: float
    epochs: int


class Best:
    """Keeps the weights of the smallest error over all samples, and says when to stop.

    The held-out samples count like the others: they show when the rest is learnt by heart, and where
    they are very few they do not decide alone.
    """

    def __init__(self, network: Network, data, held_out, schedule: Schedule):
        self.network, self.data, self.held_out, self.schedule = network, data, held_out, schedule
        self.loss, self.flat, self.mark, self.since, self.epochs = np.inf, None, np.inf, 0, 0

    def look(self, flat, squares: float, nsteps: int) -> bool:
        """Note weights and their sum of squares on the training samples; True if this is enough."""
        x, y = self.held_out
        ncount = y.numel() + self.data[1].numel()
        loss = (squares + float(((forward(self.network, flat, x) - y) ** 2).sum())) / ncount
        self.epochs += nsteps
        if loss < self.loss:
            self.loss, self.flat = loss, flat.clone()
        self.since += nsteps
        if self.loss < 0.8 * self.mark:  # a tenth of the root mean square
            self.mark, self.since = self.loss, 0
        schedule = self.schedule
        enough = self.loss < schedule.goal**2 or self.since >= schedule.patience
        return enough or self.epochs >= schedule.epochs


def fit(network: Network, flat, damping: float, data, held_out, schedule: Schedule) -> Trained:
    """Train a network on one thread.

    Args:
        flat: weights to begin with, (nweight,).
        damping: of the first Gauss-Newton step.
        data, held_out: (x, y) with x (n, ninput) and y (n, noutput), centred and scaled, C order.
    Raises:
        SurrogateError: the error is not a finite number.
    """
    method = schedule.method
    if method == "auto":
        method = "gauss_newton" if network.nweight <= LARGEST_FOR_GAUSS_NEWTON else "lbfgs"
    train = {"gauss_newton": gauss_newton, "lbfgs": lbfgs}[method]
    with one_thread(), torch.no_grad():
        data, held_out = _tensors(data), _tensors(held_out)
        best = Best(network, data, held_out, schedule)
        damping = train(network, torch.from_numpy(np.array(flat)), damping, data, best)
    if best.flat is None:
        raise SurrogateError(
            "the training error must be finite, got nan or infinity; "
            "check that the samples' inputs and outputs are of ordinary size"
        )
    return Trained(best.flat.numpy(), damping, best.loss, best.epochs)


def present_losses(network: Network, weights: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Root mean square errors (nmember,) of networks as they are, on all samples."""
    with one_thread(), torch.no_grad():
        x, y = _tensors((x, y))
        outputs = [forward(network, torch.from_numpy(flat), x) for flat in weights]
        return np.array([float(((output - y) ** 2).mean().sqrt()) for output in outputs])


@contextmanager
def one_thread():
    """More threads would add in another order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _tensors(pair) -> tuple[torch.Tensor, ...]:
    return tuple(torch.from_numpy(np.ascontiguousarray(array)) for array in pair)


def forward(network: Network, flat: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Outputs (n, noutput) for inputs x (n, ninput)."""
    *hidden, last = network.split(flat)
    for weights, biases in hidden:
        x = torch.tanh(torch.addmm(biases, x, weights.T))
    return torch.addmm(last[1], x, last[0].T)


def gauss_newton(network: Network, flat, damping: float, data, best: Best) -> float:
    """Levenberg-Marquardt steps until `best` has seen enough; returns the last damping.

    Step d with (J'J/N + damping I) d = -J'r/N; the damping falls after a step that lowered the error
    and rises until one does. Source: Marquardt 1963, doi 10.1137/0111030.
    """
    equations_of = _many_weights if data[1].numel() < network.nweight else _many_samples
    squares = _squares(network, flat, data)
    done = best.look(flat, squares, 0)
    while not done:
        equations = equations_of(network, flat, data)
        lower = False
        while not lower and damping <= LARGEST_DAMPING:
            trial = flat - _solve(*equations, damping)
            trial_squares = _squares(network, trial, data)
            lower = trial_squares < squares
            damping = max(damping / 4, SMALLEST_DAMPING) if lower else damping * 4
        if not lower:
            return START_DAMPING  # no direction is left that helps
        flat, squares = trial, trial_squares
        done = best.look(flat, squares, 1)
    return damping


def _squares(network: Network, flat, data) -> float:
    return float(((forward(network, flat, data[0]) - data[1]) ** 2).sum())


def _many_samples(network: Network, flat, data):
    """J'J/N, J'r/N and no map: the equations in the space of the weights."""
    normal = flat.new_zeros(network.nweight, network.nweight)
    gradient = flat.new_zeros(network.nweight)
    for x, y in zip(*(tensor.split(SAMPLES_AT_ONCE) for tensor in data), strict=True):
        outputs, jacobian = _jacobian(network, flat, x)
        normal.addmm_(jacobian.T, jacobian)
        gradient.addmv_(jacobian.T, (outputs - y).reshape(-1))
    nresidual = data[1].numel()
    return normal / nresidual, gradient / nresidual, None


def _many_weights(network: Network, flat, data):
    """JJ'/N, r/N and J': the same step from equations in the smaller space of the residuals."""
    outputs, jacobian = _jacobian(network, flat, data[0])
    nresidual = data[1].numel()
    return jacobian @ jacobian.T / nresidual, (outputs - data[1]).reshape(-1) / nresidual, jacobian.T


def _solve(normal, right, back, damping: float):
    """The step, or NaN, which asks for more damping, where round-off ate the smallest eigenvalues."""
    damped = normal.clone()
    damped.diagonal().add_(damping)
    factor, trouble = torch.linalg.cholesky_ex(damped)
    step = torch.cholesky_solve(right[:, None], factor)[:, 0]
    step = step if back is None else back @ step
    return torch.full_like(step, torch.nan) if int(trouble) else step


def _jacobian(network: Network, flat, x) -> tuple[torch.Tensor, torch.Tensor]:
    """Outputs (n, noutput), and their derivatives by the weights (n * noutput, nweight)."""
    layers = network.split(flat)
    below = [x]
    for weights, biases in layers[:-1]:
        below.append(torch.tanh(torch.addmm(biases, below[-1], weights.T)))
    outputs = torch.addmm(layers[-1][1], below[-1], layers[-1][0].T)

    nsample, noutput = outputs.shape
    jacobian = flat.new_empty(nsample, noutput, network.nweight)
    # slope: derivatives of the outputs by the sums of the present layer, (nsample, noutput, width)
    slope = torch.eye(noutput, dtype=flat.dtype).expand(nsample, -1, -1)
    end = network.nweight
    for number in reversed(range(len(layers))):
        values, (width, nbelow) = below[number], layers[number][0].shape
        begin = end - width * (nbelow + 1)
        part = jacobian[:, :, begin : end - width].unflatten(2, (width, nbelow))
        torch.mul(slope[..., None], values[:, None, None, :], out=part)
        jacobian[:, :, end - width : end] = slope
        slope = (slope @ layers[number][0]) * (1 - values * values)[:, None, :]
        end = begin
    return outputs, jacobian.reshape(nsample * noutput, -1)


def lbfgs(network: Network, flat, damping: float, data, best: Best) -> float:
    """Rounds of L-BFGS with a strong Wolfe line search until `best` has seen enough."""
    flat = flat.requires_grad_()
    optimiser = torch.optim.LBFGS(
        [flat],
        max_iter=STEPS_OF_A_ROUND,
        history_size=30,
        line_search_fn="strong_wolfe",
        tolerance_grad=1e-14,
        tolerance_change=1e-16,
    )

    def loss():
        optimiser.zero_grad()
        with torch.enable_grad():
            value = ((forward(network, flat, data[0]) - data[1]) ** 2).mean()
            value.backward()
        return value

    done = best.look(flat.detach(), _squares(network, flat, data), 0)
    while not done:
        optimiser.step(loss)
        done = best.look(flat.detach(), _squares(network, flat, data), STEPS_OF_A_ROUND)
    return damping
