"""How a rank's block of cells goes into a dataset in natural order, and out of it again."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from hpcmsm.fields import Field
from hpcmsm.io.store import h5py

LARGEST_WRITE = 2**30  # bytes in one call; MPI counts in 32 bits
# How ParaView orders the components of a symmetric tensor in 3D, in terms of our order.
VIEWER_ORDER = [0, 1, 2, 5, 3, 4]


@dataclass(frozen=True)
class Block:
    """The part of a grid that a rank holds; a `Grid` has these attributes, too."""

    comm: object
    grid_shape: tuple[int, ...]
    owned: tuple[slice, ...]
    ids: np.ndarray

    @property
    def rank_shape(self) -> tuple[int, ...]:
        return tuple(part.stop - part.start for part in self.owned)


def slab(comm, grid_shape) -> Block:
    """An equal share of the rows of the slowest axis, for looking at a file without its grid."""
    rows, *others = grid_shape
    first, last = rows * comm.rank // comm.size, rows * (comm.rank + 1) // comm.size
    nrow = int(np.prod(others))
    owned = (slice(first, last), *(slice(0, n) for n in others))
    return Block(comm, tuple(grid_shape), owned, np.arange(first * nrow, last * nrow, dtype=np.int64))


@dataclass(frozen=True)
class Layout:
    """How the components of a field stand in its dataset.

    Checkpoints keep them first, as we compute: (size, *grid_shape). Snapshots keep them last, as
    viewers want them: (*grid_shape, size), without the last axis if there is one component.
    """

    size: int
    last: bool = False
    order: tuple[int, ...] = ()

    @classmethod
    def of(cls, declared: Field, last: bool) -> Layout:
        reordered = last and declared.spd and declared.size == 6
        return cls(declared.size, last, tuple(VIEWER_ORDER if reordered else range(declared.size)))

    def shape(self, grid_shape) -> tuple[int, ...]:
        """Shape of the dataset."""
        if self.last:
            return (*grid_shape, self.size) if self.size > 1 else tuple(grid_shape)
        return (self.size, *grid_shape)

    def selection(self, owned) -> tuple[slice, ...]:
        """Where the cells `owned` are in the dataset."""
        components = slice(0, self.size)
        if self.last:
            return (*owned, components) if self.size > 1 else tuple(owned)
        return (components, *owned)

    def to_file(self, values: np.ndarray, rank_shape) -> np.ndarray:
        """Values (size, ncells) in the shape and order of the file."""
        block = values.reshape(self.size, *rank_shape)
        if not self.last:
            return block
        turned = np.moveaxis(block[list(self.order)], 0, -1)
        return np.ascontiguousarray(turned).reshape(self.shape(rank_shape))

    def from_file(self, block: np.ndarray) -> np.ndarray:
        """The inverse of to_file, shape (size, ncells)."""
        if not self.last:
            return block.reshape(self.size, -1)
        columns = block.reshape(-1, self.size)[:, np.argsort(self.order)]
        return np.ascontiguousarray(columns.T)


def read_block(dataset, layout: Layout, owned) -> np.ndarray:
    """The cells `owned` of a field, shape (size, ncells)."""
    return layout.from_file(dataset[layout.selection(owned)])


def write_plan(block, nbytes: int) -> tuple[int, object]:
    """Collective. In how many calls every rank writes a component, and how HDF5 transfers them.

    A rank whose cells are one piece of the file writes them at its own pace, which is fastest.
    Many small pieces a rank are left to the collective buffering of MPI-IO. The number of calls
    is the same on all ranks, because one that skips a collective call leaves the others waiting.

    Args:
        nbytes: of this rank's part of a component.
    """
    ncalls = max(1, -(-nbytes // LARGEST_WRITE))
    if block.comm.size == 1:
        return ncalls, None
    from mpi4py import MPI

    mine, most = np.array([ncalls, not _in_one_piece(block)], np.int64), np.empty(2, np.int64)
    block.comm.Allreduce(mine, most, op=MPI.MAX)
    transfer = h5py.h5p.create(h5py.h5p.DATASET_XFER)
    transfer.set_dxpl_mpio(h5py.h5fd.MPIO_COLLECTIVE if most[1] else h5py.h5fd.MPIO_INDEPENDENT)
    return int(most[0]), transfer


def write_block(dataset, layout: Layout, values: np.ndarray, block, plan: tuple[int, object]) -> None:
    """Collective. Write this rank's cells, shape (size, ncells), as `write_plan` says."""
    ncalls, transfer = plan
    data = layout.to_file(values, block.rank_shape)
    for piece in _pieces(layout, data.shape, ncalls):
        corner = [axis.start for axis in layout.selection(block.owned)]
        for axis, part in enumerate(piece):
            corner[axis] += part.start
        _write_part(dataset, data[piece], corner, transfer)


def _pieces(layout: Layout, shape, ncalls: int) -> list[tuple[slice, ...]]:
    """What goes in one call: with the components last rows of all of them, else rows of one."""
    if layout.last:
        return [(rows,) for rows in _parts(shape[0], ncalls * layout.size)]
    components = [slice(first, first + 1) for first in range(layout.size)]
    return [(component, rows) for component in components for rows in _parts(shape[1], ncalls)]


def _in_one_piece(block) -> bool:
    """Whether consecutive cells of the block are consecutive in natural order."""
    return block.ids.size == 0 or int(block.ids[-1] - block.ids[0]) + 1 == block.ids.size


def _parts(extent: int, ncalls: int) -> list[slice]:
    edges = [extent * call // ncalls for call in range(ncalls + 1)]
    return [slice(first, last) for first, last in pairwise(edges)]


def _write_part(dataset, data: np.ndarray, start: list[int], transfer) -> None:
    file_space = dataset.id.get_space()
    memory_space = h5py.h5s.create_simple(data.shape)
    if data.size:
        file_space.select_hyperslab(tuple(start), data.shape)
    else:
        file_space.select_none()
        memory_space.select_none()
    dataset.id.write(memory_space, file_space, np.ascontiguousarray(data), dxpl=transfer)
