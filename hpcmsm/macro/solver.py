"""The implicit solve of one stage: PETSc SNES over a matrix with the coefficients frozen."""

from __future__ import annotations

import numpy as np

from hpcmsm.config import MacroSection
from hpcmsm.errors import ConfigError, SolverError
from hpcmsm.grid import Grid

OPTIONS_PREFIX = "macro_"


def petsc_options(macro: MacroSection, symmetric: bool, ndim: int) -> None:
    """Put our defaults, and over them the case's own options, into PETSc's option table."""
    from petsc4py import PETSc

    options = PETSc.Options(OPTIONS_PREFIX)
    options.clear() if hasattr(options, "clear") else None
    # BoomerAMG is cheapest in 2D and GAMG in 3D; both need few iterations whatever the step.
    amg = "hypre" if ndim == 2 and _has_hypre() else "gamg"
    defaults = {
        "ksp_type": "cg" if symmetric else "gmres",
        "ksp_rtol": macro.linear_tolerance,
        "pc_type": amg,
        "snes_type": "newtonls",
        # The matrix leaves out what the closure would change, so a line search has nothing to gain.
        "snes_linesearch_type": "basic",
    }
    for name, value in {**defaults, **macro.petsc}.items():
        options[name] = value


def _has_hypre() -> bool:
    from petsc4py import PETSc

    pc = PETSc.PC().create(PETSc.COMM_SELF)
    try:
        pc.setType("hypre")
    except PETSc.Error:
        return False
    finally:
        pc.destroy()
    return True


class StencilMatrix:
    """A sparse matrix with 5 (7) entries a row, filled from coefficient arrays in one call.

    Args:
        grid: where the unknowns live.
    """

    def __init__(self, grid: Grid):
        from petsc4py import PETSc

        rows, columns = self._pattern(grid)
        self.matrix = PETSc.Mat().create(comm=grid.comm)
        n = (grid.ncells, grid.total_cells)
        self.matrix.setSizes((n, n))
        self.matrix.setType(PETSc.Mat.Type.AIJ)
        self.matrix.setPreallocationCOO(rows, columns)

    @staticmethod
    def _pattern(grid: Grid) -> tuple[np.ndarray, np.ndarray]:
        """Row and column numbers of all entries; entries outside the domain are negative, PETSc skips them."""
        from petsc4py import PETSc

        ghosted = tuple(stop - start for start, stop in reversed(grid.dm.getGhostRanges()))
        local = np.arange(int(np.prod(ghosted)), dtype=PETSc.IntType)
        number = np.asarray(grid.dm.getLGMap().apply(local)).reshape(ghosted)
        inner = tuple(slice(1, -1) for _ in ghosted)
        centre = number[inner].ravel()
        columns = [centre]
        for axis in range(grid.ndim):
            dimension = grid.ndim - 1 - axis
            for shift in (-1, 1):
                window = list(inner)
                window[dimension] = slice(1 + shift, ghosted[dimension] - 1 + shift)
                columns.append(number[tuple(window)].ravel())
        rows = np.tile(centre, len(columns))
        return rows.astype(PETSc.IntType), np.concatenate(columns).astype(PETSc.IntType)

    def fill(self, coefficients: np.ndarray) -> None:
        """Collective. Set all entries, shape (1 + 2 ndim, ncells): centre, x-, x+, y-, y+[, z-, z+]."""
        self.matrix.setValuesCOO(np.ascontiguousarray(coefficients).ravel())
        self.matrix.assemble()


class NonlinearSolver:
    """SNES on `residual(vector) -> array`, with `jacobian(vector) -> coefficients`.

    Args:
        grid: where the unknowns live.
        macro: solver settings of the case.
        rtol: reduction of the residual at which the solve has converged.
    """

    def __init__(self, grid: Grid, macro: MacroSection, rtol: float):
        from petsc4py import PETSc

        petsc_options(macro, symmetric=True, ndim=grid.ndim)
        self.matrix = StencilMatrix(grid)
        self.rtol, self.max_iterations = rtol, macro.max_iterations
        self.residual = self.jacobian = None
        self.snes = PETSc.SNES().create(comm=grid.comm)
        self.snes.setOptionsPrefix(OPTIONS_PREFIX)
        self._work = grid.new_vector()
        self.snes.setFunction(self._evaluate, self._work)
        self.snes.setJacobian(self._fill, self.matrix.matrix)
        set_from_options(self.snes, macro)

    def _evaluate(self, snes, vector, out) -> None:
        out.setArray(self.residual(vector))

    def _fill(self, snes, vector, matrix, preconditioner) -> None:
        self.matrix.fill(self.jacobian(vector))

    def solve(self, vector, residual, jacobian, scale: float, step: int) -> tuple[int, int]:
        """Collective. Solve residual(u) = 0 from the guess in vector, in place.

        Args:
            scale: size of the terms of the residual, below whose rounding no reduction is asked.
            step: number of the step, for messages.
        Returns:
            (nonlinear iterations, linear iterations).
        Raises:
            SolverError: it did not converge.
        """
        self.residual, self.jacobian = residual, jacobian
        self.snes.setTolerances(rtol=self.rtol, atol=1e-14 * scale, stol=0.0, max_it=self.max_iterations)
        self.snes.solve(None, vector)
        reason = self.snes.getConvergedReason()
        if reason < 0:
            raise SolverError(
                f"the macro solve must converge, got {_name_of(reason)} at step {step} after "
                f"{self.snes.getIterationNumber()} iterations (residual {self.snes.getFunctionNorm():.1e}); "
                "lower time.step, raise macro.max_iterations, or change macro.petsc"
            )
        return self.snes.getIterationNumber(), self.snes.getLinearSolveIterations()


def set_from_options(solver, macro: MacroSection) -> None:
    """Collective. Apply the option table; a name or value that PETSc refuses is the user's error."""
    from petsc4py import PETSc

    try:
        solver.setFromOptions()
    except PETSc.Error as error:
        raise ConfigError(
            f"macro.petsc must hold options that PETSc knows, got {dict(macro.petsc)} "
            f"(PETSc error {error.ierr}); correct them"
        ) from None


def _name_of(reason: int) -> str:
    from petsc4py import PETSc

    kinds = PETSc.SNES.ConvergedReason
    names = [name for name in dir(kinds) if name.isupper() and getattr(kinds, name) == reason]
    return names[0] if names else f"reason {reason}"
