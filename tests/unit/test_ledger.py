"""The ledger: exact counts and sums, quantiles to a bin's width, and the same figures on any ranks."""

import numpy as np
import pytest
from mpi4py import MPI

from hpcmsm.closure.ledger import FIRST_DECADE, NBINS, NDECADES, Ledger, bin_of, upper_edge

WIDTH = 10.0 ** (NDECADES / NBINS)  # of a bin, as a factor


class Several:
    """Stands for a communicator: what the ledgers of all ranks hold, added on the spot."""

    def __init__(self):
        self.ledgers = []

    def Allreduce(self, mine, summed):
        summed[:] = sum(ledger._step for ledger in self.ledgers)

    def allreduce(self, mine, op):
        assert op == MPI.MAX
        return max(ledger._step_largest for ledger in self.ledgers)


def errors_of(n, seed=0):
    random = np.random.default_rng(seed)
    return 10.0 ** random.uniform(-9, 1, n), random.normal(0.0, 1e-3, n)


def test_counts_of_a_step_and_of_the_run():
    ledger = Ledger(MPI.COMM_SELF)
    ledger.count(calls=10, accepted=6, fallback=4)
    ledger.count(calls=5, audited=2, fallback=3)
    ledger.audits(np.array([0.5, 1e-3]), np.array([0.5, -1e-3]))
    figures = ledger.close_step()
    counts = {"calls": 15, "accepted": 6, "audited": 2, "fallback": 7, "missed": 0, "beyond": 0}
    assert {name: figures[name] for name in counts} == counts
    assert figures["audit_error_max"] == 0.5
    assert figures["audit_error_mean"] == pytest.approx(0.2495, abs=1e-11)
    ledger.count(calls=1, missed=np.int64(1), beyond=np.bool_(True))
    second = ledger.close_step()
    assert (second["calls"], second["missed"], second["beyond"], second["audited"]) == (1, 1, 1, 0)
    assert np.isnan(second["audit_error_mean"]) and np.isnan(second["audit_error_max"])
    assert ledger["calls"] == 16 and ledger["missed"] == 1 and ledger["audited"] == 2


def test_an_empty_ledger_has_no_errors():
    ledger = Ledger(MPI.COMM_SELF)
    assert ledger.audit_errors() is None
    ledger.audits(np.zeros(0), np.zeros(0))
    ledger.close_step()
    assert ledger.audit_errors() is None and ledger["calls"] == 0


def audited(errors, signed, comm=MPI.COMM_SELF, nsteps=1):
    ledger = Ledger(comm)
    for part in np.array_split(np.arange(errors.size), nsteps):
        ledger.count(audited=part.size)
        ledger.audits(errors[part], signed[part])
        ledger.close_step()
    return ledger


@pytest.mark.parametrize("n", [1, 2, 7, 1000])
def test_quantiles_are_those_of_numpy_to_a_bins_width(n):
    errors, signed = errors_of(n, seed=n)
    ledger = audited(errors, signed)
    for fraction in (0.01, 0.25, 0.5, 0.9, 0.99, 1.0):
        expected = np.quantile(errors, fraction, method="inverted_cdf")
        assert expected / WIDTH < ledger.quantile(fraction) <= expected * WIDTH * (1 + 1e-12)
    figures = ledger.audit_errors()
    assert figures["max"] == errors.max() and ledger.quantile(1.0) == errors.max()
    assert figures["p50"] == ledger.quantile(0.5) and figures["p99"] == ledger.quantile(0.99)
    assert figures["mean_signed"] == pytest.approx(signed.mean(), abs=2.0**-40)


def test_bins_hold_every_error():
    edges = np.array([upper_edge(index) for index in range(NBINS)])
    np.testing.assert_allclose(edges[1:] / edges[:-1], WIDTH)
    inside = np.sqrt(edges[1:] * edges[:-1])
    np.testing.assert_array_equal(bin_of(inside), np.arange(1, NBINS))
    assert edges[-1] == pytest.approx(10.0 ** (FIRST_DECADE + NDECADES))
    hard = np.array([0.0, 1e-300, 1e-11, 1e3, 1e300, np.inf, np.nan])
    assert bin_of(hard).tolist() == [0, 0, 0] + [NBINS - 1] * 4


@pytest.mark.parametrize("nranks", [2, 3, 5])
def test_figures_depend_on_no_partition(nranks):
    """Cells dealt to ranks in any way, some ranks without any: the same bits as on one rank."""
    errors, signed = errors_of(500)
    whole = audited(errors, signed, nsteps=4)
    rank = np.random.default_rng(nranks).integers(0, nranks - 1, errors.size)  # the last has none
    comm = Several()
    ledgers = [Ledger(comm) for _ in range(nranks)]
    comm.ledgers = ledgers
    steps = np.array_split(np.arange(errors.size), 4)
    for step in steps:
        for number, ledger in enumerate(ledgers):
            mine = step[rank[step] == number]
            ledger.count(audited=mine.size)
            ledger.audits(errors[mine], signed[mine])
        sums = [_closed(ledger) for ledger in ledgers]
        assert all(figures == sums[0] for figures in sums)
        _open(ledgers)
    assert ledgers[0].audit_errors() == whole.audit_errors()
    np.testing.assert_array_equal(ledgers[0].state()["total"], whole.state()["total"])


def _closed(ledger):
    """Close the step of one rank while the others still hold theirs."""
    step, largest = ledger._step, ledger._step_largest
    figures = ledger.close_step()
    ledger._step, ledger._step_largest = step, largest
    return figures


def _open(ledgers):
    for ledger in ledgers:
        ledger._open_step()


def test_state_round_trip():
    errors, signed = errors_of(100)
    first, second = audited(errors[:60], signed[:60]), Ledger(MPI.COMM_SELF)
    second.load_state({name: array.copy() for name, array in first.state().items()})
    for ledger in (first, second):
        ledger.count(audited=40, calls=40)
        ledger.audits(errors[60:], signed[60:])
        ledger.close_step()
    assert first.audit_errors() == second.audit_errors()
    assert first["calls"] == second["calls"] == 40
    assert first.audit_errors() == audited(errors, signed).audit_errors()
