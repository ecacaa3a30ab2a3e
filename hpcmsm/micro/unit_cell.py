"""Homogenised heat conductivity of a periodic unit cell in 2D (kernel kernels/unit_cell.c)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import perf_counter
from typing import NamedTuple

import numpy as np

from hpcmsm.batch import Answer, Batch
from hpcmsm.errors import ConfigError
from hpcmsm.fields import Field
from hpcmsm.kernels import Kernel
from hpcmsm.micro.base import MicroModel
from hpcmsm.micro.microstructure import make_microstructure

# 50 K from the nearest known sample are too far for a surrogate at the default gate.novelty of 0.05.
TEMPERATURE = Field("temperature", unit="K", about="macro temperature", lower=0.0, upper=5000.0, scale=1000.0)
CONDUCTIVITY = Field("conductivity", 3, "W/(m K)", "effective conductivity", lower=0.0, spd=True)

# Relative distance by which an answer may lie outside Wiener's bounds: a laminate lies on them, and a
# surrogate good enough for a usual gate must not be refused for being slightly on the wrong side.
WIENER_SLACK = 1e-3

# Below this the rounding of the sums is larger than what more iterations gain.
SMALLEST_TOLERANCE = 1e-14


# Scratch numbers per point that the kernel's float64 build takes.
SCRATCH_WORDS = 12


class Solution(NamedTuple):
    """What the kernel returns.

    outputs: K (xx, yy, xy) in W/(m K), shape (3, n). residual: of the scaled equations, relative to
    their right-hand side, the larger of the two loads. iterations: likewise. status: see `UnitCell`.
    """

    outputs: np.ndarray
    residual: np.ndarray
    iterations: np.ndarray
    status: np.ndarray


class UnitCell(MicroModel):
    """Conductivity tensor of a composite, from the periodic cell problem at the macro temperature.

    Finite volumes on resolution^2 points, solved by multigrid-preconditioned conjugate gradients, with
    the energy as output, whose error is quadratic in that of the solution. The iteration ends when the
    estimated relative error of K_xx and K_yy is below the tolerance (measured: true error at most 0.9
    tolerances for contrasts to 100, 1.6 for random voxels of contrast 1e4); the error of K_xy is then
    below tolerance * sqrt(K_xx K_yy). The grid's own error comes on top: for cylinders of contrast 10
    at most 3e-3, 2e-3 and 9e-4 at 32, 64 and 128 points a side, and about five times that at contrast 50.

    Args:
        microstructure: phase 0 is the matrix, phase 1 the inclusion.
            "laminate": layers normal to x, so that K_xx is the series mean, exact for any fraction;
            "cylinders": square array, in section; "checkerboard": two squares of each phase;
            or an array of phase numbers [y, x], shape (m, m).
        conductivities: one function per phase, temperature (n,) in K -> W/(m K), shape (n,) or a number.
        resolution: points a side, even, best a power of two; None: 32, or one per pixel of an image.
        tolerance: relative error of K that the iteration may leave.
        max_iterations: cap; a cell that reaches it gets status 1.
        fraction: area fraction of phase 1 of a laminate or cylinders (at most pi/4); None makes it
            an input of the cell.
        backend: "cpu" or "gpu".
        phases: names of the materials of the phases, if they are known.
    Raises:
        ConfigError: an argument is wrong.

    Status of an answer: 0 good, 1 not converged, 2 bad input (a conductivity that is not positive and
    finite, a fraction out of range; the outputs are then NaN).
    """

    history = "none"

    def __init__(
        self,
        microstructure: str | np.ndarray,
        conductivities: Sequence[Callable],
        resolution: int | None = None,
        tolerance: float = 1e-6,
        max_iterations: int = 200,
        fraction: float | None = None,
        backend: str = "cpu",
        phases: Sequence[str] = (),
    ):
        self.conductivities = tuple(conductivities)
        self.nphase = len(self.conductivities)
        self.microstructure = make_microstructure(microstructure, resolution, self.nphase)
        self.tolerance, self.max_iterations = _checked_limits(tolerance, max_iterations)
        self.fraction = self._checked_fraction(fraction)
        self.phases = _checked_names(phases, self.nphase)
        self.backend = backend
        self.inputs = (TEMPERATURE, *self._fraction_field())
        self.outputs = (CONDUCTIVITY,)
        self._kernel = Kernel.load("unit_cell", "unit_cell_2d", backend=backend, dtype="float64")

    def evaluate(self, batch: Batch) -> Answer:
        """Solve the cell problems of a batch in one kernel call."""
        start = perf_counter()
        found = self.solve(batch.inputs)
        work = found.iterations + 1.0  # the set-up costs about as much as an iteration
        cost = work * ((perf_counter() - start) / max(work.sum(), 1.0))
        return Answer(found.outputs, batch.state, found.status, cost=cost, residual=found.residual)

    def solve(self, inputs: np.ndarray) -> Solution:
        """The cell problems of these inputs, shape (ninput, n), with what the solver tells of them."""
        ncells, cell, kernel = inputs.shape[1], self.microstructure, self._kernel
        fraction = self._fraction_of(inputs)
        solution = Solution(
            outputs=kernel.on_device(np.empty((3, ncells))),
            residual=kernel.on_device(np.empty(ncells)),
            iterations=kernel.on_device(np.empty(ncells, np.int32)),
            status=kernel.on_device(np.empty(ncells, np.int32)),
        )
        kernel(
            ncells=ncells,
            n=cell.resolution,
            nphase=self.nphase,
            nword=SCRATCH_WORDS,
            microstructure=cell.number,
            max_iterations=self.max_iterations,
            tolerance=self.tolerance,
            labels=None if cell.labels is None else kernel.on_device(cell.labels),
            phases=kernel.on_device(self._phase_conductivities(inputs)),
            fraction=None if fraction is None else kernel.on_device(fraction),
            conductivity=solution.outputs,
            residual=solution.residual,
            iterations=solution.iterations,
            status=solution.status,
        )
        return Solution(*(kernel.on_host(array) for array in solution))

    def admissible(self, inputs: np.ndarray, outputs: np.ndarray) -> np.ndarray:
        """Whether the eigenvalues of K lie within Wiener's bounds, the harmonic and arithmetic means.

        Source: O. Wiener 1912, Abh. Math.-Phys. Kl. Saechs. Ges. Wiss. 32, 507.
        """
        phases, fractions = self._phase_conductivities(inputs), self.phase_fractions(inputs)
        xx, yy, xy = outputs
        with np.errstate(all="ignore"):
            highest = (fractions * phases).sum(axis=0) * (1 + WIENER_SLACK)
            lowest = (1 - WIENER_SLACK) / (fractions / phases).sum(axis=0)
            middle, radius = (xx + yy) / 2, np.hypot((xx - yy) / 2, xy)
        # Comparisons with NaN are false, so that it is never admissible.
        return (middle - radius >= lowest) & (middle + radius <= highest)

    def phase_fractions(self, inputs: np.ndarray) -> np.ndarray:
        """Area fractions, shape (nphase, n)."""
        fraction = self._fraction_of(inputs)
        if fraction is None:
            return np.tile(self.microstructure.fractions(self.nphase)[:, None], inputs.shape[1])
        return np.stack([1.0 - fraction, fraction])

    def facts(self) -> dict[str, object]:
        """Microstructure, resolution, tolerance, backend; fraction and names of the phases if given."""
        facts = {
            "model": "UnitCell",
            "microstructure": self.microstructure.name,
            "resolution": self.microstructure.resolution,
            "tolerance": self.tolerance,
            "max_iterations": self.max_iterations,
            "backend": self.backend,
        }
        known = {"fraction": self.fraction, "phases": list(self.phases) or None}
        return facts | {name: value for name, value in known.items() if value is not None}

    def _fraction_field(self) -> tuple[Field, ...]:
        largest = self.microstructure.largest_fraction
        if largest is None or self.fraction is not None:
            return ()
        return (Field("fraction", unit="1", about="area fraction of phase 1", lower=0.0, upper=largest),)

    def _checked_fraction(self, fraction: float | None) -> float | None:
        largest, name = self.microstructure.largest_fraction, self.microstructure.name
        if fraction is None:
            return None
        if largest is None:
            raise ConfigError(
                f"fraction must be left out for '{name}', got {fraction}; its fractions are fixed"
            )
        if not 0.0 <= fraction <= largest:
            raise ConfigError(
                f"fraction of '{name}' must be from 0 to {largest:.8g}, got {fraction}; correct the value"
            )
        return float(fraction)

    def _fraction_of(self, inputs: np.ndarray) -> np.ndarray | None:
        """Area fraction of phase 1 in each cell, or None where an image says it."""
        if self.microstructure.largest_fraction is None:
            return None
        if self.fraction is not None:
            return np.full(inputs.shape[1], self.fraction)
        return np.ascontiguousarray(inputs[1])

    def _phase_conductivities(self, inputs: np.ndarray) -> np.ndarray:
        """W/(m K), shape (nphase, n); whatever is not finite becomes a status of the cell."""
        values = np.empty((self.nphase, inputs.shape[1]))
        with np.errstate(all="ignore"):
            for phase, conductivity in enumerate(self.conductivities):
                values[phase] = conductivity(inputs[0])
        return values


def _checked_limits(tolerance: float, max_iterations: int) -> tuple[float, int]:
    if not SMALLEST_TOLERANCE <= tolerance < 1.0:
        raise ConfigError(
            f"tolerance must be from {SMALLEST_TOLERANCE:g} to below 1, got {tolerance}; "
            "it is the relative error of the conductivity"
        )
    if isinstance(max_iterations, bool) or max_iterations != int(max_iterations) or max_iterations < 1:
        raise ConfigError(
            f"max_iterations must be a number from 1 on, got {max_iterations}; correct the value"
        )
    return float(tolerance), int(max_iterations)


def _checked_names(phases: Sequence[str], nphase: int) -> tuple[str, ...]:
    if len(phases) not in (0, nphase):
        raise ConfigError(f"phases must name {nphase} phases, got {len(phases)}; one per conductivity")
    return tuple(phases)
