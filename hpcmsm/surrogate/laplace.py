"""`Laplace`: the ensemble, whose score also counts how little the samples say about its last layers."""

from __future__ import annotations

import numpy as np
from scipy.linalg import cholesky, solve_triangular

from hpcmsm.kernels import Kernel
from hpcmsm.parallel import together
from hpcmsm.surrogate import transform
from hpcmsm.surrogate.base import Lesson
from hpcmsm.surrogate.ensemble import Ensemble
from hpcmsm.surrogate.learner import spread
from hpcmsm.surrogate.network import Network, padded

# Precisions of the weights among which the evidence chooses, in scaled outputs.
PRECISIONS = np.logspace(-4, 4, 17)
SMALLEST_NOISE = 1e-12  # variance, of scaled outputs
CELLS_AT_ONCE = 4096  # bounds the memory of the features


class Laplace(Ensemble):
    """An ensemble with the variance that its last layers' weights still have after all samples.

    Given the hidden layers, outputs are linear in the last layer's weights, whose posterior is known:
    precision features'features / noise + prior. Noise is the mean squared error of the member; of the
    prior's precisions the one with the largest evidence is taken. The score is the hypotenuse of the
    members' spread and of the deviation that follows from the mean variance of the members.
    Source: Daxberger and others 2021, arXiv 2106.14806; MacKay 1992, doi 10.1162/neco.1992.4.3.415.
    """

    def __init__(self, inputs, outputs, comm, seed: int = 0, **options):
        super().__init__(inputs, outputs, comm, seed, **options)
        nfeature = self.network.widths[-2] + 1
        self.factors = np.zeros((self.members, nfeature, nfeature))
        self._square = Kernel.load("triangular", "triangular_square")

    def predict(self, inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean (noutput, n) and score (n,); before the first training NaN and infinity."""
        mean, score = super().predict(inputs)
        if self.version:
            for first in range(0, inputs.shape[1], CELLS_AT_ONCE):
                part = slice(first, first + CELLS_AT_ONCE)
                score[part] = np.hypot(score[part], self._deviation(inputs[:, part], mean[:, part]))
        return mean, score

    def _deviation(self, inputs: np.ndarray, mean: np.ndarray) -> np.ndarray:
        """What the last layers leave open, in the norm of `misfit`, (n,)."""
        total, square = np.zeros(inputs.shape[1]), np.empty(inputs.shape[1])
        for factor, values in zip(self.factors, self._features(inputs), strict=True):
            self._square(ncells=total.size, nrow=len(factor), lower=factor, values=values, square=square)
            total += square
        deviations = np.sqrt(total / self.members) * self.output_scaling[1][:, None]
        learnt = transform.encode(self.outputs, mean, checked=False)
        return transform.deviation(self.outputs, self.field_scales, learnt, deviations)

    def adopt(self, lesson: Lesson) -> dict[str, float]:
        """Collective. Adopt as an ensemble does, then find what its last layers leave open.

        Returns: see `Ensemble.adopt`.
        """
        figures, samples = super().adopt(lesson), lesson.samples
        z = (lesson.learnt.T - self.output_scaling[0]) / self.output_scaling[1]
        arrays = {}
        with together(self.comm):
            if self.comm.rank == 0:
                pairs = zip(self._features(samples.inputs), self.weights, strict=True)
                factors = [posterior_factor(f, self.network.split(flat)[-1], z) for f, flat in pairs]
                arrays = {"factors": np.array(factors)}
        self.factors = spread(self.comm, arrays)["factors"]
        return figures

    def _features(self, inputs: np.ndarray) -> np.ndarray:
        """What the last layer of every member sees, (nmember, nfeature, n); the last feature is 1.

        The ensemble's kernel evaluates the networks up to their last layer, as if that were linear.
        """
        inputs = np.ascontiguousarray(inputs, dtype=float)
        short, ncells = Network(self.network.widths[:-1]), inputs.shape[1]
        width = short.widths[-1]
        sums = np.empty((self.members, width, ncells))
        self._kernel(
            **self._arguments_up_to_last(short),
            ncells=ncells,
            inputs=inputs,
            mean=np.empty((width, ncells)),
            score=np.empty(ncells),
            members=sums,
        )
        return np.concatenate([np.tanh(sums), np.ones((self.members, 1, ncells))], axis=1)

    def _arguments_up_to_last(self, short: Network) -> dict[str, object]:
        """Arguments of the kernel for networks without their last layer."""
        width = short.widths[-1]
        return self._arguments | {
            "noutput": width,
            "nlayer": len(short.widths) - 1,
            "widest": max(padded(one) for one in short.widths[1:]),
            "nweight": short.npacked,
            "nfield": 1,
            "width": np.array(short.widths[1:], dtype=np.int32),
            "kind": np.array([transform.LINEAR], dtype=np.int32),
            "size": np.array([width], dtype=np.int32),
            "weights": np.array([short.pack(flat[: short.nweight]) for flat in self.weights]),
            "output_mean": np.zeros(width),
            "output_scale": np.ones(width),
            "field_scale": np.ones(1),
        }

    def state(self) -> dict[str, np.ndarray]:
        """That of the ensemble, and the posterior of its last layers."""
        return {**super().state(), "factors": self.factors.copy()}

    def load_state(self, state: dict[str, np.ndarray]) -> None:
        """Take over what `state` gave, bit by bit.

        Raises:
            SurrogateError: an array is missing or belongs to networks of another shape.
        """
        super().load_state(state)
        self.factors = np.array(state["factors"], dtype=float)


def posterior_factor(features: np.ndarray, last: tuple, z: np.ndarray) -> np.ndarray:
    """Lower triangular L so that |L f|^2 is the variance of every output at features f.

    Args:
        features: of the samples, (nfeature, n).
        last: weights (noutput, nfeature - 1) and biases (noutput,) of the last layer.
        z: scaled outputs (n, noutput).
    """
    weights = np.concatenate([last[0], last[1][:, None]], axis=1)
    noise = max(float(((weights @ features - z.T) ** 2).mean()), SMALLEST_NOISE)
    products = features @ features.T
    sizes = np.linalg.eigvalsh(products)
    evidences = [
        0.5 * len(weights) * np.log(p / (np.maximum(sizes, 0.0) / noise + p)).sum()
        - 0.5 * p * (weights * weights).sum()
        for p in PRECISIONS
    ]
    precision = PRECISIONS[int(np.argmax(evidences))]
    factor = cholesky(products + precision * noise * np.eye(len(products)), lower=True)
    return np.sqrt(noise) * solve_triangular(factor, np.eye(len(products)), lower=True)
