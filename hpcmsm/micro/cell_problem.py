"""Batches of periodic cell problems: phases in, conductivity tensors out (kernels/unit_cell*.c)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from hpcmsm.kernels import Kernel
from hpcmsm.micro.microstructure import Microstructure

NCOMPONENT = {2: 3, 3: 6}
SOURCES = {2: "unit_cell", 3: "unit_cell_3d"}
# Scratch numbers per point that the kernels' float64 builds take.
SCRATCH_WORDS = {2: 12, 3: 11}


class Solution(NamedTuple):
    """What the kernel returns.

    outputs: K (xx, yy, xy) or (xx, yy, zz, yz, xz, xy) in W/(m K), shape (ncomponent, n). residual: of
    the scaled equations, relative to their right-hand side, the largest of all loads. iterations:
    likewise. status: 0 good, 1 not converged, 2 bad input.
    """

    outputs: np.ndarray
    residual: np.ndarray
    iterations: np.ndarray
    status: np.ndarray


class CellProblem:
    """Solves the cell problems of a microstructure.

    Args:
        microstructure: where the phases lie; its `ndim` chooses the kernel.
        tolerance: relative error of K that the iteration may leave.
        max_iterations: cap; a cell that reaches it gets status 1.
        backend: "cpu" or "gpu".
    """

    def __init__(self, microstructure: Microstructure, tolerance: float, max_iterations: int, backend: str):
        self.microstructure = microstructure
        self.tolerance, self.max_iterations = tolerance, max_iterations
        self.ndim = microstructure.ndim
        self._kernel = Kernel.load(
            SOURCES[self.ndim], f"unit_cell_{self.ndim}d", backend=backend, dtype="float64"
        )

    def solve(
        self,
        phases: np.ndarray,
        fraction: np.ndarray | None,
        labels: np.ndarray | None = None,
        image: np.ndarray | None = None,
    ) -> Solution:
        """K of cells.

        Args:
            phases: conductivities in W/(m K), shape (naxis, nphase, n); naxis is 1, or ndim where phases
                conduct differently along the axes.
            fraction: of phase 1, shape (n,), for microstructures that have one.
            labels, image: several images (nimage, ...) int32 in place of the microstructure's own, and which
                of them each cell has, shape (n,) int32; a number that is none of theirs is bad input.
        """
        if labels is None and self.microstructure.labels is not None:
            labels = self.microstructure.labels[None]
        kernel, cell = self._kernel, self.microstructure
        naxis, nphase, ncells = phases.shape
        solution = Solution(
            outputs=kernel.on_device(np.empty((NCOMPONENT[self.ndim], ncells))),
            residual=kernel.on_device(np.empty(ncells)),
            iterations=kernel.on_device(np.empty(ncells, np.int32)),
            status=kernel.on_device(np.empty(ncells, np.int32)),
        )
        kernel(
            ncells=ncells,
            n=cell.resolution,
            nphase=nphase,
            naxis=naxis,
            nimage=1 if labels is None else len(labels),
            nword=SCRATCH_WORDS[self.ndim],
            microstructure=cell.number,
            max_iterations=self.max_iterations,
            tolerance=self.tolerance,
            labels=None if labels is None else kernel.on_device(labels),
            image=None if image is None else kernel.on_device(image),
            phases=kernel.on_device(phases),
            fraction=None if fraction is None else kernel.on_device(fraction),
            conductivity=solution.outputs,
            residual=solution.residual,
            iterations=solution.iterations,
            status=solution.status,
        )
        return Solution(*(kernel.on_host(array) for array in solution))


def extruded(plane: np.ndarray, along_z: np.ndarray) -> np.ndarray:
    """K (xx, yy, zz, yz, xz, xy) of a cell that does not change along z, from K of its section.

    Args:
        plane: (xx, yy, xy), shape (3, n).
        along_z: mean conductivity of the phases along z, shape (n,).
    """
    nothing = np.where(np.isnan(along_z), np.nan, 0.0)
    return np.stack([plane[0], plane[1], along_z, nothing, nothing, plane[2]])


def smallest_eigenvalue(tensor: np.ndarray) -> np.ndarray:
    """Of symmetric tensors stored by component, shape (3 or 6, n); NaN where one is not finite."""
    with np.errstate(all="ignore"):
        if tensor.shape[0] == 3:
            xx, yy, xy = tensor
            return (xx + yy) / 2 - np.hypot((xx - yy) / 2, xy)
        finite = np.isfinite(tensor).all(axis=0)
        xx, yy, zz, yz, xz, xy = np.where(finite, tensor, 0.0)
        matrices = np.stack([xx, xy, xz, xy, yy, yz, xz, yz, zz], axis=-1).reshape(-1, 3, 3)
        return np.where(finite, np.linalg.eigvalsh(matrices)[:, 0], np.nan)
