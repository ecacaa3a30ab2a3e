"""Training of one network: Levenberg-Marquardt in NumPy, L-BFGS in torch for the large ones.

Networks that answer for a closure are small, their data exact and few. There the squared error is
minimised far better by Gauss-Newton steps than by first-order methods: on 100 samples of a conductivity
of two inputs, 30 steps leave an error that Adam does not reach in minutes (benchmarks/ensemble.py).
They need nothing but matrix products and a Cholesky factor; a run that trains small networks never
waits for torch to be loaded.

Everything runs in one order, and with one thread of BLAS (see `parallel.limit_threads`) it depends on
nothing but its arguments.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg.lapack import dpotrf, dpotrs

from hpcmsm.errors import SurrogateError
from hpcmsm.surrogate.equations import ManySamples, ManyWeights, augmented, forward, times
from hpcmsm.surrogate.network import Network

# Above this many weights the normal equations cost more than they gain.
LARGEST_FOR_GAUSS_NEWTON = 2000
SMALLEST_DAMPING, LARGEST_DAMPING = 1e-12, 1e6
START_DAMPING = 1e-3
PROBE = 0.1  # part of a step over which its bend is measured
LARGEST_BEND = 0.2  # part of a step that its bend may be: beyond it says little about the whole of the step


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
        ncount = self.held_out[1].size + self.data[1].size
        loss = (squares + sum_of_squares(self.network, flat, self.held_out)) / ncount
        self.epochs += nsteps
        if loss < self.loss:
            self.loss, self.flat = loss, flat.copy()
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
        data, held_out: (x, y) with x (n, ninput) and y (n, noutput), centred and scaled, C order; or
            (x, y, factor) with what each sample's errors are multiplied with, (n,).
    Raises:
        SurrogateError: the error is not a finite number.
    """
    method = schedule.method
    if method == "auto":
        method = "gauss_newton" if network.nweight <= LARGEST_FOR_GAUSS_NEWTON else "lbfgs"
    best = Best(network, data, held_out, schedule)
    damping = _method(method)(network, np.array(flat), damping, data, best)
    if best.flat is None:
        raise SurrogateError(
            "the training error must be finite, got nan or infinity; "
            "check that the samples' inputs and outputs are of ordinary size"
        )
    return Trained(best.flat, damping, best.loss, best.epochs)


def _method(name: str):
    if name == "gauss_newton":
        return gauss_newton
    # torch is loaded for large networks only
    from hpcmsm.surrogate.lbfgs import lbfgs

    return lbfgs


def present_losses(network: Network, weights: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Root mean square errors (nmember,) of networks as they are, on all samples."""
    return np.sqrt([sum_of_squares(network, flat, (x, y)) / y.size for flat in weights])


def residuals(network: Network, flat: np.ndarray, data) -> np.ndarray:
    """Errors (noutput, n) on data (x, y) or (x, y, factor)."""
    return times(forward(network, flat, data[0]) - data[1], *data[2:]).T


def sum_of_squares(network: Network, flat: np.ndarray, data) -> float:
    """Of the errors on data (x, y) or (x, y, factor); NaN or infinity where the weights have run away."""
    with np.errstate(over="ignore", invalid="ignore"):
        return float((residuals(network, flat, data) ** 2).sum())


def gauss_newton(network: Network, flat, damping: float, data, best: Best) -> float:
    """Levenberg-Marquardt steps until `best` has seen enough; returns the last damping.

    Step d with (J'J + N damping I) d = -J'r for N residuals, bent by `damped_step`; the damping rises while
    steps do not lower the error, and falls where the first one did. Source: Marquardt 1963, doi
    10.1137/0111030.
    """
    equations_of = ManyWeights if data[1].size < network.nweight else ManySamples
    squares = sum_of_squares(network, flat, data)
    done = best.look(flat, squares, 0)
    while not done:
        equations = equations_of(network, flat, data)
        lower = refused = False
        while not lower and damping <= LARGEST_DAMPING:
            trial = flat + damped_step(network, flat, data, equations, damping * data[1].size)
            trial_squares = sum_of_squares(network, trial, data)
            lower = trial_squares < squares
            if not lower:
                damping, refused = damping * 4, True
        if not lower:
            return START_DAMPING  # no direction is left that helps
        if not refused:  # a smaller one than was just too small would only be refused again
            damping = max(damping / 4, SMALLEST_DAMPING)
        flat, squares = trial, trial_squares
        done = best.look(flat, squares, 1)
    return damping


def damped_step(network: Network, flat, data, equations, damping: float):
    """A step that follows the bend of the valley; NaN, which asks for more damping, where there is no factor.

    Half the acceleration a is added to the step d: (J'J + damping I) a = -J'r'' with the second derivative of
    the residuals along d. Without it long curved valleys are crept through. The factor is there already, so
    it costs two evaluations. Where it is not small beside d it says nothing about the whole of the step.
    Source: Transtrum, Sethna 2012, arXiv 1201.5885.
    """
    factor = factorised(equations, damping)
    if factor is None:
        return np.nan
    step = -solve(network, equations, factor, equations.residuals)
    with np.errstate(over="ignore", invalid="ignore"):
        around = sum(residuals(network, flat + sign * PROBE * step, data) for sign in (-1.0, 1.0))
        bend = solve(network, equations, factor, (around - 2.0 * equations.residuals) / PROBE**2)
        return step - 0.5 * bend if bend @ bend < LARGEST_BEND**2 * (step @ step) else step


def factorised(equations, damping: float) -> np.ndarray | None:
    """Cholesky factor of the damped equations; None where it does not exist."""
    # Rows of a C array are columns for LAPACK: what is its lower half to us is the upper half there.
    damped = equations.matrix.T.copy(order="F")
    damped[np.diag_indices_from(damped)] += damping
    factor, trouble = dpotrf(damped, lower=0, overwrite_a=1, clean=0)
    return None if trouble else factor


def solve(network: Network, equations, factor: np.ndarray, right: np.ndarray) -> np.ndarray:
    """(J'J + damping I)^-1 J' r for r (noutput, n), as a flat vector of weights."""
    solution, _ = dpotrs(factor, equations.right(right), lower=0)
    result = np.empty(network.nweight)
    result[augmented(network)] = equations.step(solution)
    return result
