"""L-BFGS with torch: training of networks whose normal equations would cost more than they gain."""

from __future__ import annotations

from contextlib import contextmanager

import numpy as np
import torch

from hpcmsm.surrogate.network import Network
from hpcmsm.surrogate.training import Best, sum_of_squares

STEPS_OF_A_ROUND = 20  # between two looks at the held-out samples


@contextmanager
def one_thread():
    """More threads would add in another order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def forward(network: Network, flat: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Outputs (n, noutput) for inputs x (n, ninput)."""
    *hidden, last = network.split(flat)
    for weights, biases in hidden:
        x = torch.tanh(torch.addmm(biases, x, weights.T))
    return torch.addmm(last[1], x, last[0].T)


def lbfgs(network: Network, flat: np.ndarray, damping: float, data, best: Best) -> float:
    """Rounds of L-BFGS with a strong Wolfe line search until `best` has seen enough; the damping as it was.

    Args:
        flat: weights to begin with, (nweight,).
        data: (x, y) or (x, y, factor), see `training.fit`.
    """
    x, y, *factor = (torch.from_numpy(np.ascontiguousarray(array)) for array in data)
    scale = factor[0][:, None] if factor else 1.0
    weights = torch.from_numpy(np.array(flat)).requires_grad_()
    optimiser = torch.optim.LBFGS(
        [weights],
        max_iter=STEPS_OF_A_ROUND,
        history_size=30,
        line_search_fn="strong_wolfe",
        tolerance_grad=1e-14,
        tolerance_change=1e-16,
    )

    def loss():
        optimiser.zero_grad()
        value = ((scale * (forward(network, weights, x) - y)) ** 2).mean()
        value.backward()
        return value

    with one_thread():
        done = best.look(flat, sum_of_squares(network, flat, data), 0)
        while not done:
            optimiser.step(loss)
            flat = weights.detach().numpy().copy()
            done = best.look(flat, sum_of_squares(network, flat, data), STEPS_OF_A_ROUND)
    return damping
