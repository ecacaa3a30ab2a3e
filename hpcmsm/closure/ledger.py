"""`Ledger`: what the gate did, counted exactly, so that every rank count gives the same figures."""

from __future__ import annotations

import numpy as np

from hpcmsm.fields import Field, rows_of
from hpcmsm.parallel import ExactSum

NAMES = ("calls", "accepted", "audited", "fallback", "missed", "beyond")
# Audit errors are counted in logarithmic bins from 1e-10 to 1e2: quantiles to within 6 %.
FIRST_DECADE, NDECADES, NBINS = -10.0, 12.0, 512
ERROR_SUM = ExactSum()


def bin_of(errors: np.ndarray) -> np.ndarray:
    """Bin of each relative error, shape (n,)."""
    position = (np.log10(np.maximum(errors, 1e-300)) - FIRST_DECADE) / NDECADES * NBINS
    return np.clip(np.nan_to_num(position, nan=NBINS - 1), 0, NBINS - 1).astype(np.int64)


def upper_edge(index: int) -> float:
    """Largest error that falls into a bin."""
    return float(10.0 ** (FIRST_DECADE + NDECADES * (index + 1) / NBINS))


class Ledger:
    """Counts and audit errors of the step under way, and of the whole run.

    Args:
        comm: the ranks whose counts are added.
    """

    def __init__(self, comm):
        self.comm = comm
        self.total = np.zeros(len(NAMES) + 1 + NBINS, dtype=np.int64)
        self.largest = 0.0
        self._open_step()

    def _open_step(self) -> None:
        self._step = np.zeros_like(self.total)
        self._step_largest = 0.0

    def count(self, **numbers: int) -> None:
        """Add to counts of this rank, by name."""
        for name, number in numbers.items():
            self._step[NAMES.index(name)] += int(number)

    def audits(self, errors: np.ndarray, signed: np.ndarray) -> None:
        """Enter audits of this rank: size and signed size of their relative errors, shape (n,)."""
        self._step[len(NAMES)] += ERROR_SUM.local(signed)
        np.add.at(self._step, len(NAMES) + 1 + bin_of(errors), 1)
        self._step_largest = max(self._step_largest, float(errors.max(initial=0.0)))

    def close_step(self) -> dict[str, float]:
        """Collective. Add over ranks; figures of the step, equal on every rank."""
        from mpi4py import MPI

        summed = np.empty_like(self._step)
        self.comm.Allreduce(self._step, summed)
        largest = self.comm.allreduce(self._step_largest, op=MPI.MAX)
        self.total += summed
        self.largest = max(self.largest, largest)
        self._open_step()
        audited = int(summed[NAMES.index("audited")])
        figures = {name: int(value) for name, value in zip(NAMES, summed, strict=False)}
        signed = ERROR_SUM.value(int(summed[len(NAMES)]))
        figures["audit_error_mean"] = signed / audited if audited else np.nan
        figures["audit_error_max"] = largest if audited else np.nan
        return figures

    def __getitem__(self, name: str) -> int:
        return int(self.total[NAMES.index(name)])

    def quantile(self, fraction: float) -> float:
        """Error that a fraction of all audits stays below, to the width of a bin."""
        reached = np.cumsum(self.total[len(NAMES) + 1 :])
        index = int(np.argmax(reached >= fraction * reached[-1]))
        return min(upper_edge(index), self.largest)

    def audit_errors(self) -> dict[str, float] | None:
        """Mean signed error, median, 99th percentile and maximum of all audits."""
        if self["audited"] == 0:
            return None
        signed = ERROR_SUM.value(int(self.total[len(NAMES)])) / self["audited"]
        return {
            "mean_signed": signed,
            "p50": self.quantile(0.5),
            "p99": self.quantile(0.99),
            "max": self.largest,
        }

    def totals(self, coverage: float) -> dict[str, object]:
        """Counts, errors and coverage (beside what was asked) of the whole run, for the summary."""
        calls, audited = self["calls"], self["audited"]
        counts = {name: self[name] for name in ("calls", "accepted", "audited", "fallback")}
        obtained = 1.0 - self["beyond"] / audited if audited else None
        return {
            "closure": {**counts, "accepted_fraction": self["accepted"] / calls if calls else 0.0},
            "audit_error": self.audit_errors(),
            "coverage": {"asked": coverage, "obtained": obtained},
        }

    def state(self) -> dict[str, np.ndarray]:
        """Totals as named arrays."""
        return {"total": self.total, "largest": np.array([self.largest])}

    def load_state(self, state: dict[str, np.ndarray]) -> None:
        """Take over what `state` gave."""
        self.total = np.array(state["total"], dtype=np.int64)
        self.largest = float(state["largest"][0])


def signed_error(fields: tuple[Field, ...], predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Relative error with its sign: sum of the components (a tensor's trace), shape (n,)."""
    total = np.zeros(truth.shape[1])
    for field in fields:
        row = rows_of(fields)[field.name]
        ndiagonal = {3: 2, 6: 3}[field.size] if field.spd else field.size
        part = slice(row.start, row.start + ndiagonal)
        size = np.abs(truth[part]).sum(axis=0)
        total += (predicted[part] - truth[part]).sum(axis=0) / np.maximum(size, 1e-300)
    return total / len(fields)
