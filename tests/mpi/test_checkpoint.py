"""Checkpoints written and read by any numbers of ranks, and errors that all ranks learn of."""

import resource

import numpy as np
import pytest
from mpi4py import MPI
from petsc4py import PETSc  # noqa: F401  (all ranks have to start PETSc before some of them use it)

from hpcmsm.errors import CheckpointError, HpcmsmError, SetupError
from hpcmsm.fields import Field
from hpcmsm.grid import Grid
from hpcmsm.io import store
from hpcmsm.io.checkpoint import CheckpointData, newest_checkpoint, read_checkpoint, write_checkpoint
from hpcmsm.io.inspect import compare
from hpcmsm.io.sealed import verify
from hpcmsm.io.store import write_whole
from hpcmsm.parallel import together

FIELDS = {
    "macro/temperature": Field("temperature", 1, "K"),
    "micro/conductivity": Field("conductivity", 3, "W/(m K)", spd=True),
    "micro/counts": Field("counts", 2),
}
ARRAYS = {"surrogate/weights_0": np.linspace(0.0, 1.0, 35).reshape(5, 7), "gate/scores": np.zeros((0, 2))}


def whole_fields(total):
    """The same on every rank: by name the values of all cells in natural order, shape (size, total)."""
    random = np.random.default_rng(11)
    whole = {name: random.standard_normal((field.size, total)) for name, field in FIELDS.items()}
    whole["micro/counts"] = random.integers(-9, 9, (2, total)).astype(np.int32)
    return whole


def data_of(grid, step):
    whole = whole_fields(grid.total_cells)
    cell_fields = {name: (field, whole[name][:, grid.ids]) for name, field in FIELDS.items()}
    # What rank 0 brings counts; the others need not have it.
    mine = {"arrays": ARRAYS, "config": "x = 1\n"} if grid.comm.rank == 0 else {"arrays": {}}
    provenance = {"rank": grid.comm.rank}
    return CheckpointData(step, 0.5 * step, 0.25, cell_fields, provenance=provenance, **mine)


def same_as_written(data, grid, step):
    whole = whole_fields(grid.total_cells)
    cells = all(
        data.cell_fields[name][1].tobytes() == values[:, grid.ids].tobytes() for name, values in whole.items()
    )
    arrays = {name: array.tobytes() for name, array in data.arrays.items()}
    return (
        cells
        and arrays == {name: array.tobytes() for name, array in ARRAYS.items()}
        and (data.step, data.time, data.dt, data.config) == (step, 0.5 * step, 0.25, "x = 1\n")
        and data.provenance == {"rank": 0}
    )


def first_ranks(comm, nranks):
    """Collective. A communicator of the first ranks; None on the others."""
    part = comm.Split(0 if comm.rank < nranks else MPI.UNDEFINED, comm.rank)
    return part if part != MPI.COMM_NULL else None


def layouts(nranks, ndim):
    """Ways to spread the ranks: the grid's own choice, and cuts along the fast and the slow axis only."""
    return [None, (nranks, *[1] * (ndim - 1)), (*[1] * (ndim - 1), nranks)]


@pytest.mark.mpi
@pytest.mark.parametrize("cells", [(7, 5), (5, 4, 6)])
def test_any_number_of_ranks_reads_what_any_number_wrote(comm, agree, mpi_tmp_path, cells):
    paths = []
    for nwriters in range(1, comm.size + 1):
        writers = first_ranks(comm, nwriters)
        for number, proc_shape in enumerate(layouts(nwriters, len(cells))):
            step = 10 * nwriters + number
            folder = mpi_tmp_path / str(step)
            if writers:
                grid = Grid(cells, [1.0] * len(cells), proc_shape=proc_shape, comm=writers)
                write_checkpoint(folder, data_of(grid, step), grid)
            comm.barrier()
            paths.append((step, folder / "checkpoints" / f"step_{step:08d}.h5"))
    for nreaders in range(1, comm.size + 1):
        readers, fine = first_ranks(comm, nreaders), True
        for proc_shape in layouts(nreaders, len(cells)) if readers else ():
            grid = Grid(cells, [1.0] * len(cells), proc_shape=proc_shape, comm=readers)
            fine &= all(
                same_as_written(read_checkpoint(path, grid, FIELDS), grid, step) for step, path in paths
            )
        agree(comm, fine, f"{nreaders} ranks read something else than was written")


@pytest.mark.mpi
def test_the_file_does_not_tell_how_many_ranks_wrote_it(comm, agree, mpi_tmp_path):
    for name, part in (("all", comm), ("one", first_ranks(comm, 1))):
        if part:
            grid = Grid((7, 5), (1.0, 1.0), comm=part)
            write_checkpoint(mpi_tmp_path / name, data_of(grid, 3), grid)
    comm.barrier()
    paths = [mpi_tmp_path / name / "checkpoints" / "step_00000003.h5" for name in ("all", "one")]
    rows, equal = compare(*paths)
    agree(comm, equal and len(rows) == 8, str(rows))


@pytest.mark.mpi
def test_more_ranks_than_rows_can_verify(comm, agree, mpi_tmp_path):
    one = first_ranks(comm, 1)
    if one:
        grid = Grid((7, 1), (1.0, 1.0), comm=one)
        write_checkpoint(mpi_tmp_path, data_of(grid, 1), grid)
    comm.barrier()
    path, notes = newest_checkpoint(mpi_tmp_path, comm)
    agree(comm, path.name == "step_00000001.h5" and notes == [], f"{path} {notes}")


def caught(action, *args):
    try:
        action(*args)
    except HpcmsmError as error:
        return error
    return None


@pytest.mark.mpi
def test_every_rank_learns_of_damage_that_one_rank_sees(comm, agree, mpi_tmp_path):
    grid = Grid((7, 5), (1.0, 1.0), proc_shape=(1, comm.size), comm=comm)
    for step in (1, 2):
        path = write_checkpoint(mpi_tmp_path, data_of(grid, step), grid)
    if comm.rank == 0:
        # The last value of the last row: only one rank reads it.
        with store.h5py.File(path) as file:
            dataset = file["cells/micro/conductivity"]
            where = dataset.id.get_offset() + dataset.nbytes - 3
        damaged = bytearray(path.read_bytes())
        damaged[where] ^= 4
        path.write_bytes(damaged)
    comm.barrier()
    error = caught(read_checkpoint, path, grid, FIELDS)
    agree(comm, isinstance(error, CheckpointError) and "micro/conductivity" in str(error), repr(error))
    found, notes = newest_checkpoint(mpi_tmp_path, comm)
    agree(comm, found.name == "step_00000001.h5" and "step_00000002.h5 is damaged" in notes[0], str(notes))
    if comm.rank == 0:
        path.write_bytes(damaged[: len(damaged) // 2])
    comm.barrier()
    error = caught(verify, comm, path)
    agree(comm, isinstance(error, CheckpointError) and "is truncated" in str(error), repr(error))
    error = caught(newest_checkpoint, mpi_tmp_path / "nowhere", comm)
    agree(comm, isinstance(error, CheckpointError) and "got none" in str(error), repr(error))


@pytest.mark.mpi
def test_a_wrong_shape_on_one_rank_leaves_the_old_file(comm, agree, mpi_tmp_path):
    grid = Grid((7, 5), (1.0, 1.0), comm=comm)
    path = write_checkpoint(mpi_tmp_path, data_of(grid, 1), grid)
    before = path.read_bytes()
    data = data_of(grid, 1)
    if comm.rank == comm.size - 1:
        data.cell_fields["micro/counts"] = (FIELDS["micro/counts"], np.zeros((2, 1)))
    error = caught(write_checkpoint, mpi_tmp_path, data, grid)
    agree(comm, error is not None and "'micro/counts' must be an array" in str(error), repr(error))
    agree(comm, path.read_bytes() == before, "the old file has changed")
    agree(comm, [path.name] == [other.name for other in path.parent.iterdir()], "a temporary file is left")


@pytest.mark.mpi
def test_an_error_of_one_rank_inside_fill_leaves_no_file(comm, agree, mpi_tmp_path):
    def fill(h5file):
        h5file.create_dataset("x", (4,))
        with together(comm):
            if comm.rank == comm.size // 2:
                raise SetupError("storage must work, got smoke")

    error = caught(write_whole, comm, mpi_tmp_path / "step_00000001.h5", fill)
    agree(comm, isinstance(error, SetupError) and "got smoke" in str(error), repr(error))
    agree(comm, not list(mpi_tmp_path.iterdir()), "a file is left")


@pytest.mark.mpi
@pytest.mark.parametrize("cut", ["fast", "slow"])
def test_a_full_disk_is_agreed_on(comm, agree, mpi_tmp_path, monkeypatch, cut):
    """A limit on the size of files stands for the full disk; it is lifted where memory takes over."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    let_go = store._let_go

    def lifted(temporary):
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        let_go(temporary)

    monkeypatch.setattr(store, "_let_go", lifted)
    # The last ranks hit the limit.
    proc_shape = {"fast": (comm.size, 1), "slow": (1, comm.size)}[cut]
    grid = Grid((300, 200), (1.0, 1.0), proc_shape=proc_shape, comm=comm)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, hard))
    error = caught(write_checkpoint, mpi_tmp_path, data_of(grid, 1), grid)
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    agree(comm, isinstance(error, SetupError) and "have room for" in str(error), repr(error))
    agree(comm, not list((mpi_tmp_path / "checkpoints").iterdir()), "a file is left")
    path = write_checkpoint(mpi_tmp_path, data_of(grid, 2), grid)
    agree(comm, same_as_written(read_checkpoint(path, grid, FIELDS), grid, 2), "not what was written")
