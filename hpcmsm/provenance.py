"""Where a result comes from: versions, host, command and commit."""

from __future__ import annotations

import datetime
import importlib.metadata
import platform
import socket
import subprocess
import sys
from pathlib import Path

import hpcmsm

PACKAGES = ("numpy", "scipy", "mpi4py", "petsc4py", "h5py", "torch", "cupy")


def provenance(comm) -> dict[str, str]:
    """Facts about this run, as texts."""
    from mpi4py import MPI

    return {
        "hpcmsm": hpcmsm.__version__,
        "commit": _commit(),
        "command": " ".join(sys.argv),
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "host": socket.gethostname(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "nranks": str(comm.size),
        "mpi": MPI.Get_library_version().split("\n")[0].split(",")[0].strip("\x00"),
        **{name: _version(name) for name in PACKAGES},
    }


def _version(name: str) -> str:
    module = sys.modules.get(name)
    if module is not None and hasattr(module, "__version__"):
        return str(module.__version__)
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _commit() -> str:
    """Commit of the source tree that runs, if it is one, with a mark if it has been changed."""
    folder = Path(hpcmsm.__file__).parent
    if not (folder.parent / ".git").exists():
        return "unknown"
    try:
        described = subprocess.run(
            ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=12"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return described.stdout.strip()
