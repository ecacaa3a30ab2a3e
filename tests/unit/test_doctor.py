"""hpcmsm doctor: what it finds on this machine, and what it says about a broken one."""

import subprocess
import sys

import pytest

from hpcmsm import doctor
from hpcmsm.doctor import Finding, checks


@pytest.fixture(scope="module")
def findings():
    return {finding.name: finding for finding in doctor.examine()}


def test_this_machine_passes(findings):
    # The tests need all of this themselves, so an error of doctor is the only way to fail.
    needed = ("python", "mpi4py", "petsc4py", "h5py", "torch", "compiler")
    assert {name: findings[name].found for name in needed if not findings[name].ok} == {}


def test_versions_are_those_of_the_packages(findings):
    import h5py
    import mpi4py
    import torch

    assert findings["mpi4py"].found.startswith(mpi4py.__version__)
    assert findings["h5py"].found.startswith(h5py.__version__)
    assert findings["torch"].found.startswith(torch.__version__)


def test_report_shows_the_advice_of_what_is_bad_only():
    findings = [
        Finding("good", True, "1.0", "never shown"),
        Finding("bad", False, "not installed", "install it"),
        Finding("extra", False, "not installed", "pip install extra", optional=True),
    ]
    text = doctor.report(findings)
    assert "never shown" not in text
    assert text.splitlines() == [
        "ok  good   1.0",
        "NO  bad    not installed",
        "           install it",
        "--  extra  not installed",
        "           to use it: pip install extra",
        "1 of 3 checks failed",
    ]


def test_exit_code_counts_only_what_is_needed():
    good, bad = Finding("a", True, ""), Finding("b", False, "")
    absent = Finding("c", False, "", optional=True)
    assert doctor.exit_code([good, absent]) == 0
    assert doctor.exit_code([good, bad]) == 1


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "killed by SIGSEGV"),
        ("raise ImportError('wrong libmpi')", "wrong libmpi"),
    ],
)
def test_a_check_that_dies_becomes_a_finding(code, expected):
    command = [sys.executable, "-c", code]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    finding = doctor._collected("petsc4py", process)
    assert not finding.ok
    assert expected in finding.found


def test_two_mpi_libraries_are_noticed(monkeypatch):
    monkeypatch.setattr(checks, "mpi_libraries", lambda: {"libmpi.so.40", "libmpi.so.12"})
    finding = checks.one_mpi("petsc4py", "3.18")
    assert not finding.ok
    assert "libmpi.so.12 and libmpi.so.40" in finding.found


@pytest.mark.parametrize(
    ("vendor", "numbers", "library", "expected"),
    [
        ("Open MPI", (4, 1, 4), "Open MPI v4.1.4, package: Debian OpenMPI", True),
        ("Open MPI", (4, 1, 4), "Open MPI v5.0.1, package: Open MPI root@host", False),
        ("Open MPI", (4, 1, 4), "MPICH Version:\t4.0.2", False),
        ("MPICH", (4, 0, 2), "MPICH Version:\t4.2.0", True),
        ("Intel MPI", (2021, 9, 0), "Intel(R) MPI Library 2021.9 for Linux", True),
    ],
)
def test_built_and_running_mpi_are_compared(vendor, numbers, library, expected):
    assert checks.same_release(vendor, numbers, library) is expected


def test_broken_compiler_is_told(monkeypatch):
    monkeypatch.setenv("CC", "no-such-compiler")
    assert "cannot be started" in checks.check_compiler().found
    monkeypatch.setenv("CC", "false")
    finding = checks.check_compiler()
    assert not finding.ok
    assert finding.advice


def test_foreign_mpirun_is_told(monkeypatch, tmp_path):
    # The mpirun of another MPI starts programs that each believe to be alone.
    program = tmp_path / "mpirun"
    program.write_text("#!/bin/sh\nshift 2\necho 'size=1;size=1;'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    finding = checks.check_launcher()
    assert not finding.ok
    assert "belongs to another MPI" in finding.found


def test_absent_gpu_is_no_error(findings):
    assert findings["gpu"].optional
    assert findings["vtk"].optional
    assert findings["cantera"].optional
