"""Runs waves with the stress as a formula of the stretch, so that exact solutions are known."""

from __future__ import annotations

import numpy as np
from mpi4py import MPI

from hpcmsm.config import Boundary, TimeSection
from hpcmsm.grid import Grid
from hpcmsm.macro.boundary import periodic_axes
from hpcmsm.macro.central import NessyahuTadmor
from hpcmsm.macro.elastic_waves import ElasticWaves

WRAP = {side: Boundary(kind="periodic") for side in ("x_low", "x_high")}
DENSITY, SPEED = 2.0, 3.0


def hooke(stretch):
    """Stress of a linear material."""
    return DENSITY * SPEED**2 * (stretch - 1.0)


def stiffening(stretch):
    """Stress of a material that stiffens under compression as a crystal does: P = 1 - F^-3, times 6."""
    return 6.0 * (1.0 - stretch**-3.0)


class Bar:
    """A run on [0, 1] with the stress as a formula of the stretch."""

    def __init__(self, n, initial, boundary=WRAP, stress=hooke, courant=0.4, comm=MPI.COMM_SELF, **options):
        sound = options.pop("sound", lambda stretch: np.full_like(stretch, SPEED))
        density = options.pop("density", DENSITY)
        self.grid = Grid((n,), (1.0,), periodic_axes(boundary, 1), comm=comm)
        self.waves = ElasticWaves(self.grid, initial, boundary, density, sound, **options)
        self.x, self.stress, self.n = self.grid.coordinates()["x"], stress, n
        self.dt = courant / n / float(comm.allreduce(sound(self.waves.initial()[0]).max(), op=MPI.MAX))
        section = TimeSection(scheme="nessyahu_tadmor", end=1.0, step=self.dt)
        self.stepper = NessyahuTadmor(self.waves, self.grid, section, None, self._ask)
        self.stepper.set_unknown(self.waves.initial())
        self.now, self.steps = 0.0, 0

    def _ask(self, time, dt, unknown):
        self.waves.use(unknown, {"stress": self.stress(unknown[0])[None]})

    def run(self, end):
        """Advance to a time; (stretch, velocity) of the owned cells."""
        nstep = max(1, int(np.ceil(end / self.dt - 1e-9)))
        for _ in range(nstep):
            self.stepper.advance(self.steps + 1, self.now, end / nstep)
            self.now, self.steps = self.now + end / nstep, self.steps + 1
        return self.stepper.unknown

    def error(self, exact):
        """Mean error of the stretch over all cells."""
        mine = float(np.abs(self.stepper.unknown[0] - exact).sum())
        return self.grid.comm.allreduce(mine) / self.n

    def total(self, values):
        return self.grid.comm.allreduce(float(values.sum())) / self.n
