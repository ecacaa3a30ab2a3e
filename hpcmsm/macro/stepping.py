"""Time stepping of a macro model: PETSc TS for one-step schemes, SNES for backward differences, splitting.

PETSc's own BDF keeps its history where no restart can reach it, so a run that was interrupted
would go on with other bits than one that was not. Backward differences are short enough to be
written here, with the history a named field of the checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from hpcmsm.config import CENTRAL, EXPLICIT, SPLIT, MacroSection, TimeSection
from hpcmsm.errors import SolverError
from hpcmsm.fields import ncomponent
from hpcmsm.grid import Grid
from hpcmsm.macro.base import MacroModel, MethodOfLines, SplitModel
from hpcmsm.macro.central import NessyahuTadmor
from hpcmsm.macro.solver import (
    ROUNDING,
    FrozenOperator,
    NonlinearSolver,
    StencilMatrix,
    check_options_used,
    petsc_options,
    set_from_options,
)
from hpcmsm.macro.stepper import Ask, Stepper, StepResult

RK_TYPES = {"rk2": "2a", "rk3": "3bs", "rk4": "4", "rk5": "5dp"}
ARKIMEX_TYPES = {"arkimex2": "a2", "arkimex3": "3", "arkimex4": "4"}


class Splitting(Stepper):
    """Transport and reaction in turns: Godunov's (first order), or Strang's (second order).

    Strang's puts half steps of transport around one whole step of reaction, so the closure is asked
    once a step. Source: G. Strang 1968, SIAM J. Numer. Anal. 5, 506.
    """

    model: SplitModel

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self._unknown = np.zeros((ncomponent(self.model.unknowns), self.grid.ncells))

    @property
    def unknown(self) -> np.ndarray:
        """The unknowns in the owned cells, shape (ncomponent, ncells)."""
        return self._unknown

    def set_unknown(self, values: np.ndarray) -> None:
        """Take over values of shape (ncomponent, ncells)."""
        self._unknown[...] = values

    def advance(self, step: int, now: float, dt: float) -> StepResult:
        """Collective. Advance the unknowns from time `now` by dt."""
        part = 0.5 if self.time.scheme == "strang" else 1.0
        self.model.begin_step(self._unknown, now, dt)
        self.model.transport(self._unknown, now, part * dt)
        self.ask(now, dt, self._unknown)
        self.model.react(self._unknown, dt)
        if part < 1.0:
            self.model.transport(self._unknown, now + part * dt, (1.0 - part) * dt)
        return StepResult(now + dt, dt)


class PetscStepper(Stepper):
    """Advances a method of lines, its one unknown in a PETSc vector."""

    model: MethodOfLines

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.vector = self.grid.new_vector()
        self._options_checked = False

    @property
    def unknown(self) -> np.ndarray:
        """The unknown in the owned cells, shape (1, ncells)."""
        return self.vector.getArray(readonly=True)[None]

    def set_unknown(self, values: np.ndarray) -> None:
        """Take over values of shape (1, ncells)."""
        self.vector.setArray(values.ravel())

    def _ask(self, time: float, dt: float, vector) -> None:
        self.ask(time, dt, vector.getArray(readonly=True)[None])

    def advance(self, step: int, now: float, dt: float) -> StepResult:
        """Collective. Advance the unknown from time `now` by about dt.

        Raises:
            SolverError: the solve diverged.
        """
        if self.macro.coupling == "lagged":
            self._ask(now, dt, self.vector)
        result = self._advance(self.vector, step, now, dt)
        if not self._options_checked:
            check_options_used(self.macro)
            self._options_checked = True
        return result

    def _advance(self, vector, step: int, now: float, dt: float) -> StepResult:
        raise NotImplementedError


@dataclass
class DifferenceStage:
    """(new * gain(old, u) - older * gain(previous, old)) / dt = L(t, u): a backward difference step.

    It balances what the cells store, not their unknown, so that it conserves it whatever C(u) is.

    Args:
        ask: lets the closure answer for a vector, or None where its outputs and C stay frozen.
        new, older: weights of the gains of this step and of the one before.
        old, previous: unknown at the start of this step and of the one before, shape (ncells,).
        end: time at the end of the step in s.
    """

    model: MethodOfLines
    ask: Callable | None
    new: float
    older: float
    old: np.ndarray
    previous: np.ndarray | None
    dt: float
    end: float

    def residual(self, vector) -> np.ndarray:
        """Collective. Left side less right side, shape (ncells,)."""
        unknown = vector.getArray(readonly=True)
        if self.ask is None:
            gain = self.model.capacity * (unknown - self.old)
        else:
            self.ask(self.end, self.dt, vector)
            gain = self.model.gain(self.old, unknown)
        return (self.new * gain - self._older_gain) / self.dt - self.model.spatial(self.end, vector)

    @cached_property
    def _older_gain(self) -> np.ndarray | float:
        """Of the step before; not before the closure has answered, on which the capacity may depend."""
        return self.older * self.model.gain(self.previous, self.old) if self.older else 0.0

    def coefficients(self, vector) -> np.ndarray:
        """Rows of the 5 (7) point part of the derivative, shape (1 + 2 ndim, ncells)."""
        coefficients = -self.model.linear_coefficients(self.end, vector)
        frozen = self.ask is None
        self.capacity = (
            self.model.capacity if frozen else self.model.capacity_at(vector.getArray(readonly=True))
        )
        coefficients[0] += self.new / self.dt * self.capacity
        return coefficients

    def product(self, vector) -> np.ndarray:
        """Collective. The derivative times a vector, shape (ncells,)."""
        inertia = self.new / self.dt * self.capacity * vector.getArray(readonly=True)
        return inertia - self.model.linear_product(vector)


class BackwardDifferences(PetscStepper):
    """Backward Euler, and BDF2 with variable steps (Hairer, Norsett, Wanner 1993, III.5)."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.second_order = self.time.scheme == "bdf2"
        lagged = self.macro.coupling == "lagged"
        # With lagged coefficients the problem is linear up to boundary terms.
        rtol = max(10.0 * self.macro.linear_tolerance, 1e-13) if lagged else self.macro.picard_tolerance
        self.solver = NonlinearSolver(self.grid, self.macro, rtol)
        if self.second_order:
            self.previous = np.zeros((1, self.grid.ncells))

    def _weights(self, dt: float) -> tuple[float, float]:
        """Weights of u(n+1) - u(n) and u(n) - u(n-1) in dt du/dt."""
        if not self.second_order or self.previous_dt == 0.0:
            return 1.0, 0.0
        ratio = dt / self.previous_dt
        return (1 + 2 * ratio) / (1 + ratio), ratio**2 / (1 + ratio)

    def _advance(self, vector, step: int, now: float, dt: float) -> StepResult:
        new, older = self._weights(dt)
        start = vector.getArray().copy()
        picard = self.macro.coupling == "picard"
        previous = self.previous[0] if older else None
        ask = self._ask if picard else None
        stage = DifferenceStage(self.model, ask, new, older, start, previous, dt, now + dt)
        symmetric = self.model.is_symmetric() if not picard else False
        nonlinear, linear = self.solver.solve(vector, stage, symmetric, step)
        if not picard:
            vector.setArray(self.model.settled(start, vector.getArray(readonly=True)))
        if self.second_order:
            self.previous = start[None]
        self.previous_dt = dt
        return StepResult(now + dt, dt, nonlinear, linear)


class ForwardEuler(PetscStepper):
    """Forward Euler, the model's own way: one pass over the arrays, where PETSc's would take four."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.vector, self._other = (self.grid.new_paged_vector(apart) for apart in (0, 288))

    def _advance(self, vector, step: int, now: float, dt: float) -> StepResult:
        if self.macro.coupling == "stage":  # its only stage is the start of the step
            self._ask(now, dt, vector)
        self.model.forward_euler(now, dt, vector, self._other)
        self.vector, self._other = self._other, self.vector
        return StepResult(now + dt, dt)


class OneStep(PetscStepper):
    """PETSc TS: explicit Runge-Kutta, or the implicit part of an additive one (ARKIMEX)."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        from petsc4py import PETSc

        self.ts = PETSc.TS().create(comm=self.grid.comm)
        self.ts.setOptionsPrefix("macro_")
        self._work = self.grid.new_vector()
        explicit = self.time.scheme in EXPLICIT
        petsc_options(self.macro, symmetric=False, ndim=self.grid.ndim)
        (self._set_explicit if explicit else self._set_implicit)()
        self._set_adaptivity()
        set_from_options(self.ts, self.macro)
        self._stage_asks = self.macro.coupling in ("stage", "picard")
        # Where the closure is asked before the step, it does not know that the step will be shorter.
        self._may_shorten = self.time.adaptive and not self._stage_asks

    def _set_explicit(self) -> None:
        self.ts.setType("rk")
        self.ts.setRKType(RK_TYPES[self.time.scheme])
        self.ts.setRHSFunction(self._rate, self._work)

    def _set_implicit(self) -> None:
        self.ts.setType("arkimex")
        self.ts.setARKIMEXType(ARKIMEX_TYPES[self.time.scheme])
        self.stencil, self.operator = StencilMatrix(self.grid), FrozenOperator(self.grid)
        self.ts.setIFunction(self._residual, self._work)
        self._terms = self.grid.new_vector()
        self.ts.setIJacobian(self._fill, self.operator.matrix, self.stencil.matrix)
        picard = self.macro.coupling == "picard"
        rtol = self.macro.picard_tolerance if picard else 1e-8
        self.ts.getSNES().setTolerances(rtol=rtol, stol=0.0, max_it=self.macro.max_iterations)

    def _set_adaptivity(self) -> None:
        from petsc4py import PETSc

        self.ts.setTolerances(atol=self.time.tolerance, rtol=self.time.tolerance)
        self.ts.setMaxSteps(2**30)
        self.ts.setExactFinalTime(PETSc.TS.ExactFinalTime.MATCHSTEP)
        self.ts.setMaxTime(self.time.end)
        if "ts_adapt_type" not in self.macro.petsc:
            PETSc.Options()["macro_ts_adapt_type"] = "basic" if self.time.adaptive else "none"

    def _rate(self, ts, time, vector, out) -> None:
        if self._stage_asks:
            self._ask(time, ts.getTimeStep(), vector)
        with out as values:
            self.model.spatial(time, vector, values)
            np.divide(values, self.model.capacity, out=values)

    def _residual(self, ts, time, vector, rate, out) -> None:
        if self._stage_asks:
            self._ask(time, ts.getTimeStep(), vector)
        with out as values:
            self.model.spatial(time, vector, values)
            np.divide(values, self.model.capacity, out=values)
            np.subtract(rate.getArray(readonly=True), values, out=values)

    def _fill(self, ts, time, vector, rate, shift, operator, preconditioner) -> None:
        model = self.model
        coefficients = -model.linear_coefficients(time, vector) / model.capacity
        coefficients[0] += shift
        self.stencil.fill(coefficients)
        self._terms.setArray(coefficients[0] * vector.getArray(readonly=True))
        # Below the rounding of its largest terms no reduction of the residual can be asked.
        self.ts.getSNES().setTolerances(atol=ROUNDING * self._terms.norm())
        self.operator.apply = lambda u: (
            shift * u.getArray(readonly=True) - model.linear_product(u) / model.capacity
        )

    def _advance(self, vector, step: int, now: float, dt: float) -> StepResult:
        from petsc4py import PETSc

        self.ts.setTime(now)
        self.ts.setTimeStep(dt)
        self.ts.setSolution(vector)
        # Nothing of the step before may be used: it would be missing after a restart.
        self.ts.restartStep()
        before = self.ts.getSNESIterations(), self.ts.getKSPIterations()
        start = vector.copy() if self._may_shorten else None
        try:
            self.ts.step()
        except PETSc.Error as error:
            raise SolverError(
                f"the macro step must converge, got PETSc error {error.ierr} at step {step}, "
                f"t = {now:.6g} s; lower time.step, raise macro.max_iterations, or change macro.petsc"
            ) from None
        taken = self.ts.getTime() - now
        if start is not None and taken < dt * (1.0 - 1e-9):
            # PETSc has rejected a step and taken a shorter one: the cells must not be ahead of it.
            self._ask(now, taken, start)
        nonlinear = self.ts.getSNESIterations() - before[0]
        linear = self.ts.getKSPIterations() - before[1]
        return StepResult(self.ts.getTime(), self.ts.getTimeStep(), nonlinear, linear)


# time.scheme -> its stepper.
STEPPERS: dict[str, type[Stepper]] = {
    "euler": ForwardEuler,
    **dict.fromkeys((*RK_TYPES, *ARKIMEX_TYPES), OneStep),
    **dict.fromkeys(("backward_euler", "bdf2"), BackwardDifferences),
    **dict.fromkeys(SPLIT, Splitting),
    **dict.fromkeys(CENTRAL, NessyahuTadmor),
}


def make_stepper(model: MacroModel, grid: Grid, time: TimeSection, macro: MacroSection, ask: Ask) -> Stepper:
    """The stepper for a scheme of the case file, with the model's initial values."""
    stepper = STEPPERS[time.scheme](model, grid, time, macro, ask)
    stepper.set_unknown(model.initial())
    return stepper
