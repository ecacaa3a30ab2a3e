"""jobs/setup_machine.sh on machines that lack something, played by small stand-in programs."""

import os
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "jobs" / "setup_machine.sh"
# A virtual environment's python that has pip and none of the libraries.
BARE_PYTHON = 'case "$*" in *"import pip"*) exit 0 ;; *) exit 1 ;; esac'
OLD_PYTHON = 'case "$*" in --version) echo Python 3.9.2 ;; *) exit 1 ;; esac'


@pytest.fixture
def machine(tmp_path):
    """Put stand-ins first on PATH and run the script; its return code, stdout and stderr."""

    def program(name: str, text: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/bash\n{text}\n")
        path.chmod(0o755)
        return path

    def run(python="/usr/bin/python3", **stand_ins: str):
        program("venv/bin/python", BARE_PYTHON)
        for name, text in stand_ins.items():
            program(name.replace("_", "-"), text)
        env = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "TMPDIR": str(tmp_path)}
        env |= {"PYTHON": str(python), "VENV": str(tmp_path / "venv")}
        return subprocess.run(
            ["bash", str(SCRIPT), "run"], env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True
        )

    run.program, run.folder = program, tmp_path
    return run


def test_without_rights_it_says_what_is_missing_and_how_to_get_it(machine):
    done = machine(dpkg_query="exit 1", id="echo 1000", sudo="exit 1", apt_get="exit 1")
    assert done.returncode == 1
    assert "  - petsc4py for /usr/bin/python3\n" in done.stderr
    assert "  - h5py with MPI for /usr/bin/python3\n" in done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("setup: ask an administrator for: apt-get update && apt-get install ")
    assert "python3-h5py-mpi python3-petsc4py-real" in last


def test_as_root_only_what_is_missing_is_installed(machine):
    known = '[[ "$*" == *h5py* ]] || { echo "install ok installed"; exit 0; }; exit 1'
    log = machine.folder / "log"
    machine(dpkg_query=known, id="echo 0", apt_get=f'echo "$*" >>{log}')
    assert log.read_text().splitlines() == [
        "-qq update",
        "-qq install -y --no-install-recommends python3-h5py-mpi",
    ]


def test_what_apt_says_is_shown_when_it_fails(machine):
    apt = '[[ "$*" == *update* ]] || { echo "E: no space left"; exit 100; }'
    done = machine(dpkg_query="exit 1", id="echo 0", apt_get=apt)
    assert done.returncode == 1
    assert "E: no space left" in done.stderr
    assert "setup: apt-get failed" in done.stderr


def test_nothing_missing_calls_no_apt(machine):
    log = machine.folder / "log"
    machine(dpkg_query='echo "install ok installed"', apt_get=f"echo called >>{log}")
    assert not log.exists()


def test_python_that_is_too_old_is_told(machine):
    old = machine.program("old-python", OLD_PYTHON)
    done = machine(python=old)
    assert done.returncode == 1
    assert "hpcmsm needs python 3.11 or newer, got 'Python 3.9.2'" in done.stderr
    assert "make setup PYTHON=" in done.stderr


def test_another_python_leaves_apt_alone(machine):
    log = machine.folder / "log"
    mine = machine.program("my-python", "exit 0")
    done = machine(python=mine, dpkg_query="exit 1", apt_get=f"echo called >>{log}")
    assert not log.exists()
    assert f"petsc4py for {mine}" in done.stderr
