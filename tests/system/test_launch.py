"""The helpers that start MPI jobs from tests, and tests/run_all itself."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from launch import alive, descendants, kill_job, launch, mpi_environment, start

TESTS = Path(__file__).resolve().parents[1]
# One write per rank: the launcher mixes pieces of lines.
RANKS = "import sys; from mpi4py import MPI; sys.stdout.write(f'{MPI.COMM_WORLD.size} ')"


def test_launch_starts_ranks_that_see_each_other():
    done = launch(3, ["python", "-c", RANKS])
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["3"] * 3


def test_launch_works_inside_another_job():
    nested = (
        f"import sys; sys.path.insert(0, {str(TESTS)!r}); from mpi4py import MPI; from launch import launch; "
    )
    nested += f"print(launch(2, ['python', '-c', {RANKS!r}]).stdout)"
    done = launch(1, ["python", "-c", nested])
    assert done.stdout.split() == ["2"] * 2, done.stderr


def test_launch_without_ranks_needs_no_mpirun():
    assert launch(0, ["python", "-c", "print(1)"]).stdout == "1\n"


def test_launch_ends_a_job_that_hangs():
    begin = time.monotonic()
    done = launch(2, ["python", "-c", "import time; time.sleep(60)"], timeout=2)
    assert done.returncode == 124
    assert time.monotonic() - begin < 30


def test_environment_has_no_trace_of_a_job_around(monkeypatch):
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "4")
    monkeypatch.setenv("PMIX_RANK", "1")
    env = mpi_environment(HPCMSM_X="1")
    assert not {"OMPI_COMM_WORLD_SIZE", "PMIX_RANK"} & set(env)
    assert env["HPCMSM_X"] == "1"
    assert env["OMPI_ALLOW_RUN_AS_ROOT"] == "1"


def test_kill_job_leaves_nobody():
    code = "from mpi4py import MPI; import time; MPI.COMM_WORLD.Barrier(); "
    code += "MPI.COMM_WORLD.rank or print('up', flush=True); time.sleep(60)"
    process = start(2, ["python", "-c", code])
    assert process.stdout.readline() == "up\n"
    family = descendants(process.pid)
    assert len(family) >= 3
    kill_job(process)
    assert process.returncode == -9
    assert not [pid for pid in family if alive(pid)]


GOOD = "def test_good():\n    pass\n\ndef test_left_out():\n    import pytest\n    pytest.skip('no')\n"
RANK_1_FAILS = """
def test_first(comm, agree):
    agree(comm, True, "fine")

def test_alone(comm):
    if comm.size == 3 and comm.rank == 1:
        raise ValueError("only rank 1 is wrong")
    comm.Barrier()
"""
ALL_KNOW = """
def test_together(comm, agree):
    agree(comm, comm.rank != 1, f"{comm.rank} is wrong")

def test_after(comm):
    comm.Barrier()
"""

QUICK = "10 passed, 0 failed, 2 skipped"


def run_all(folder: Path, *parts: str, **files: str) -> subprocess.CompletedProcess:
    """Run a copy of tests/run_all over small tests; a name unit_x is the file unit/test_x.py."""
    tests = folder / "tests"
    for name in ("unit", "mpi", "system", "long"):
        (tests / name).mkdir(parents=True)
    for name in ("run_all", "conftest.py", "launch.py"):
        shutil.copy(TESTS / name, tests / name)
    shutil.copy(TESTS.parent / "pyproject.toml", folder)
    for name, text in files.items():
        part, _, file = name.partition("_")
        (tests / part / f"test_{file}.py").write_text(text)
    env = {k: v for k, v in os.environ.items() if not k.startswith("HPCMSM_")}
    command = [sys.executable, str(tests / "run_all"), *parts]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize(("parts", "counts"), [((), "11 passed, 0 failed, 3 skipped"), (("quick",), QUICK)])
def test_run_all_counts_over_all_parts(tmp_path, parts, counts):
    everywhere = RANK_1_FAILS.replace("== 3", "== 9")
    done = run_all(tmp_path, *parts, unit_a=GOOD, mpi_a=everywhere, system_a=GOOD, long_a=GOOD)
    assert done.stdout.splitlines()[-1] == counts
    assert done.returncode == 0


def test_run_all_ends_when_one_rank_fails(tmp_path):
    done = run_all(tmp_path, "mpi-2", "mpi-3", mpi_a=RANK_1_FAILS)
    assert done.stdout.splitlines()[-1] == "3 passed, 1 failed, 0 skipped"
    assert done.returncode == 1
    assert "rank 1 of 3 failed" in done.stderr
    assert "only rank 1 is wrong" in done.stderr


def test_run_all_goes_on_after_a_failure_that_all_ranks_know_of(tmp_path):
    done = run_all(tmp_path, "mpi-3", mpi_a=ALL_KNOW)
    assert done.stdout.splitlines()[-1] == "1 passed, 1 failed, 0 skipped"
    assert "rank 1 of 3: 1 is wrong" in done.stderr


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("", "0 passed, 1 failed, 0 skipped", "ran no test"),
        (
            GOOD.replace("pass", "__import__('os')._exit(0)"),
            "0 passed, 1 failed, 0 skipped",
            "before its end",
        ),
        ("import no_such_library", "0 passed, 1 failed, 0 skipped", "no_such_library"),
    ],
    ids=["empty", "crash", "broken"],
)
def test_run_all_counts_a_part_that_did_not_run_as_failed(tmp_path, text, line, said):
    done = run_all(tmp_path, "unit", unit_a=text)
    assert done.stdout.splitlines()[-1] == line
    assert said in done.stdout
    assert done.returncode == 1
