"""A grain that grows or dissolves in every cell, as a phase field (kernel kernels/grain.c)."""

from __future__ import annotations

from time import perf_counter
from typing import Annotated, NamedTuple

import numpy as np
from pydantic import Field as Key

from hpcmsm.batch import Answer, Batch
from hpcmsm.config import Count, MicroSection, Section, validate
from hpcmsm.errors import ConfigError
from hpcmsm.fields import Field
from hpcmsm.kernels import Kernel
from hpcmsm.micro.base import MicroModel

CONCENTRATION = Field("concentration", unit="1", about="macro concentration u", lower=0.0, upper=1e3)
POROSITY = Field("porosity", unit="1", about="part of the cell that the grain leaves")
DIFFUSIVITY = Field("diffusivity", 3, "m2/s", "effective diffusivity", lower=0.0, spd=True)

# Scratch numbers per point that the kernel's float64 build takes.
SCRATCH_WORDS = 12

# What an iteration of Newton's method and one of its conjugate gradients cost, and the fixed part of a
# call, in iterations of the cell problem (measured at 32 to 64 points a side).
NEWTON_WORK, LINEAR_WORK, FIXED_WORK = 0.4, 0.2, 2.0

Positive = Annotated[float, Key(gt=0, allow_inf_nan=False)]


class Options(Section):
    """Keys of [micro] for model = "grain"; what they mean is told at `Grain`."""

    resolution: Annotated[int, Key(ge=4, le=512, multiple_of=2, strict=True)] = 48
    radius: Annotated[float, Key(ge=0, le=0.7)] = 0.4
    lam: Positive = 1 / 12
    gam: Positive = 0.05
    rate: Positive = 1.0
    equilibrium: Positive = 0.5
    stop: Positive = 0.95
    conducting: Positive = 1.0
    grain: Positive = 1e-6
    tolerance: Annotated[float, Key(ge=1e-14, lt=1)] = 1e-6
    phase_tolerance: Annotated[float, Key(ge=1e-14, lt=1e-2)] = 1e-10
    max_iterations: Count = 200


class Solution(NamedTuple):
    """What the kernel returns, and how hard it was; shapes (n * n, ncells), (3, ncells), (ncells,)."""

    phase: np.ndarray
    porosity: np.ndarray
    diffusivity: np.ndarray
    residual: np.ndarray
    newton: np.ndarray
    linear: np.ndarray
    iterations: np.ndarray
    status: np.ndarray


class Grain(MicroModel):
    """Porosity and effective diffusivity of a cell whose grain follows the macro concentration u.

    A phase field p (1: conducting phase, 0: grain) on the periodic unit square obeys
    `lam^2 dp/dt + gam P'(p) = gam lam^2 lap(p) - 4 lam f(u) p (1 - p)`, P'(p) = 16 p (1-p) (1-2p),
    f(u) = rate (u/equilibrium)^2 - 1: its front moves with the speed f(u) - gam / r, outwards if positive,
    so that a grain dissolves where u is below the equilibrium. One step of backward Euler over dt, solved
    by Newton's method; then the cell problem with diffusivity p conducting + (1 - p) grain. `dt = 0`
    answers for the present phase field.

    Second order in the points: at 32, 48 and 64 a side the diffusivity of a grain that dissolved for
    t = 0.25 at u = 0.25 is too low by 2.0, 0.8 and 0.4 percent. First order in dt.

    The history is "full". Where grains dissolve, the initial profile with the same porosity would do as a
    state (diffusivity within 0.4 percent, porosity five steps later within 0.003); once growing grains
    touch, it would not (both conduct, or neither). And a surrogate is asked with u, which tells nothing
    of the grain.

    Args:
        resolution: points a side, even, best with many factors 2.
        radius: of the grain before the first step.
        lam, gam: width and mobility of the interface.
        rate, equilibrium: of the reaction.
        stop: porosity from which on a cell stays as it is.
        conducting, grain: diffusivity of the phases in m2/s. That of the grain must be positive: it is a
            floor that adds about 1.4 of itself to K at the start, when K is 0.33.
        tolerance: relative error of the diffusivity that its iteration may leave.
        phase_tolerance: root mean square of the residual of backward Euler, in units of p.
        max_iterations: cap of the cell problem.
        backend: "cpu" or "gpu".
    Raises:
        ConfigError: an argument is wrong.

    Status of an answer: 0 good; 1 the phase field did not converge, usually because dt is so long that
    backward Euler has no single solution; 2 bad input (the outputs are then NaN); 3 the cell problem did
    not converge.

    Source: Bastidas Olivares, Bringedal and Pop 2021, doi 10.1016/j.amc.2020.125933.
    """

    inputs = (CONCENTRATION,)
    outputs = (POROSITY, DIFFUSIVITY)
    history = "full"

    def __init__(self, backend: str = "cpu", **options):
        self.options = validate(Options, options, "arguments of Grain")
        if self.options.grain > self.options.conducting:
            raise ConfigError(
                f"grain must be at most conducting, got {self.options.grain:g} > "
                f"{self.options.conducting:g}; it is the phase that hardly conducts"
            )
        self.backend = backend
        self.resolution = self.options.resolution
        self.state = (
            Field("phase", self.resolution**2, "1", "phase field at points [y][x], 0 in the grain"),
        )
        self._kernel = Kernel.load("grain", "grain_2d", backend=backend, dtype="float64")

    def initial_state(self, inputs: np.ndarray) -> np.ndarray:
        """The profile 1 / (1 + exp(-4 (r - radius) / lam)) in every cell, shape (n * n, ncells)."""
        x = (np.arange(self.resolution) + 0.5) / self.resolution - 0.5
        distance = np.hypot(x[:, None], x).ravel() - self.options.radius
        profile = 1.0 / (1.0 + np.exp(-4.0 * distance / self.options.lam))
        return np.repeat(profile[:, None], inputs.shape[1], axis=1)

    def evaluate(self, batch: Batch) -> Answer:
        """Advance the phase fields by batch.dt and solve their cell problems, in one kernel call."""
        start = perf_counter()
        found = self.solve(batch)
        work = FIXED_WORK + found.iterations + NEWTON_WORK * found.newton + LINEAR_WORK * found.linear
        cost = work * ((perf_counter() - start) / max(work.sum(), 1.0))
        outputs = np.concatenate([found.porosity[None], found.diffusivity])
        return Answer(outputs, found.phase, found.status, cost=cost, residual=found.residual)

    def solve(self, batch: Batch) -> Solution:
        """As `evaluate`, with what the solver tells of each cell."""
        kernel, options = self._kernel, self.options
        per_cell = [np.empty(batch.ncells) for _ in range(2)]
        counts = [np.empty(batch.ncells, np.int32) for _ in range(4)]
        arrays = (np.empty(batch.state.shape), per_cell[0], np.empty((3, batch.ncells)), per_cell[1], *counts)
        found = Solution(*(kernel.on_device(array) for array in arrays))
        names = ("lam", "gam", "rate", "equilibrium", "stop", "conducting", "grain")
        kernel(
            ncells=batch.ncells,
            n=self.resolution,
            nword=SCRATCH_WORDS,
            dt=batch.dt,
            concentration=kernel.on_device(np.ascontiguousarray(batch.inputs[0])),
            before=kernel.on_device(np.ascontiguousarray(batch.state)),
            after=found.phase,
            **{name: array for name, array in found._asdict().items() if name != "phase"},
            **{name: getattr(options, name) for name in names},
            **{name: getattr(options, name) for name in ("tolerance", "phase_tolerance", "max_iterations")},
        )
        return Solution(*(kernel.on_host(array) for array in found))

    def admissible(self, inputs: np.ndarray, outputs: np.ndarray) -> np.ndarray:
        """Whether the eigenvalues of K lie within Wiener's bounds for the porosity of the answer."""
        porosity, xx, yy, xy = outputs
        low, high = self.options.grain, self.options.conducting
        with np.errstate(all="ignore"):
            highest = porosity * high + (1.0 - porosity) * low
            lowest = 1.0 / (porosity / high + (1.0 - porosity) / low)
            middle, radius = (xx + yy) / 2, np.hypot((xx - yy) / 2, xy)
        slack = 1e-6
        return (middle - radius >= lowest * (1 - slack)) & (middle + radius <= highest * (1 + slack))

    def facts(self) -> dict[str, object]:
        """All options and the backend."""
        return {"model": "Grain", "backend": self.backend, **self.options.model_dump()}


def from_case(section: MicroSection, materials, fields, read_image) -> Grain:
    """Build it from the table [micro]."""
    options = validate(Options, section.options, "case file", "micro.")
    return Grain(backend=section.backend, **options.model_dump())
