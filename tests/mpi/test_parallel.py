"""Failing together, sums and timers over ranks."""

import socket
from time import sleep

import numpy as np
import pytest
from mpi4py import MPI

from hpcmsm.errors import CheckpointError, ConfigError, MicroError, ShapeError, SolverError
from hpcmsm.parallel import ExactSum, leave_together, local_rank, raise_together, together
from hpcmsm.timers import Timers

pytestmark = pytest.mark.mpi
KINDS = (ConfigError, MicroError, ShapeError, CheckpointError)


def caught_from(action, kinds=Exception):
    """What an action raises, or None."""
    try:
        action()
    except kinds as error:
        return error
    return None


def in_step(comm):
    """Whether the ranks still talk of the same thing: a left-over message would spoil the sum."""
    return comm.allreduce(comm.rank) == comm.size * (comm.size - 1) // 2


def test_no_error_is_no_error(comm, agree):
    agree(comm, caught_from(lambda: raise_together(comm, None)) is None, "raised without an error")
    with together(comm):
        pass
    agree(comm, in_step(comm), "ranks out of step")


def test_error_of_one_rank_is_raised_by_all(comm, agree):
    for culprit in range(comm.size):
        mine = MicroError("17 of 40 cells failed; check them") if comm.rank == culprit else None
        got = caught_from(lambda mine=mine: raise_together(comm, mine))
        agree(comm, type(got) is MicroError, f"got {got!r}")
        if comm.rank == culprit:
            agree(comm, got is mine, "the error itself, with its traceback")
        else:
            where = f" (on rank {culprit})"
            agree(comm, str(got) == "17 of 40 cells failed; check them" + where, f"got {got}")
        agree(comm, in_step(comm), "ranks out of step")


def test_of_many_errors_the_lowest_ranks_is_raised(comm, agree):
    for first in range(comm.size):
        mine = KINDS[comm.rank % 4](f"fault of {comm.rank}") if comm.rank >= first else None
        got = caught_from(lambda mine=mine: raise_together(comm, mine))
        agree(comm, type(got) is KINDS[first % 4], f"first {first}: got {got!r}")
        agree(comm, str(got).startswith(f"fault of {first}"), f"first {first}: got {got}")


def test_a_rank_that_is_named_is_not_named_again(comm, agree):
    mine = MicroError("cell 3 on rank 0 failed") if comm.rank == 0 else None
    got = caught_from(lambda: raise_together(comm, mine))
    agree(comm, str(got) == "cell 3 on rank 0 failed", f"got {got}")


def failing_body(comm, culprit, error, *expected):
    with together(comm, *expected):
        if comm.rank == culprit:
            raise error


def test_body_that_fails_on_the_last_rank(comm, agree):
    last = comm.size - 1
    got = caught_from(lambda: failing_body(comm, last, ConfigError("grid.cells is wrong")))
    agree(comm, type(got) is ConfigError and "grid.cells is wrong" in str(got), f"got {got!r}")
    got = caught_from(lambda: failing_body(comm, last, OSError("disk full"), OSError))
    agree(comm, type(got) is OSError and "disk full" in str(got), f"got {got!r}")
    agree(comm, in_step(comm), "ranks out of step")


def test_bodies_inside_bodies(comm, agree):
    def outer():
        with together(comm):
            failing_body(comm, 0, SolverError("inner"))

    got = caught_from(outer)
    agree(comm, type(got) is SolverError and str(got).startswith("inner"), f"got {got!r}")
    agree(comm, str(got).count("on rank") <= 1, f"got {got}")
    agree(comm, in_step(comm), "ranks out of step")


def test_what_is_not_expected_goes_its_own_way(comm, agree):
    """A bug is not agreed on: it must reach the abort hook as it is."""

    def buggy():
        with together(comm):
            raise ZeroDivisionError(f"on {comm.rank}")

    got = caught_from(buggy)
    agree(comm, type(got) is ZeroDivisionError and str(got) == f"on {comm.rank}", f"got {got!r}")


def test_ranks_that_all_bring_an_error_leave_one_by_one(comm, agree):
    """A late rank is waited for; nobody aborts."""
    sleep(0.1 * comm.rank / comm.size)
    leave_together(comm, ConfigError("all know"))
    agree(comm, in_step(comm), "ranks out of step")


def test_local_ranks_number_the_ranks_of_a_node(comm, agree):
    everyone = comm.allgather((socket.gethostname(), local_rank(comm)))
    here = sorted(number for host, number in everyone if host == socket.gethostname())
    agree(comm, here == list(range(len(here))), f"{everyone}")


def test_exact_sum_has_the_bits_of_one_rank(comm, agree):
    values = np.random.default_rng(0).normal(0.0, 10.0, 1003) ** 3
    exact = ExactSum()
    total = comm.allreduce(exact.local(values[comm.rank :: comm.size]), op=MPI.SUM)
    agree(comm, total == exact.local(values), "the sum depends on the ranks")


def test_timers_over_ranks(comm, agree):
    timers = Timers()
    for _ in range(comm.rank + 1):
        with timers.phase("all"):
            sleep(0.001)
    if comm.rank == 0:
        with timers.phase("root only"):
            sleep(0.005)
    table = timers.over_ranks(comm)
    everyone = comm.allgather(timers.seconds)
    seconds = [seconds["all"] for seconds in everyone]
    agree(comm, list(table) == ["all", "root only"], f"{table}")
    row = table["all"]
    agree(comm, (row["min"], row["max"]) == (min(seconds), max(seconds)), f"{row}")
    agree(comm, abs(row["mean"] - sum(seconds) / comm.size) < 1e-12, f"{row}")
    agree(comm, row["calls"] == comm.rank + 1, f"{row}")
    agree(comm, table["root only"]["max"] == everyone[0]["root only"], f"{table}")
    agree(comm, (table["root only"]["min"] == 0.0) == (comm.size > 1), f"{table}")
