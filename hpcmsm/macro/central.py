"""Conservation laws in 1D, advanced by the central scheme of Nessyahu and Tadmor.

The scheme needs no Riemann problem and no derivative of the flux, only fluxes of given states: just
what a closure can be asked for. Cells go to averages over cells that lie half a cell aside and back
within one step, so that the unknowns stand where the closure's cells are.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import numpy as np

from hpcmsm.config import CENTRAL
from hpcmsm.errors import SolverError
from hpcmsm.fields import ncomponent
from hpcmsm.macro.base import MacroModel
from hpcmsm.macro.stepper import Stepper, StepResult

# Largest part of a cell that a wave may cross in a step.
COURANT = 0.5


@dataclass(frozen=True)
class Mirror:
    """What the unknowns look like beyond an end: even, or odd about a value at the end.

    Fluxes have the opposite parity, and slopes too.

    Args:
        even: of each component, shape (ncomponent,) bool.
        value: at the end, of the odd components; shape (ncomponent,).
        flux: at the end, of the even components' fluxes; shape (ncomponent,).
    """

    even: np.ndarray
    value: np.ndarray
    flux: np.ndarray

    def unknown(self, inside: np.ndarray) -> np.ndarray:
        """Beyond the end, of what is as far inside; shape (ncomponent,)."""
        return np.where(self.even, inside, 2.0 * self.value - inside)

    def flux_of(self, inside: np.ndarray) -> np.ndarray:
        """The flux beyond the end."""
        return np.where(self.even, 2.0 * self.flux - inside, inside)

    def slope(self, inside: np.ndarray) -> np.ndarray:
        """The slope beyond the end."""
        return np.where(self.even, -inside, inside)


class ConservationLaw(MacroModel):
    """du/dt + df(u)/dx = 0 on a 1D grid, where the flux f is made of closure outputs.

    Attributes:
        steepness: of the limited slopes, from 1 (minmod) to 2 (monotonised central).
    """

    schemes = CENTRAL
    steepness: float = 1.5

    @abstractmethod
    def flux(self, unknown: np.ndarray) -> np.ndarray:
        """f of these unknowns with the closure's outputs of the last `use`, shape (ncomponent, ncells)."""

    @abstractmethod
    def fastest(self, unknown: np.ndarray) -> float:
        """Collective. Speed in m/s of the fastest wave of all cells; NaN where one has no waves."""

    @abstractmethod
    def mirror(self, high: bool, time: float) -> Mirror:
        """What is given at the low or high end at a time, where the grid is not periodic."""


def limited_slopes(values: np.ndarray, steepness: float) -> np.ndarray:
    """Slopes per cell of all but the first and last column, shape (m, n) -> (m, n - 2).

    The generalised minmod limiter: the smallest of the central difference and `steepness` times the
    one-sided ones, 0 at extrema. Source: H. Nessyahu, E. Tadmor 1990, J. Comput. Phys. 87, 408, (3.1').
    """
    low, high = np.diff(values[:, :-1]), np.diff(values[:, 1:])
    size = steepness * np.minimum(np.abs(low), np.abs(high))
    slope = np.minimum(size, 0.5 * np.abs(low + high))
    return np.where(low * high > 0.0, np.copysign(slope, low), 0.0)


class NessyahuTadmor(Stepper):
    """The central scheme of second order, on one grid.

        w'     limited slopes of the cells,  f' of their fluxes           (closure asked at t)
        u*     = w - dt/(2h) f'                                           (closure asked at t + dt/2)
        s(j+1/2) = (w(j) + w(j+1)) / 2 + (w'(j) - w'(j+1)) / 8 - dt/h (f(u*(j+1)) - f(u*(j)))
        w(j)   = (s(j-1/2) + s(j+1/2)) / 2 + (s'(j-1/2) - s'(j+1/2)) / 8

    Exactly conservative in a periodic box; between ends the even components are.

    Source: H. Nessyahu, E. Tadmor 1990, doi 10.1016/0021-9991(90)90260-8; the last line, back to the
    cells, from G.-S. Jiang, D. Levy, C.-T. Lin, S. Osher, E. Tadmor 1998, doi 10.1137/S0036142997317560.
    """

    model: ConservationLaw

    def __init__(self, *arguments):
        super().__init__(*arguments)
        comm, periodic = self.grid.comm, self.grid.periodic[0]
        self._unknown = np.zeros((ncomponent(self.model.unknowns), self.grid.ncells))
        self._width = self.grid.spacing[0]
        # Ranks own blocks in rising order along the line.
        self._at_end = [not periodic and comm.rank == edge for edge in (0, comm.size - 1)]
        self._beside = [_neighbour(comm, step, periodic) for step in (-1, 1)]

    @property
    def unknown(self) -> np.ndarray:
        """The unknowns in the owned cells, shape (ncomponent, ncells)."""
        return self._unknown

    def set_unknown(self, values: np.ndarray) -> None:
        """Take over values of shape (ncomponent, ncells)."""
        self._unknown[...] = values

    def advance(self, step: int, now: float, dt: float) -> StepResult:
        """Collective. Advance the unknowns from time `now` by dt.

        Raises:
            SolverError: dt is too long for the fastest wave, or there are no waves any more.
        """
        self._check_courant(step, now, dt)
        model, u, part, limit = self.model, self._unknown, dt / self._width, self.model.steepness
        ends, middle, later = (
            [self._mirror(end, t) for end in (0, 1)] for t in (now, now + dt / 2, now + dt)
        )
        self.ask(now, dt, u)
        w, flux = self._widened((u, ends, "unknown"), (model.flux(u), ends, "flux_of"))
        slopes = limited_slopes(w, limit)
        predicted = u - 0.5 * part * limited_slopes(flux, limit)
        self.ask(now + dt / 2, dt, predicted)
        flux, slopes = self._widened((model.flux(predicted), middle, "flux_of"), (slopes, ends, "slope"))
        aside = 0.5 * (w[:, :-1] + w[:, 1:]) - np.diff(slopes) / 8.0 - part * np.diff(flux)
        (around,) = self._widened((aside, later, "unknown"), shared=1)
        self._unknown = 0.5 * (aside[:, :-1] + aside[:, 1:]) - np.diff(limited_slopes(around, limit)) / 8.0
        return StepResult(now + dt, dt)

    def _mirror(self, end: int, time: float) -> Mirror | None:
        return self.model.mirror(bool(end), time) if self._at_end[end] else None

    def _widened(self, *parts: tuple[np.ndarray, list, str], shared: int = 0) -> list[np.ndarray]:
        """Collective. Arrays with one more column at both ends, (m, n) -> (m, n + 2), in one exchange.

        Args:
            parts: array; what lies beyond the two ends, or None where another rank does; and the method
                of Mirror that gives the column there.
            shared: columns that two ranks have in common.
        """
        left, right = self._beside
        sent = [np.concatenate([values[:, at] for values, _, _ in parts]) for at in (shared, -1 - shared)]
        got = [np.empty_like(sent[0]), np.empty_like(sent[0])]
        self.grid.comm.Sendrecv(sent[0], dest=left, recvbuf=got[1], source=right)
        self.grid.comm.Sendrecv(sent[1], dest=right, recvbuf=got[0], source=left)
        wide, first = [], 0
        for values, mirrors, what in parts:
            rows = slice(first, first + values.shape[0])
            columns = [
                outside[rows] if mirror is None else getattr(mirror, what)(inside[rows])
                for outside, inside, mirror in zip(got, sent, mirrors, strict=True)
            ]
            wide.append(np.column_stack([columns[0], values, columns[1]]))
            first += values.shape[0]
        return wide

    def _check_courant(self, step: int, now: float, dt: float) -> None:
        """Collective. Refuse a step in which a wave would cross more than half a cell."""
        fastest = self.model.fastest(self._unknown)
        where = f" at step {step}, t = {now:.6g} s"
        if np.isnan(fastest):
            raise SolverError(
                f"waves must have a real speed in every cell, got none in some{where}: the material "
                "has become unstable; start with smaller amplitudes"
            )
        if fastest * dt > COURANT * self._width * (1.0 + 1e-9):
            raise SolverError(
                f"time.step must be at most {COURANT * self._width / fastest:.4g} s for waves of "
                f"{fastest:.5g} m/s, got {dt:.4g} s{where}; lower it"
            )


def _neighbour(comm, step: int, periodic: bool) -> int:
    """The rank beside this one, or none."""
    from mpi4py import MPI

    rank = comm.rank + step
    return rank % comm.size if periodic or 0 <= rank < comm.size else MPI.PROC_NULL
