"""Excitation of the heart: the monodomain equation, split into diffusion and the reaction of each cell."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field as Key

from hpcmsm.config import Case, MacroSection, Real, Seconds, Section, quantity, validate
from hpcmsm.errors import ConfigError
from hpcmsm.expressions import Expression
from hpcmsm.fields import Field
from hpcmsm.grid import AXES, FIRST_CENTRE, Grid
from hpcmsm.kernels import Kernel
from hpcmsm.macro.base import SplitModel
from hpcmsm.macro.probes import Probe, Probes
from hpcmsm.parallel import together

VOLTAGE = Field(
    "voltage", unit="mV", about="inside of the membrane against its outside", lower=-200.0, upper=200.0
)
STIMULUS = Field("stimulus", unit="V/s", about="current from outside over the membrane's capacitance")
AFTER = Field("voltage_after", unit="mV", about="voltage that the cell alone reaches at the end of the step")
ACTIVATION = Field(
    "activation_time", unit="s", about="first upward crossing of 0 mV, nan before", start=math.nan
)
# Part of the largest stable step that a step of the diffusion may take.
SAFETY = 0.9
MOST_STEPS = 10_000
# A stimulus reaches cells whose centre is outside of its box by this part of a spacing: rounding.
ROUNDING = 1e-6

Positive = Annotated[float, Key(gt=0, allow_inf_nan=False)]
Coordinate = Annotated[float, quantity("m"), Key(allow_inf_nan=False)]
Time = Annotated[float, quantity("s"), Key(ge=0, allow_inf_nan=False)]


class StimulusSection(Section):
    """A current into a box of the tissue: [[macro.stimulus]]."""

    low: list[Coordinate] = Key(min_length=1, max_length=3)
    high: list[Coordinate] = Key(min_length=1, max_length=3)
    start: Time = 0.0
    duration: Seconds
    current: Real


class LineSection(Section):
    """Evenly spread probes on a line: [macro.lines.NAME]."""

    start: list[Coordinate] = Key(min_length=1, max_length=3)
    end: list[Coordinate] = Key(min_length=1, max_length=3)
    points: Annotated[int, Key(ge=2, le=1000, strict=True)] = 11


class Options(Section):
    """Keys of [macro] for model = "monodomain"; SI units, the voltage in mV.

    conductivity: along x[, y[, z]], of inside and outside together, S/m. surface_to_volume: membrane
    per volume of tissue, 1/m. capacitance: of the membrane, F/m2. stimulus: currents in A/m3.
    probes: names of points whose activation times go into the summary; lines of such.
    """

    conductivity: list[Annotated[float, Key(ge=0, allow_inf_nan=False)]] = Key(min_length=1, max_length=3)
    surface_to_volume: Positive = 140e3
    capacitance: Positive = 0.01
    stimulus: list[StimulusSection] = Key(default_factory=list)
    probes: dict[str, list[Coordinate]] = Key(default_factory=dict)
    lines: dict[str, LineSection] = Key(default_factory=dict)


@dataclass(frozen=True)
class Stimulus:
    """A current over capacitance of `strength` V/s into some cells (indices), from `start` to `end` in s."""

    cells: np.ndarray
    start: float
    end: float
    strength: float

    def mean(self, time: float, dt: float) -> float:
        """Its mean from `time` to time + dt, in V/s."""
        overlap = min(self.end, time + dt) - max(self.start, time)
        # Less than the rounding of the times is nothing.
        return self.strength * overlap / dt if overlap > 1e-9 * dt else 0.0


class Monodomain(SplitModel):
    """dV/dt = div(D grad V) + stimulus + what the closure makes of V, no flux through the sides.

    The closure is given the voltage and the stimulus's mean over the step, and answers with the voltage
    at its end. Diffusion is explicit, of first order in time with Godunov's splitting and by Heun's method
    with Strang's, in as many equal steps as its stability asks for.

    Args:
        grid: where the cells live.
        initial: the voltage at t = 0, a formula in mV.
        diffusivity: D along x[, y[, z]] in m2/s.
        scheme: "godunov" or "strang".
        stimuli: currents from outside.
        probes: points whose activation is told in the summary.
    """

    unknowns = (VOLTAGE,)
    sends = (VOLTAGE, STIMULUS)
    wants = (AFTER,)
    kept = (ACTIVATION,)
    centrings = ("vertex", "cell")

    def __init__(
        self, grid: Grid, initial, diffusivity, scheme: str, stimuli=(), probes: Probes | None = None
    ):
        self.grid, self.scheme, self.stimuli, self.probes = grid, scheme, tuple(stimuli), probes
        self.start = Expression(initial, AXES[: grid.ndim], "macro.initial")
        # 1/s along each axis; the sum bounds the eigenvalues: 4 times it is the largest.
        self.rates = [d / h**2 for d, h in zip(diffusivity, grid.spacing, strict=True)]
        self._step = Kernel.load("diffusion", "diffusion_step")
        self._fixed = self._fixed_arguments()
        self._local, self._exchange = grid.new_local(), grid.new_vector()
        self._stage = np.empty(grid.ncells)
        self._stimulus = np.zeros(grid.ncells)
        self._before = np.empty(grid.ncells)

    def _fixed_arguments(self) -> dict:
        """Arguments of the kernel that never change."""
        grid = self.grid
        missing = 3 - grid.ndim
        nx, ny, nz = (*grid.rank_shape[::-1], *[1] * missing)
        sides = []
        for axis in range(grid.ndim):
            part, n = grid.owned[grid.ndim - 1 - axis], grid.cells[axis]
            sides += [not grid.periodic[axis] and part.start == 0, not grid.periodic[axis] and part.stop == n]
        return {
            "nx": nx,
            "ny": ny,
            "nz": nz,
            "gy": int(grid.ndim > 1),
            "gz": int(grid.ndim > 2),
            "mirror": int(grid.centring == "vertex"),
            "physical": np.array([*sides, *[True] * (2 * missing)], dtype=np.int32),
        }

    def initial(self) -> np.ndarray:
        """Collective. Voltage at t = 0 in mV, shape (1, ncells).

        Raises:
            ConfigError: it is out of range somewhere; raised on every rank.
        """
        with together(self.grid.comm):
            voltage = self.start(**self.grid.coordinates())
            wrong = voltage[~((voltage >= VOLTAGE.lower) & (voltage <= VOLTAGE.upper))]
            if wrong.size:
                raise ConfigError(
                    f"macro.initial must lie between {VOLTAGE.lower:g} and {VOLTAGE.upper:g} mV, got "
                    f"{wrong[0]:g}; give the voltage at rest"
                )
        return voltage[None]

    def offer(self, unknown: np.ndarray) -> dict[str, np.ndarray]:
        """The voltage, and the stimulus's mean over the step under way."""
        return {VOLTAGE.name: unknown[0], STIMULUS.name: self._stimulus}

    def use(self, unknown: np.ndarray, outputs: dict[str, np.ndarray]) -> None:
        """Take over the voltage after the reaction."""
        self._after = outputs[AFTER.name][0]

    def begin_step(self, unknown: np.ndarray, time: float, dt: float) -> None:
        """Keep the voltage, for the activation, and sum the stimuli up."""
        self._before[...] = unknown[0]
        self._stimulus[...] = 0.0
        for stimulus in self.stimuli:
            self._stimulus[stimulus.cells] += stimulus.mean(time, dt)

    def steps_needed(self, dt: float) -> float:
        """Stable steps of the diffusion that fill dt, not rounded up."""
        return 2.0 * dt * sum(self.rates) / SAFETY

    def transport(self, unknown: np.ndarray, time: float, dt: float) -> None:
        """Collective. Diffusion by dt, in place."""
        nstep = max(1, math.ceil(self.steps_needed(dt) - 1e-9))
        numbers = [dt / nstep * rate for rate in self.rates] + [0.0] * (3 - self.grid.ndim)
        ratios = dict(zip(("rx", "ry", "rz"), numbers, strict=True))
        voltage = unknown[0]
        for _ in range(nstep):
            if self.scheme == "strang":
                self._diffuse(voltage, None, self._stage, ratios)
                self._diffuse(self._stage, voltage, voltage, ratios)
            else:
                self._diffuse(voltage, None, voltage, ratios)

    def _diffuse(self, voltage, start, after, ratios: dict) -> None:
        """Collective. One stage, from voltage to after; the kernel reads a copy with ghosts."""
        self._exchange.placeArray(voltage)
        try:
            ghosted = self.grid.ghosted(self._exchange, self._local)
        finally:
            self._exchange.resetArray()
        shape = tuple(self._fixed[name] for name in ("nz", "ny", "nx"))
        whole = tuple(n + 2 * self._fixed[g] for n, g in zip(shape[:2], ("gz", "gy"), strict=True))
        self._step(
            **self._fixed,
            **ratios,
            v=ghosted.reshape(*whole, -1),
            start=None if start is None else start.reshape(shape),
            after=after.reshape(shape),
        )

    def react(self, unknown: np.ndarray, dt: float) -> None:
        """The closure's voltage."""
        unknown[0] = self._after

    def finish_step(self, before: float, now: float, unknown: np.ndarray) -> None:
        """Note where the voltage has crossed 0 mV for the first time, linear in between."""
        first, last = self._before, unknown[0]
        crossed = np.flatnonzero((first < 0.0) & (last >= 0.0) & np.isnan(self.kept_values[0]))
        share = first[crossed] / (first[crossed] - last[crossed])
        self.kept_values[0, crossed] = before + share * (now - before)

    def figures(self) -> dict[str, object]:
        """Collective. Activation times of the probes in s."""
        if self.probes is None:
            return {}
        return {"probes": self.probes.table(ACTIVATION, self.kept_values[0])}


def from_case(case: Case, grid: Grid, micro, cell_fields) -> Monodomain:
    """Build the model from the table [macro].

    Raises:
        ConfigError: an option is wrong.
    """
    options = validate(Options, case.macro.options, "case file", "macro.")
    solver = ("coupling", "petsc", "picard_tolerance", "max_iterations", "linear_tolerance")
    for name in ("source", "heat_capacity", "boundary", *solver):
        if getattr(case.macro, name) != getattr(MacroSection(), name):
            raise ConfigError(
                f"macro.{name} must be left out for macro.model 'monodomain', got "
                f"{getattr(case.macro, name)!r}; remove it"
            )
    _check_length("conductivity", options.conductivity, grid)
    per_area = options.surface_to_volume * options.capacitance
    model = Monodomain(
        grid,
        _initial(case.macro.initial),
        [conductivity / per_area for conductivity in options.conductivity],
        case.time.scheme,
        [_stimulus(section, number, per_area, grid) for number, section in enumerate(options.stimulus)],
        Probes(_probes(options, grid), grid) if options.probes or options.lines else None,
    )
    needed = model.steps_needed(case.time.step)
    if not needed <= MOST_STEPS:
        raise ConfigError(
            f"macro.conductivity must need at most {MOST_STEPS} stable steps of diffusion in time.step, got "
            f"{needed:.3g}; correct it (S/m), lower time.step or use a coarser grid"
        )
    return model


def _initial(given):
    """The formula of the voltage, given alone or by name."""
    if not isinstance(given, dict):
        return given
    if set(given) != {VOLTAGE.name}:
        raise ConfigError(
            f"macro.initial must be a formula or name '{VOLTAGE.name}' alone, got {sorted(given)}; correct it"
        )
    return given[VOLTAGE.name]


def _check_length(name: str, values: list, grid: Grid) -> None:
    if len(values) != grid.ndim:
        raise ConfigError(
            f"macro.{name} must have one entry per axis of the grid, got {len(values)} for {grid.ndim}; "
            "correct it"
        )


def _stimulus(section: StimulusSection, number: int, per_area: float, grid: Grid) -> Stimulus:
    inside = np.ones(grid.ncells, dtype=bool)
    for name in ("low", "high"):
        _check_length(f"stimulus.{number}.{name}", getattr(section, name), grid)
    for axis, values in enumerate(grid.coordinates().values()):
        # Asked of all cells along the axis: other ranks cannot be asked while one may fail alone.
        h, n = grid.spacing[axis], grid.cells[axis]
        low, high = section.low[axis] - ROUNDING * h, section.high[axis] + ROUNDING * h
        whole = (np.arange(n) + FIRST_CENTRE[grid.centring]) * h
        if not np.any((whole >= low) & (whole <= high)):
            raise ConfigError(
                f"macro.stimulus.{number} must reach at least one cell, got a box from {section.low} to "
                f"{section.high} m; enlarge it"
            )
        inside &= (values >= low) & (values <= high)
    end = section.start + section.duration
    return Stimulus(np.flatnonzero(inside), section.start, end, section.current / per_area)


def _probes(options: Options, grid: Grid) -> list[Probe]:
    probes = [Probe(name, tuple(at)) for name, at in options.probes.items()]
    for name, line in options.lines.items():
        _check_length(f"lines.{name}.start", line.start, grid)
        _check_length(f"lines.{name}.end", line.end, grid)
        width = len(str(line.points - 1))
        for number, share in enumerate(np.linspace(0.0, 1.0, line.points)):
            at = tuple((1.0 - share) * a + share * b for a, b in zip(line.start, line.end, strict=True))
            probes.append(Probe(f"{name}_{number:0{width}d}", at))
    return probes
