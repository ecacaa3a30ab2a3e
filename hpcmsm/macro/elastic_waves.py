"""Plane waves in a solid: dF/dt = dv/dX, rho0 dv/dt = dP(F)/dX, with the stress of the closure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import numpy as np
from pydantic import Field as Key

from hpcmsm.config import Boundary, Case, Formula, MacroSection, Section, validate
from hpcmsm.errors import ConfigError
from hpcmsm.expressions import Expression
from hpcmsm.fields import Field
from hpcmsm.grid import AXES, Grid
from hpcmsm.macro.boundary import SIDES, check_kinds
from hpcmsm.macro.central import COURANT, ConservationLaw, Mirror

STRETCH = Field("stretch", about="deformation gradient along x", start=1.0)
VELOCITY = Field("velocity", unit="m/s", about="velocity along x")
STRESS = Field("stress", unit="Pa", about="first Piola stress")
KINDS = ("periodic", "fixed", "moving", "free")
FIXED = Boundary(kind="fixed")
NSTRETCH = 8  # at which the speed of sound is looked at, between the least and the largest: one vector


class ElasticWaves(ConservationLaw):
    """Longitudinal waves, in coordinates of the undeformed bar.

    Args:
        grid: 1D.
        initial: formulas of x for "stretch" and "velocity"; 1 and 0 where left out.
        boundary: ends that are "periodic", "fixed", "moving" with a velocity given as a formula of t, or
            "free" of stress; fixed where left out.
        density: of the undeformed material in kg/m3.
        wave_speed: function stretch (n,) -> speed in m/s (n,), for the length of steps.
        steepness: of the limiter, 1 to 2, see `limited_slopes`.
        unstressed: stretch at which there is no stress, at free ends.
    Raises:
        ConfigError: the grid is not 1D, a formula is wrong, or ends are of another equation.
    """

    unknowns = (STRETCH, VELOCITY)
    sends = (STRETCH, VELOCITY)
    wants = (STRESS,)

    def __init__(
        self,
        grid: Grid,
        initial: dict[str, Formula],
        boundary: dict[str, Boundary],
        density: float,
        wave_speed: Callable,
        steepness: float = 1.5,
        unstressed: float = 1.0,
    ):
        if grid.ndim != 1:
            raise ConfigError(
                f"grid.cells must have one entry for macro.model 'elastic_waves', got {grid.ndim}; "
                "waves travel along x"
            )
        self.grid, self.density, self.wave_speed, self.steepness = grid, density, wave_speed, steepness
        self.unstressed = unstressed
        check_kinds(boundary, KINDS)
        ends = [boundary.get(side, FIXED) for side in SIDES[:2]]
        self.free = [end.kind == "free" for end in ends]
        self.given = [
            Expression(end.velocity or 0.0, ("t",), f"macro.boundary.{side}.velocity")
            for side, end in zip(SIDES[:2], ends, strict=True)
        ]
        self.start = [
            Expression(initial.get(field.name, field.start), AXES[:1], f"macro.initial.{field.name}")
            for field in self.unknowns
        ]
        self._fastest = 0.0

    def initial(self) -> np.ndarray:
        """Stretch and velocity at t = 0, shape (2, ncells)."""
        return np.stack([formula(**self.grid.coordinates()) for formula in self.start])

    def use(self, unknown: np.ndarray, outputs: dict[str, np.ndarray]) -> None:
        """Take over the stress in Pa, shape (1, ncells)."""
        self._stress = outputs[STRESS.name][0]

    def flux(self, unknown: np.ndarray) -> np.ndarray:
        """(-v, -P / rho0), shape (2, ncells)."""
        return np.stack([-unknown[1], self._stress / -self.density])

    def fastest(self, unknown: np.ndarray) -> float:
        """Collective. Speed of sound in m/s, the highest between the least and the largest stretch."""
        from mpi4py import MPI

        ends = np.array([-unknown[0].min(initial=np.inf), unknown[0].max(initial=-np.inf)])
        self.grid.comm.Allreduce(MPI.IN_PLACE, ends, op=MPI.MAX)
        fastest = self.fastest_between(-ends[0], ends[1])
        self._fastest = max(self._fastest, fastest)
        return fastest

    def fastest_between(self, low: float, high: float) -> float:
        """The highest speed of sound in m/s at some stretches of a range; NaN where one has none."""
        return float(np.max(self.wave_speed(np.linspace(low, high, NSTRETCH))))

    def mirror(self, high: bool, time: float) -> Mirror:
        """A moving end: the velocity is odd about its own. A free end: so is the stretch, about no stress."""
        if self.free[high]:
            return Mirror(np.array([False, True]), np.array([self.unstressed, 0.0]), np.zeros(2))
        velocity = float(self.given[high](t=np.array([time]))[0])
        return Mirror(np.array([True, False]), np.array([0.0, velocity]), np.array([-velocity, 0.0]))

    def figures(self) -> dict[str, object]:
        """The fastest wave met since the last start, in m/s."""
        return {"fastest_wave": self._fastest}


class Options(Section):
    """Keys of [macro] beside the common ones.

    density: kg/m3; wave_speed: a formula of stretch, m/s. Both may be left out where the micro model
    knows them. steepness and unstressed: see `ElasticWaves`.
    """

    density: Annotated[float, Key(gt=0, allow_inf_nan=False)] | None = None
    wave_speed: Formula | None = None
    steepness: Annotated[float, Key(ge=1, le=2)] = 1.5
    unstressed: Annotated[float, Key(gt=0, allow_inf_nan=False)] = 1.0


def from_case(case: Case, grid: Grid, micro, cell_fields) -> ElasticWaves:
    """Build the model from the table [macro].

    Raises:
        ConfigError: an option is wrong, nothing tells density or wave speed, or time.step is too long.
    """
    options = validate(Options, case.macro.options, "case file", "macro.")
    density = options.density or getattr(micro, "density", None)
    if density is None:
        raise ConfigError("macro.density must be given for this micro model, got nothing; write it in kg/m3")
    model = ElasticWaves(
        grid,
        _initial(case.macro),
        case.macro.boundary,
        density,
        _wave_speed(options, micro),
        options.steepness,
        options.unstressed,
    )
    _check_step(case, grid, model)
    return model


def _initial(section: MacroSection) -> dict[str, Formula]:
    """Formulas of the table macro.initial; none where it is left out."""
    names = [field.name for field in ElasticWaves.unknowns]
    given = section.initial if "initial" in section.model_fields_set else {}
    if not isinstance(given, dict) or not set(given) <= set(names):
        shown = f"'{given}'" if not isinstance(given, dict) else ", ".join(given)
        raise ConfigError(
            f"macro.initial must be a table of {' and '.join(names)} for macro.model 'elastic_waves', got "
            f"{shown}; write macro.initial.stretch = ..."
        )
    return given


def _wave_speed(options: Options, micro) -> Callable:
    if options.wave_speed is not None:
        formula = Expression(options.wave_speed, ("stretch",), "macro.wave_speed")
        return lambda stretch: formula(stretch=stretch)
    if not hasattr(micro, "wave_speed"):
        raise ConfigError(
            "macro.wave_speed must be given for this micro model, got nothing; write a formula of stretch "
            "in m/s that is not below the speed of sound"
        )
    return micro.wave_speed


def _check_step(case: Case, grid: Grid, model: ElasticWaves) -> None:
    """Refuse a step that is too long from the start on."""
    stretch = model.initial()[0]
    fastest = model.fastest_between(stretch.min(), stretch.max())
    longest = COURANT * grid.spacing[0] / fastest
    if case.time.step > longest * (1.0 + 1e-9):
        raise ConfigError(
            f"time.step must be at most {longest:.4g} s for waves of {fastest:.5g} m/s, got "
            f"{case.time.step:.4g}; lower it or use fewer cells"
        )
