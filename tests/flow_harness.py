"""Runs a reacting flow of made-up gases, whose reaction and exact solutions are known."""

from __future__ import annotations

import numpy as np

from hpcmsm.config import Boundary, MacroSection, TimeSection
from hpcmsm.expressions import Expression
from hpcmsm.grid import Grid
from hpcmsm.macro.boundary import boundary_faces, periodic_axes
from hpcmsm.macro.gas_sides import GasSides
from hpcmsm.macro.reacting_flow import ReactingFlow
from hpcmsm.macro.stepping import make_stepper
from hpcmsm.mixture import Mixture

PRESSURE = 1e5
DENSITY = PRESSURE * 0.02 / (8.31446261815324 * 300.0)  # kg/m3, of `gases` at 300 K


def gases(weights=(0.02, 0.02), capacities=(1000.0, 1000.0), heats=(0.0, 0.0), slope=0.0) -> Mixture:
    """Gases of two elements with heat capacities c + slope T in J/(kg K) and enthalpies of formation."""
    n = len(weights)
    thermo = np.zeros((n, 13))
    thermo[:, 0] = 1000.0
    for first in (1, 7):
        thermo[:, first], thermo[:, first + 1], thermo[:, first + 5] = capacities, slope, heats
    share = np.array([np.linspace(0.0, 1.0, n), np.linspace(1.0, 0.0, n)])
    return Mixture(tuple("ABCDEF"[:n]), np.array(weights), thermo, share, PRESSURE)


def two(first, temperature=300.0):
    """Temperature and the fractions of two gases."""
    return np.stack([temperature + 0.0 * first, first, 1.0 - first])


class FlowRun:
    """A run from values that are a function of the coordinates.

    Args:
        start: function coordinates -> (1 + nspecies, n), temperature and mass fractions.
        velocity: function (coordinates, time) -> (ndim, ncells).
        diffusion: formula of temperature in kg/(m s).
        reaction: function (mass fractions, dt) -> what a step of reaction adds; None for none.
    """

    def __init__(
        self,
        comm,
        cells,
        size,
        mixture,
        start,
        velocity=None,
        diffusion="1e-4",
        reaction=None,
        boundary=None,
        scheme="strang",
        by_mass=False,
    ):
        section = MacroSection(boundary={side: Boundary(**given) for side, given in (boundary or {}).items()})
        self.grid = Grid(cells, size, periodic_axes(section.boundary, len(cells)), comm=comm)
        self.coordinates = self.grid.coordinates()
        formula = Expression(diffusion, ("temperature",), "diffusion")
        faces = boundary_faces(section.boundary, self.grid)

        def spread(temperature):
            return formula(temperature=temperature)

        def speed(time):
            if velocity is None:
                return np.zeros((self.grid.ndim, self.grid.ncells))
            return np.ascontiguousarray(velocity(self.coordinates, time))

        sides = GasSides(self.grid, mixture, faces, lambda places: start(places)[1:], spread)
        values = start(self.coordinates)
        self.flow = ReactingFlow(self.grid, mixture, values, sides, speed, by_mass, spread)
        self.reaction = reaction or (lambda fractions, dt: np.zeros_like(fractions))
        time = TimeSection(scheme=scheme, step=1.0, end=1.0)
        self.stepper = make_stepper(self.flow, self.grid, time, section, self._ask)
        self.stepper.set_unknown(self.flow.initial())

    def _ask(self, time, dt, unknown):
        added = self.reaction(unknown[1:].copy(), dt)
        names = [field.name for field in self.flow.wants]
        self.flow.use(unknown, {name: row[None] for name, row in zip(names, added, strict=True)})

    def run(self, dt: float, nstep: int) -> np.ndarray:
        """Advance nstep steps of dt; temperature and mass fractions of the owned cells."""
        for step in range(nstep):
            self.stepper.advance(step + 1, step * dt, dt)
        return self.stepper.unknown.copy()

    def error(self, exact: np.ndarray, row: int) -> float:
        """Root mean square over all ranks of one row less its exact values (ncells,)."""
        apart = self.stepper.unknown[row] - exact
        return float(np.sqrt(self.grid.comm.allreduce(float(np.sum(apart**2))) / self.grid.total_cells))
