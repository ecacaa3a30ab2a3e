"""Snapshots written by any number of ranks are those that one rank writes."""

import numpy as np
import pytest

from hpcmsm.errors import CheckpointError, ShapeError
from hpcmsm.fields import Field
from hpcmsm.grid import Grid
from hpcmsm.io.snapshots import SnapshotWriter, read_snapshots

FIELDS = (
    Field("temperature", 1, "K"),
    Field("conductivity", 3, "W/(m K)", spd=True),
    Field("tensor", 6, spd=True),
    Field("source"),
)
STEPS = (0, 5, 12)


def whole_fields(step, total):
    """The same on every rank: by name the values of all cells, shape (size, total)."""
    random = np.random.default_rng(step)
    values = {field.name: random.standard_normal((field.size, total)) for field in FIELDS}
    values["source"] = random.integers(0, 3, (1, total)).astype(np.int8)
    return values


def mine(step, grid):
    return {name: values[:, grid.ids] for name, values in whole_fields(step, grid.total_cells).items()}


@pytest.mark.mpi
@pytest.mark.parametrize("cells", [(7, 5), (5, 4, 6)])
@pytest.mark.parametrize("cut", ["chosen", "fast", "slow"])
def test_every_cell_is_where_it_belongs(comm, agree, mpi_tmp_path, cells, cut):
    ones = [1] * (len(cells) - 1)
    proc_shape = {"chosen": None, "fast": (comm.size, *ones), "slow": (*ones, comm.size)}[cut]
    grid = Grid(cells, [1.0] * len(cells), proc_shape=proc_shape, comm=comm)
    writer = SnapshotWriter(mpi_tmp_path, grid, FIELDS)
    for step in STEPS:
        writer.write(step, 0.25 * step, mine(step, grid))
    found = read_snapshots(mpi_tmp_path)
    agree(comm, found.steps.tolist() == list(STEPS) and found.times.tolist() == [0.0, 1.25, 3.0], "clock")
    for number, step in enumerate(STEPS):
        for name, values in whole_fields(step, grid.total_cells).items():
            read = found.arrays[name][number].reshape(values.shape)
            agree(comm, read.dtype == values.dtype and np.array_equal(read, values), f"{name} at {step}")


@pytest.mark.mpi
def test_resume_drops_later_snapshots_on_all_ranks(comm, agree, mpi_tmp_path):
    grid = Grid((7, 5), (1.0, 1.0), comm=comm)
    writer = SnapshotWriter(mpi_tmp_path, grid, FIELDS)
    for step in STEPS:
        writer.write(step, 0.25 * step, mine(step, grid))
    resumed = SnapshotWriter(mpi_tmp_path, grid, FIELDS)
    resumed.truncate(6)
    agree(comm, read_snapshots(mpi_tmp_path).steps.tolist() == [0, 5], "step 12 is still there")
    comm.barrier()
    resumed.write(9, 2.25, mine(9, grid))
    agree(comm, read_snapshots(mpi_tmp_path).steps.tolist() == [0, 5, 9], "step 9 is not there")


@pytest.mark.mpi
def test_every_rank_learns_what_is_wrong(comm, agree, mpi_tmp_path):
    grid = Grid((7, 5), (1.0, 1.0), comm=comm)
    writer = SnapshotWriter(mpi_tmp_path, grid, FIELDS)
    arrays = mine(0, grid)
    if comm.rank == comm.size - 1:
        del arrays["source"]
    errors = []
    for action in (
        lambda: writer.write(0, 0.0, arrays),
        lambda: writer.write(0, 0.0, mine(0, grid)),
        lambda: SnapshotWriter(mpi_tmp_path, Grid((7, 6), (1.0, 1.0), comm=comm), FIELDS),
    ):
        try:
            action()
        except (ShapeError, CheckpointError) as error:
            errors.append(type(error))
    agree(comm, errors == [ShapeError, CheckpointError], str(errors))
