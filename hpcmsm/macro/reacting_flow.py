"""Reacting flow at constant pressure in a given velocity, at unity Lewis number.

    dY_k/dt + u . grad Y_k = 1/rho div(rho D grad Y_k) + reaction,   k = 1 ... number of species
    dh/dt   + u . grad h   = 1/rho div(rho D grad h)

With all diffusivities equal to that of heat, the enthalpy h obeys the equation of an inert species, and
the fluxes of enthalpy that the species carry are contained in it. So the unknown is the temperature, but
what is transported is h(T, Y); afterwards the temperature is found from it. Reactions change neither h
nor the elements.

Source: T. Poinsot, D. Veynante 2012, Theoretical and Numerical Combustion, 3rd edition, section 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from hpcmsm.errors import SolverError
from hpcmsm.fields import Field
from hpcmsm.grid import AXES, Grid
from hpcmsm.kernels import Kernel
from hpcmsm.macro.base import SplitModel
from hpcmsm.macro.gas_sides import GasSides
from hpcmsm.macro.halo import Halo
from hpcmsm.mixture import Mixture
from hpcmsm.parallel import together

# Heun's method is stable where dt times the sum of these parts of both operators is below 2; 0.8 of it.
STABLE = 1.6
MOST_STEPS = 10_000
# A mass fraction may swing below 0 by this much at a front that the grid hardly resolves.
MOST_NEGATIVE = 1e-3
DIFFUSIVE, ADVECTIVE = 4.0, 2.4


class ReactingFlow(SplitModel):
    """Temperature and mass fractions that are carried along, spread, and react.

    Density and conductivity are those of the mixture, anew in every stage; the velocity is given, or the
    flux of mass, whose quotient with the density it then is. Transport takes as many steps of Heun's
    method (second order) as its stability asks for.

    Args:
        grid: where the cells live.
        mixture: thermodynamics of the species.
        start: temperature and mass fractions at t = 0 in the owned cells, shape (1 + nspecies, ncells).
        sides: what is given along the sides.
        velocity: function time -> velocity in m/s, shape (ndim, ncells); with `by_mass` the flux of mass
            in kg/(m2 s).
        diffusion: function temperature (n,) -> density times diffusivity (n,) in kg/(m s), or None for
            the mixture's conductivity over its heat capacity.
    """

    def __init__(
        self,
        grid: Grid,
        mixture: Mixture,
        start: np.ndarray,
        sides: GasSides,
        velocity: Callable,
        by_mass: bool = False,
        diffusion: Callable | None = None,
    ):
        self.grid, self.mixture, self.start, self.sides = grid, mixture, start, sides
        self.velocity, self.by_mass, self.diffusion = velocity, by_mass, diffusion
        self.unknowns = self.sends = (
            Field("temperature", 1, "K", "temperature", lower=0.0),
            *(Field(name, 1, "1", f"mass fraction of {name}", lower=0.0) for name in mixture.species),
        )
        self.wants = tuple(Field(f"change_{name}") for name in mixture.species)
        self.halo = Halo(grid, 2 + mixture.nspecies)
        self._kernel = Kernel.load("transport", f"transport_{grid.ndim}d")
        self._sizes = {f"n{AXES[axis]}": n for axis, n in enumerate(reversed(grid.rank_shape))}
        self._sizes |= {f"h{AXES[axis]}": h for axis, h in enumerate(grid.spacing)}

    def initial(self) -> np.ndarray:
        """Temperature in K and mass fractions at t = 0, shape (1 + nspecies, ncells)."""
        return self.start.copy()

    def use(self, unknown: np.ndarray, outputs: dict[str, np.ndarray]) -> None:
        """Take what a step of reaction adds to the mass fractions."""
        self.changes = np.concatenate([outputs[field.name] for field in self.wants])

    def react(self, unknown: np.ndarray, dt: float) -> None:
        """Collective. Add the changes; the temperature follows at the same enthalpy."""
        enthalpy = self.mixture.enthalpy(unknown[0], unknown[1:])
        unknown[1:] += self.changes
        unknown[0], exists = self.mixture.temperature(enthalpy, unknown[1:], unknown[0])
        self._check(exists, enthalpy, "reaction")

    def transport(self, unknown: np.ndarray, time: float, dt: float) -> None:
        """Collective. Advance by dt in steps of Heun's method, all ranks by as many."""
        temperature, values = unknown[0].copy(), unknown.copy()
        values[0] = self.mixture.enthalpy(unknown[0], unknown[1:])
        nstep = self._steps_needed(values, temperature, time, dt)
        part, fine = dt / nstep, True
        for number in range(nstep):
            now = time + number * part
            first = self._rate(now, values, temperature)
            ahead = values + part * first
            guess, exists = self.mixture.temperature(ahead[0], ahead[1:], temperature)
            fine &= exists
            values += 0.5 * part * (first + self._rate(now + part, ahead, guess))
            temperature, exists = self.mixture.temperature(values[0], values[1:], guess)
            fine &= exists
        self._check(fine, values[0], "transport")
        self._check_positive(values[1:])
        unknown[0], unknown[1:] = temperature, values[1:]

    def _check(self, exists: np.ndarray, enthalpy: np.ndarray, after: str) -> None:
        """Collective. Raise a SolverError unless every cell has a temperature."""
        with together(self.grid.comm):
            if not exists.all():
                cell = int(np.argmin(exists))
                raise SolverError(
                    f"the enthalpy of every cell must belong to a temperature after {after}, got "
                    f"{enthalpy[cell]:.6g} J/kg in cell {self.grid.ids[cell]} ({(~exists).sum()} cells of "
                    f"rank {self.grid.comm.rank}); lower time.step or use a finer grid"
                )

    def _check_positive(self, fractions: np.ndarray) -> None:
        """Collective. Raise a SolverError where a mass fraction is far below 0."""
        with together(self.grid.comm):
            lowest = fractions.min(axis=1)
            if lowest.min() < -MOST_NEGATIVE:
                species = int(lowest.argmin())
                cell = int(fractions[species].argmin())
                raise SolverError(
                    f"mass fractions must not swing below -{MOST_NEGATIVE:g}, got {lowest.min():.2e} of "
                    f"{self.mixture.species[species]} in cell {self.grid.ids[cell]}; use a finer grid, "
                    "so that velocity times cell size is at most twice the diffusivity"
                )

    def _properties(self, temperature, fractions) -> tuple[np.ndarray, np.ndarray]:
        """Density in kg/m3, and density times diffusivity in kg/(m s), (n,) each."""
        given = None if self.diffusion is None else self.diffusion(temperature)
        return self.mixture.properties(temperature, fractions, given)

    def _velocity(self, time: float, density: np.ndarray) -> np.ndarray:
        given = self.velocity(time)
        return given / density if self.by_mass else given

    def _steps_needed(self, values, temperature, time: float, dt: float) -> int:
        """Collective. Number of equal steps that are stable over dt.

        Raises:
            SolverError: there are too many.
        """
        from mpi4py import MPI

        density, diffusion = self._properties(temperature, values[1:])
        speed = np.abs(self._velocity(time, density))
        rate = np.zeros(self.grid.ncells)
        for axis, h in enumerate(self.grid.spacing):
            rate += DIFFUSIVE * diffusion / (density * h * h) + ADVECTIVE * speed[axis] / h
        # A rate that is not finite is left to the check of the temperature.
        fastest = self.grid.comm.allreduce(float(np.nan_to_num(rate).max()), op=MPI.MAX)
        needed = dt * fastest / STABLE
        if needed > MOST_STEPS:
            raise SolverError(
                f"transport must need at most {MOST_STEPS} stable steps in time.step, got {needed:.3g}; "
                "lower time.step, use a coarser grid, or correct macro.velocity and macro.diffusion"
            )
        return max(1, math.ceil(needed))

    def _rate(self, time: float, values: np.ndarray, temperature: np.ndarray) -> np.ndarray:
        """Collective. Rates of enthalpy and mass fractions, shape (1 + nspecies, ncells)."""
        density, diffusion = self._properties(temperature, values[1:])
        ghosted = self.halo.fill(values, diffusion[None])
        self.sides.fill(time, ghosted[:-1], ghosted[-1:])
        rate, shape = np.empty_like(values), self.grid.rank_shape
        self._kernel(
            **self._sizes,
            ncomponent=len(values),
            values=ghosted[:-1],
            diffusion=ghosted[-1],
            density=density.reshape(shape),
            velocity=self._velocity(time, density).reshape(-1, *shape),
            rate=rate.reshape(-1, *shape),
        )
        return rate
