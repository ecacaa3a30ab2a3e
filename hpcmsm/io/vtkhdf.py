"""The index of the snapshots: VTKHDF ImageData with time steps, made of virtual datasets.

Source of the format: VTK file formats, section VTKHDF, docs.vtk.org.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from mpi4py import MPI

from hpcmsm.fields import Field
from hpcmsm.grid import spacing
from hpcmsm.io.blocks import Layout
from hpcmsm.io.sealed import describe_dataset
from hpcmsm.io.store import h5py, write_whole

INDEX = "fields.vtkhdf"


@dataclass(frozen=True)
class Piece:
    """A snapshot file as its index sees it.

    Args:
        name: file name.
        step, time: of the snapshot; time in s.
        grid: grid_shape, cells, size, periodic.
        datasets: field, shape and type of each dataset, by name.
    """

    name: str
    step: int
    time: float
    grid: dict
    datasets: dict[str, tuple[Field, tuple[int, ...], np.dtype]]


def write_index(folder: Path, pieces: list[Piece]) -> None:
    """Write the index of the snapshots, on one rank; without snapshots there is none.

    Raises:
        SetupError: the folder is not writable or the disk is full.
    """
    path = Path(folder) / INDEX
    if pieces:
        write_whole(MPI.COMM_SELF, path, lambda h5file: _fill(h5file, pieces))
    else:
        path.unlink(missing_ok=True)


def _fill(h5file, pieces: list[Piece]) -> None:
    h5file.attrs["kind"] = np.bytes_(b"snapshot index")
    times = np.array([piece.time for piece in pieces], float)
    h5file.create_dataset("step", data=np.array([piece.step for piece in pieces], np.int64))
    h5file.create_dataset("time", data=times)
    root = h5file.create_group("VTKHDF")
    _describe_grid(root, pieces[-1].grid)
    # VTK takes a file with one step for one without time, whose arrays have no axis of time.
    if len(pieces) > 1:
        steps = root.create_group("Steps")
        steps.attrs["NSteps"] = len(pieces)
        steps.create_dataset("Values", data=times)
    # VTK's cells are ours where these fill the box; where their centres reach from side to side, its points.
    cell_data = root.create_group("PointData" if _centring(pieces[-1].grid) == "vertex" else "CellData")
    for name, last in pieces[-1].datasets.items():
        # One array over time needs the same shape and type in every snapshot.
        if all(piece.datasets.get(name, last)[1:] == last[1:] for piece in pieces if name in piece.datasets):
            _add_virtual(cell_data, name, pieces)


def _describe_grid(root, grid: dict) -> None:
    """Attributes of ImageData. A 1D or 2D grid is one cell thick, as thick as the cells are wide.

    With values at the points, it is one point thick.
    """
    centring = _centring(grid)
    distances = spacing(grid["cells"], grid["size"], centring)
    missing = 3 - len(distances)
    layer = 0 if centring == "vertex" else 1
    cells = [*(n - 1 + layer for n in grid["cells"]), *[layer] * missing]
    root.attrs["Version"] = np.array([2, 0], np.int64)
    root.attrs["Type"] = np.bytes_(b"ImageData")
    root.attrs["WholeExtent"] = np.array([0, cells[0], 0, cells[1], 0, cells[2]], np.int64)
    root.attrs["Origin"] = np.zeros(3)
    root.attrs["Spacing"] = np.array([*distances, *[min(distances)] * missing])
    root.attrs["Direction"] = np.eye(3).ravel()


def _centring(grid: dict) -> str:
    return grid.get("centring", "cell")


def _add_virtual(group, name: str, pieces: list[Piece]) -> None:
    """A dataset ([nsteps,] nz, ny, nx[, size]) that is read from the snapshot files."""
    field, shape, dtype = pieces[-1].datasets[name]
    time_axis = (len(pieces),) if len(pieces) > 1 else ()
    centring = _centring(pieces[-1].grid)
    layer = () if centring == "vertex" else (1,) * (3 - len(pieces[-1].grid["cells"]))
    whole = h5py.h5s.create_simple((*time_axis, *layer, *shape))
    source = h5py.h5s.create_simple(shape)
    creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    # h5py's own VirtualLayout takes five times as long, and this is done after each snapshot.
    for number, piece in enumerate(pieces):
        if time_axis:
            whole.select_hyperslab((number, *[0] * len(layer + shape)), (1, *layer, *shape))
        creation.set_virtual(whole, piece.name.encode(), f"/cells/{name}".encode(), source)
    kind = h5py.h5t.py_create(dtype, logical=True)
    identifier = h5py.h5d.create(group.id, name.encode(), kind, whole, creation)
    describe_dataset(h5py.Dataset(identifier), field, Layout.of(field, True))
