"""What all tests share: MPI jobs that fail together instead of hanging, and counts for tests/run_all."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# One folder for all ranks and parts, so that each kernel is compiled once.
os.environ.setdefault("HPCMSM_CACHE", str(ROOT / "build" / "test_cache"))
os.environ.setdefault("HPCMSM_DEBUG", "1")
os.environ.setdefault("H5PY_ALWAYS_USE_MPI", "1")
# As hpcmsm.grid does, for tests that import petsc4py first.
os.environ.setdefault("PETSC_OPTIONS", "-no_signal_handler")
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")


class CollectiveFailure(AssertionError):
    """A failed assertion that every rank knows of, so that all can go on with the next test."""


@pytest.fixture(scope="session")
def comm():
    """All ranks of the test job."""
    from mpi4py import MPI

    return MPI.COMM_WORLD


@pytest.fixture(scope="session")
def agree():
    """Collective assertion: agree(comm, ok, text) fails on every rank if ok is false on any."""
    return _agree


def _agree(comm, ok, text: str = "") -> None:
    answers = comm.allgather(None if ok else str(text))
    bad = [
        f"rank {rank} of {comm.size}: {answer}" for rank, answer in enumerate(answers) if answer is not None
    ]
    if bad:
        raise CollectiveFailure("\n".join(bad))


def pytest_configure(config):
    """Under mpirun (--with-mpi, --only-mpi) watch for failures of single ranks; only rank 0 speaks."""
    with_mpi = config.getoption("with_mpi", False) or config.getoption("only_mpi", False)
    comm = None
    if with_mpi:
        from mpi4py import MPI

        comm = MPI.COMM_WORLD
        config.pluginmanager.register(Ranks(comm), "hpcmsm-ranks")
    counts = os.environ.get("HPCMSM_TEST_COUNTS")
    if counts and (comm is None or comm.rank == 0):
        config.pluginmanager.register(Counts(Path(counts)), "hpcmsm-counts")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Every test below tests/mpi is an MPI test, so that none is skipped for want of its mark."""
    for item in items:
        if (ROOT / "tests" / "mpi") in item.path.parents:
            item.add_marker(pytest.mark.mpi)


class Ranks:
    """Ends the whole job when one rank fails alone: the others would wait for it for ever."""

    def __init__(self, comm):
        self.comm = comm

    @pytest.hookimpl(trylast=True)
    def pytest_sessionstart(self, session):
        if self.comm.rank:
            reporter = session.config.pluginmanager.getplugin("terminalreporter")
            # Open until the process ends, as the terminal would be.
            reporter._tw._file = open(os.devnull, "w")  # noqa: SIM115

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session):
        """Collective. A file that one rank cannot import stops all of them."""
        failed = self.comm.allgather(session.testsfailed)
        if any(failed) and not session.testsfailed:
            pytest.exit(f"collecting failed on rank {failed.index(max(failed))}", returncode=1)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item, call):
        report = yield
        collective = call.excinfo is not None and call.excinfo.errisinstance(CollectiveFailure)
        # A collective failure is told by rank 0 at once: a later abort would swallow its summary.
        if report.failed and self.comm.size > 1 and (not collective or self.comm.rank == 0):
            self._tell(item, report)
            if not collective:
                self.comm.Abort(1)
        return report

    def _tell(self, item, report):
        text = f"\nrank {self.comm.rank} of {self.comm.size} failed {item.nodeid} ({report.when})\n"
        sys.__stderr__.write(text + report.longreprtext + "\n")
        for title, content in report.sections:
            sys.__stderr__.write(f"--- {title}\n{content}\n")
        sys.__stderr__.flush()


class Counts:
    """Keeps a file of what has passed, failed and been skipped so far, also for a job that crashes."""

    def __init__(self, path: Path):
        self.path = path
        self.counts = {"passed": 0, "failed": 0, "skipped": 0, "running": "", "finished": False}
        self._write()

    def _write(self):
        temporary = self.path.with_suffix(".tmp")
        temporary.write_text(json.dumps(self.counts))
        temporary.replace(self.path)

    def pytest_runtest_logstart(self, nodeid):
        self.counts["running"] = nodeid
        self._write()

    def pytest_runtest_logreport(self, report):
        if report.failed or report.when == "call" or report.skipped:
            self.counts[report.outcome] += 1
        if report.when == "teardown":
            self.counts["running"] = ""
        self._write()

    def pytest_collectreport(self, report):
        if not report.passed:
            self.counts[report.outcome] += 1
            self._write()

    def pytest_sessionfinish(self):
        self.counts["finished"] = True
        self._write()
