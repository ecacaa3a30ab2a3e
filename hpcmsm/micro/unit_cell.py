"""Homogenised heat conductivity of a periodic unit cell in 2D or 3D."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import perf_counter
from typing import NamedTuple

import numpy as np

from hpcmsm.batch import Answer, Batch
from hpcmsm.errors import ConfigError
from hpcmsm.fields import Field, rows_of
from hpcmsm.micro.base import MicroModel
from hpcmsm.micro.cell_problem import CellProblem, Solution, extruded, smallest_eigenvalue
from hpcmsm.micro.inside import inside_unit_cell
from hpcmsm.micro.layers import LayerProblem
from hpcmsm.micro.microstructure import LAMINATE, make_microstructure
from hpcmsm.micro.tensors import IN_PLANE, harmonic_mean, seen_in
from hpcmsm.micro.unit_cell_arguments import (
    by_axis,
    check_tensors,
    checked_dimension,
    checked_limits,
    checked_names,
)

# 50 K from the nearest known sample are too far for a surrogate at the default gate.novelty of 0.05.
TEMPERATURE = Field("temperature", unit="K", about="macro temperature", lower=0.0, upper=5000.0, scale=1000.0)
CONDUCTIVITY = {
    ndim: Field("conductivity", size, "W/(m K)", "effective conductivity", lower=0.0, spd=True)
    for ndim, size in ((2, 3), (3, 6))
}

# Relative distance by which an answer may lie outside Wiener's bounds: a laminate lies on them, and a
# surrogate good enough for a usual gate must not be refused for being slightly on the wrong side.
WIENER_SLACK = 1e-3

BAD_INPUT = 2  # status
DIFFERENCE = 1e-5  # relative change of the temperature by which slopes are found


class Tangent(NamedTuple):
    """Derivatives of K at some inputs.

    outputs: K itself in W/(m K), shape (ncomponent, n). temperature: dK/dT in W/(m K2), shape
    (ncomponent, n). phases: dK/dk by the conductivity of each phase along each axis (one for all axes
    if the phases are isotropic), shape (naxis, nphase, ncomponent, n). status: see `UnitCell`.
    """

    outputs: np.ndarray
    temperature: np.ndarray
    phases: np.ndarray
    status: np.ndarray


# Of the largest possible: what a picture of a microstructure shows where cells have different fractions.
SHOWN_FRACTIONS = (0.25, 0.5, 0.75)


class UnitCell(MicroModel):
    """Conductivity tensor of a composite, from the periodic cell problem at the macro temperature.

    Finite volumes on resolution^2 or resolution^3 points, solved by multigrid-preconditioned conjugate
    gradients, with the energy as output, whose error is quadratic in that of the solution. The iteration
    ends when the estimated relative error of K_xx, K_yy, ... is below the tolerance (measured: true error
    at most 0.9 tolerances for contrasts to 100, 1.6 for random voxels of contrast 1e4); the error of K_xy
    is then below tolerance * sqrt(K_xx K_yy). The grid's own error comes on top: for cylinders of contrast
    10 at most 3e-3, 2e-3 and 9e-4 at 32, 64 and 128 points a side, for spheres 8e-3, 5e-3 and 3e-3 at 16, 32
    and 64, and about five times that at contrast 50.

    Args:
        microstructure: phase 0 is the matrix, phase 1 the inclusion.
            "laminate": layers normal to x, so that K_xx is the series mean, exact for any fraction;
            "cylinders": square array, in section; "checkerboard": two squares of each phase;
            "spheres": simple cubic array, in 3D; or an array of phase numbers [y, x], shape (m, m), or
            [z, y, x], shape (m, m, m).
        conductivities: one function per phase, temperature (n,) in K -> W/(m K), shape (n,) or a number;
            of a phase that conducts differently along the axes a sequence of ndim functions; of one whose
            axes are turned all components (xx, yy, xy or xx, yy, zz, yz, xz, xy) of its tensor, None where
            zero; or a Field of so many components, which is then an input of the cell: what the phase
            conducts.
        resolution: points a side, even, best a power of two; None: 32, or one per pixel of an image.
        tolerance: relative error of K that the iteration may leave.
        max_iterations: cap; a cell that reaches it gets status 1.
        fraction: area fraction of phase 1 of a laminate or cylinders (at most pi/4); None makes it
            an input of the cell.
        backend: "cpu" or "gpu".
        phases: names of the materials of the phases, if they are known.
        ndim: 2 or 3, of the tensor; None: that of the microstructure. With 3, one of the plane stands
            for a cell that does not change along z (fibres, layers), at the cost of 2D.
        grid: "even", or "fitted" for cylinders and spheres: lines of points follow the inclusion, so that K
            is a smooth function of the fraction (at contrast 10 and 32 points a side to 1e-5, on an even
            grid to 1e-3) and as near to the truth. Where inclusions are small or nearly touch, it takes
            more iterations, and they may leave 1.4 tolerances.
        subsamples: pixels of an image that make up a point, a side (1, 2, 4, ..., 16): links between points
            get what strips along them or slices across them conduct. Errors of a library then hardly differ
            from one realisation to the next, and are up to eight times smaller (Voronoi, islands, inclusions
            that conduct worse).
        inclusions: of an image with subsamples, whether phase 1 lies in pieces in phase 0; None: look.
        warm_start: start from the cell's last solution, which then is its state (ndim / 2 numbers per
            point); the answer is as good, after fewer iterations where inputs change little. A cell that
            a surrogate answered starts anew.
    Raises:
        ConfigError: an argument is wrong.

    Status of an answer: 0 good, 1 not converged, 2 bad input (a conductivity that is not positive and
    finite, a fraction out of range; the outputs are then NaN).

    Where a phase has cross terms, another kernel solves the same equations with fluxes across the corners of
    pixels (kernels/unit_cell_corner.h): some times slower, exact for layers across an axis. Its iterations
    grow with the anisotropy of turned phases, about as the square root (40 at 100 to 1). So does the error of
    the grid where grains meet at an angle to it: in 2D polycrystals conduct 5 % too little at 10 to 1 and 32
    points a side, but 27 % at 100 to 1, and still 11 % with 128 points.
    """

    history = "none"

    def __init__(
        self,
        microstructure: str | np.ndarray,
        conductivities: Sequence[Callable | Sequence[Callable]],
        resolution: int | None = None,
        tolerance: float = 1e-6,
        max_iterations: int = 200,
        fraction: float | None = None,
        backend: str = "cpu",
        phases: Sequence[str] = (),
        ndim: int | None = None,
        warm_start: bool = False,
        grid: str = "even",
        subsamples: int = 1,
        inclusions: bool | None = None,
    ):
        self.nphase = len(conductivities)
        self.microstructure = make_microstructure(
            microstructure, resolution, self.nphase, grid, subsamples, inclusions
        )
        self.ndim = checked_dimension(ndim, self.microstructure.ndim)
        self.tolerance, self.max_iterations = checked_limits(tolerance, max_iterations)
        self.fraction = self._checked_fraction(fraction)
        self.phases = checked_names(phases, self.nphase)
        self.backend = backend
        given = [conductivity for conductivity in conductivities if isinstance(conductivity, Field)]
        self.inputs = (TEMPERATURE, *self._fraction_field(), *given)
        self.conductivities = by_axis(conductivities, self.ndim, rows_of(self.inputs))
        self.outputs = (CONDUCTIVITY[self.ndim],)
        self.full = len(self.conductivities) > self.ndim  # tensors have cross terms
        layers = self.full and self.microstructure.name == LAMINATE
        # Whether a tensor in 3D is that of a section with its mean along z.
        self.section = self.microstructure.ndim < self.ndim and not layers
        if self.full:
            check_tensors(self.microstructure, self.conductivities, self.section)
        limits = self.tolerance, self.max_iterations
        if layers:
            self._problem = LayerProblem(self.ndim)
        else:
            self._problem = CellProblem(self.microstructure, *limits, backend, self.full)
        self.warm_start = warm_start
        if warm_start:
            about = "solutions to start from"
            self.state = (Field("corrector", self._problem.nstate, "1", about),)
            self.history = "liftable"

    def evaluate(self, batch: Batch) -> Answer:
        """Solve the cell problems of a batch in one kernel call."""
        start = perf_counter()
        if self.warm_start:
            found = self.solve(batch.inputs, batch.state, also=("state",))
        else:
            found = self.solve(batch.inputs)
        work = found.iterations + 1.0  # the set-up costs about as much as an iteration
        cost = work * ((perf_counter() - start) / max(work.sum(), 1.0))
        state = found.state if self.warm_start else batch.state
        return Answer(found.outputs, state, found.status, cost=cost, residual=found.residual)

    def lift(self, inputs: np.ndarray, outputs: np.ndarray) -> np.ndarray:
        """A state to start from nothing: it says how far to go, not what comes out."""
        return self.initial_state(inputs)

    def solve(
        self, inputs: np.ndarray, before: np.ndarray | None = None, also: Sequence[str] = ()
    ) -> Solution:
        """The cell problems of these inputs, shape (ninput, n), with what the solver tells of them.

        Args:
            before: solutions to start from, the `state` of another Solution.
            also: which of "state", "corrector", "tangent" to give besides, see `Solution`.
        """
        phases = self._phase_conductivities(inputs)
        seen = seen_in(2, phases, self.full) if self.section else phases
        found = self._solve_problem(inputs, seen, before=before, also=also)
        if self.microstructure.mirrored and not self.full:
            self._clear_cross_terms(found)
        if not self.section:
            return found
        along_z = np.where(found.status == BAD_INPUT, np.nan, self._mean(inputs, phases[:3])[-1])
        return found._replace(outputs=extruded(found.outputs, along_z))

    def _clear_cross_terms(self, found: Solution) -> None:
        """K of a cell that is its own mirror image has none; what the solver leaves would cost the macro
        equation its symmetric solver and its shorter stencil."""
        naxis = self.microstructure.ndim
        for components in (found.outputs, found.tangent):
            if components is not None:
                cross = components[..., naxis:, :]
                cross[np.isfinite(cross)] = 0.0  # that of bad input stays no number

    def _solve_problem(self, inputs: np.ndarray, phases: np.ndarray, **asked) -> Solution:
        """K in the dimensions of the microstructure, for phases (naxis, nphase, n)."""
        return self._problem.solve(phases, self._fraction_of(inputs), **asked)

    def tangent(self, inputs: np.ndarray) -> Tangent:
        """What K changes with the conductivities and with the temperature; costs one product, no solve.

        dK_ij/dk_p = <(e_i + grad chi_i) . (e_j + grad chi_j)> over phase p: as K is stationary in chi,
        only the conductivities themselves count.

        Args:
            inputs: shape (ninput, n).
        """
        found = self.solve(inputs, also=("tangent",))
        by_phase = found.tangent
        if self.section:
            by_phase = self._extruded_tangent(inputs, by_phase)
        slopes = self._slopes(inputs)
        return Tangent(found.outputs, np.einsum("apcn,apn->cn", by_phase, slopes), by_phase, found.status)

    def _extruded_tangent(self, inputs: np.ndarray, plane: np.ndarray) -> np.ndarray:
        """That of a cell that does not change along z, where K_zz is the mean over the phases."""
        naxis, (nphase, ncells) = len(self.conductivities), plane.shape[1::2]
        tangent = np.zeros((naxis, nphase, 6, ncells))
        rows = IN_PLANE if self.full else range(len(plane))
        for row, part in zip(rows, plane, strict=True):
            tangent[row][:, IN_PLANE] = part
        tangent[min(naxis, 3) - 1, :, 2] = self.phase_fractions(inputs)
        return tangent

    def _slopes(self, inputs: np.ndarray) -> np.ndarray:
        """dk/dT in W/(m K2), shape (naxis, nphase, n), by differences."""
        change = np.maximum(np.abs(inputs[0]), 1.0) * DIFFERENCE
        ahead, behind = inputs.copy(), inputs.copy()
        ahead[0] += change
        behind[0] -= change
        rise = self._phase_conductivities(ahead) - self._phase_conductivities(behind)
        return rise / (ahead[0] - behind[0])

    def _mean(self, inputs: np.ndarray, phases: np.ndarray) -> np.ndarray:
        """Arithmetic means over the phases, shape (naxis, n), of values (naxis, nphase, n)."""
        # One phase after another: of a single cell, sum(axis=1) would add them up in another order.
        return sum(share * phases[:, phase] for phase, share in enumerate(self.phase_fractions(inputs)))

    def admissible(self, inputs: np.ndarray, outputs: np.ndarray) -> np.ndarray:
        """Whether K lies between Wiener's bounds: no eigenvalue of the differences is negative.

        The bounds are the harmonic and arithmetic means of the phases' tensors.

        Source: O. Wiener 1912, Abh. Math.-Phys. Kl. Saechs. Ges. Wiss. 32, 507.
        """
        with np.errstate(all="ignore"):
            phases = self._phase_conductivities(inputs)
            if self.full:
                lowest = harmonic_mean(self.phase_fractions(inputs), phases)
            else:
                lowest = 1.0 / self._mean(inputs, 1.0 / phases)
            highest = self._mean(inputs, phases)
            nrow = len(phases) if self.full else self.ndim
            above, below = outputs.copy(), -outputs
            above[:nrow] -= (1 - WIENER_SLACK) * lowest
            below[:nrow] += (1 + WIENER_SLACK) * highest
            # Comparisons with NaN are false, so that it is never admissible.
            return (smallest_eigenvalue(above) >= 0) & (smallest_eigenvalue(below) >= 0)

    def phase_fractions(self, inputs: np.ndarray) -> np.ndarray:
        """Area or volume fractions, shape (nphase, n)."""
        fraction = self._fraction_of(inputs)
        if fraction is None:
            return np.tile(self.microstructure.fractions(self.nphase)[:, None], inputs.shape[1])
        return np.stack([1.0 - fraction, fraction])

    def labels_of(self, inputs: np.ndarray) -> np.ndarray:
        """Phase of each point of one cell at its inputs, shape (ninput, 1)."""
        fraction = self._fraction_of(inputs)
        return self.microstructure.pixels(None if fraction is None else float(fraction[0]))

    def inside(self, inputs: np.ndarray) -> list[tuple[Field, np.ndarray]]:
        """Phases, correctors, gradients and fluxes of one cell, see hpcmsm/micro/inside.py."""
        return inside_unit_cell(self, inputs)

    def microstructures(self) -> list[tuple[str, np.ndarray, tuple[str, ...]]]:
        """The one of all cells; where the fraction is an input, for some fractions."""
        cell, names = self.microstructure, self.phases
        if cell.largest_fraction is None or self.fraction is not None:
            return [(cell.name, cell.pixels(self.fraction), names)]
        fractions = [round(part * cell.largest_fraction, 2) for part in SHOWN_FRACTIONS]
        return [(f"{cell.name}, fraction {value:g}", cell.pixels(value), names) for value in fractions]

    def images(self, inputs: np.ndarray) -> np.ndarray | None:
        """W/(m K), (n, [nz,] ny, nx); None without labels, or where axes conduct differently."""
        if self.microstructure.labels is None or len(self.conductivities) > 1:
            return None
        phases = self._phase_conductivities(inputs)[0]
        cells = zip(self._labels_of_cells(inputs), phases.T, strict=True)
        empty = np.full(self.microstructure.labels.shape, np.nan)
        images = [empty if labels is None else values[labels] for labels, values in cells]
        return np.stack(images) if images else np.zeros((0, *empty.shape))

    def _labels_of_cells(self, inputs: np.ndarray) -> list[np.ndarray | None]:
        """The labels of each cell, None where it has none."""
        return [self.microstructure.labels] * inputs.shape[1]

    def facts(self) -> dict[str, object]:
        """Microstructure, resolution, tolerance, backend; fraction and names of the phases if given."""
        facts = {
            "model": "UnitCell",
            "ndim": self.ndim,
            "microstructure": self.microstructure.name,
            "resolution": self.microstructure.resolution,
            "tolerance": self.tolerance,
            "max_iterations": self.max_iterations,
            "backend": self.backend,
        }
        known = {"fraction": self.fraction, "phases": list(self.phases) or None}
        known["warm_start"] = self.warm_start or None
        known["subsamples"] = self.microstructure.subsamples if self.microstructure.subsamples > 1 else None
        known["grid"] = self.microstructure.grid if self.microstructure.grid != "even" else None
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
        """W/(m K), shape (naxis, nphase, n); whatever is not finite becomes a status of the cell."""
        values = np.empty((len(self.conductivities), self.nphase, inputs.shape[1]))
        with np.errstate(all="ignore"):
            for axis, functions in enumerate(self.conductivities):
                for phase, conductivity in enumerate(functions):
                    if conductivity is None:
                        values[axis, phase] = 0.0
                    else:
                        row = conductivity if isinstance(conductivity, int) else None
                        values[axis, phase] = conductivity(inputs[0]) if row is None else inputs[row]
        return values
