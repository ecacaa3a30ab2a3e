"""Ranks: failing together, local rank, counter-based random numbers, and sums without rounding."""

from __future__ import annotations

import os
import sys
import time
import traceback
from contextlib import contextmanager

import numpy as np

from hpcmsm.errors import HpcmsmError

# Streams of random numbers: one constant per purpose, so that no two decisions share a number.
STREAMS = {
    name: number
    for number, name in enumerate(
        (
            "audit",
            "thin",
            "calibrate",
            "split",
            "shuffle",
            "weights",
            "trial",
            "microstructure",
            "atoms",
            "nested",
            "turn",
            "orientation",
        ),
        start=1,
    )
}


def world():
    """The communicator of all ranks. Imported late so that `import hpcmsm` needs no MPI."""
    from mpi4py import MPI

    return MPI.COMM_WORLD


def local_rank(comm) -> int:
    """Collective. Number of this rank on its node, for choosing a GPU."""
    from mpi4py import MPI

    node = comm.Split_type(MPI.COMM_TYPE_SHARED)
    rank = node.rank
    node.Free()
    return rank


def limit_threads() -> None:
    """One thread per rank for BLAS, OpenMP and torch; call before importing them."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")


def raise_together(comm, error: Exception | None) -> None:
    """Collective. If any rank brings an error, every rank raises it: the lowest such rank's.

    A rank that brings the error raises it itself; the others raise the same type with the same
    text. The healthy case costs one allreduce of an integer.
    """
    first = comm.allreduce(comm.size if error is None else comm.rank, op=_mpi_min())
    if first == comm.size:
        return
    kind, text = comm.bcast((type(error), str(error)) if comm.rank == first else None, root=first)
    if error is not None and comm.rank == first:
        raise error
    where = "" if comm.size == 1 or " on rank " in text else f" (on rank {first})"
    raise kind(text + where)


@contextmanager
def together(comm, *expected: type[Exception]):
    """Collective. Run the body on every rank; what an hpcmsm error ends on one rank ends on all.

    Args:
        expected: exception types beside HpcmsmError that are to be agreed on. Anything else is a
            bug and goes to the abort hook.
    """
    caught = None
    try:
        yield
    except (HpcmsmError, *expected) as error:
        caught = error
    raise_together(comm, caught)


def _mpi_min():
    from mpi4py import MPI

    return MPI.MIN


def leave_together(comm, error: HpcmsmError, seconds: float = 5.0) -> None:
    """End with all ranks if all of them bring an error, else end the job: nobody may wait for ever.

    Errors are agreed on where they can happen (`together`); this is for those that somebody forgot.
    """
    everyone = comm.Ibarrier()
    deadline = time.monotonic() + seconds
    while not everyone.Test():
        if time.monotonic() > deadline:
            sys.stderr.write(f"{type(error).__name__}: {error} (on rank {comm.rank} alone)\n")
            sys.stderr.flush()
            comm.Abort(error.exit_code)
        time.sleep(0.01)


def install_abort_hook(comm) -> None:
    """Let an exception that nobody foresaw end the whole job with its traceback, never in a hang."""

    def abort(kind, value, trace):
        text = "".join(traceback.format_exception(kind, value, trace))
        sys.stderr.write(f"rank {comm.rank} of {comm.size}: unforeseen error\n{text}")
        sys.stderr.flush()
        if comm.size > 1:
            comm.Abort(1)

    sys.excepthook = abort


def abort_on_exit(comm, error: SystemExit) -> None:
    """A rank that leaves by sys.exit would leave the others waiting: end the job, saying where."""
    text = "".join(traceback.format_exception(error))
    sys.stderr.write(f"rank {comm.rank} of {comm.size}: sys.exit({error.code!r}) inside a run\n{text}")
    sys.stderr.flush()
    comm.Abort(1)


def _mix(x: np.ndarray) -> np.ndarray:
    """The finaliser of SplitMix64 (Steele, Lea, Flood 2014, doi 10.1145/2660193.2660195)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def random_bits(stream: str, seed: int, *keys) -> np.ndarray:
    """64 random bits that depend on nothing but the stream, the seed and the keys.

    Args:
        stream: one of STREAMS.
        keys: integers or integer arrays (step, iteration, global cell id ...), broadcast.
    """
    with np.errstate(over="ignore"):
        bits = _mix(np.uint64(seed) + np.uint64(0x9E3779B97F4A7C15) * np.uint64(STREAMS[stream]))
        for key in keys:
            bits = _mix(bits + np.uint64(0x9E3779B97F4A7C15) + _mix(np.asarray(key).astype(np.uint64)))
    return np.asarray(bits)


def random_uniform(stream: str, seed: int, *keys) -> np.ndarray:
    """Uniform numbers in [0, 1), see `random_bits`."""
    return (random_bits(stream, seed, *keys) >> np.uint64(11)) * 2.0**-53


class ExactSum:
    """A sum over cells and ranks that does not depend on their order.

    Values are rounded to multiples of `unit` and added as integers, so that the result is bitwise
    the same on any number of ranks. With unit 2^-40 it holds sums up to 8e6.
    """

    def __init__(self, unit: float = 2.0**-40):
        self.unit = unit

    def local(self, values: np.ndarray) -> int:
        """This rank's part, to be added over ranks as int64."""
        limit = 2.0**52 * self.unit
        clipped = np.clip(np.nan_to_num(values, nan=0.0), -limit, limit)
        return int(np.rint(clipped / self.unit).astype(np.int64).sum())

    def value(self, total: int) -> float:
        """The sum in the values' own unit."""
        return float(total) * self.unit
