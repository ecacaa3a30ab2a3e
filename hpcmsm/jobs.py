"""Scheduler scripts as pure functions: the templates of jobs/ with their lines filled in."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Iterable
from pathlib import Path

from hpcmsm.errors import ConfigError, SetupError

PACKAGE = Path(__file__).resolve().parent
# In a source tree the templates lie beside the package, in an installed package inside it.
TEMPLATE_FOLDERS = (PACKAGE.parent / "jobs", PACKAGE / "job_templates")

MODULES_MARK = "# Modules and variables that this machine needs"
END_MARK = "# <<< to be changed"


def slurm_script(
    case: str | Path,
    *,
    nodes: int,
    ntasks_per_node: int,
    time: str,
    partition: str | None = None,
    account: str | None = None,
    name: str | None = None,
    output: str | Path | None = None,
    requeue: bool = True,
    gpus_per_node: int | None = None,
    modules: Iterable[str] = (),
    environment: Iterable[str] = (),
) -> str:
    """The text of jobs/run.slurm for one case. Touches nothing.

    Args:
        case: the case file, as seen from where the job is submitted.
        nodes, ntasks_per_node, gpus_per_node: positive integers; no GPUs are asked for where None.
        time: limit as [days-]hours:minutes:seconds.
        partition, account: left to the scheduler's defaults where None.
        name: of the job; the case's where None.
        output: the folder for results; results/NAME_OF_CASE where None.
        requeue: whether the scheduler may start the job again after a node was lost.
        modules: names for `module load`, in this order.
        environment: texts NAME=value to export.
    Raises:
        ConfigError: an argument cannot stand in a job script.
    """
    stem = Path(case).stem
    directives = {
        "job-name": _word("--name", _safe(stem) if name is None else name),
        "nodes": _positive("--nodes", nodes),
        "ntasks-per-node": _positive("--ntasks-per-node", ntasks_per_node),
        "time": _time("--time", time),
        "partition": None if partition is None else _word("--partition", partition),
        "account": None if account is None else _word("--account", account),
        "gpus-per-node": None if gpus_per_node is None else _positive("--gpus-per-node", gpus_per_node),
    }
    variables = {
        "CASE": _path("case", case),
        "OUTPUT": _path("--output", Path("results") / stem if output is None else output),
    }
    lines = template("run.slurm").splitlines()
    lines = [_filled(line, directives, variables) for line in lines]
    if not requeue:
        lines = [line.replace("#SBATCH --requeue", "#SBATCH --no-requeue") for line in lines]
    machine = [f"module load {_word('--module', module)}" for module in modules]
    machine += [f"export {_assignment(text)}" for text in environment]
    return "\n".join(_with_machine_lines(lines, machine)) + "\n"


def submit(case: str | Path, *, dry_run: bool = False, **options) -> str:
    """Hand a case to SLURM.

    Args:
        dry_run: only make the script.
        options: those of slurm_script.
    Returns:
        The script if dry_run, else the number of the job.
    Raises:
        ConfigError: the case file is not there, or an option is wrong.
        SetupError: sbatch is missing or refuses the job; the text holds what it said.
    """
    if not Path(case).is_file():
        raise ConfigError(f"case file must be readable, got '{case}' (no such file); check the path")
    script = slurm_script(case, **options)
    if dry_run:
        return script
    try:
        done = subprocess.run(["sbatch", "--parsable"], input=script, capture_output=True, text=True)
    except FileNotFoundError:
        raise SetupError(
            "submit needs the command sbatch, got none on this machine; "
            "call it on a login node, or add --dry-run and carry the script there"
        ) from None
    if done.returncode:
        said = " ".join(done.stderr.split()) or "nothing"
        raise SetupError(
            f"sbatch must take the job, got return code {done.returncode} ({said}); correct the options"
        )
    # --parsable prints number[;cluster].
    return done.stdout.strip().partition(";")[0]


def template(name: str) -> str:
    """The text of a file of jobs/, from the source tree or the installed package."""
    for folder in TEMPLATE_FOLDERS:
        if (folder / name).is_file():
            return (folder / name).read_text(encoding="utf-8")
    raise SetupError(
        f"job template must be in {' or '.join(map(str, TEMPLATE_FOLDERS))}, got no '{name}'; "
        "install hpcmsm again"
    )


def _filled(line: str, directives: dict[str, str | None], variables: dict[str, str]) -> str:
    """A line of the template with our value for it; one without a value stays as it stands."""
    directive = re.match(r"##?SBATCH --([a-z-]+)=", line)
    if directive and directives.get(directive[1]) is not None:
        return f"#SBATCH --{directive[1]}={directives[directive[1]]}"
    variable = re.match(r"([A-Z]+)=", line)
    if variable and variable[1] in variables:
        return f"{variable[1]}={variables[variable[1]]}"
    return line


def _with_machine_lines(lines: list[str], machine: list[str]) -> list[str]:
    """The template with `module load` and `export` lines in the place of its examples."""
    if not machine:
        return lines
    first = next(i for i, line in enumerate(lines) if line.startswith(MODULES_MARK))
    last = lines.index(END_MARK)
    return [*lines[:first], MODULES_MARK + ".", *machine, *lines[last:]]


def _safe(stem: str) -> str:
    return re.sub(r"[^\w.-]", "_", stem, flags=re.ASCII)


def _word(option: str, value: str) -> str:
    if not re.fullmatch(r"[\w.,:+@%/-]+", str(value), re.ASCII) or str(value).startswith("-"):
        raise ConfigError(
            f"{option} must be one word of letters, digits and _.,:+@%/-, got {value!r}; choose another name"
        )
    return str(value)


def _positive(option: str, value: int) -> str:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigError(f"{option} must be a positive integer, got {value!r}; correct the value")
    return str(value)


def _time(option: str, value: str) -> str:
    parts = re.fullmatch(r"(?:(\d{1,3})-)?(\d{1,3}):([0-5]\d):([0-5]\d)", str(value), re.ASCII)
    fits = (
        parts and (parts[1] is None or int(parts[2]) < 24) and any(int(part or 0) for part in parts.groups())
    )
    if not fits:
        raise ConfigError(
            f"{option} must be [days-]hours:minutes:seconds, got {value!r}; "
            "write it like 02:30:00 or 1-12:00:00"
        )
    return str(value)


def _path(option: str, value: str | Path) -> str:
    text = str(value)
    if not text or text.startswith("-") or not text.isprintable():
        raise ConfigError(f"{option} must be a path without control characters, got {text!r}; rename it")
    return shlex.quote(text)


def _assignment(text: str) -> str:
    name, equals, value = text.partition("=")
    if not equals or not re.fullmatch(r"[A-Za-z_]\w*", name, re.ASCII) or not (value.isprintable()):
        raise ConfigError(
            f"--env must be NAME=value, got {text!r}; write it like HPCMSM_CACHE=/scratch/hpcmsm"
        )
    return f"{name}={shlex.quote(value)}"
