"""The implicit solve of one stage: PETSc SNES over a matrix with the coefficients frozen."""

from __future__ import annotations

import ctypes

import numpy as np

from hpcmsm.config import MacroSection
from hpcmsm.errors import ConfigError, SolverError
from hpcmsm.grid import Grid

OPTIONS_PREFIX = "macro_"
ROUNDING = 1e-14
_put_by_us: set[str] = set()


def petsc_options(macro: MacroSection, symmetric: bool, ndim: int) -> None:
    """Put our defaults, and over them the case's own options, into PETSc's option table."""
    from petsc4py import PETSc

    options = PETSc.Options(OPTIONS_PREFIX)
    for name in _put_by_us:
        options.delValue(name)  # of a run before this one, in the same process
    _put_by_us.clear()
    # BoomerAMG is cheapest in 2D and GAMG in 3D; both need few iterations whatever the step.
    amg = "hypre" if ndim == 2 and _has_hypre() else "gamg"
    defaults = {
        "ksp_type": "cg" if symmetric else "gmres",
        "ksp_rtol": macro.linear_tolerance,
        "pc_type": amg,
        # The largest error over cells is the same in any order of the ranks; a 2-norm is not.
        "ts_adapt_wnormtype": "infinity",
        # Aggregates of an earlier matrix fail when dt has changed, and would be missing after a restart.
        "pc_gamg_reuse_interpolation": False,
        "snes_type": "newtonls",
        # The matrix leaves out what the closure would change, so a line search has nothing to gain.
        "snes_linesearch_type": "basic",
    }
    # What PETSC_OPTIONS says stands above our defaults, what the case says above both.
    for name, value in {**defaults, **macro.petsc}.items():
        if name in macro.petsc or not options.hasName(name):
            options[name] = "" if value is True else value
            _put_by_us.add(name)


def check_options_used(macro: MacroSection) -> None:
    """Refuse options that PETSc never looked at: a misspelt one would silently change nothing.

    To be called after the first step, when every part has been set up.

    Raises:
        ConfigError: an option of the case was not used.
    """
    from petsc4py import PETSc

    # petsc4py does not offer this function; its own library carries PETSc's.
    ask = ctypes.CDLL(PETSc.__file__).PetscOptionsUsed
    ask.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.POINTER(ctypes.c_int)]
    for name in macro.petsc:
        used = ctypes.c_int(0)
        if ask(None, f"{OPTIONS_PREFIX}{name}".encode(), ctypes.byref(used)) == 0 and not used.value:
            raise ConfigError(
                f"macro.petsc.{name} must be an option that the chosen solver uses, got one that PETSc never "
                "asked for; check its spelling, or the type of the solver it belongs to"
            )


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
    """A sparse matrix with up to 5 (7) entries a row, filled from coefficient arrays in one call.

    Args:
        grid: where the unknowns live.
    """

    def __init__(self, grid: Grid):
        from petsc4py import PETSc

        columns = self._columns(grid)
        # Entries outside the domain have no column.
        self._inside = columns >= 0
        self._columns_used = columns[self._inside]
        first = np.zeros(grid.ncells + 1, dtype=PETSc.IntType)
        np.cumsum(self._inside.sum(axis=1), out=first[1:])
        self._first = first
        n = (grid.ncells, grid.total_cells)
        structure = (first, self._columns_used, np.zeros(self._columns_used.size))
        self.matrix = PETSc.Mat().createAIJ((n, n), csr=structure, comm=grid.comm)

    @staticmethod
    def _columns(grid: Grid) -> np.ndarray:
        """PETSc's numbers of each owned cell and its neighbours, shape (ncells, 1 + 2 ndim), -1 outside."""
        from petsc4py import PETSc

        ghosted = tuple(stop - start for start, stop in reversed(grid.dm.getGhostRanges()))
        local = np.arange(int(np.prod(ghosted)), dtype=PETSc.IntType)
        number = np.asarray(grid.dm.getLGMap().apply(local)).reshape(ghosted)
        inner = tuple(slice(1, -1) for _ in ghosted)
        columns = [number[inner].ravel()]
        for axis in range(grid.ndim):
            dimension = grid.ndim - 1 - axis
            for shift in (-1, 1):
                window = list(inner)
                window[dimension] = slice(1 + shift, ghosted[dimension] - 1 + shift)
                columns.append(number[tuple(window)].ravel())
        return np.stack(columns, axis=1).astype(PETSc.IntType)

    def fill(self, coefficients: np.ndarray) -> None:
        """Collective. Set all entries, shape (1 + 2 ndim, ncells): centre, x-, x+, y-, y+[, z-, z+]."""
        from petsc4py import PETSc

        self.matrix.zeroEntries()
        # Added: along a periodic axis of one or two cells, neighbours share a column.
        values = coefficients.T[self._inside]
        self.matrix.setValuesCSR(self._first, self._columns_used, values, PETSc.InsertMode.ADD_VALUES)
        self.matrix.assemble()


class FrozenOperator:
    """The Jacobian with closure outputs frozen, applied without a matrix: cross terms included.

    PETSc calls `mult`. `apply` is a function (vector) -> array (ncells,).
    """

    def __init__(self, grid: Grid):
        from petsc4py import PETSc

        n = (grid.ncells, grid.total_cells)
        self.apply = None
        self.matrix = PETSc.Mat().createPython((n, n), context=self, comm=grid.comm)
        self.matrix.setUp()

    def mult(self, matrix, vector, out) -> None:
        """out = J vector."""
        out.setArray(self.apply(vector))


class NonlinearSolver:
    """SNES on `residual(vector) -> array (ncells,)`.

    The operator is exact for frozen closure outputs; the preconditioner is made from its 5 (7)
    point part, which is symmetric.

    Args:
        grid: where the unknowns live.
        macro: solver settings of the case.
        rtol: reduction of the residual at which the solve has converged.
    """

    def __init__(self, grid: Grid, macro: MacroSection, rtol: float):
        from petsc4py import PETSc

        petsc_options(macro, symmetric=True, ndim=grid.ndim)
        self.stencil, self.operator = StencilMatrix(grid), FrozenOperator(grid)
        self.rtol, self.max_iterations = rtol, macro.max_iterations
        self.chooses_krylov = "ksp_type" not in macro.petsc
        self.stage = None
        self.snes = PETSc.SNES().create(comm=grid.comm)
        self.snes.setOptionsPrefix(OPTIONS_PREFIX)
        self._residual, self._terms = grid.new_vector(), grid.new_vector()
        self.snes.setFunction(self._evaluate, self._residual)
        self.snes.setJacobian(self._fill, self.operator.matrix, self.stencil.matrix)
        set_from_options(self.snes, macro)

    def _evaluate(self, snes, vector, out) -> None:
        out.setArray(self.stage.residual(vector))

    def _fill(self, snes, vector, operator, preconditioner) -> None:
        coefficients = self.stage.coefficients(vector)
        self.stencil.fill(coefficients)
        self._terms.setArray(coefficients[0] * vector.getArray(readonly=True))
        # Below the rounding of its largest terms no reduction of the residual can be asked.
        self._set_tolerances(ROUNDING * self._terms.norm())

    def _set_tolerances(self, atol: float) -> None:
        self.snes.setTolerances(rtol=self.rtol, atol=atol, stol=0.0, max_it=self.max_iterations)

    def solve(self, vector, stage, symmetric: bool, step: int) -> tuple[int, int]:
        """Collective. Solve stage.residual(u) = 0 from the guess in vector, in place.

        Args:
            stage: has residual(vector), coefficients(vector) and product(vector).
            symmetric: whether the operator is symmetric, so that CG may be used.
            step: number of the step, for messages.
        Returns:
            (nonlinear iterations, linear iterations).
        Raises:
            SolverError: it did not converge.
        """
        self.stage, self.operator.apply = stage, stage.product
        if self.chooses_krylov:
            self.snes.getKSP().setType("cg" if symmetric else "gmres")
        self._set_tolerances(0.0)
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
