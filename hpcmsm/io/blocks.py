"""How a rank's block of cells goes into a dataset in natural order, and out of it again."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hpcmsm.fields import Field

LARGEST_WRITE = 2**30  # bytes in one call; MPI-IO counts in 32 bits
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


def write_block(dataset, layout: Layout, values: np.ndarray, block) -> None:
    """Write this rank's cells, shape (size, ncells), at its own pace."""
    if block.ids.size == 0:
        return
    data = layout.to_file(values, block.rank_shape)
    where = layout.selection(block.owned)
    for piece in _pieces(layout, data):
        start = [axis.start for axis in where[: len(piece)]]
        rows = [
            slice(first + part.start, first + part.stop) for first, part in zip(start, piece, strict=True)
        ]
        dataset[(*rows, *where[len(piece) :])] = data[piece]


def _pieces(layout: Layout, data: np.ndarray) -> list[tuple[slice, ...]]:
    """What goes in one call: with the components last rows of all of them, else rows of one."""
    if layout.last:
        return [(rows,) for rows in _parts(data.shape[0], data.nbytes)]
    rows = _parts(data.shape[1], data.nbytes // layout.size)
    return [(slice(first, first + 1), part) for first in range(layout.size) for part in rows]


def _parts(extent: int, nbytes: int) -> list[slice]:
    """An axis cut into parts of at most LARGEST_WRITE bytes, or of one row."""
    rows = max(1, extent * LARGEST_WRITE // nbytes)
    return [slice(first, min(first + rows, extent)) for first in range(0, extent, rows)]


class Route:
    """Moves cells to the ranks that write them, each one piece of the file.

    Blocks that are many small pieces of the file would be slow to write, and the collective
    buffering of MPI-IO is slower than this exchange and may hang after a full disk.

    Args:
        block: a Grid, or a Block.

    Attributes:
        target: the slab of rows that this rank writes; there may be more ranks than rows.
    """

    def __init__(self, block):
        self.comm, self.target = block.comm, slab(block.comm, block.grid_shape)
        rows, nrow = block.grid_shape[0], int(np.prod(block.grid_shape[1:]))
        firsts = [rows * rank // self.comm.size * nrow for rank in range(self.comm.size + 1)]
        # The ids ascend, so that what goes to one rank stands together.
        self._sent = np.diff(np.searchsorted(block.ids, firsts)).astype(np.int64)
        self._received = np.empty_like(self._sent)
        self.comm.Alltoall(self._sent, self._received)
        self._places = self._exchange(block.ids) - firsts[self.comm.rank]

    def _exchange(self, row: np.ndarray) -> np.ndarray:
        found = np.empty(int(self._received.sum()), row.dtype)
        self.comm.Alltoallv(
            [np.ascontiguousarray(row), self._sent.tolist()], [found, self._received.tolist()]
        )
        return found

    def move(self, values: np.ndarray) -> np.ndarray:
        """Collective. This rank's cells (size, ncells) become those of its target."""
        moved = np.empty((len(values), self.target.ids.size), values.dtype)
        for component, row in enumerate(values):
            moved[component, self._places] = self._exchange(row)
        return moved


def route_of(block) -> Route | None:
    """Collective. How cells go to the ranks that write them; None if all stay where they are."""
    in_one_piece = block.ids.size == 0 or int(block.ids[-1] - block.ids[0]) + 1 == block.ids.size
    npieces = block.comm.allreduce(0 if in_one_piece else 1)
    return Route(block) if npieces else None
