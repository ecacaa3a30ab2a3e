"""The grid on any number of ranks: ids, coordinates, ghosts, and how it is split."""

import itertools

import numpy as np
import pytest

from hpcmsm.errors import ConfigError
from hpcmsm.grid import Grid, Rim, splits

pytestmark = pytest.mark.mpi
# Cells along x, y[, z] that no small number of ranks divides.
SHAPES = [(7, 5), (11, 3), (4, 9), (5, 4, 3), (3, 2, 7)]


def make(comm, cells, **more) -> Grid:
    return Grid(cells, [0.5 * n + 0.1 * axis for axis, n in enumerate(cells, 1)], comm=comm, **more)


@pytest.mark.parametrize("cells", SHAPES)
def test_ids_cover_every_cell_once_in_natural_order(comm, agree, cells):
    grid = make(comm, cells)
    everyone = np.concatenate(comm.allgather(grid.ids))
    agree(comm, np.array_equal(np.sort(everyone), np.arange(np.prod(cells))), f"{everyone}")
    # The owned block of the array of all ids, cut out by numpy.
    whole = np.arange(np.prod(cells)).reshape(cells[::-1])
    agree(comm, np.array_equal(grid.ids, whole[grid.owned].ravel()), f"{grid.ids}")
    agree(comm, grid.ids.dtype == np.int64 and grid.ids.flags.c_contiguous, "type of ids")
    agree(comm, grid.rank_shape == whole[grid.owned].shape, f"{grid.rank_shape}")
    agree(comm, grid.ncells == grid.ids.size and grid.total_cells == whole.size, f"{grid.ncells}")
    agree(comm, grid.grid_shape == whole.shape, f"{grid.grid_shape}")


@pytest.mark.parametrize("cells", SHAPES)
def test_coordinates_are_those_of_the_centres(comm, agree, cells):
    grid = make(comm, cells)
    lines = [(np.arange(n) + 0.5) * size / n for n, size in zip(cells, grid.size, strict=True)]
    whole = np.meshgrid(*reversed(lines), indexing="ij")[::-1]
    got = grid.coordinates()
    agree(comm, list(got) == list("xyz")[: len(cells)], f"{list(got)}")
    for name, expected in zip(got, whole, strict=True):
        close = np.allclose(got[name], expected[grid.owned].ravel(), rtol=1e-14, atol=0)
        agree(comm, close and got[name].shape == (grid.ncells,), f"{name}: {got[name]}")


@pytest.mark.parametrize("cells", [*SHAPES, (1, 6), (6, 1), (2, 2)])
def test_ghosts_come_from_the_neighbours(comm, agree, cells):
    """Faces, edges and corners, around the periodic axes and across ranks, for every choice of axes."""
    values = np.random.default_rng(len(cells)).normal(size=cells[::-1])
    for periodic in itertools.product((False, True), repeat=len(cells)):
        if comm.size > max(cells):
            continue
        grid = make(comm, cells, periodic=periodic)
        vector, local = grid.new_vector(), grid.new_local()
        vector.setArray(values[grid.owned].ravel())
        for _ in range(2):  # the second time nothing may be left over from the first
            got = grid.ghosted(vector, local)
        expected, known = surroundings(values, grid.owned, periodic[::-1])
        agree(comm, got.shape == expected.shape, f"{periodic}: {got.shape}, not {expected.shape}")
        agree(comm, np.array_equal(got[known], expected[known]), f"{periodic}: wrong ghosts")


def surroundings(values, owned, periodic):
    """The owned block with one layer around it, and which of its entries exist."""
    index, known = [], []
    for part, n, wraps in zip(owned, values.shape, periodic, strict=True):
        line = np.arange(part.start - 1, part.stop + 1)
        index.append(line % n)
        known.append(wraps | ((line >= 0) & (line < n)))
    inside = np.ones([len(line) for line in index], dtype=bool)
    for axis, line in enumerate(known):
        inside &= np.expand_dims(line, [other for other in range(len(known)) if other != axis])
    return values[np.ix_(*index)], inside


@pytest.mark.parametrize("cells", [(9,), *SHAPES, (1, 6), (2, 2)])
def test_the_rim_is_that_of_the_ghosts(comm, agree, cells):
    """Twice, as the planes are filled anew, around the periodic axes and 0 beyond physical sides."""
    ndim = len(cells)
    for periodic in itertools.product((False, True), repeat=ndim):
        if comm.size > max(cells):
            continue
        grid = make(comm, cells, periodic=periodic)
        rim, vector, local = Rim(grid), grid.new_vector(), grid.new_local()
        for seed in (1, 2):
            values = np.random.default_rng(seed).normal(size=cells[::-1])
            vector.setArray(values[grid.owned].ravel())
            rim.exchange(vector)
            ghosted = grid.ghosted(vector, local)
            agree(comm, list(rim.planes) == list("xyz")[:ndim], f"{list(rim.planes)}")
            for axis, planes in enumerate(rim.planes.values()):
                ends = np.moveaxis(ghosted, ndim - 1 - axis, 0)[[0, -1]]
                wanted = ends[(slice(None), *[slice(1, -1)] * (ndim - 1))]
                fine = planes.shape == wanted.shape and np.array_equal(planes, wanted)
                agree(comm, fine, f"{cells}, {periodic}, axis {axis}: {planes}")


def test_a_changed_vector_changes_the_ghosts(comm, agree):
    grid = make(comm, (7, 5), periodic=(True, True))
    vector, local = grid.new_vector(), grid.new_local()
    agree(comm, (grid.ghosted(vector, local) == 0.0).all(), "a new vector is zero")
    for factor in (1.0, 2.0):
        vector.setArray(factor * (1.0 + grid.ids))
        whole = factor * (1.0 + np.arange(35.0)).reshape(5, 7)
        expected, _ = surroundings(whole, grid.owned, (True, True))
        agree(comm, np.array_equal(grid.ghosted(vector, local), expected), f"factor {factor}")


@pytest.mark.parametrize("cells", SHAPES)
def test_given_split_is_taken(comm, agree, cells):
    """proc_shape is given along x, y[, z]; blocks differ by at most one cell along each axis."""
    for shape in splits(comm.size, len(cells)):
        if any(p > n for p, n in zip(shape, cells, strict=True)):
            continue
        grid = make(comm, cells, proc_shape=shape)
        agree(comm, grid.proc_shape == shape[::-1], f"{grid.proc_shape}, asked {shape}")
        blocks = comm.allgather(grid.rank_shape)
        for axis, lengths in enumerate(zip(*blocks, strict=True)):
            agree(comm, max(lengths) - min(lengths) <= 1, f"axis {axis}: {lengths}")
            distinct = {(part.start, part.stop) for part in (o[axis] for o in comm.allgather(grid.owned))}
            agree(comm, len(distinct) == shape[::-1][axis], f"axis {axis}: {distinct}")


@pytest.mark.parametrize("cells", [*SHAPES, (40, 2), (2, 40), (2, 2, 40)])
def test_chosen_split_has_the_fewest_faces_between_ranks(comm, agree, cells):
    grid = make(comm, cells)
    whole = np.zeros(cells[::-1], dtype=int)
    for rank, owned in enumerate(comm.allgather(grid.owned)):
        whole[owned] = rank
    cut = sum(int((np.diff(whole, axis=axis) != 0).sum()) for axis in range(whole.ndim))
    fewest = min(faces_between(cells, shape) for shape in splits(comm.size, len(cells)))
    agree(comm, cut == fewest, f"{grid.proc_shape} cuts {cut} faces, the best {fewest}")


def faces_between(cells, shape):
    if any(p > n for p, n in zip(shape, cells, strict=True)):
        return np.inf
    return sum((p - 1) * int(np.prod(cells)) // n for p, n in zip(shape, cells, strict=True))


def refusal(comm, agree, cells, **more) -> str:
    """Every rank must refuse, with the same text."""
    text = None
    try:
        make(comm, cells, **more)
    except ConfigError as error:
        text = str(error)
    agree(comm, text is not None, f"{cells} {more} was accepted")
    agree(comm, len(set(comm.allgather(text))) == 1, "texts differ")
    return text


def test_more_ranks_than_cells_are_refused_by_all(comm, agree):
    if comm.size > 1:
        text = refusal(comm, agree, (comm.size - 1, 1))
        expected = (
            f"grid.cells must have at least one cell per rank along each side, got [{comm.size - 1}, 1]"
        )
        agree(comm, text.startswith(expected) and f"on {comm.size} ranks;" in text, text)
    agree(comm, make(comm, (comm.size, 1)).ncells == 1, "one cell each")
    agree(comm, make(comm, (1, comm.size)).ncells == 1, "one cell each")
    if comm.size == 3:
        refusal(comm, agree, (2, 2))  # four cells, but three ranks split no side of two
    agree(comm, make(comm, (7, 5)).ncells > 0, "the ranks still work together")


def test_split_that_does_not_fit_is_refused_by_all(comm, agree):
    text = refusal(comm, agree, (9, 9), proc_shape=(comm.size + 1, 1))
    expected = f"grid.proc_shape must multiply to the number of ranks, got [{comm.size + 1}, 1]"
    agree(comm, text.startswith(expected), text)
    if comm.size > 1:
        refusal(comm, agree, (comm.size - 1, 9), proc_shape=(comm.size, 1))


def test_splits_are_all_products(comm, agree):
    for n, axes in itertools.product(range(1, 13), (1, 2, 3)):
        every = {shape for shape in itertools.product(range(1, n + 1), repeat=axes) if np.prod(shape) == n}
        got = splits(n, axes)
        agree(comm, set(got) == every and len(got) == len(every), f"{n} ranks, {axes} axes: {got}")
