"""Snapshots for looking: one whole file per snapshot, and an index that ParaView opens as a series.

    snapshots/fields_00000120.h5    a sealed file, see sealed.py
    snapshots/fields.vtkhdf         VTKHDF ImageData with time steps; its arrays are virtual
                                    datasets onto the files beside it

A kill between the two leaves a snapshot that is not in the index; the next run mends that.
"""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hpcmsm.errors import CheckpointError, ShapeError
from hpcmsm.fields import Field
from hpcmsm.io.blocks import slab
from hpcmsm.io.checkpoint import grid_header
from hpcmsm.io.checksum import cell_keys, cell_sums
from hpcmsm.io.sealed import open_sealed, write_sealed
from hpcmsm.io.store import TEMPORARY
from hpcmsm.io.vtkhdf import Piece, write_index
from hpcmsm.parallel import together

FOLDER = "snapshots"
NAME = re.compile(r"fields_(\d{8,})\.h5")


def snapshot_name(step: int) -> str:
    """File name of the snapshot of a step."""
    return f"fields_{step:08d}.h5"


class SnapshotWriter:
    """Writes the snapshots of a run.

    Args:
        folder: the run's output folder; snapshots that it already holds stay in the index.
        grid: the grid.
        fields: the fields of every snapshot.
    Attributes:
        notes: a line for each snapshot found damaged; it stays where it is, out of the index.
    Raises:
        CheckpointError: the folder holds snapshots of another grid.
    """

    def __init__(self, folder: Path, grid, fields):
        self.folder, self.grid, self.fields = Path(folder) / FOLDER, grid, tuple(fields)
        self.notes: list[str] = []
        self._pieces: list[Piece] = []
        with together(grid.comm):
            if grid.comm.rank == 0:
                self._find()
        self.notes = grid.comm.bcast(self.notes)

    def _find(self) -> None:
        for leftover in self.folder.glob(f"fields*{TEMPORARY}*"):
            with suppress(OSError):
                leftover.unlink()
        wanted = grid_header(self.grid)
        for path in snapshot_paths(self.folder):
            try:
                piece = read_piece(path)
            except CheckpointError as error:
                self.notes.append(f"snapshot {str(error).partition(';')[0]}; leaving it out of the index")
                continue
            if piece.grid != wanted:
                raise CheckpointError(
                    f"output folder must be free of snapshots of another grid, got {piece.name} with "
                    f"{piece.grid['cells']} cells where the case has {wanted['cells']} ({self.folder}); "
                    "write to another folder"
                )
            self._pieces.append(piece)

    def write(self, step: int, time: float, arrays: dict[str, np.ndarray]) -> Path:
        """Collective. Write the snapshot of a step and bring the index up to date.

        Args:
            time: in s.
            arrays: by field name this rank's values, shape (size, ncells), ordered as grid.ids.
        Returns:
            path of the snapshot.
        Raises:
            ShapeError: a declared field is missing or does not have the declared shape.
            SetupError: the folder is not writable or the disk is full.
        """
        with together(self.grid.comm):
            self._check_names(arrays)
        path = self.folder / snapshot_name(step)
        header = {"step": int(step), "time": float(time), **grid_header(self.grid)}

        def fill(writer):
            for field in self.fields:
                values = arrays[field.name]
                # Viewers know no truth values.
                values = values.view(np.int8) if values.dtype == bool else values
                writer.cells(field.name, field, values, self.grid, last=True)

        write_sealed(self.grid.comm, path, "snapshot", header, fill)
        with together(self.grid.comm):
            if self.grid.comm.rank == 0:
                others = [piece for piece in self._pieces if piece.step != step]
                self._pieces = sorted([*others, read_piece(path)], key=lambda piece: piece.step)
                write_index(self.folder, self._pieces)
        return path

    def _check_names(self, arrays: dict[str, np.ndarray]) -> None:
        for field in self.fields:
            if field.name not in arrays:
                raise ShapeError(
                    f"snapshot must have every declared field, got {', '.join(arrays) or 'none'} without "
                    f"'{field.name}'; pass it to write"
                )

    def truncate(self, step: int) -> None:
        """Collective. Drop the snapshots later than a step; -1 drops all.

        Call it after a resume with the step of the checkpoint, so that no snapshot of the lost
        steps stands between those that will be written.
        """
        with together(self.grid.comm):
            if self.grid.comm.rank == 0 and self.folder.is_dir():
                late = [piece for piece in self._pieces if piece.step > step]
                self._pieces = [piece for piece in self._pieces if piece.step <= step]
                write_index(self.folder, self._pieces)
                for piece in late:
                    with suppress(OSError):
                        (self.folder / piece.name).unlink()


def snapshot_paths(folder: Path) -> list[Path]:
    """The snapshots of a folder, sorted by step; unfinished files do not count."""
    folder = Path(folder)
    found = [path for path in folder.iterdir() if NAME.fullmatch(path.name)] if folder.is_dir() else []
    return sorted(found, key=lambda path: int(NAME.fullmatch(path.name).group(1)))


def read_piece(path: Path) -> Piece:
    """What the index has to know of a snapshot."""
    with open_sealed(path, "snapshot") as reader:
        header = dict(reader.header)
        datasets = {}
        for name in reader.names("cells"):
            dataset = reader.dataset(f"cells/{name}")
            datasets[name] = reader.field(name), dataset.shape, dataset.dtype
        return Piece(path.name, header.pop("step"), header.pop("time"), header, datasets)


@dataclass(frozen=True)
class Snapshots:
    """Fields over time.

    Attributes:
        steps, times: shape (nsnapshots,); times in s.
        fields: declaration by name.
        arrays: by name, shape (nsnapshots, size, *grid_shape).
        cells, size: of the grid along x, y[, z]; size in m.
        centring: "cell" or "vertex", see `Grid`.
    """

    steps: np.ndarray
    times: np.ndarray
    fields: dict[str, Field]
    arrays: dict[str, np.ndarray]
    cells: tuple[int, ...]
    size: tuple[float, ...]
    centring: str = "cell"


def read_snapshots(folder: Path, names=None) -> Snapshots:
    """Read the snapshots of a run on one rank, verifying every bit.

    Args:
        folder: the run's output folder.
        names: fields to read; None for all that every snapshot has.
    Raises:
        CheckpointError: there are none, one is damaged, or they lack a wanted field.
    """
    folder = Path(folder) / FOLDER
    pieces = [read_piece(path) for path in snapshot_paths(folder)]
    if not pieces:
        raise CheckpointError(
            f"output folder must hold snapshots, got none in {folder}; set snapshots in the case and run it"
        )
    common = [name for name in pieces[-1].datasets if all(name in piece.datasets for piece in pieces)]
    for name in names or ():
        if name not in common:
            raise CheckpointError(
                f"field must be one of {', '.join(common)}, got '{name}' ({folder}); choose another"
            )
    names = list(names) if names is not None else common
    read = [_read_cells(folder / piece.name, names) for piece in pieces]
    return Snapshots(
        steps=np.array([piece.step for piece in pieces]),
        times=np.array([piece.time for piece in pieces]),
        fields={name: pieces[-1].datasets[name][0] for name in names},
        arrays={name: np.stack([values[name] for values in read]) for name in names},
        cells=tuple(pieces[-1].grid["cells"]),
        size=tuple(pieces[-1].grid["size"]),
        centring=pieces[-1].grid.get("centring", "cell"),
    )


def _read_cells(path: Path, names: list[str]) -> dict[str, np.ndarray]:
    from mpi4py import MPI

    with open_sealed(path, "snapshot") as reader:
        shape = reader.header["grid_shape"]
        block = slab(MPI.COMM_SELF, shape)
        values = {name: reader.cells(name, block) for name in names}
        keys = cell_keys(block.ids)
        reader.verify_cells(MPI.COMM_SELF, {name: cell_sums(array, keys) for name, array in values.items()})
    return {name: array.reshape(-1, *shape) for name, array in values.items()}
