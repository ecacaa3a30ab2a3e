"""`Goal`: how much a weighted mean of the temperature depends on the conductivity of each cell.

With A the operator of the present step, frozen, and g the weights of the mean, A z = g (A is symmetric)
gives the adjoint z; a change of K in a cell then moves the goal by grad z . dK grad u there, so at most by
|grad u| |grad z| |K| times the relative change (Becker, Rannacher 2001, Acta Numerica 10, 1-102, section 3).
"""

from __future__ import annotations

import numpy as np

from hpcmsm.config import Formula
from hpcmsm.errors import SolverError
from hpcmsm.expressions import Expression
from hpcmsm.grid import AXES
from hpcmsm.macro.boundary import SIDES
from hpcmsm.macro.solver import StencilMatrix

LINEAR_TOLERANCE = 1e-11


class Goal:
    """The mean of the unknown of a heat equation with weights over the cells.

    Heat that is stored over the `horizon` is counted as if it were lost at once, so that an insulated body
    has an adjoint, too; for a steady problem it is of no account.

    Args:
        model: the heat equation.
        formula: weight of a place, of x, y, z; "1" is the mean over all cells.
        horizon: time in s over which errors may add up.
    """

    def __init__(self, model, formula: Formula, horizon: float):
        from petsc4py import PETSc

        self.model, self.grid, self.horizon = model, model.grid, horizon
        weight = Expression(formula, AXES[: self.grid.ndim], "gate.goal")(**model.coordinates)
        self.density = np.broadcast_to(weight, (self.grid.ncells,))
        self.stencil = StencilMatrix(self.grid)
        self.right, self.adjoint, self.unknown = (self.grid.new_vector() for _ in range(3))
        self.ksp = PETSc.KSP().create(comm=self.grid.comm)
        self.ksp.setType("cg")
        self.ksp.getPC().setType("gamg")
        self.ksp.setTolerances(rtol=LINEAR_TOLERANCE)

    def weights(self, time: float, temperature: np.ndarray) -> np.ndarray:
        """Collective. Change of the goal by a relative error of one in K of each cell, shape (ncells,).

        The model must hold the conductivity that is meant, see `MacroModel.use`.

        Args:
            temperature: of the owned cells, shape (ncells,).
        """
        z = self._solve(time, temperature)
        size = _frobenius(self.model.owned_conductivity, self.grid.ndim)
        return (
            size
            * self._steepness(temperature, self._forced(time, temperature))
            * self._steepness(z, self._homogeneous(time, temperature, z))
        )

    def _solve(self, time: float, temperature: np.ndarray) -> np.ndarray:
        self.unknown.setArray(temperature)
        rows = -self.model.linear_coefficients(time, self.unknown)
        rows[0] += self.model.capacity / self.horizon
        self.stencil.fill(rows)
        total = self.grid.comm.allreduce(float(self.density.sum()))
        self.right.setArray(self.density / total)
        self.ksp.setOperators(self.stencil.matrix)
        self.ksp.solve(self.right, self.adjoint)
        if self.ksp.getConvergedReason() < 0:
            raise SolverError(
                f"the adjoint of gate.goal must be solved, got PETSc reason {self.ksp.getConvergedReason()} "
                f"after {self.ksp.getIterationNumber()} iterations; use gate.tolerance instead of "
                "gate.macro_tolerance"
            )
        return self.adjoint.getArray().copy()

    def _forced(self, time: float, temperature: np.ndarray) -> dict[str, np.ndarray]:
        """Flux into the domain through the faces of each side, W/m2."""
        sides = {}
        for side, faces in self.model.faces.items():
            if faces is not None:
                given = faces.evaluate(time, temperature, self.model.owned_conductivity)
                sides[side] = given[0] * (given[1] - temperature[faces.cells]) + given[2]
        return sides

    def _homogeneous(self, time: float, temperature: np.ndarray, z: np.ndarray) -> dict[str, np.ndarray]:
        """The same for the adjoint, to which nothing is given."""
        sides = {}
        for side, faces in self.model.faces.items():
            if faces is not None:
                given = faces.evaluate(time, temperature, self.model.owned_conductivity)
                sides[side] = -given[0] * z[faces.cells]
        return sides

    def _steepness(self, values: np.ndarray, sides: dict[str, np.ndarray]) -> np.ndarray:
        """|grad| inside each cell: fluxes through its faces over its own K, root mean square of both ends."""
        squares = np.zeros(self.grid.rank_shape)
        for axis in range(self.grid.ndim):
            own = self.model.owned_conductivity[axis].reshape(self.grid.rank_shape)
            around = np.array(self.model.with_ghosts(self.model.owned_conductivity[axis]))
            ghosted = np.array(self.model.with_ghosts(values))
            for high in (0, 1):
                flux = _face_flux(around, ghosted, self.grid.ndim - 1 - axis, high) / self.grid.spacing[axis]
                side = sides.get(SIDES[2 * axis + high])
                if side is not None:
                    cells = self.model.faces[SIDES[2 * axis + high]].cells
                    flux.reshape(-1)[cells] = side
                squares += 0.5 * (flux / own) ** 2
        return np.sqrt(squares).ravel()


def _face_flux(around: np.ndarray, ghosted: np.ndarray, dimension: int, high: int) -> np.ndarray:
    """Harmonic mean of K times the difference to a neighbour, for the owned cells; 0 outside of the box."""
    inner = [slice(1, -1)] * ghosted.ndim
    neighbour = list(inner)
    neighbour[dimension] = slice(2, None) if high else slice(0, -2)
    here, there = around[tuple(inner)], around[tuple(neighbour)]
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = np.where(there > 0.0, 2.0 * here * there / (here + there), 0.0)
    return np.ascontiguousarray(mean * (ghosted[tuple(neighbour)] - ghosted[tuple(inner)]))


def _frobenius(conductivity: np.ndarray, ndim: int) -> np.ndarray:
    """Size of the tensors (size, ncells) whose first ndim rows are their diagonals."""
    return np.sqrt((conductivity[:ndim] ** 2).sum(axis=0) + 2.0 * (conductivity[ndim:] ** 2).sum(axis=0))
