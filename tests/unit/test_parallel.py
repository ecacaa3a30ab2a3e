"""Random numbers keyed by what they decide, sums without rounding, and the hook for unforeseen errors."""

import contextlib
import itertools
import math
import os
import sys
import warnings

import numpy as np
import pytest

from hpcmsm.errors import ConfigError
from hpcmsm.parallel import (
    STREAMS,
    ExactSum,
    install_abort_hook,
    leave_together,
    limit_threads,
    random_bits,
    random_uniform,
)

MASK = 2**64 - 1
GOLDEN = 0x9E3779B97F4A7C15


def twin(stream, seed, *keys):
    """The same bits in Python's own integers."""

    def mix(x):
        x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
        return x ^ (x >> 31)

    bits = mix((seed + GOLDEN * STREAMS[stream]) & MASK)
    for key in keys:
        bits = mix((bits + GOLDEN + mix(key & MASK)) & MASK)
    return bits


def test_finaliser_is_that_of_splitmix64():
    """Published: the first outputs of SplitMix64 from the state 1234567 (Vigna's reference program)."""
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    for number, expected in enumerate(published, start=1):
        x = (1234567 + number * GOLDEN) & MASK
        # Stream `number` of a seed s starts at mix(s + number * golden), one such output.
        stream = next(name for name, value in STREAMS.items() if value == number)
        assert twin(stream, 1234567) == expected == int(random_bits(stream, 1234567)), x


@pytest.mark.parametrize("stream", STREAMS)
@pytest.mark.parametrize("seed", [0, 1, 2**63 - 1])
def test_bits_equal_those_of_plain_integers(stream, seed):
    ids = np.array([0, 1, 2, 63, 2**31, 2**40 + 5])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        got = random_bits(stream, seed, 17, ids)
        alone = random_bits(stream, seed)
    assert got.dtype == np.uint64
    assert [int(bits) for bits in got] == [twin(stream, seed, 17, int(i)) for i in ids]
    assert int(alone) == twin(stream, seed)


def test_keys_broadcast_and_may_be_of_any_kind():
    steps, ids = np.arange(3)[:, None], np.arange(5)
    table = random_uniform("audit", 4, steps, ids)
    assert table.shape == (3, 5)
    for step, i in itertools.product(range(3), range(5)):
        assert table[step, i] == random_uniform("audit", 4, step, i)
    np.testing.assert_array_equal(random_uniform("audit", 4, 2, ids.astype(float)), table[2])
    np.testing.assert_array_equal(random_uniform("audit", 4, 2, ids.astype(np.int32)), table[2])


def test_a_cells_number_depends_on_no_partition():
    ids = np.random.default_rng(0).permutation(1000)
    whole = random_uniform("thin", 9, 3, np.arange(1000))
    for parts in (1, 2, 3, 7):
        for part in np.array_split(ids, parts):
            np.testing.assert_array_equal(random_uniform("thin", 9, 3, part), whole[part])


# How the numbers of one decision are taken: over cells, over steps, over seeds, over both keys.
WAYS = {
    "cells": lambda n: random_uniform("audit", 1, 5, np.arange(n)),
    "far cells": lambda n: random_uniform("audit", 1, 5, 10**9 + 4096 * np.arange(n)),
    "steps": lambda n: random_uniform("audit", 1, np.arange(n), 77),
    "seeds": lambda n: np.array([random_uniform("audit", seed, 5, 77) for seed in range(n)]),
    "both": lambda n: random_uniform("audit", 1, np.arange(n) // 64, np.arange(n) % 64),
}


@pytest.mark.parametrize("way", WAYS)
def test_numbers_are_uniform_and_uncorrelated(way):
    """Chi-square of 64 bins (63 degrees of freedom, standard deviation 11.2), and of pairs in 8 x 8."""
    n = 8192 if way == "seeds" else 65536
    u = WAYS[way](n)
    assert u.min() >= 0.0 and u.max() < 1.0
    counts = np.histogram(u, 64, (0.0, 1.0))[0]
    pairs = np.histogram2d(u[:-1], u[1:], 8, [(0, 1), (0, 1)])[0]
    for table, number in ((counts, n), (pairs, n - 1)):
        chi_square = ((table - number / 64) ** 2).sum() / (number / 64)
        assert 63 - 5 * 11.2 < chi_square < 63 + 6 * 11.2, chi_square
    lowest = (random_bits("audit", 1, 5, np.arange(n)) & np.uint64(1)).mean()
    assert abs(lowest - 0.5) < 2.5 / math.sqrt(n)


def test_streams_seeds_and_steps_are_independent():
    """No two decisions share numbers, nor is one a shift of another by some cells."""
    n = 20_000
    decisions = itertools.product(STREAMS, (1, 2), (0, 1))
    table = np.array([random_uniform(name, seed, step, np.arange(n)) for name, seed, step in decisions])
    for shift in range(4):
        correlation = np.corrcoef(table[:, shift:], table[:, : n - shift])[: len(table), len(table) :]
        if shift == 0:
            correlation -= np.eye(len(table))
        # 2744 pairs: six standard deviations are passed by chance once in 200 000 choices of constants.
        assert np.abs(correlation).max() < 6.0 / math.sqrt(n - shift)


def test_exact_sum_depends_on_no_order_and_no_partition():
    values = np.random.default_rng(1).lognormal(0.0, 4.0, 5000) * np.tile([1.0, -1.0], 2500)
    exact = ExactSum()
    total = exact.local(values)
    random = np.random.default_rng(2)
    for parts in (1, 2, 3, 17):
        shuffled = random.permutation(values)
        assert sum(exact.local(part) for part in np.array_split(shuffled, parts)) == total
    expected = math.fsum(np.clip(values, -4096, 4096))
    assert exact.value(total) == pytest.approx(expected, abs=values.size * exact.unit / 2)
    assert np.float64(values.sum()) != np.float64(np.sort(values).sum()), "a plain sum depends on the order"


def test_exact_sum_of_hard_values():
    exact = ExactSum()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert exact.value(exact.local(np.array([np.nan, 1.0]))) == 1.0
        assert exact.value(exact.local(np.array([np.inf, -1e308, 2.0]))) == 2.0
        assert exact.value(exact.local(np.array([-np.inf]))) == -4096.0
    assert exact.local(np.zeros(0)) == 0
    assert ExactSum(unit=0.25).value(ExactSum(unit=0.25).local(np.array([0.3, 0.3, 0.3]))) == 0.75


def test_exact_sum_holds_what_it_promises():
    exact = ExactSum()
    assert exact.value(exact.local(np.full(8000, 1000.0))) == 8e6


def test_limit_threads_respects_what_the_user_set(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    limit_threads()
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    assert [os.environ[name] for name in names] == ["3", "1", "1"]


class FakeComm:
    def __init__(self, rank, size):
        self.rank, self.size, self.aborted = rank, size, []

    def Abort(self, code):
        self.aborted.append(code)
        raise SystemExit(code)

    def Ibarrier(self):
        """Never passed: the other ranks go on working."""
        return self

    def Test(self):
        return False


@pytest.mark.parametrize("size, aborted", [(1, []), (3, [1])])
def test_abort_hook_tells_the_rank_and_ends_the_job(monkeypatch, capsys, size, aborted):
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    comm = FakeComm(size - 1, size)
    install_abort_hook(comm)
    try:
        raise IndexError("a bug")
    except IndexError:
        with contextlib.suppress(SystemExit):
            sys.excepthook(*sys.exc_info())
    text = capsys.readouterr().err
    assert f"rank {size - 1} of {size}: unforeseen error" in text
    assert "Traceback" in text and "IndexError: a bug" in text and "test_parallel.py" in text
    assert comm.aborted == aborted


def test_an_error_of_one_rank_alone_ends_the_job(capsys):
    """Somebody forgot to agree on it: the rank waits a while for the others, tells, and aborts."""
    comm = FakeComm(1, 3)
    with pytest.raises(SystemExit):
        leave_together(comm, ConfigError("grid.cells is wrong"), seconds=0.05)
    assert comm.aborted == [ConfigError.exit_code]
    assert capsys.readouterr().err == "ConfigError: grid.cells is wrong (on rank 1 alone)\n"
