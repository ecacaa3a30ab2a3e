"""Start programs on MPI ranks from a test that itself runs without MPI."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# What a surrounding MPI job leaves in the environment would make a new mpirun believe it is part of it.
JOB_PREFIXES = ("OMPI_", "PMIX_", "PMI_", "PRTE_", "HYDRA_", "MPIR_CVAR_")

# Open MPI 4 and 5 name the same switches differently. Root and oversubscription are normal in
# containers; a container often forbids copies between processes (vader); bound ranks of two jobs
# would share a core while another is idle.
MPI_ENVIRONMENT = {
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "OMPI_MCA_rmaps_base_oversubscribe": "1",
    # Ranks that wait must leave a shared core to those that compute: without it four ranks on two
    # busy cores have been tens of times slower.
    "OMPI_MCA_mpi_yield_when_idle": "1",
    "OMPI_MCA_hwloc_base_binding_policy": "none",
    "OMPI_MCA_btl_vader_single_copy_mechanism": "none",
    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
    "PRTE_MCA_hwloc_default_binding_policy": "none",
    "OMP_NUM_THREADS": "1",
    "H5PY_ALWAYS_USE_MPI": "1",
}

# `hpcmsm` from this source tree, installed or not.
HPCMSM = [sys.executable, "-c", "import sys; from hpcmsm.cli import main; sys.exit(main())"]


def mpi_environment(**extra: str) -> dict[str, str]:
    """The environment for a new MPI job: this one's, without traces of a job around us."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(JOB_PREFIXES)}
    env.update(MPI_ENVIRONMENT)
    paths = [str(ROOT), *filter(None, [env.get("PYTHONPATH")])]
    env["PYTHONPATH"] = os.pathsep.join(paths)
    env.update(extra)
    return env


def command(nranks: int, args) -> list[str]:
    """The command line of a program on nranks ranks; without mpirun where nranks is 0.

    Args:
        args: words of the command line; a first word "hpcmsm" or "python" means those of this tree.
    """
    program, *rest = [str(arg) for arg in args]
    words = {"hpcmsm": HPCMSM, "python": [sys.executable]}.get(program, [program])
    launcher = shlex.split(os.environ.get("HPCMSM_TEST_LAUNCHER", "mpirun -n {n}").format(n=nranks))
    return [*(launcher if nranks else []), *words, *rest]


def launch(
    nranks: int, args, timeout: float = 120, cwd=None, **environment: str
) -> subprocess.CompletedProcess:
    """Run a program to its end; its return code, stdout and stderr (text).

    A job that outlives the timeout is killed and returns 124 (see `timeout(1)`).
    """
    limited = ["timeout", "--kill-after=10", f"{timeout}", *command(nranks, args)]
    return subprocess.run(
        limited,
        cwd=cwd,
        env=mpi_environment(**environment),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )


def start(nranks: int, args, cwd=None, **environment: str) -> subprocess.Popen:
    """Start a program and return at once, for tests that interrupt it. stdout and stderr are one pipe."""
    return subprocess.Popen(
        command(nranks, args),
        cwd=cwd,
        env=mpi_environment(**environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def descendants(pid: int) -> list[int]:
    """A process and all below it, by /proc (ranks have process groups of their own)."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it ended meanwhile
        children.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    family = [pid]
    for member in family:
        family.extend(children.get(member, []))
    return family


def kill_job(process: subprocess.Popen, number: int = signal.SIGKILL) -> None:
    """Send a signal to the launcher and to every rank at once, then wait for their end."""
    family = descendants(process.pid)
    for pid in family:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue
    process.wait(timeout=60)
    deadline = time.monotonic() + 30
    while any(alive(pid) for pid in family[1:]) and time.monotonic() < deadline:
        time.sleep(0.01)


def alive(pid: int) -> bool:
    """Whether a process runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
