"""Job scripts: filled templates against golden files, what is refused, and how jobs are handed over."""

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from hpcmsm import jobs
from hpcmsm.errors import ConfigError, SetupError

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = Path(__file__).parent / "golden"
SMALL = {"nodes": 1, "ntasks_per_node": 2, "time": "00:10:00"}
FULL = {
    "nodes": 4,
    "ntasks_per_node": 64,
    "time": "1-12:00:00",
    "partition": "long",
    "account": "project_42",
    "name": "burner",
    "output": "/scratch/a folder/burner",
    "requeue": False,
    "gpus_per_node": 4,
    "modules": ["openmpi/4.1.4", "petsc"],
    "environment": ["HPCMSM_CACHE=/scratch/my cache", "PETSC_OPTIONS=-log_view"],
}


@pytest.mark.parametrize(
    ("golden", "case", "options"),
    [
        ("small.slurm", "cases/composite_wall.toml", SMALL),
        ("full.slurm", "my cases/wall $HOME.toml", FULL),
    ],
)
def test_script_is_the_golden_file(golden, case, options):
    # To renew a golden file: write the script there, and read the difference.
    assert jobs.slurm_script(case, **options) == (GOLDEN / golden).read_text()


def fake_programs(folder: Path, *names: str) -> dict[str, str]:
    """An environment in which the named programs print their own command line."""
    for name in names:
        (folder / name).write_text(f'#!/bin/bash\nprintf "%q " {name} "$@"; echo\n')
        (folder / name).chmod(0o755)
    return os.environ | {"PATH": f"{folder}:{os.environ['PATH']}", "SLURM_SUBMIT_DIR": str(folder)}


def run_script(text: str, folder: Path, env: dict[str, str]) -> list[str]:
    """Run a job script; the words of the last line that it prints."""
    done = subprocess.run(["bash", "-s"], input=text, cwd=folder, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return shlex.split(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("filled", [True, False], ids=["filled", "by hand"])
def test_script_runs_the_case_first_and_resumes_it_later(tmp_path, filled):
    env = fake_programs(tmp_path, "srun")
    case, output = "cases/composite_wall.toml", "results/composite_wall"
    text = jobs.slurm_script(case, **SMALL) if filled else (ROOT / "jobs/run.slurm").read_text()
    assert run_script(text, tmp_path, env) == ["srun", "hpcmsm", "run", case, "-o", output]
    checkpoints = tmp_path / output / "checkpoints"
    checkpoints.mkdir(parents=True)
    assert run_script(text, tmp_path, env)[2] == "run", "an empty folder holds nothing to resume"
    (checkpoints / "step_00000050.h5").touch()
    assert run_script(text, tmp_path, env) == ["srun", "hpcmsm", "resume", output]


def test_names_with_specials_reach_the_program_as_they_are(tmp_path):
    env = fake_programs(tmp_path, "srun", "module")
    case = "my cases/wall $HOME `id`; 'x'.toml"
    text = jobs.slurm_script(case, **SMALL, output='out "put"', environment=["A=$(id) b"])
    assert run_script(text, tmp_path, env) == ["srun", "hpcmsm", "run", case, "-o", 'out "put"']
    assert "export A='$(id) b'" in text


@pytest.mark.parametrize("name", ["run.slurm", "scaling.slurm", "run.pbs"])
def test_template_is_good_shell_and_its_directives_come_first(name):
    text = (ROOT / "jobs" / name).read_text()
    assert subprocess.run(["bash", "-n"], input=text, text=True).returncode == 0
    lines = text.splitlines()
    first_command = next(i for i, line in enumerate(lines) if line and not line.startswith("#"))
    # The scheduler stops reading directives at the first command.
    assert not [line for line in lines[first_command:] if re.match("#(SBATCH|PBS)", line)]
    assert sum(line.startswith(("#SBATCH", "#PBS")) for line in lines) >= 4


def test_scaling_template_asks_for_powers_of_two_then_whole_nodes(tmp_path):
    env = fake_programs(tmp_path, "python")
    env |= {"SLURM_NTASKS_PER_NODE": "16", "SLURM_JOB_NUM_NODES": "4"}
    words = run_script((ROOT / "jobs/scaling.slurm").read_text(), tmp_path, env)
    assert words[:2] == ["python", "benchmarks/scaling.py"]
    assert words[words.index("--ranks") + 1] == "1,2,4,8,16,32,64"


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"nodes": 0}, "--nodes"),
        ({"nodes": True}, "--nodes"),
        ({"nodes": 1.5}, "--nodes"),
        ({"ntasks_per_node": -3}, "--ntasks-per-node"),
        ({"gpus_per_node": 0}, "--gpus-per-node"),
        ({"time": "90"}, "--time"),
        ({"time": "1:60:00"}, "--time"),
        ({"time": "1-24:00:00"}, "--time"),
        ({"time": "00:00:00"}, "--time"),
        ({"time": "01:00:00\n#SBATCH --exclusive"}, "--time"),
        ({"partition": "a b"}, "--partition"),
        ({"account": "x; rm -r ."}, "--account"),
        ({"name": "two\nlines"}, "--name"),
        ({"name": "--wrap"}, "--name"),
        ({"output": ""}, "--output"),
        ({"output": "a\nb"}, "--output"),
        ({"modules": ["petsc; id"]}, "--module"),
        ({"environment": ["1A=b"]}, "--env"),
        ({"environment": ["HOME"]}, "--env"),
    ],
)
def test_what_cannot_stand_in_a_script_is_refused(options, named):
    with pytest.raises(ConfigError) as caught:
        jobs.slurm_script("cases/composite_wall.toml", **(SMALL | options))
    text = str(caught.value)
    assert text.startswith(named + " must be")
    assert ", got " in text
    assert "; " in text
    assert "\n" not in text


def test_dry_run_hands_nothing_over(tmp_path, monkeypatch):
    case = tmp_path / "wall.toml"
    case.touch()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert jobs.submit(case, dry_run=True, **SMALL) == jobs.slurm_script(case, **SMALL)
    with pytest.raises(SetupError, match="sbatch"):
        jobs.submit(case, **SMALL)
    with pytest.raises(ConfigError, match="no such file"):
        jobs.submit(tmp_path / "other.toml", dry_run=True, **SMALL)


def test_submit_gives_the_script_to_sbatch(tmp_path, monkeypatch):
    case = tmp_path / "wall.toml"
    case.touch()
    sbatch = tmp_path / "sbatch"
    sbatch.write_text(f'#!/bin/bash\n[ "$*" = --parsable ] && cat >{tmp_path}/got && echo "1234;cluster"\n')
    sbatch.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert jobs.submit(case, **SMALL) == "1234"
    assert (tmp_path / "got").read_text() == jobs.slurm_script(case, **SMALL)
    sbatch.write_text("#!/bin/bash\necho 'sbatch: error: invalid\npartition' >&2\nexit 1\n")
    with pytest.raises(SetupError, match="invalid partition") as caught:
        jobs.submit(case, **SMALL)
    assert "\n" not in str(caught.value)
