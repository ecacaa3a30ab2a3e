"""The normal equations of a network's squared error, without its Jacobian.

The derivative of an output by a weight is the product of a slope and of a value: of the output by the sum
of the neuron that the weight enters, and of what it is multiplied with there. So a block of J'J that
belongs to two layers is a sum over samples of Kronecker products, slopes'slopes times values'values, and one
matrix product of these small products gives it: several times less work than J'J from J.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from hpcmsm.surrogate.network import Network

SAMPLES_AT_ONCE = 512  # bounds the memory of the products


def forward(network: Network, flat: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Outputs (n, noutput) for inputs x (n, ninput)."""
    return _layers(network, flat, x)[1].T


def _layers(network: Network, flat, x) -> tuple[list[np.ndarray], np.ndarray]:
    """What every layer sees, (1 + nbelow, n), the last row ones for its biases; outputs (noutput, n)."""
    ones = np.ones((1, len(x)))
    values = [np.concatenate([x.T, ones])]
    *hidden, last = network.split(flat)
    for weights, biases in hidden:
        sums = weights @ values[-1][:-1] + biases[:, None]
        values.append(np.concatenate([np.tanh(sums, out=sums), ones]))
    return values, last[0] @ values[-1][:-1] + last[1][:, None]


class Linearised:
    """A network at its present weights on some samples: its outputs and their derivatives in factors.

    Args:
        flat: weights (nweight,).
        x: inputs (n, ninput).
        factor: what each sample's outputs are multiplied with, (n,); None: 1.

    Attributes:
        outputs: (noutput, n).
        values: what each layer sees, (1 + nbelow, n), the last row 1.
        slopes: of the outputs by the sums of each layer's neurons, (noutput, width, n); None for the last
            layer, where they are 1 for the neuron of the output and 0 for the others.
    """

    def __init__(self, network: Network, flat: np.ndarray, x: np.ndarray, factor: np.ndarray | None = None):
        self.network = network
        self.values, self.outputs = _layers(network, flat, x)
        layers, slopes = network.split(flat), [None]
        for values, (weights, _) in zip(self.values[:0:-1], layers[:0:-1], strict=True):
            inner = 1.0 - values[:-1] * values[:-1]
            if slopes[-1] is None:
                slopes.append(weights[:, :, None] * inner)
            else:
                slopes.append((weights.T @ slopes[-1]) * inner)
        self.slopes = slopes[::-1]
        if factor is not None:
            self.outputs = self.outputs * factor
            # The last layer's slopes are not stored; there the values carry the factor.
            self.values[-1] = self.values[-1] * factor
            self.slopes[:-1] = [slope * factor for slope in self.slopes[:-1]]

    def transposed(self, residuals: np.ndarray) -> np.ndarray:
        """J' r for residuals (noutput, n), in the order of `augmented`."""
        parts = []
        for slopes, values in zip(self.slopes, self.values, strict=True):
            pulled = residuals if slopes is None else (slopes * residuals[:, None, :]).sum(axis=0)
            parts.append((pulled @ values.T).ravel())
        return np.concatenate(parts)

    def normal(self) -> np.ndarray:
        """Lower half of J'J in the order of `augmented`, (nweight, nweight)."""
        ends = np.cumsum([0, *(width * (below + 1) for below, width in self.network.layers)])
        result = np.zeros((ends[-1], ends[-1]))
        for i in range(len(self.values)):
            for j in range(i + 1):
                rows, columns = slice(ends[i], ends[i + 1]), slice(ends[j], ends[j + 1])
                result[rows, columns] = self._diagonal(i) if i == j else self._block(i, j)
        return result

    def _diagonal(self, i: int) -> np.ndarray:
        """The block of a layer with itself: both factors are symmetric, half of each is enough."""
        values, slopes = self.values[i], self.slopes[i]
        first, second, place = _pairs(len(values))
        of_values = values[first] * values[second]
        if slopes is None:
            inner = of_values.sum(axis=1)[place]
            return np.kron(np.eye(len(self.outputs)), inner)
        left, right, _ = _pairs(slopes.shape[1])
        of_slopes = slopes[0, left] * slopes[0, right]
        for slope in slopes[1:]:
            of_slopes += slope[left] * slope[right]
        blocks = of_slopes @ of_values.T
        return blocks.ravel()[_expanded(slopes.shape[1], len(values))]

    def _block(self, i: int, j: int) -> np.ndarray:
        """The block of a layer with an earlier one."""
        above, below = self.slopes[i], self.slopes[j]
        if above is None:
            of_slopes = below
        else:
            of_slopes = sum(a[:, None, :] * b[None, :, :] for a, b in zip(above, below, strict=True))
        mine, theirs = of_slopes.shape[:2]
        of_values = self.values[i][:, None, :] * self.values[j][None, :, :]
        more, less, nsample = of_values.shape
        blocks = of_slopes.reshape(-1, nsample) @ of_values.reshape(-1, nsample).T
        return (
            blocks.reshape(mine, theirs, more, less).transpose(0, 2, 1, 3).reshape(mine * more, theirs * less)
        )

    def gram(self) -> np.ndarray:
        """JJ', (noutput * n, noutput * n): the same equations in the space of the residuals."""
        noutput, nsample = self.outputs.shape
        result = None
        for slopes, values in zip(self.slopes, self.values, strict=True):
            of_values = values.T @ values
            if slopes is None:
                part = np.zeros((noutput, nsample, noutput, nsample))
                for output in range(noutput):
                    part[output, :, output] = of_values
            else:
                flat = slopes.transpose(0, 2, 1).reshape(noutput * nsample, -1)
                part = (flat @ flat.T).reshape(noutput, nsample, noutput, nsample)
                part *= of_values[None, :, None, :]
            result = part if result is None else np.add(result, part, out=result)
        return result.reshape(noutput * nsample, noutput * nsample)


@lru_cache(maxsize=64)
def _pairs(count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs (first, second) of a lower triangle, and the place (count, count) of each entry among them."""
    first, second = np.tril_indices(count)
    place = np.empty((count, count), dtype=np.int64)
    place[first, second] = place[second, first] = np.arange(first.size)
    return first, second, place


@lru_cache(maxsize=64)
def _expanded(width: int, nvalue: int) -> np.ndarray:
    """Where the entries of a layer's block stand among the products of pairs, (width * nvalue,) * 2."""
    of_slopes, of_values = _pairs(width)[2], _pairs(nvalue)[2]
    npair = nvalue * (nvalue + 1) // 2
    places = of_slopes[:, None, :, None] * npair + of_values[None, :, None, :]
    return np.ascontiguousarray(places.reshape(width * nvalue, width * nvalue))


@lru_cache(maxsize=64)
def augmented(network: Network) -> np.ndarray:
    """Places in the flat vector of weights of each layer's (width, nbelow + 1) matrices with biases last."""
    parts = []
    for weights, biases in network.split(np.arange(network.nweight)):
        parts.append(np.concatenate([weights, biases[:, None]], axis=1).ravel())
    return np.concatenate(parts)


def times(y: np.ndarray, factor: np.ndarray | None = None) -> np.ndarray:
    """Rows of y (n, noutput), each multiplied with its factor, (n,), if there are any."""
    return y if factor is None else y * factor[:, None]


class ManySamples:
    """The equations of a step in the space of the weights, J'J.

    Args:
        data: (x, y) or (x, y, factor) with x (n, ninput), y (n, noutput) and factor (n,).

    Attributes:
        matrix: J'J, its lower half.
        residuals: (noutput, n).
    """

    def __init__(self, network: Network, flat: np.ndarray, data):
        self.network, self.flat, self.data = network, flat, data
        self.matrix, residuals = None, []
        for linear, _, y, *factor in self._parts():
            normal = linear.normal()
            self.matrix = normal if self.matrix is None else self.matrix + normal
            residuals.append(linear.outputs - times(y, *factor).T)
        self.residuals = np.concatenate(residuals, axis=1)

    def _parts(self):
        for first in range(0, len(self.data[0]), SAMPLES_AT_ONCE):
            x, y, *factor = (array[first : first + SAMPLES_AT_ONCE] for array in self.data)
            yield Linearised(self.network, self.flat, x, *factor), slice(first, first + len(x)), y, *factor

    def right(self, residuals: np.ndarray) -> np.ndarray:
        """Right-hand side for residuals (noutput, n): J' r."""
        return sum(linear.transposed(residuals[:, part]) for linear, part, *_ in self._parts())

    def step(self, solution: np.ndarray) -> np.ndarray:
        """What a solution of the equations is in the order of `augmented`."""
        return solution


class ManyWeights:
    """The same step from the smaller equations in the space of the residuals, JJ'."""

    def __init__(self, network: Network, flat: np.ndarray, data):
        self.linear = Linearised(network, flat, data[0], *data[2:])
        self.matrix = self.linear.gram()
        self.residuals = self.linear.outputs - times(*data[1:]).T

    def right(self, residuals: np.ndarray) -> np.ndarray:
        """Right-hand side for residuals (noutput, n): they themselves."""
        return residuals.ravel()

    def step(self, solution: np.ndarray) -> np.ndarray:
        """What a solution of the equations is in the order of `augmented`."""
        return self.linear.transposed(solution.reshape(self.residuals.shape))
