"""HDF5 files that appear whole or not at all, written by all ranks and read by any number of them."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from contextlib import contextmanager, suppress
from pathlib import Path

from hpcmsm.errors import CheckpointError, HpcmsmError, SetupError
from hpcmsm.parallel import raise_together, together

# Debian's h5py takes its serial build unless it sees a launcher it knows; srun is not one of them.
os.environ.setdefault("H5PY_ALWAYS_USE_MPI", "1")
import h5py

TEMPORARY = ".tmp"
# What h5py raises for a full disk or a damaged file, depending on where HDF5 notices it. Nothing
# that a mistake of ours would raise: it would be taken for damage.
WRITE_ERRORS = (OSError, RuntimeError)
READ_ERRORS = (OSError, RuntimeError, KeyError, UnicodeDecodeError, MemoryError)
SIGNATURE = b"\x89HDF\r\n\x1a\n"


def need_parallel_hdf5(comm) -> None:
    """Raise a SetupError if several ranks are to write through an h5py without MPI."""
    if comm.size > 1 and not h5py.get_config().mpi:
        raise SetupError(
            f"h5py must be built with MPI to write from {comm.size} ranks, got the serial build "
            f"{h5py.__version__}; install python3-h5py-mpi or build h5py with HDF5_MPI=ON, or use one rank"
        )


def write_whole(comm, path: Path, fill: Callable) -> None:
    """Collective. Write an HDF5 file that appears under its name only when it is on the disk.

    Args:
        path: where the file is to appear; what stood there before is replaced.
        fill: called with the open h5py.File on every rank. An error that it raises must be agreed
            on by all ranks, see `together`; then the temporary file goes and the error is raised.
    Raises:
        SetupError: h5py lacks MPI, the folder is not writable, or the disk is full.
    """
    need_parallel_hdf5(comm)
    path = Path(path)
    temporary = path.with_name(path.name + TEMPORARY)
    with together(comm), writing(path):
        if comm.rank == 0:
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.touch()
    error = _filled(comm, path, temporary, fill)
    with together(comm), writing(path):
        if error is None and comm.rank == 0:
            _install(temporary, path)
    if error is not None and comm.rank == 0:
        with suppress(OSError):
            temporary.unlink()
    raise_together(comm, error)


def _filled(comm, path: Path, temporary: Path, fill: Callable) -> HpcmsmError | None:
    """Collective. Fill the temporary file and bring it to the disk; the error of any rank or None."""
    h5file, error = None, None
    try:
        with together(comm), writing(path):
            h5file = _create(comm, temporary)
        fill(h5file)
        with together(comm), writing(path):
            h5file.flush()
    except HpcmsmError as caught:
        error = caught
        _let_go(temporary)
    # Closing is collective. After an error that is not agreed on it would hang, so such an error
    # passes by here, with the file open, to the abort hook.
    try:
        with together(comm), writing(path):
            if h5file is not None:
                h5file.close()
    except SetupError as caught:
        error = error or caught
    return error


def _let_go(temporary: Path) -> None:
    """Let what HDF5 still has to write to a failed file go to memory.

    HDF5 1.10 writes again when it closes the file. If the disk is still full that fails, the file
    stays open, and the process crashes when it ends.
    """
    descriptors = Path("/proc/self/fd")
    for link in descriptors.iterdir() if descriptors.is_dir() else ():
        with suppress(OSError):
            if os.readlink(link) == str(temporary.resolve()):
                scrap = os.memfd_create("scrap")
                os.dup2(scrap, int(link.name))
                os.close(scrap)


def _create(comm, path: Path):
    access = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
    # From version 1.8 on HDF5 guards its metadata by checksums; virtual datasets need 1.10.
    access.set_libver_bounds(h5py.h5f.LIBVER_V18, h5py.h5f.LIBVER_V110)
    # Without this buffer a full disk is noticed by the call that writes, not by a later one.
    access.set_sieve_buf_size(0)
    if comm.size == 1:
        # The file is ours alone; locks fail on some parallel file systems.
        access.set_file_locking(False, True)
    else:
        from mpi4py import MPI

        access.set_fapl_mpio(comm, MPI.INFO_NULL)
    creation = h5py.h5p.create(h5py.h5p.FILE_CREATE)
    creation.set_obj_track_times(False)
    return h5py.File(h5py.h5f.create(os.fsencode(path), h5py.h5f.ACC_TRUNC, fcpl=creation, fapl=access))


def make_groups(h5file, name: str) -> None:
    """Collective. The groups above a dataset, without times: equal contents are to give equal files."""
    creation = h5py.h5p.create(h5py.h5p.GROUP_CREATE)
    creation.set_obj_track_times(False)
    parts = name.split("/")[:-1]
    for depth in range(1, len(parts) + 1):
        group = "/".join(parts[:depth])
        if group not in h5file:
            h5py.h5g.create(h5file.id, group.encode(), gcpl=creation)


def _install(temporary: Path, path: Path) -> None:
    """Bring the temporary file to the disk, then give it its name, then bring the name to the disk."""
    _sync(temporary)
    os.replace(temporary, path)
    with suppress(OSError):  # some file systems cannot sync a folder, and need not
        _sync(path.parent)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def writing(path: Path):
    """Turn what the operating system or HDF5 says while writing into one line."""
    try:
        yield
    except WRITE_ERRORS as error:
        raise SetupError(
            f"output folder must be writable and have room for {path.name}, got '{_reason(error)}' "
            f"({path.parent}); free some space or write elsewhere"
        ) from error


def _reason(error: Exception) -> str:
    """The operating system's own words, which HDF5 buries in its text, on one line."""
    told = re.search(r"error message = '([^']+)'", str(error))
    words = told.group(1) if told else getattr(error, "strerror", None) or str(error)
    return " ".join(words.replace(";", ",").split()) or type(error).__name__


@contextmanager
def reading(path: Path):
    """Open an HDF5 file of ours for reading, by this rank alone.

    Reading needs no parallel HDF5: whatever one rank finds wrong it can raise, while the others
    are not held up in a collective call.

    Raises:
        CheckpointError: the file is missing, truncated or damaged; also for what the body of the
            `with` finds wrong with it.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path.name} must be a file, got none at {path}; check the path")
    try:
        with h5py.File(path, "r", locking=False) as h5file:
            yield h5file
    except READ_ERRORS as error:
        raise CheckpointError(
            f"{path.name} {_damage(path, error)}; use another file or write it anew"
        ) from error


def _damage(path: Path, error: Exception) -> str:
    """What is wrong with a file that HDF5 cannot read."""
    if isinstance(error, PermissionError):
        return "is not readable by this user"
    with open(path, "rb") as handle:
        start = handle.read(len(SIGNATURE))
    if not start or "truncated file" in str(error) or (start != SIGNATURE and SIGNATURE.startswith(start)):
        return "is truncated"
    if start != SIGNATURE:
        return "is not an HDF5 file"
    if path.stat().st_size < 512:
        return "is truncated"
    return f"is damaged ({_reason(error)})"
