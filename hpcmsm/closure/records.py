"""`Records`: true answers of a step, thinned by lot, gathered and sorted alike on every rank."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hpcmsm.fields import Field, ncomponent
from hpcmsm.parallel import random_uniform
from hpcmsm.surrogate.base import Samples

# Expected number of samples kept per step, over all ranks: what the messages may carry.
MOST_FALLBACKS, MOST_AUDITS = 512, 256
# Of the true answers kept, this part calibrates and is never trained on.
CALIBRATION_PART = 0.5
# For so many steps the answers of a cell have one use: in neighbouring steps they are nearly the same,
# and what was learnt from one must not be judged by the other.
SAME_USE = 16


@dataclass(frozen=True)
class Chosen:
    """Samples of a step, equal on every rank, sorted by id; disjoint sets for the two uses."""

    calibration: Samples
    training: Samples
    training_error: np.ndarray


class Records:
    """Collects the true answers of a rank during a step.

    Whether a sample is kept is drawn by lot keyed by (seed, step, id), and for which use by lot keyed by
    (seed, block of steps, id), so neither depends on the number of ranks; nor does the amount of data
    that is exchanged.
    """

    def __init__(self, comm, seed: int, inputs: tuple[Field, ...], outputs: tuple[Field, ...]):
        self.comm, self.seed = comm, seed
        self.ninput, self.noutput = ncomponent(inputs), ncomponent(outputs)
        self._noted: list[np.ndarray] = []

    def note(self, step, ids, inputs, outputs, audited, candidate, error) -> None:
        """Note true answers of this rank, shapes (n,) and (ncomponent, n)."""
        flags = np.stack([ids.astype(np.float64), audited, candidate, error])
        self._noted.append(np.concatenate([flags, inputs, outputs]))

    def gather(self, step: int, audit_fraction: float) -> Chosen:
        """Collective. Thin, exchange and sort the answers noted since the last call."""
        rows = 4 + self.ninput + self.noutput
        mine = np.concatenate(self._noted, axis=1) if self._noted else np.zeros((rows, 0))
        self._noted = []
        audited = mine[1] == 1.0
        counts = np.array([(~audited).sum(), audited.sum()], dtype=np.int64)
        total = np.empty_like(counts)
        self.comm.Allreduce(counts, total)
        share = [
            min(1.0, most / max(1, n)) for most, n in zip((MOST_FALLBACKS, MOST_AUDITS), total, strict=True)
        ]
        kept = random_uniform("thin", self.seed, step, mine[0]) < np.where(audited, share[1], share[0])
        everyone = self._exchange(np.ascontiguousarray(mine[:, kept]), rows)
        everyone = everyone[:, np.argsort(everyone[0], kind="stable")]
        weight = np.where(everyone[1] == 1.0, 1.0 / (share[1] * audit_fraction), 1.0 / share[0])
        return self._split(step, everyone, weight)

    def _exchange(self, mine: np.ndarray, rows: int) -> np.ndarray:
        counts = self.comm.allgather(mine.shape[1])
        everyone = np.empty((sum(counts), rows))
        sizes = [count * rows for count in counts]
        self.comm.Allgatherv(np.ascontiguousarray(mine.T), [everyone, sizes])
        return np.ascontiguousarray(everyone.T)

    def _split(self, step: int, table: np.ndarray, weight: np.ndarray) -> Chosen:
        ids = table[0].astype(np.int64)
        samples = Samples(
            np.full(ids.size, step, dtype=np.int64),
            np.zeros(ids.size, dtype=np.int64),
            ids,
            np.ascontiguousarray(table[4 : 4 + self.ninput]),
            np.ascontiguousarray(table[4 + self.ninput :]),
            weight,
        )
        calibrates = random_uniform("split", self.seed, step // SAME_USE, ids) < CALIBRATION_PART
        # Cells that the gate would refuse whatever the score says nothing about the score.
        candidate = table[2] == 1.0
        training = ~calibrates
        return Chosen(samples.take(calibrates & candidate), samples.take(training), table[3][training])
