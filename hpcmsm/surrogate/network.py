"""Shapes of a small network and where its weights stand: in one flat vector, and as the kernel reads them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hpcmsm.parallel import random_uniform

# Neurons that the kernel treats together.
NEURONS = 4


def padded(width: int) -> int:
    """Width with neurons of weight zero added, up to whole blocks of the kernel."""
    return -(-width // NEURONS) * NEURONS


@dataclass(frozen=True)
class Network:
    """Layers of a network x -> W_L tanh(... tanh(W_1 x + b_1) ...) + b_L.

    The flat vector of its weights holds W_1 (width 1, width 0), b_1, W_2, b_2, ... row by row.

    Args:
        widths: of inputs, hidden layers and outputs.
    """

    widths: tuple[int, ...]

    @property
    def layers(self) -> list[tuple[int, int]]:
        """(width below, width) of every layer of weights."""
        return list(zip(self.widths[:-1], self.widths[1:], strict=True))

    @property
    def nweight(self) -> int:
        """Length of the flat vector."""
        return sum((below + 1) * width for below, width in self.layers)

    @property
    def npacked(self) -> int:
        """Length of the kernel's form."""
        return sum((below + 1) * padded(width) for below, width in self.layers)

    def split(self, flat) -> list[tuple]:
        """Views (W, b) of every layer, of a numpy array or a torch tensor."""
        views, first = [], 0
        for below, width in self.layers:
            middle, last = first + width * below, first + width * (below + 1)
            views.append((flat[first:middle].reshape(width, below), flat[middle:last]))
            first = last
        return views

    def narrowed(self, outputs: np.ndarray) -> tuple[Network, np.ndarray]:
        """The network of some outputs (noutput,) bool, and the places of its weights in the flat vector."""
        *hidden, (weights, biases) = self.split(np.arange(self.nweight))
        parts = [part.ravel() for layer in hidden for part in layer]
        places = np.concatenate([*parts, weights[outputs].ravel(), biases[outputs]])
        return Network((*self.widths[:-1], int(outputs.sum()))), places

    def start(self, seed: int, version: int, member: int) -> np.ndarray:
        """First weights, uniform in +- 1/sqrt(width below), of the counter-based generator."""
        uniform = random_uniform("weights", seed, version, member, np.arange(self.nweight))
        flat = 2.0 * uniform - 1.0
        for weights, biases in self.split(flat):
            weights /= np.sqrt(weights.shape[1])
            biases /= np.sqrt(weights.shape[1])
        return flat

    def pack(self, flat: np.ndarray) -> np.ndarray:
        """The kernel's form: for each layer and block, [1 + width below][NEURONS], biases first."""
        parts = []
        for weights, biases in self.split(flat):
            width, below = weights.shape
            full = np.zeros((padded(width), below + 1))
            full[:width, 0], full[:width, 1:] = biases, weights
            parts.append(full.reshape(-1, NEURONS, below + 1).transpose(0, 2, 1).ravel())
        return np.concatenate(parts)

    def rescale(self, flat, old_input, new_input, old_output, new_output) -> np.ndarray:
        """Weights of the same function after its inputs and outputs were given another mean and scale.

        Args:
            old_input, new_input: (mean, scale), each (ninput,).
            old_output, new_output: (mean, scale), each (noutput,).
        """
        changed = np.array(flat)
        weights, biases = self.split(changed)[0]
        biases += weights @ ((new_input[0] - old_input[0]) / old_input[1])
        weights *= new_input[1] / old_input[1]
        weights, biases = self.split(changed)[-1]
        factor = old_output[1] / new_output[1]
        biases[:] = biases * factor + (old_output[0] - new_output[0]) / new_output[1]
        weights *= factor[:, None]
        return changed
