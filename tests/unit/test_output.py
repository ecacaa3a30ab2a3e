"""The output folder: one run at a time."""

from __future__ import annotations

import subprocess
import sys

import pytest
from mpi4py import MPI

from hpcmsm.errors import ConfigError
from hpcmsm.output import LOCK, Output

HOLD = """
import fcntl, sys
file = open(sys.argv[1], "a")
fcntl.lockf(file, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


def test_a_folder_that_another_run_writes_is_refused_until_that_ends(tmp_path):
    held = [sys.executable, "-c", HOLD, str(tmp_path / LOCK)]
    with subprocess.Popen(held, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        for attempt in (lambda: Output(tmp_path, MPI.COMM_SELF).create("", True), reopened(tmp_path)):
            with pytest.raises(ConfigError, match="no other run is writing") as refusal:
                attempt()
            assert "\n" not in str(refusal.value) and str(tmp_path) in str(refusal.value)
        other.kill()
    Output(tmp_path, MPI.COMM_SELF).create("", False)
    assert (tmp_path / "case.toml").exists()


def reopened(folder):
    return lambda: Output(folder, MPI.COMM_SELF).reopen(0)
