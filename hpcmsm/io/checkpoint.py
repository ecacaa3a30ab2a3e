"""Checkpoints: both scales, the surrogate and the clock in one file that any number of ranks can read."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from hpcmsm.errors import CheckpointError
from hpcmsm.fields import Field
from hpcmsm.io.checksum import cell_keys, cell_sums
from hpcmsm.io.sealed import SealedReader, open_sealed, verify, write_sealed
from hpcmsm.io.store import TEMPORARY
from hpcmsm.parallel import together

FOLDER = "checkpoints"
NAME = re.compile(r"step_(\d{8,})\.h5")


@dataclass
class CheckpointData:
    """Everything that a run needs to go on as if it had never stopped.

    Args:
        step: number of the last finished step.
        time, dt: in s; dt is the length of the next step.
        cell_fields: by path ("macro/temperature"): the field and this rank's values (size, ncells).
        arrays: by path ("surrogate/weights_0"): small arrays that are the same on every rank. In
            writing only rank 0's count.
        config: the effective case file, TOML.
        provenance: what JSON can hold: versions, host, command, commit.
    """

    step: int
    time: float
    dt: float
    cell_fields: dict[str, tuple[Field, np.ndarray]] = field(default_factory=dict)
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    config: str = ""
    provenance: dict = field(default_factory=dict)


def checkpoint_name(step: int) -> str:
    """File name of the checkpoint of a step."""
    return f"step_{step:08d}.h5"


def grid_header(grid) -> dict:
    """What identifies a grid, for the header of a file."""
    # Named only where it is not the usual one, so that files from before there was a choice still fit.
    centring = {"centring": grid.centring} if grid.centring != "cell" else {}
    return {
        **centring,
        "grid_shape": list(grid.grid_shape),
        "cells": list(grid.cells),
        "size": list(grid.size),
        "periodic": [bool(wraps) for wraps in grid.periodic],
    }


def write_checkpoint(folder: Path, data: CheckpointData, grid, keep: int = 2) -> Path:
    """Collective. Write folder/checkpoints/step_NNNNNNNN.h5, whole or not at all, and keep the newest.

    Once the new file is in place, all others go but the `keep` newest up to this step. Later steps
    go, too: they belong to a run that was set back.

    Args:
        folder: the run's output folder.
        keep: number of checkpoints to keep, this one included; at least 1.
    Returns:
        path of the new file.
    Raises:
        SetupError: the folder is not writable or the disk is full.
        ShapeError: a field does not have the declared shape.
    """
    comm = grid.comm
    path = Path(folder) / FOLDER / checkpoint_name(data.step)
    header = {"step": int(data.step), "time": float(data.time), "dt": float(data.dt), **grid_header(grid)}

    def fill(writer):
        writer.text("config", data.config)
        writer.text("provenance", json.dumps(data.provenance, indent=1, sort_keys=True))
        for name in comm.bcast(sorted(data.arrays)):
            writer.array(name, data.arrays.get(name))
        for name in sorted(data.cell_fields):
            writer.cells(name, *data.cell_fields[name], grid)

    write_sealed(comm, path, "checkpoint", header, fill)
    if comm.rank == 0:
        _remove_old(path.parent, data.step, max(keep, 1))
    return path


def _steps(folder: Path) -> list[int]:
    """Steps of all checkpoints in a folder, newest first; unfinished files do not count."""
    if not folder.is_dir():
        return []
    found = (NAME.fullmatch(path.name) for path in folder.iterdir())
    steps = {int(match.group(1)) for match in found if match}
    return sorted((step for step in steps if (folder / checkpoint_name(step)).is_file()), reverse=True)


def _remove_old(folder: Path, step: int, keep: int) -> None:
    steps = _steps(folder)
    kept = [other for other in steps if other <= step][:keep]
    leftovers = list(folder.glob(f"step_*.h5{TEMPORARY}*"))
    # A file that cannot be removed does no harm; the new one is in place.
    for path in leftovers + [folder / checkpoint_name(other) for other in steps if other not in kept]:
        with suppress(OSError):
            path.unlink()


def newest_checkpoint(folder: Path, comm) -> tuple[Path, list[str]]:
    """Collective. The newest checkpoint of a run that is whole, every bit of it.

    Args:
        folder: the run's output folder.
    Returns:
        its path, and a line for each newer one that had to be passed over.
    Raises:
        CheckpointError: there is none.
    """
    folder = Path(folder) / FOLDER
    damaged = []
    for step in comm.bcast(_steps(folder) if comm.rank == 0 else None):
        path = folder / checkpoint_name(step)
        try:
            verify(comm, path, "checkpoint")
        except CheckpointError as error:
            damaged.append(str(error).partition(";")[0])
        else:
            return path, [f"checkpoint {what}; continuing from {path.name}" for what in damaged]
    found = f"only damaged ones ({', '.join(damaged)})" if damaged else "none"
    raise CheckpointError(
        f"folder to resume must hold a checkpoint, got {found} in {folder}; give the output folder of "
        "a run that wrote one, or start with 'hpcmsm run'"
    )


def read_checkpoint(path: Path, grid, fields: dict[str, Field] | None = None) -> CheckpointData:
    """Collective. Read a checkpoint on any number of ranks, verifying every bit.

    Args:
        grid: its ranks and their blocks need not be those that wrote the file.
        fields: the cell fields that the file has to hold, by path; None takes what there is.
    Raises:
        CheckpointError: the file is damaged, or belongs to another grid or other fields.
    """
    comm = grid.comm
    with together(comm), open_sealed(path, "checkpoint") as reader:
        _check_grid(reader, grid)
        _check_fields(reader, fields)
        data = _read_local(reader, grid, fields)
    keys = cell_keys(grid.ids)
    sums = {name: cell_sums(values, keys) for name, (_, values) in data.cell_fields.items()}
    reader.verify_cells(comm, sums)
    names = comm.bcast(sorted(data.arrays))
    data.arrays = {name: _broadcast(comm, data.arrays.get(name)) for name in names}
    return data


def _read_local(reader: SealedReader, grid, fields: dict[str, Field] | None) -> CheckpointData:
    """This rank's cells and the texts; on rank 0 the small arrays as well."""
    header = reader.header
    declared = fields if fields is not None else {name: reader.field(name) for name in reader.names("cells")}
    return CheckpointData(
        step=header["step"],
        time=header["time"],
        dt=header["dt"],
        cell_fields={name: (declared[name], reader.cells(name, grid)) for name in sorted(declared)},
        arrays={name: reader.array(name) for name in reader.names("arrays")} if grid.comm.rank == 0 else {},
        config=reader.text("config"),
        provenance=json.loads(reader.text("provenance")),
    )


def _broadcast(comm, array: np.ndarray | None) -> np.ndarray:
    """Collective. Rank 0's array on every rank, in pieces that MPI can count."""
    shape, dtype = comm.bcast((array.shape, array.dtype.str) if comm.rank == 0 else None)
    array = np.ascontiguousarray(array) if comm.rank == 0 else np.empty(shape, dtype)
    piece, raw = 2**28, array.reshape(-1).view(np.uint8)
    for first in range(0, raw.size, piece):
        comm.Bcast(raw[first : first + piece])
    return array.reshape(shape)


def _check_grid(reader: SealedReader, grid) -> None:
    """Raise a CheckpointError that says what differs between the grid and that of the file."""
    for key, value in grid_header(grid).items():
        if key != "grid_shape" and reader.header[key] != value:
            raise CheckpointError(
                f"grid.{key} must be {reader.header[key]} as in {reader.name}, got {value}; resume with the "
                "grid of the checkpoint or start a new run"
            )


def _check_fields(reader: SealedReader, fields: dict[str, Field] | None) -> None:
    """Raise a CheckpointError that says which cell field the case and the file do not share."""
    if fields is None:
        return
    stored = {name: reader.field(name) for name in reader.names("cells")}
    for name in sorted(set(fields) ^ set(stored)):
        who, other = (reader.name, "the case") if name in stored else ("the case", reader.name)
        raise CheckpointError(
            f"fields of the case must be those of {reader.name}, got '{name}' in {who} but not in {other}; "
            "resume with the models of the checkpoint or start a new run"
        )
    for name, wanted in fields.items():
        found = stored[name]
        if (wanted.size, wanted.unit) != (found.size, found.unit):
            raise CheckpointError(
                f"field '{name}' must have {found.size} components in {found.unit} as in {reader.name}, got "
                f"{wanted.size} in {wanted.unit}; resume with the models of the checkpoint or start a new run"
            )
