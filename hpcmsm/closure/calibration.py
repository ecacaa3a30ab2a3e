"""How far a surrogate's score is from its true error: weighted conformal calibration.

A window of true answers, each with the inverse of the probability with which it was chosen, is
scored anew for every surrogate version. The bound of an error is q * hypot(score, floor). The floor is
the median error of the window: what all members have in common, and their spread cannot show. The
factor q is the weighted quantile of error / hypot(score, floor) (split conformal prediction with
weights: Tibshirani, Barber, Candes, Ramdas 2019, arXiv 1904.06019); its level follows the audits of
accepted cells (Gibbs, Candes 2021, arXiv 2106.00170). Every rank holds the same window, so every rank
computes the same q, bit by bit.
"""

from __future__ import annotations

import numpy as np

from hpcmsm.surrogate.base import Samples, Surrogate

TINY = 1e-30
STEP_SIZE = 0.05  # gamma of Gibbs and Candes: how fast the level follows the audits
FEW_AUDITS = 20  # a step with fewer audits than this moves the level by correspondingly less
# Bounds of the level, as parts of the wanted one. A lower floor could ask for a quantile that the
# window cannot hold: nothing would be accepted, nothing audited, and the level could not recover.
FLOOR, CEILING = 0.25, 2.0
ROUNDING = 1e-12  # of the summed weights: it must not ask for one cell more


def weighted_quantile(ratios: np.ndarray, weights: np.ndarray, level: float) -> float:
    """Smallest r so that the ratios up to r carry `level` of the weight, infinity if none does.

    One more point of mean weight sits at infinity: the cell that is to be judged.

    Args:
        ratios, weights: shape (n,).
        level: wanted fraction, between 0 and 1.
    """
    if ratios.size == 0:
        return np.inf
    order = np.argsort(ratios, kind="stable")
    mass = np.cumsum(weights[order])
    reached = mass >= level * (mass[-1] + mass[-1] / ratios.size) * (1.0 - ROUNDING)
    return float(ratios[order][np.argmax(reached)]) if reached.any() else np.inf


class Calibration:
    """A window of true answers and the factor q between score and error.

    Args:
        ninput, noutput: rows of the samples.
        coverage: wanted fraction of errors below q * score.
        capacity: length of the window; the oldest go first.
    """

    def __init__(self, ninput: int, noutput: int, coverage: float, capacity: int = 1024):
        self.target = 1.0 - coverage
        self.alpha = self.target
        self.capacity = capacity
        self.q, self.floor = np.inf, 0.0
        none = np.zeros(0, dtype=np.int64)
        self.window = Samples(none, none, none, np.zeros((ninput, 0)), np.zeros((noutput, 0)), np.zeros(0))
        self.errors, self.scores = np.zeros(0), np.zeros(0)

    def bound(self, score: np.ndarray) -> np.ndarray:
        """What the errors of cells with these scores stay below, at the present level, shape (n,)."""
        return self.q * np.hypot(score, self.floor)

    def add(self, samples: Samples, surrogate: Surrogate) -> None:
        """Put new true answers into the window, scored by the present version if there is one."""
        if len(samples) == 0:
            return
        joined = _join(self.window, samples)
        last = slice(max(0, len(joined) - self.capacity), None)
        errors, scores = _judged(samples, surrogate)
        self.window = joined.take(np.arange(len(joined))[last])
        self.errors = np.concatenate([self.errors, errors])[last]
        self.scores = np.concatenate([self.scores, scores])[last]
        self._renew()

    def rescore(self, surrogate: Surrogate) -> None:
        """Score the whole window by a new version, whose level starts afresh."""
        self.alpha = self.target
        self.errors, self.scores = _judged(self.window, surrogate)
        self._renew()

    def follow(self, audited: int, missed: int) -> None:
        """Move the level by what the audits of a step showed: more misses, more caution."""
        if audited == 0:
            return
        gain = STEP_SIZE * audited / (audited + FEW_AUDITS)
        moved = self.alpha + gain * (self.target - missed / audited)
        self.alpha = float(np.clip(moved, FLOOR * self.target, CEILING * self.target))
        self._renew()

    @property
    def at_floor(self) -> bool:
        """Whether caution alone no longer helps, so that the surrogate must be trained anew."""
        return self.alpha <= FLOOR * self.target

    def _renew(self) -> None:
        # A cell with an infinite score is never accepted: it must not count as one that is covered.
        judged = np.isfinite(self.scores)
        errors, scores, weights = (a[judged] for a in (self.errors, self.scores, self.window.weight))
        median = weighted_quantile(errors, weights, 0.5)
        self.floor = median if np.isfinite(median) else 0.0
        ratios = errors / np.maximum(np.hypot(scores, self.floor), TINY)
        self.q = weighted_quantile(ratios, weights, 1.0 - self.alpha)

    def state(self) -> dict[str, np.ndarray]:
        """The window and the level as named arrays."""
        window = {f"window/{name}": getattr(self.window, name) for name in Samples.__dataclass_fields__}
        level = np.array([self.alpha, self.q, self.floor])
        return {**window, "errors": self.errors, "scores": self.scores, "level": level}

    def load_state(self, state: dict[str, np.ndarray]) -> None:
        """Take over what `state` gave."""
        self.window = Samples(*(state[f"window/{name}"] for name in Samples.__dataclass_fields__))
        self.errors, self.scores = state["errors"], state["scores"]
        self.alpha, self.q, self.floor = (float(value) for value in state["level"])


def _judged(samples: Samples, surrogate: Surrogate) -> tuple[np.ndarray, np.ndarray]:
    """Errors and scores (n,) of the present version; before there is one the errors are infinite."""
    if surrogate.version == 0 or len(samples) == 0:
        return np.full(len(samples), np.inf), np.zeros(len(samples))
    predicted, score = surrogate.predict(samples.inputs)
    return surrogate.misfit(predicted, samples.outputs), score


def _join(first: Samples, second: Samples) -> Samples:
    names = Samples.__dataclass_fields__
    return Samples(*(np.concatenate([getattr(first, n), getattr(second, n)], axis=-1) for n in names))
