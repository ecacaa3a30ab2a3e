"""Where cells live: a structured grid spread over ranks by a PETSc DMDA."""

from __future__ import annotations

import os

import numpy as np

from hpcmsm.errors import ConfigError
from hpcmsm.parallel import together

AXES = ("x", "y", "z")
# Distance of the first centre from the side where coordinates begin, in spacings.
FIRST_CENTRE = {"cell": 0.5, "vertex": 0.0}

PAGE = 512  # numbers

# PETSc would catch SIGPIPE, SIGTERM and the like and abort the job; they are Python's to handle.
if "-no_signal_handler" not in os.environ.get("PETSC_OPTIONS", ""):
    os.environ["PETSC_OPTIONS"] = f"{os.environ.get('PETSC_OPTIONS', '')} -no_signal_handler".strip()


class Grid:
    """A box of equal cells in 1D, 2D or 3D.

    With centring "cell" the cells fill the box. With centring "vertex" their centres reach from side to
    side, and what lies outside of the box is cut off: half of a cell at a side, three quarters at an edge.

    Axes are named x, y, z; arrays have the opposite order (z, y, x), x fastest. A global cell id
    is the index in that natural order: id = (k ny + j) nx + i. Everything that lasts is keyed by
    it, never by rank.

    Args:
        cells: number of cells along x, y[, z].
        size: side lengths in m along x, y[, z].
        periodic: whether each axis is periodic.
        proc_shape: ranks along x, y[, z]; least halo where None.
        centring: "cell" or "vertex".

    Attributes:
        spacing: distance of neighbouring centres in m along x, y[, z].
        grid_shape: global array shape (nz, ny, nx) or (ny, nx).
        rank_shape: shape of the owned block, same order; entries may not be 0.
        owned: slices of the owned block in the global array.
        ids: global ids of the owned cells, shape (ncells,) int64, ordered as the block.
    """

    def __init__(self, cells, size, periodic=None, proc_shape=None, comm=None, centring="cell"):
        from petsc4py import PETSc

        self.ndim = len(cells)
        self.cells = tuple(int(n) for n in cells)
        self.size = tuple(float(length) for length in size)
        self.centring = centring
        self.spacing = spacing(self.cells, self.size, centring)
        self.periodic = tuple(periodic or (False,) * self.ndim)
        if centring == "vertex" and any(self.periodic):
            raise ConfigError(
                "macro.boundary must not be periodic for grid.centring 'vertex', got a periodic side; "
                "use grid.centring = 'cell'"
            )
        comm = comm if comm is not None else PETSc.COMM_WORLD.tompi4py()
        self.comm = comm
        proc_shape = self._chosen_proc_shape(proc_shape)
        boundary = [
            PETSc.DM.BoundaryType.PERIODIC if wraps else PETSc.DM.BoundaryType.GHOSTED
            for wraps in self.periodic
        ]
        with together(comm, PETSc.Error):
            self.dm = PETSc.DMDA().create(
                dim=self.ndim,
                dof=1,
                sizes=self.cells,
                proc_sizes=proc_shape,
                boundary_type=boundary,
                # The cross terms of a tensor conductivity need the corner neighbours.
                stencil_type=PETSc.DMDA.StencilType.BOX,
                stencil_width=1,
                comm=comm,
                setup=True,
            )
        ranges = self.dm.getRanges()
        self.proc_shape = tuple(reversed(self.dm.getProcSizes()))
        self.owned = tuple(slice(first, last) for first, last in reversed(ranges))
        self.grid_shape = tuple(reversed(self.cells))
        self.rank_shape = tuple(part.stop - part.start for part in self.owned)
        self.ncells = int(np.prod(self.rank_shape))
        self.total_cells = int(np.prod(self.cells))
        self.ids = self._owned_ids()

    def _chosen_proc_shape(self, proc_shape) -> tuple[int, ...]:
        """The given ranks per axis if they fit, else the fitting split with the fewest faces."""
        nranks = self.comm.size
        if proc_shape is not None and int(np.prod(proc_shape)) != nranks:
            raise ConfigError(
                f"grid.proc_shape must multiply to the number of ranks, got {list(proc_shape)} on "
                f"{nranks} ranks; correct it or leave it out"
            )
        candidates = [tuple(proc_shape)] if proc_shape is not None else splits(nranks, self.ndim)
        fitting = [
            shape for shape in candidates if all(p <= n for p, n in zip(shape, self.cells, strict=True))
        ]
        if not fitting:
            raise ConfigError(
                f"grid.cells must have at least one cell per rank along each side, got {list(self.cells)} "
                f"on {nranks} ranks; use fewer ranks or a finer grid"
            )
        return min(fitting, key=self._halo_area)

    def _halo_area(self, proc_shape) -> tuple:
        """Faces between ranks; on a tie cut the slow axes, whose slabs are contiguous in files."""
        faces = [np.prod(self.cells) / n for n in self.cells]
        area = sum((p - 1) * face for p, face in zip(proc_shape, faces, strict=True))
        return area, proc_shape

    def _owned_ids(self) -> np.ndarray:
        index = np.arange(self.owned[0].start, self.owned[0].stop, dtype=np.int64)
        for axis in range(1, self.ndim):
            part = np.arange(self.owned[axis].start, self.owned[axis].stop, dtype=np.int64)
            index = index[..., None] * self.grid_shape[axis] + part
        return np.ascontiguousarray(index.ravel())

    def coordinates(self) -> dict[str, np.ndarray]:
        """Centres of the owned cells in m, one array (ncells,) per axis name, in the order of ids."""
        index = np.unravel_index(self.ids, self.grid_shape)
        first = FIRST_CENTRE[self.centring]
        return {
            AXES[axis]: (index[self.ndim - 1 - axis] + first) * self.spacing[axis]
            for axis in range(self.ndim)
        }

    def ghosted(self, vector, local) -> np.ndarray:
        """Collective. Fill a local PETSc vector with ghost values; its array in (z, y, x) order."""
        self.dm.globalToLocal(vector, local)
        shape = tuple(stop - start for start, stop in reversed(self.dm.getGhostRanges()))
        return local.getArray(readonly=True).reshape(shape)

    def new_vector(self):
        """A global PETSc vector with one value per cell, zero."""
        return self.dm.createGlobalVec()

    def new_paged_vector(self, apart: int):
        """As `new_vector`, in memory with huge pages, beginning `apart` numbers behind the start of a page.

        What is read and written in step goes faster through vectors that do not begin at the same
        place of their pages. numpy asks for huge pages, PETSc does not.
        """
        from petsc4py import PETSc

        memory = np.full(self.ncells + apart + PAGE, 0.0)
        first = -memory.ctypes.data // memory.itemsize % PAGE + apart
        return PETSc.Vec().createWithArray(memory[first : first + self.ncells], comm=self.comm)

    def new_local(self):
        """A local PETSc vector with room for one layer of ghost values, zero."""
        return self.dm.createLocalVec()


def spacing(cells, size, centring: str) -> tuple[float, ...]:
    """Distance of neighbouring centres in m along x, y[, z]."""
    gaps = cells if centring == "cell" else [n - 1 for n in cells]
    return tuple(length / n for length, n in zip(size, gaps, strict=True))


def splits(nranks: int, naxes: int) -> list[tuple[int, ...]]:
    """All ways to write nranks as a product of naxes factors."""
    if naxes == 1:
        return [(nranks,)]
    factors = [factor for factor in range(1, nranks + 1) if nranks % factor == 0]
    return [(factor, *rest) for factor in factors for rest in splits(nranks // factor, naxes - 1)]


class Rim:
    """The values just beyond the sides of this rank's block, without a copy of the block itself.

    Args:
        grid: where the cells live.
    Attributes:
        planes: by axis name what lies beyond its low and high side, shape (2, *the block's shape
            without that axis), 0 beyond physical sides; valid until the next `exchange`.
    """

    def __init__(self, grid: Grid):
        from petsc4py import PETSc

        ghosted = tuple(n + 2 for n in grid.rank_shape)
        local = np.arange(int(np.prod(ghosted)), dtype=PETSc.IntType)
        number = np.asarray(grid.dm.getLGMap().apply(local)).reshape(ghosted)
        inner = tuple(slice(1, -1) for _ in ghosted)
        beyond, shapes = [], {}
        for axis in range(grid.ndim):
            along = grid.ndim - 1 - axis
            pair = [
                number[tuple(end if d == along else inner[d] for d in range(grid.ndim))] for end in (0, -1)
            ]
            beyond.append(np.stack(pair))
            shapes[AXES[axis]] = beyond[-1].shape
        numbers = np.concatenate([plane.ravel() for plane in beyond])
        self._place = np.flatnonzero(numbers >= 0).astype(PETSc.IntType)  # no cell is beyond physical sides
        self._values = PETSc.Vec().createSeq(numbers.size, comm=PETSc.COMM_SELF)
        from_, to = (
            PETSc.IS().createGeneral(index, comm=PETSc.COMM_SELF)
            for index in (numbers[self._place].astype(PETSc.IntType), self._place)
        )
        self._scatter = PETSc.Scatter().create(grid.new_vector(), from_, self._values, to)
        flat, first = self._values.getArray(readonly=True), 0
        self.planes = {}
        for name, shape in shapes.items():
            self.planes[name] = flat[first : first + int(np.prod(shape))].reshape(shape)
            first += int(np.prod(shape))

    def exchange(self, vector) -> None:
        """Collective. Fetch the values of a global PETSc vector that lie beyond the sides."""
        self._scatter.scatter(vector, self._values)
