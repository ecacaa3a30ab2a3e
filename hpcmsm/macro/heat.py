"""Heat conduction: <rho c> dT/dt = div(K grad T) + Q on cell-centred finite differences."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import numpy as np

from hpcmsm.config import MacroSection
from hpcmsm.expressions import Expression
from hpcmsm.fields import Field
from hpcmsm.grid import AXES, Grid
from hpcmsm.kernels import Kernel
from hpcmsm.macro.base import MacroModel
from hpcmsm.macro.boundary import DIFFERENCE, SIDES, boundary_faces, flux_slope

TEMPERATURE = Field("temperature", unit="K", about="macro temperature", lower=0.0)


class Heat(MacroModel):
    """Heat conduction with a conductivity tensor that the closure gives.

    Args:
        grid: where the cells live.
        section: the table [macro] of the case.
        heat_capacity: function temperature (ncells,) K -> rho c (ncells,) J/(m3 K).
    """

    unknown = TEMPERATURE
    sends = (TEMPERATURE,)

    def __init__(self, grid: Grid, section: MacroSection, heat_capacity: Callable):
        self.grid, self.heat_capacity = grid, heat_capacity
        size = {2: 3, 3: 6}[grid.ndim]
        self.wants = (Field("conductivity", size, "W/(m K)", "effective conductivity", spd=True),)
        axes = AXES[: grid.ndim]
        self.start = Expression(section.initial, axes, "macro.initial")
        self.source = Expression(section.source, (*axes, "t", "temperature"), "macro.source")
        self.faces = boundary_faces(section.boundary, grid)
        self.coordinates = grid.coordinates()
        self._local = grid.new_local()
        self._divergence = Kernel.load("heat", f"heat_divergence_{grid.ndim}d")
        self._ghosted_shape = tuple(n + 2 for n in grid.rank_shape)
        self._conductivity = np.zeros((size, *self._ghosted_shape))
        self._exchange = grid.new_vector()
        self._arguments = self._fixed_arguments()
        self._sides = {axis: np.zeros((2, 3, *self._face_shape(axis))) for axis in range(grid.ndim)}
        self._cross = 0

    @cached_property
    def _coefficients(self) -> Kernel:
        """Only implicit schemes need it."""
        return Kernel.load("heat", f"heat_coefficients_{self.grid.ndim}d")

    def _face_shape(self, axis: int) -> tuple[int, ...]:
        """Shape of the owned block's face across an axis, in array order."""
        shape = list(self.grid.rank_shape)
        del shape[self.grid.ndim - 1 - axis]
        return tuple(shape)

    def _fixed_arguments(self) -> dict:
        """Arguments of the kernels that never change."""
        sizes = {f"n{AXES[axis]}": n for axis, n in enumerate(reversed(self.grid.rank_shape))}
        widths = {f"h{AXES[axis]}": h for axis, h in enumerate(self.grid.spacing)}
        physical = [int(self.faces[side] is not None) for side in SIDES[: 2 * self.grid.ndim]]
        return {**sizes, **widths, "physical": np.array(physical, dtype=np.int32)}

    def _side_values(self, time: float, owned: np.ndarray) -> dict[str, np.ndarray]:
        """What is given at the sides: coefficient, value, flux, each face of this rank's block."""
        for number, side in enumerate(SIDES[: 2 * self.grid.ndim]):
            faces = self.faces[side]
            if faces is None:
                continue
            axis, high = divmod(number, 2)
            target = self._sides[axis][high]
            values = faces.evaluate(time, owned, self._owned_conductivity)
            for row, value in zip(target, values, strict=True):
                row[...] = value.reshape(row.shape)
        return {f"side_{AXES[axis]}": values for axis, values in self._sides.items()}

    def initial(self) -> np.ndarray:
        """Temperature at t = 0 in K."""
        return self.start(**self.coordinates)

    def offer(self, unknown: np.ndarray) -> dict[str, np.ndarray]:
        """The temperature."""
        return {TEMPERATURE.name: unknown}

    def use(self, unknown: np.ndarray, outputs: dict[str, np.ndarray]) -> None:
        """Collective. Take the conductivity (size, ncells) and renew <rho c> for this temperature."""
        conductivity = outputs["conductivity"]
        for component, values in enumerate(conductivity):
            self._exchange.setArray(values)
            self._conductivity[component] = self.grid.ghosted(self._exchange, self._local)
        self._owned_conductivity = conductivity
        self._cross = int(self._conductivity[self.grid.ndim :].any())
        self.capacity = self.heat_capacity(unknown)

    def spatial(self, time: float, vector) -> np.ndarray:
        """Collective. div(K grad T) + Q in W/m3, shape (ncells,)."""
        owned = vector.getArray(readonly=True)
        ghosted = self.grid.ghosted(vector, self._local)
        out = np.empty(self.grid.ncells)
        self._divergence(
            **self._arguments,
            **self._side_values(time, owned),
            cross=self._cross,
            conductivity=self._conductivity,
            temperature=ghosted,
            divergence=out.reshape(self.grid.rank_shape),
        )
        return out + self._source(time, owned)

    def _source(self, time: float, temperature: np.ndarray) -> np.ndarray:
        """Q in W/m3, shape (ncells,)."""
        if self.source.is_constant:
            return self.source()
        when = np.full(self.grid.ncells, time)
        return self.source(**self.coordinates, t=when, temperature=temperature)

    def linear_coefficients(self, time: float, vector) -> np.ndarray:
        """dL/dT with K frozen, without cross terms: shape (1 + 2 ndim, ncells), W/(m3 K)."""
        owned = vector.getArray(readonly=True)
        out = np.empty((2 + 2 * self.grid.ndim, *self.grid.rank_shape))
        self._linearise(time, owned)
        self._coefficients(
            **self._arguments, **self._linear_sides, conductivity=self._conductivity, coefficients=out
        )
        # The last row is the constant part, which a derivative does not need.
        rows = out[:-1].reshape(1 + 2 * self.grid.ndim, -1)
        rows[0] += self._source_slope
        return rows

    def _linearise(self, time: float, owned: np.ndarray) -> None:
        """Sides with nothing given but their coefficients, and what source and fluxes change with T."""
        self._side_values(time, owned)
        self._linear_sides = {}
        for axis, values in self._sides.items():
            sides = np.zeros_like(values)
            sides[:, 0] = values[:, 0]
            for high in (0, 1):
                faces = self.faces[SIDES[2 * axis + high]]
                if faces is not None:
                    slope = flux_slope(faces, time, owned, self._owned_conductivity)
                    sides[high, 0] -= slope.reshape(sides[high, 0].shape)
            self._linear_sides[f"side_{AXES[axis]}"] = sides
        self._source_slope = 0.0
        if "temperature" in self.source.used:
            change = DIFFERENCE * (1.0 + np.abs(owned))
            self._source_slope = (self._source(time, owned + change) - self._source(time, owned)) / change

    def linear_product(self, vector) -> np.ndarray:
        """Collective. dL/dT of the last `linear_coefficients` times a vector, W/m3."""
        out = np.empty(self.grid.ncells)
        self._divergence(
            **self._arguments,
            **self._linear_sides,
            cross=self._cross,
            conductivity=self._conductivity,
            temperature=self.grid.ghosted(vector, self._local),
            divergence=out.reshape(self.grid.rank_shape),
        )
        return out + self._source_slope * vector.getArray(readonly=True)

    def is_symmetric(self) -> bool:
        """Collective. Cross terms of a conductivity that varies make the operator unsymmetric."""
        from mpi4py import MPI

        ndim = self.grid.ndim
        size = np.abs(self._owned_conductivity)
        mine = np.array([size[ndim:].max(initial=0.0), size[:ndim].max(initial=0.0)])
        largest = np.empty_like(mine)
        self.grid.comm.Allreduce(mine, largest, op=MPI.MAX)
        return bool(largest[0] <= 1e-10 * largest[1])

    def content(self, unknown: np.ndarray) -> np.ndarray:
        """Heat content of the owned cells at the present <rho c> in J (per metre of depth in 2D)."""
        return self.capacity * unknown * float(np.prod(self.grid.spacing))
