"""Points whose values a run tells in its summary, interpolated between the centres of cells."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np

from hpcmsm.errors import ConfigError
from hpcmsm.fields import Field
from hpcmsm.grid import FIRST_CENTRE, Grid


@dataclass(frozen=True)
class Probe:
    """A named point.

    Args:
        at: coordinates in m along x[, y[, z]].
    """

    name: str
    at: tuple[float, ...]


class Probes:
    """Points of a grid.

    Args:
        probes: the points.
        grid: the grid; a point must lie in its box.
    Raises:
        ConfigError: a point lies outside, has the wrong number of coordinates, or the name of another.
    """

    def __init__(self, probes: list[Probe], grid: Grid):
        self.probes, self.grid = probes, grid
        for probe in probes:
            self._check(probe)
        _check_names([probe.name for probe in probes])
        parts = [self._corners(probe.at) for probe in probes]
        # Centres around each point and their weights, shape (nprobe, 2^ndim).
        self._ids = np.array([ids for ids, _ in parts])
        self._weights = np.array([weights for _, weights in parts])
        place = np.searchsorted(grid.ids, self._ids)
        self._place = np.minimum(place, grid.ncells - 1)
        self._mine = (place < grid.ncells) & (grid.ids[self._place] == self._ids)

    def _check(self, probe: Probe) -> None:
        if len(probe.at) != self.grid.ndim:
            raise ConfigError(
                f"macro.probes.{probe.name} must have one coordinate per axis of the grid, got "
                f"{len(probe.at)} for {self.grid.ndim}; correct it"
            )
        for x, length in zip(probe.at, self.grid.size, strict=True):
            if not -1e-9 * length <= x <= (1.0 + 1e-9) * length:
                raise ConfigError(
                    f"macro.probes.{probe.name} must lie within the grid, got {list(probe.at)} m in a box of "
                    f"{list(self.grid.size)} m; correct it"
                )

    def _corners(self, at: tuple[float, ...]) -> tuple[list[int], list[float]]:
        """Global ids of the centres around a point, and the weights of linear interpolation."""
        grid, low, share = self.grid, [], []
        for x, h, n in zip(at, grid.spacing, grid.cells, strict=True):
            # Beyond the last centre its value counts; a centre met but for rounding is met.
            place = min(max(x / h - FIRST_CENTRE[grid.centring], 0.0), n - 1.0)
            nearest = round(place)
            place = float(nearest) if abs(place - nearest) < 1e-6 else place
            low.append(min(int(place), max(n - 2, 0)))
            share.append(place - low[-1])
        ids, weights = [], []
        for corner in product((0, 1), repeat=grid.ndim):
            index = [min(i + c, n - 1) for i, c, n in zip(low, corner, grid.cells, strict=True)]
            ids.append(int(np.ravel_multi_index(index[::-1], grid.grid_shape)))
            weights.append(float(np.prod([s if c else 1.0 - s for s, c in zip(share, corner, strict=True)])))
        return ids, weights

    def values(self, field: np.ndarray) -> np.ndarray:
        """Collective. Interpolated values of a field (ncells,), shape (nprobe,), the same on any ranks.

        nan where one of the values around a point is.
        """
        known = np.where(self._mine, field[self._place], 0.0)
        mine = np.stack([np.nan_to_num(known), np.isnan(known)])
        # Every value has one owner: the sum only adds zeros to it.
        total = np.empty_like(mine)
        self.grid.comm.Allreduce(mine, total)
        missing = ((total[1] > 0) & (self._weights > 0)).any(axis=1)
        return np.where(missing, np.nan, (total[0] * self._weights).sum(axis=1))

    def table(self, field: Field, values: np.ndarray) -> dict:
        """Collective. By probe its coordinates and value, for the summary; None where there is no value."""
        found = self.values(values)
        rows = {
            probe.name: {"at": list(probe.at), field.name: None if np.isnan(value) else float(value)}
            for probe, value in zip(self.probes, found, strict=True)
        }
        return {"field": field.name, "unit": field.unit, "points": rows}


def _check_names(names: list[str]) -> None:
    for number, name in enumerate(names):
        if name in names[:number]:
            raise ConfigError(
                f"macro.probes.{name} must be the only point of that name, got another one (points of a line "
                "are called NAME_0, NAME_1, ...); rename it"
            )
