"""Batches of periodic cell problems: phases in, conductivity tensors out (kernels/unit_cell*.c)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from hpcmsm.kernels import Kernel
from hpcmsm.micro.microstructure import Microstructure

NCOMPONENT = {2: 3, 3: 6}
SOURCES = {2: "unit_cell", 3: "unit_cell_3d"}
TENSOR_SOURCES = {2: "unit_cell_tensor", 3: "unit_cell_tensor_3d"}
# Scratch numbers per point that the kernels' float64 builds take.
SCRATCH_WORDS = {2: 12, 3: 11}
TENSOR_SCRATCH_WORDS = {2: 21, 3: 28}


class Solution(NamedTuple):
    """What the kernel returns; ncomponent is 3 (xx, yy, xy) or 6 (xx, yy, zz, yz, xz, xy).

    outputs: K in W/(m K), shape (ncomponent, n). residual: of the scaled equations, relative to their
    right-hand side, the largest of all loads, shape (n,). iterations: likewise. status: 0 good, 1 not
    converged, 2 bad input. Only where asked for:
    state: to start from another time, shape (nstate, n). corrector: chi of each load in units of the
    distance of points, shape (ndim, [z,] y, x, n); its mean is arbitrary. tangent: dK by each conductivity,
    shape (naxis, nphase, ncomponent, n). gradient: of full tensors, for each load that along each axis in the
    2^ndim parts around each corner, shape (ndim, ndim, 2^ndim, [z,] y, x, n), see kernels/unit_cell_corner.h.
    """

    outputs: np.ndarray
    residual: np.ndarray
    iterations: np.ndarray
    status: np.ndarray
    state: np.ndarray | None = None
    corrector: np.ndarray | None = None
    tangent: np.ndarray | None = None
    gradient: np.ndarray | None = None


class CellProblem:
    """Solves the cell problems of a microstructure.

    Args:
        microstructure: where the phases lie; its `ndim` chooses the kernel.
        tolerance: relative error of K that the iteration may leave.
        max_iterations: cap; a cell that reaches it gets status 1.
        backend: "cpu" or "gpu".
        full: whether phases are given by all components of their tensors; of an image only.
    Attributes:
        nstate: numbers of a cell's state.
    """

    def __init__(
        self,
        microstructure: Microstructure,
        tolerance: float,
        max_iterations: int,
        backend: str,
        full: bool = False,
    ):
        self.microstructure, self.full = microstructure, full
        self.tolerance, self.max_iterations = tolerance, max_iterations
        self.ndim = microstructure.ndim
        self.npoint = microstructure.resolution**self.ndim
        self.nstate = self.ndim * (self.npoint if full else self.npoint // 2)
        self.nword = (TENSOR_SCRATCH_WORDS if full else SCRATCH_WORDS)[self.ndim]
        source = (TENSOR_SOURCES if full else SOURCES)[self.ndim]
        name = f"unit_cell_{'tensor_' if full else ''}{self.ndim}d"
        self._kernel = Kernel.load(source, name, backend=backend, dtype="float64")

    def solve(
        self,
        phases: np.ndarray,
        fraction: np.ndarray | None,
        labels: np.ndarray | None = None,
        image: np.ndarray | None = None,
        before: np.ndarray | None = None,
        also: Sequence[str] = (),
        number: int | None = None,
    ) -> Solution:
        """K of cells.

        Args:
            phases: conductivities in W/(m K), shape (naxis, nphase, n); naxis is 1, or ndim where phases
                conduct differently along the axes; with full tensors it is ncomponent.
            fraction: of phase 1, shape (n,), for microstructures that have one.
            labels, image: several images (nimage, ...) int32, marked where they have sub-samples, in place of
                the microstructure's own, and which of them each cell has, shape (n,) int32; a number that
                is none of theirs is bad input.
            before: state to start from, shape (nstate, n).
            also: which of "state", "corrector", "tangent", with full tensors "gradient", to give besides.
            number: what the kernel calls these images, if not what it calls the microstructure.
        """
        if labels is None and self.microstructure.labels is not None:
            labels = self.microstructure.kernel_labels[None]
        kernel = self._kernel
        naxis, nphase, ncells = phases.shape

        def there(array: np.ndarray | None):
            return None if array is None else kernel.on_device(array)

        shapes = self._shapes(naxis, nphase, ncells)
        found = Solution(
            *(there(np.empty(shapes[name])) for name in ("outputs", "residual")),
            *(there(np.empty(ncells, np.int32)) for _ in ("iterations", "status")),
            **{name: there(np.empty(shapes[name])) for name in also},
        )
        kernel(
            **self._own_arguments(naxis, there(fraction), found.gradient, number),
            ncells=ncells,
            n=self.microstructure.resolution,
            nword=self.nword,
            nphase=nphase,
            nimage=1 if labels is None else len(labels),
            max_iterations=self.max_iterations,
            tolerance=self.tolerance,
            labels=there(labels),
            image=there(image),
            phases=there(phases),
            before=there(before),
            after=found.state,
            corrector=found.corrector,
            tangent=found.tangent,
            conductivity=found.outputs,
            residual=found.residual,
            iterations=found.iterations,
            status=found.status,
        )
        return Solution(*(None if array is None else kernel.on_host(array) for array in found))

    def _own_arguments(self, naxis: int, fraction, gradient, number: int | None) -> dict:
        """Those that only one of the two kernels takes."""
        if self.full:
            return {"npoint": self.npoint, "gradient": gradient}
        return {
            "nred": self.npoint // 2,
            "naxis": naxis,
            "nsub": self.microstructure.subsamples,
            "microstructure": self.microstructure.number if number is None else number,
            "fraction": fraction,
        }

    def _shapes(self, naxis: int, nphase: int, ncells: int) -> dict[str, tuple[int, ...]]:
        ncomponent, points = NCOMPONENT[self.ndim], [self.microstructure.resolution] * self.ndim
        return {
            "outputs": (ncomponent, ncells),
            "residual": (ncells,),
            "state": (self.nstate, ncells),
            "corrector": (self.ndim, *points, ncells),
            "tangent": (naxis, nphase, ncomponent, ncells),
            "gradient": (self.ndim, self.ndim, 2**self.ndim, *points, ncells),
        }


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
