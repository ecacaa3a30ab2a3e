"""Runs the macro equation with a conductivity that is a formula, so that exact solutions are known."""

from __future__ import annotations

import numpy as np

from hpcmsm.config import Boundary, MacroSection, TimeSection
from hpcmsm.grid import Grid
from hpcmsm.macro.boundary import periodic_axes
from hpcmsm.macro.heat import Heat
from hpcmsm.macro.stepping import make_stepper

SIDES_2D = ("x_low", "x_high", "y_low", "y_high")


class MacroRun:
    """A macro run with K(T, x, y) and heat capacity given as functions.

    Args:
        conductivity: function (temperature, coordinates) -> (size, ncells).
        capacity: function temperature -> (ncells,).
        components: of the conductivity, where they are more than the grid's dimension needs.
    """

    def __init__(self, comm, cells, size, time, macro, conductivity, capacity=np.ones_like, components=None):
        self.time = TimeSection(**time)
        self.section = MacroSection(**macro)
        self.grid = Grid(cells, size, periodic_axes(self.section.boundary, len(cells)), comm=comm)
        self.heat = Heat(self.grid, self.section, capacity, components)
        self.conductivity = conductivity
        self.coordinates = self.grid.coordinates()
        self.asked = 0
        self.linear = 0
        self.stepper = make_stepper(self.heat, self.grid, self.time, self.section, self._ask)
        self.now, self.dt, self.steps = 0.0, self.time.step, 0

    def _ask(self, time, dt, unknown):
        unknown = unknown.copy()
        self.asked += 1
        self.heat.use(unknown, {"conductivity": self.conductivity(unknown[0], self.coordinates)})

    def run(self) -> np.ndarray:
        """Advance to time.end; temperature of the owned cells."""
        while self.now < self.time.end * (1 - 1e-12):
            dt = min(self.dt, self.time.end - self.now)
            result = self.stepper.advance(self.steps + 1, self.now, dt)
            self.now, self.steps = result.time, self.steps + 1
            self.linear += result.linear
            if self.time.adaptive:
                self.dt = result.next_dt
        return self.stepper.unknown[0].copy()

    def norm(self, values: np.ndarray) -> float:
        """Root mean square over all ranks."""
        comm = self.grid.comm
        return float(np.sqrt(comm.allreduce(float(np.sum(values**2))) / self.grid.total_cells))

    def gathered(self, values: np.ndarray) -> np.ndarray:
        """The global array in natural order on every rank."""
        whole = np.zeros(self.grid.total_cells)
        whole[self.grid.ids] = values
        total = np.empty_like(whole)
        self.grid.comm.Allreduce(whole, total)
        return total.reshape(self.grid.grid_shape)


def all_sides(**given) -> dict[str, Boundary]:
    """The same boundary on all four sides."""
    return {side: Boundary(**given) for side in SIDES_2D}


def isotropic(formula):
    """K = formula(temperature) times the identity in 2D."""

    def tensor(temperature, coordinates):
        k = formula(temperature)
        return np.stack([k, k, np.zeros_like(k)])

    return tensor


def order(errors, factor=2.0) -> float:
    """Observed order between the last two of a refinement by a factor."""
    return float(np.log(errors[-2] / errors[-1]) / np.log(factor))
