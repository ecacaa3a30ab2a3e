"""Sides of a reacting flow: ghost values of enthalpy and mass fractions beyond the box."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from hpcmsm.errors import ConfigError
from hpcmsm.grid import Grid
from hpcmsm.macro.boundary import SIDES, Faces
from hpcmsm.macro.halo import WIDTH
from hpcmsm.mixture import Mixture


class GasSides:
    """What is given along the sides: nothing passes but what flows out (zero slope), or a gas.

    Ghosts mirror the cells inside: equal values where the slope is zero, and values whose mean with them
    is that of the face where a gas is given. Both are of second order.

    Args:
        grid: where the cells live.
        mixture: thermodynamics of the gas.
        faces: faces of every side, as `boundary_faces` gives them: kind "temperature" holds a gas there,
            kind "flux" must be 0.
        composition: function coordinates -> mass fractions (nspecies, nface) of the gas.
        diffusion: as in ReactingFlow.
    Raises:
        ConfigError: a side is of another kind.
    """

    def __init__(
        self,
        grid: Grid,
        mixture: Mixture,
        faces: dict[str, Faces | None],
        composition: Callable,
        diffusion: Callable | None = None,
    ):
        self.grid, self.mixture, self.composition, self.diffusion = grid, mixture, composition, diffusion
        self.faces = {side: given for side, given in faces.items() if given is not None}
        for side, given in self.faces.items():
            self._check(side, given)
        self._gas: dict[str, tuple[np.ndarray, np.ndarray]] = {}

    @staticmethod
    def _check(side: str, faces: Faces) -> None:
        flux = faces.given.get("flux")
        if faces.kind == "convection" or (flux is not None and not (flux.is_constant and flux() == 0.0)):
            raise ConfigError(
                f"macro.boundary.{side} must be 'temperature', 'periodic' or a 'flux' of 0 in a reacting "
                f"flow, got '{faces.kind}'; give one of them"
            )

    def fill(self, time: float, values: np.ndarray, diffusion: np.ndarray) -> None:
        """Set the ghosts beyond the physical sides of this rank's block, in place.

        Args:
            values: enthalpy and mass fractions with ghosts, shape (1 + nspecies, [nz, ny,] nx + 4).
            diffusion: density times diffusivity with ghosts, shape (1, [nz, ny,] nx + 4).
        """
        for side, faces in self.faces.items():
            axis, high = divmod(SIDES.index(side), 2)
            gas = self._gas_at(side, faces, time) if faces.kind == "temperature" else (None, None)
            for array, given in zip((values, diffusion), gas, strict=True):
                self._mirror(array, axis, high, given)

    def _mirror(self, array: np.ndarray, axis: int, high: int, given: np.ndarray | None) -> None:
        """Ghosts of one side; `given` holds the values at its faces, (ncomponent, nface), or None."""
        along = array.ndim - 1 - axis
        inner = [slice(None)] + [slice(WIDTH, -WIDTH)] * self.grid.ndim
        n = array.shape[along]
        for layer in range(WIDTH):
            ghost, cell = WIDTH - 1 - layer, WIDTH + layer
            places = [n - 1 - place if high else place for place in (ghost, cell)]
            target, source = ((*inner[:along], place, *inner[along + 1 :]) for place in places)
            array[target] = array[source]
            if given is not None:
                array[target] = 2.0 * given.reshape(array[source].shape) - array[source]

    def _gas_at(self, side: str, faces: Faces, time: float) -> tuple[np.ndarray, np.ndarray]:
        """Enthalpy and mass fractions (1 + nspecies, nface), and density times diffusivity (1, nface)."""
        if side not in self._gas:
            formula = faces.given["temperature"]
            n = faces.cells.size
            temperature = formula(**faces.coordinates, t=np.full(n, time), temperature=np.zeros(n))
            fractions = self.composition(faces.coordinates)
            given = None if self.diffusion is None else self.diffusion(temperature)
            _, diffusion = self.mixture.properties(temperature, fractions, given)
            enthalpy = self.mixture.enthalpy(temperature, fractions)
            gas = np.concatenate([enthalpy[None], fractions]), diffusion[None]
            if "t" in formula.used:
                return gas
            self._gas[side] = gas
        return self._gas[side]
