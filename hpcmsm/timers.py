"""Named timers and counters; minimum, mean and maximum over ranks."""

from __future__ import annotations

from contextlib import contextmanager
from time import perf_counter


class Timers:
    """Wall time per phase. Phases may be nested; each counts its own time only once.

    A phase's time excludes that of phases opened inside it, so the phases add up to the whole.
    """

    def __init__(self):
        self.seconds: dict[str, float] = {}
        self.calls: dict[str, int] = {}
        self._open: list[float] = []

    @contextmanager
    def phase(self, name: str):
        """Add the time of the body, less that of inner phases, to the phase `name`."""
        self._open.append(0.0)
        start = perf_counter()
        try:
            yield
        finally:
            elapsed = perf_counter() - start
            inner = self._open.pop()
            self.seconds[name] = self.seconds.get(name, 0.0) + elapsed - inner
            self.calls[name] = self.calls.get(name, 0) + 1
            if self._open:
                self._open[-1] += elapsed

    def over_ranks(self, comm) -> dict[str, dict[str, float]]:
        """Collective. Per phase min, mean and max seconds over ranks, and the calls of this rank."""
        everyone = comm.allgather(self.seconds)
        names = sorted({name for seconds in everyone for name in seconds})
        table = {}
        for name in names:
            values = [seconds.get(name, 0.0) for seconds in everyone]
            table[name] = {
                "min": min(values),
                "mean": sum(values) / len(values),
                "max": max(values),
                "calls": self.calls.get(name, 0),
            }
        return table
