"""Heat conduction: <rho c> dT/dt = div(K grad T) + Q on cell-centred finite differences."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager
from functools import cached_property

import numpy as np

from hpcmsm.config import EXPLICIT, IMPLICIT, Formula, MacroSection
from hpcmsm.errors import ConfigError
from hpcmsm.expressions import Expression
from hpcmsm.fields import Field
from hpcmsm.grid import AXES, Grid, Rim
from hpcmsm.kernels import Kernel
from hpcmsm.macro.base import MethodOfLines
from hpcmsm.macro.boundary import DIFFERENCE, SIDES, boundary_faces, flux_slope
from hpcmsm.macro.goal import Goal
from hpcmsm.parallel import together

TEMPERATURE = Field("temperature", unit="K", about="macro temperature", lower=0.0)
# Components of a conductivity tensor of each size that act along the axes of a grid of each dimension.
COMPONENTS = {
    (1, 1): [0],
    (1, 3): [0],
    (1, 6): [0],
    (2, 3): [0, 1, 2],
    (2, 6): [0, 1, 5],
    (3, 6): [0, 1, 2, 3, 4, 5],
}
# Points and weights of Gauss's rule on (0, 1).
GAUSS = tuple(zip((0.5 - 0.15**0.5, 0.5, 0.5 + 0.15**0.5), (5 / 18, 8 / 18, 5 / 18), strict=True))
NEWTON_STEPS = 3
# Part of the heat that a cell has taken in that may be missing in its temperature.
SETTLED_TO = 1e-6


class Heat(MethodOfLines):
    """Heat conduction with a conductivity tensor that the closure gives.

    Other equations of this shape (see `Diffusion`) give their names of the unknown and of K.

    Args:
        grid: where the cells live.
        section: the table [macro] of the case.
        heat_capacity: function temperature (ncells,) K -> rho c (ncells,) J/(m3 K). Where it has an
            attribute `varies` that is false, it is taken to be the same at all temperatures.
        size: components of the closure's conductivity: 1, 3 or 6, by default those of the grid's own
            dimension. A tensor of more dimensions than the grid acts by its leading axes.
    """

    unknowns: tuple[Field, ...] = (TEMPERATURE,)
    sends: tuple[Field, ...] = (TEMPERATURE,)
    schemes = EXPLICIT + IMPLICIT
    coefficient = ("conductivity", "W/(m K)", "effective conductivity")
    capacity_advice = ("the heat capacity", "correct macro.heat_capacity or those of the materials")

    def __init__(self, grid: Grid, section: MacroSection, heat_capacity: Callable, size: int | None = None):
        self.grid, self.heat_capacity = grid, heat_capacity
        self._capacity_varies = getattr(heat_capacity, "varies", True)
        own = {1: 1, 2: 3, 3: 6}[grid.ndim]
        size = size if (grid.ndim, size) in COMPONENTS else own
        self._components = COMPONENTS[grid.ndim, size]
        name, unit, about = self.coefficient
        self.wants: tuple[Field, ...] = (Field(name, size, unit, about, spd=size > 1),)
        self._name = self.unknowns[0].name
        axes = AXES[: grid.ndim]
        self.start = Expression(section.initial, axes, "macro.initial")
        self.source = Expression(section.source, (*axes, "t", self._name), "macro.source")
        self._has_source = not (self.source.is_constant and self.source() == 0.0)
        self.faces = boundary_faces(section.boundary, grid, self._name)
        self.coordinates = grid.coordinates()
        self._local, self._rim = grid.new_local(), Rim(grid)
        self._diagonal = Kernel.load("heat_diagonal", f"heat_diagonal_{grid.ndim}d")
        self._conductances = Kernel.load("heat", "heat_faces")
        # Filled rather than np.zeros: only so does numpy ask for huge pages, which the stencil feels.
        self._faces = np.full((grid.ndim, *grid.rank_shape), 0.0)
        self._behind = [np.zeros(self._face_shape(axis)) for axis in range(grid.ndim)]
        self.owned_conductivity = np.full((own, grid.ncells), 0.0)
        self._cross_terms = np.full((own - grid.ndim, *(n + 2 for n in grid.rank_shape)), 0.0)
        self._has_cross = np.zeros(1, dtype=np.intc)
        self._exchange = grid.new_vector()
        self._set_fixed_arguments()
        # Of each face of a side: coefficient, value, flux, share of the cross part that enters.
        self._sides = {axis: np.zeros((2, 4, *self._face_shape(axis))) for axis in range(grid.ndim)}
        self._evaluated: set[str] = set()

    @cached_property
    def _coefficients(self) -> Kernel:
        """Only implicit schemes need it."""
        return Kernel.load("heat", "heat_coefficients")

    @cached_property
    def _cross(self) -> Kernel:
        """Only conductivities with cross terms need it."""
        return Kernel.load("heat_cross", f"heat_cross_{self.grid.ndim}d")

    def _face_shape(self, axis: int) -> tuple[int, ...]:
        """Shape of the owned block's face across an axis, in array order."""
        shape = list(self.grid.rank_shape)
        del shape[self.grid.ndim - 1 - axis]
        return tuple(shape) or (1,)

    def _set_fixed_arguments(self) -> None:
        """Arguments of the kernels that never change."""
        axes = range(self.grid.ndim)
        sizes = {f"n{AXES[axis]}": n for axis, n in enumerate(reversed(self.grid.rank_shape))}
        widths = {f"h{AXES[axis]}": h for axis, h in enumerate(self.grid.spacing)}
        faces = [self.faces[side] for side in SIDES[: 2 * self.grid.ndim]]
        self._physical = np.array([int(given is not None) for given in faces], np.int32)
        # Nothing is looked up at insulated sides, so that their cells are done as fast as the others.
        opened = np.array([int(given is not None and not given.insulated) for given in faces], np.int32)
        self._arguments = {**sizes, **widths}
        self._diagonal_arguments = {**self._arguments, "open_sides": opened, "faces": self._faces}
        self._diagonal_arguments |= {f"behind_{AXES[axis]}": self._behind[axis] for axis in axes}
        self._diagonal_arguments |= {f"ghost_{name}": plane for name, plane in self._rim.planes.items()}

    def _along(self, axis: int) -> tuple[dict, tuple[int, int, int]]:
        """The block as a kernel of one axis sees it: its arguments, and cells slower, along, faster."""
        along, shape = self.grid.ndim - 1 - axis, self.grid.rank_shape
        outer, inner = int(np.prod(shape[:along])), int(np.prod(shape[along + 1 :]))
        sizes = {"nouter": outer, "n": shape[along], "ninner": inner, "h": self.grid.spacing[axis]}
        return {**sizes, "physical": self._physical[2 * axis : 2 * axis + 2]}, (outer, shape[along], inner)

    def _side_values(self, time: float, owned: np.ndarray) -> dict[str, np.ndarray]:
        """What is given at the sides of this rank's block; evaluated anew where it may have changed."""
        for number, side in enumerate(SIDES[: 2 * self.grid.ndim]):
            faces = self.faces[side]
            if faces is None or side in self._evaluated:
                continue
            axis, high = divmod(number, 2)
            target = self._sides[axis][high]
            values = faces.evaluate(time, owned, self.owned_conductivity)
            share = values[0] * faces.half_width / self.owned_conductivity[faces.normal, faces.cells]
            for row, value in zip(target, (*values, share), strict=True):
                row[...] = value.reshape(row.shape)
            if not any(formula.used & {"t", self._name} for formula in faces.given.values()):  # steady
                self._evaluated.add(side)
        return {f"side_{AXES[axis]}": values for axis, values in self._sides.items()}

    def initial(self) -> np.ndarray:
        """Temperature at t = 0 in K, shape (1, ncells)."""
        return self.start(**self.coordinates)[None]

    def use(self, unknown: np.ndarray, outputs: dict[str, np.ndarray]) -> None:
        """Collective. Take the conductivity (size, ncells) and renew <rho c> for this temperature.

        Raises:
            ConfigError: <rho c> is not positive somewhere; raised on every rank.
        """
        for row, component in zip(self.owned_conductivity, self._components, strict=True):
            row[...] = outputs[self.coefficient[0]][component]
        # A steady flux does not ask for the conductivity.
        self._evaluated = {side for side in self._evaluated if self.faces[side].kind == "flux"}
        self._renew_faces()
        self._renew_cross_terms()
        self._outputs = outputs
        self.capacity = self.renewed_capacity(unknown[0], outputs)
        with together(self.grid.comm):
            self._check_capacity(unknown[0])

    def _check_capacity(self, unknown: np.ndarray) -> None:
        """Refuse a C that would let heat flow from cold to hot, or that is no number.

        Raises:
            ConfigError: it is not positive in some owned cell.
        """
        if not np.all(np.asarray(self.capacity) > 0.0):
            capacity = np.broadcast_to(self.capacity, self.grid.ncells)
            cell = np.flatnonzero(~(capacity > 0.0))[0]
            what, advice = self.capacity_advice
            raise ConfigError(
                f"{what} must be positive, got {capacity[cell]:.6g} in cell "
                f"{self.grid.ids[cell]} ({self._name} = {unknown[cell]:.6g}); {advice}"
            )

    def renewed_capacity(self, temperature: np.ndarray, outputs: dict[str, np.ndarray]) -> np.ndarray:
        """<rho c> of the owned cells, shape (ncells,)."""
        return self.heat_capacity(temperature)

    def capacity_at(self, unknown: np.ndarray) -> np.ndarray:
        """<rho c> at a temperature (ncells,), with the closure's outputs of the last `use`."""
        return self.renewed_capacity(unknown, self._outputs) if self._capacity_varies else self.capacity

    def gain(self, before: np.ndarray, after: np.ndarray) -> np.ndarray:
        """Heat stored between two temperatures in J/m3, shape (ncells,): exact for rho c of degree 5."""
        if not self._capacity_varies:
            return super().gain(before, after)
        change = after - before
        mean = sum(weight * self.capacity_at(before + at * change) for at, weight in GAUSS)
        return mean * change

    def settled(self, before: np.ndarray, after: np.ndarray) -> np.ndarray:
        """The temperature at which the cells hold the heat that a step with frozen rho c let in.

        A cell where Newton's method does not find it, as rho c jumps or has a peak that the step passes
        (a latent heat), keeps the temperature of the step: there, coupling "picard" or shorter steps help.

        Source: Q. T. Pham 1985, Int. J. Heat Mass Transfer 28, 2079 (there for phase changes).
        """
        if not self._capacity_varies:
            return after
        heat, result = self.capacity * (after - before), after.copy()
        # As many steps of Newton's method in every cell, so that no cell feels its neighbours.
        for _ in range(NEWTON_STEPS):
            result -= (self.gain(before, result) - heat) / self.capacity_at(result)
        found = np.abs(self.gain(before, result) - heat) <= SETTLED_TO * np.abs(heat)
        return np.where(found, result, after)

    def set_goal(self, formula: Formula, horizon: float) -> None:
        """Choose the goal of `goal_weights`: a mean of the unknown with weights of x, y, z."""
        self._goal = Goal(self, formula, horizon)

    def goal_weights(self, time: float, unknown: np.ndarray, outputs: dict[str, np.ndarray]) -> np.ndarray:
        """Collective. What a relative error of one in K of each cell moves the goal by, shape (ncells,)."""
        self.use(unknown, outputs)
        return self._goal.weights(time, unknown[0])

    @contextmanager
    def _as_vector(self, values: np.ndarray):
        """A global PETSc vector of the owned cells' values, without a copy."""
        self._exchange.placeArray(values)
        try:
            yield self._exchange
        finally:
            self._exchange.resetArray()

    def with_ghosts(self, values: np.ndarray) -> np.ndarray:
        """Collective. Values of the owned cells with ghosts, until the next call that exchanges some."""
        with self._as_vector(values) as vector:
            return self.grid.ghosted(vector, self._local)

    def _renew_faces(self) -> None:
        """Collective. What the normal components of K make of the faces."""
        for axis in range(self.grid.ndim):
            conductivity = self.owned_conductivity[axis]
            with self._as_vector(conductivity) as vector:
                self._rim.exchange(vector)
            sizes, (outer, n, inner) = self._along(axis)
            self._conductances(
                **sizes,
                conductivity=conductivity.reshape(outer, n, inner),
                ghost=self._rim.planes[AXES[axis]].reshape(2, outer, inner),
                faces=self._faces[axis].reshape(outer, n, inner),
                behind=self._behind[axis].reshape(outer, inner),
            )

    def _renew_cross_terms(self) -> None:
        """Collective. The other components of K, if any rank has one that is not zero."""
        from mpi4py import MPI

        components = self.owned_conductivity[self.grid.ndim :]
        self._has_cross[0] = any(np.any(values != 0.0) for values in components)
        self.grid.comm.Allreduce(MPI.IN_PLACE, self._has_cross, op=MPI.MAX)
        if self._has_cross[0]:
            for target, values in zip(self._cross_terms, components, strict=True):
                target[...] = self.with_ghosts(values)

    def spatial(self, time: float, vector, out: np.ndarray | None = None) -> np.ndarray:
        """Collective. div(K grad T) + Q in W/m3, shape (ncells,); written into out where given."""
        owned = vector.getArray(readonly=True)
        out = self._apply(vector, self._side_values(time, owned), out)
        if self._has_source:
            out += self._source(time, owned)
        return out

    def forward_euler(self, time: float, dt: float, vector, out) -> None:
        """Collective. out = T + dt (div(K grad T) + Q) / (rho c), for global PETSc vectors T and out."""
        if self._has_source:
            super().forward_euler(time, dt, vector, out)
            return
        sides = self._side_values(time, vector.getArray(readonly=True))
        capacity = None
        if np.ndim(self.capacity):
            capacity = np.ascontiguousarray(self.capacity).reshape(self.grid.rank_shape)
        else:  # the same everywhere: an array less to read
            dt = dt / float(self.capacity)
        with out as values:
            self._apply(vector, sides, values, dt, capacity)

    def _apply(self, vector, sides, out=None, dt=0.0, capacity=None) -> np.ndarray:
        """Collective. div(K grad T) with the given sides, shape (ncells,); see heat_diagonal.c for dt."""
        out = np.empty(self.grid.ncells) if out is None else out
        block, result = self.grid.rank_shape, out.reshape(self.grid.rank_shape)
        step = {"dt": dt, "capacity": capacity, "divergence": result}
        first = {"dt": 0.0, "capacity": None, "divergence": result} if self._has_cross[0] else step
        self._rim.exchange(vector)
        temperature = vector.getArray(readonly=True).reshape(block)
        self._diagonal(**self._diagonal_arguments, **sides, **first, temperature=temperature)
        if self._has_cross[0]:
            # In 2D there is one cross term, and no axis for its components.
            cross = self._cross_terms[0] if self.grid.ndim == 2 else self._cross_terms
            temperature = self.grid.ghosted(vector, self._local)
            given = {**self._arguments, **sides, **step, "physical": self._physical, "cross": cross}
            self._cross(**given, temperature=temperature)
        return out

    def _source(self, time: float, temperature: np.ndarray) -> np.ndarray:
        """Q in W/m3, shape (ncells,)."""
        if self.source.is_constant:
            return self.source()
        when = np.full(self.grid.ncells, time)
        return self.source(**self.coordinates, t=when, **{self._name: temperature})

    def linear_coefficients(self, time: float, vector) -> np.ndarray:
        """dL/dT with K frozen, without cross terms: shape (1 + 2 ndim, ncells), W/(m3 K)."""
        owned = vector.getArray(readonly=True)
        rows = np.zeros((1 + 2 * self.grid.ndim, self.grid.ncells))
        self._linearise(time, owned)
        for axis in range(self.grid.ndim):
            sizes, block = self._along(axis)
            self._coefficients(
                **sizes,
                faces=self._faces[axis].reshape(block),
                behind=self._behind[axis].reshape(block[0], block[2]),
                side=self._linear_sides[f"side_{AXES[axis]}"].reshape(2, 4, block[0], block[2]),
                back=rows[1 + 2 * axis].reshape(block),
                ahead=rows[2 + 2 * axis].reshape(block),
                centre=rows[0].reshape(block),
            )
        rows[0] += self._source_slope
        return rows

    def _linearise(self, time: float, owned: np.ndarray) -> None:
        """Sides with nothing given but their coefficients, and what source and fluxes change with T."""
        self._side_values(time, owned)
        self._linear_sides = {}
        for axis, values in self._sides.items():
            sides = np.zeros_like(values)
            sides[:, [0, 3]] = values[:, [0, 3]]
            for high in (0, 1):
                faces = self.faces[SIDES[2 * axis + high]]
                if faces is not None:
                    slope = flux_slope(faces, time, owned, self.owned_conductivity)
                    sides[high, 0] -= slope.reshape(sides[high, 0].shape)
            self._linear_sides[f"side_{AXES[axis]}"] = sides
        self._source_slope = 0.0
        if self._name in self.source.used:
            change = DIFFERENCE * (1.0 + np.abs(owned))
            self._source_slope = (self._source(time, owned + change) - self._source(time, owned)) / change

    def linear_product(self, vector) -> np.ndarray:
        """Collective. dL/dT of the last `linear_coefficients` times a vector, W/m3."""
        out = self._apply(vector, self._linear_sides)
        return out + self._source_slope * vector.getArray(readonly=True)

    def is_symmetric(self) -> bool:
        """Collective. Cross terms of a conductivity that varies make the operator unsymmetric."""
        from mpi4py import MPI

        ndim = self.grid.ndim
        size = np.abs(self.owned_conductivity)
        mine = np.array([size[ndim:].max(initial=0.0), size[:ndim].max(initial=0.0)])
        largest = np.empty_like(mine)
        self.grid.comm.Allreduce(mine, largest, op=MPI.MAX)
        return bool(largest[0] <= 1e-10 * largest[1])
