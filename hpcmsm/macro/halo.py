"""Two layers of ghost values around the owned block, for stencils that reach that far."""

from __future__ import annotations

import numpy as np

from hpcmsm.errors import ConfigError
from hpcmsm.grid import Grid
from hpcmsm.parallel import together

WIDTH = 2


class Halo:
    """Fields with ghosts from the neighbouring ranks or the periodic image.

    Args:
        grid: where the cells live; every rank needs two cells along each axis.
        ncomponent: number of fields.

    Attributes:
        shape: of the block with ghosts, in the order (z, y, x).

    Raises:
        ConfigError: a rank has fewer cells.
    """

    def __init__(self, grid: Grid, ncomponent: int):
        from petsc4py import PETSc

        self.grid = grid
        with together(grid.comm):
            if min(grid.rank_shape) < WIDTH:
                raise ConfigError(
                    f"grid.cells must give every rank {WIDTH} cells along each axis, got a block of "
                    f"{list(reversed(grid.rank_shape))}; use fewer ranks or a finer grid"
                )
        self.shape = tuple(n + 2 * WIDTH for n in grid.rank_shape)
        boundary = [
            PETSc.DM.BoundaryType.PERIODIC if wraps else PETSc.DM.BoundaryType.GHOSTED
            for wraps in grid.periodic
        ]
        self._dm = PETSc.DMDA().create(
            dim=grid.ndim,
            dof=ncomponent,
            sizes=grid.cells,
            proc_sizes=grid.dm.getProcSizes(),
            ownership_ranges=grid.dm.getOwnershipRanges(),
            boundary_type=boundary,
            stencil_type=PETSc.DMDA.StencilType.STAR,
            stencil_width=WIDTH,
            comm=grid.comm,
            setup=True,
        )
        self._owned, self._local = self._dm.createGlobalVec(), self._dm.createLocalVec()
        self._ghosted = np.zeros((ncomponent, *self.shape))

    def fill(self, *fields: np.ndarray) -> np.ndarray:
        """Collective. Fields (size, ncells), one below the other, with their ghosts.

        Returns:
            An array (ncomponent, *shape), good until the next call; ghosts beyond physical sides are
            undefined.
        """
        # One message to a neighbour for all fields: PETSc wants the components of a cell side by side.
        with self._owned as packed:
            first = 0
            for values in fields:
                packed.reshape(self.grid.ncells, -1)[:, first : first + len(values)] = values.T
                first += len(values)
        self._dm.globalToLocal(self._owned, self._local)
        packed = self._local.getArray(readonly=True).reshape(*self.shape, -1)
        self._ghosted[...] = np.moveaxis(packed, -1, 0)
        return self._ghosted
