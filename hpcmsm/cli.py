"""The command line: run resume show report evaluate collect train merge explain compare doctor submit.

Every command imports what it needs when it is called, so that `hpcmsm --help` and the commands
that look at files are quick.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from contextlib import contextmanager
from pathlib import Path

import hpcmsm
from hpcmsm.errors import ConfigError, HpcmsmError, MicroError, SetupError
from hpcmsm.offline.commands import OFFLINE
from hpcmsm.parallel import abort_on_exit, install_abort_hook, leave_together, limit_threads, together, world


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit code (0 good, 1 a bug or unequal, 2 bad input, 3 numerics)."""
    limit_threads()
    options = _parser().parse_args(arguments)
    try:
        return options.command(options)
    except HpcmsmError as error:
        if _rank() == 0:
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
        if "mpi4py.MPI" in sys.modules:
            leave_together(world(), error)
        return error.exit_code
    except BrokenPipeError:
        return 1
    except SystemExit as error:
        # Code of a user that calls sys.exit on one rank; no excepthook sees it.
        if "mpi4py.MPI" in sys.modules and world().size > 1:
            abort_on_exit(world(), error)
        raise


def _rank() -> int:
    """This process's rank, without starting MPI where no command has."""
    mpi = sys.modules.get("mpi4py.MPI")
    return mpi.COMM_WORLD.rank if mpi else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="hpcmsm", description="Couple a macro PDE on MPI ranks with fine-scale models."
    )
    parser.add_argument("--version", action="version", version=f"hpcmsm {hpcmsm.__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for add in (
        _add_run,
        _add_resume,
        _add_show,
        _add_report,
        _add_evaluate,
        *OFFLINE,
        _add_compare,
        _add_doctor,
        _add_submit,
    ):
        add(commands)
    return parser


def _command(commands, function, name: str, text: str) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=text, description=text)
    parser.set_defaults(command=function)
    return parser


def _add_set(parser) -> None:
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override section.key=value"
    )


def _add_run(commands) -> None:
    parser = _command(
        commands, run, "run", "Run a case from its start (under mpirun or srun for many ranks)."
    )
    parser.add_argument("case", type=Path)
    parser.add_argument("-o", "--output", type=Path, help="output folder (default: results/<case name>)")
    parser.add_argument("--overwrite", action="store_true", help="replace a run that is already there")
    parser.add_argument("--quiet", action="store_true", help="no progress, no table")
    _add_set(parser)


def run(options) -> int:
    """hpcmsm run CASE"""
    from hpcmsm.config import load_case
    from hpcmsm.simulation import Simulation

    comm = world()
    install_abort_hook(comm)
    with together(comm):
        case = load_case(options.case, options.set)
    output = options.output or Path("results") / options.case.stem
    with naming(options.case.name):
        simulation = Simulation(case, comm, options.case.parent, output, options.quiet)
    simulation.start(options.overwrite)
    _print_summary(simulation.run(), options.quiet)
    return 0


@contextmanager
def naming(file: str):
    """Put the name of the case file into a ConfigError that does not tell it yet."""
    try:
        yield
    except ConfigError as error:
        text = str(error).replace(" (case file)", f" ({file})")
        if f"({file})" in text:
            raise ConfigError(text) from None
        rule, semicolon, advice = text.rpartition("; ")
        raise ConfigError(
            f"{rule} ({file}){semicolon}{advice}" if semicolon else f"{text} ({file})"
        ) from None


def _add_resume(commands) -> None:
    parser = _command(
        commands, resume, "resume", "Continue an interrupted run from its newest checkpoint, on any ranks."
    )
    parser.add_argument("output", type=Path, help="output folder of the run")
    parser.add_argument("--quiet", action="store_true", help="no progress, no table")
    _add_set(parser)


def resume(options) -> int:
    """hpcmsm resume DIR"""
    from hpcmsm.simulation import Simulation

    comm = world()
    install_abort_hook(comm)
    simulation = Simulation.resume(options.output, comm, options.set, options.quiet)
    if comm.rank == 0 and not options.quiet:
        print(f"continuing from step {simulation.step}, t = {simulation.time:.6g} s", file=sys.stderr)
    _print_summary(simulation.run(), options.quiet)
    return 0


def _print_summary(summary: dict, quiet: bool) -> None:
    from hpcmsm.summary import summary_table

    if _rank() == 0 and not quiet:
        print(summary_table(summary))


def _add_show(commands) -> None:
    parser = _command(
        commands,
        show,
        "show",
        "Tell what is in a checkpoint, snapshot or case file, and draw a case's cells.",
    )
    parser.add_argument("file", type=Path)
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        help="picture of a case's microstructures (default: CASE_microstructure.png)",
    )
    _add_set(parser)


def show(options) -> int:
    """hpcmsm show FILE"""
    if options.file.suffix == ".toml":
        return _show_case(options)
    from hpcmsm.io.inspect import describe

    print(describe(options.file))
    return 0


def _show_case(options) -> int:
    from hpcmsm.config import load_case
    from hpcmsm.evaluate import describe_micro, micro_of
    from hpcmsm.io.vti import replace_file

    case = load_case(options.file, options.set)
    with naming(options.file.name):
        micro = micro_of(case, options.file.parent)
    print(describe_micro(micro))
    shown = micro.microstructures()
    if shown:
        path = options.output or Path(f"{options.file.stem}_microstructure.png")
        replace_file(path, pictures().microstructures(shown).png)
        print(f"\n{path}")
    return 0


def pictures():
    """The module that draws cells, or a SetupError."""
    try:
        from hpcmsm.report import microstructures
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "matplotlib":
            raise
        raise SetupError(
            "pictures need matplotlib, got none in this environment; pip install matplotlib"
        ) from None
    return microstructures


def _add_report(commands) -> None:
    parser = _command(commands, report, "report", "Make pictures and one HTML page from an output folder.")
    parser.add_argument("output", type=Path)


def report(options) -> int:
    """hpcmsm report DIR"""
    from hpcmsm.report import make

    for path in make(options.output):
        print(path)
    return 0


def _add_evaluate(commands) -> None:
    parser = _command(
        commands, evaluate, "evaluate", "Ask the micro model of a case alone, at chosen inputs."
    )
    parser.add_argument("case", type=Path)
    parser.add_argument(
        "--input",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="value of an input, or first:last:count; several inputs give all combinations",
    )
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--json", action="store_true", help="print JSON")
    kind.add_argument("--csv", type=Path, help="write a CSV file")
    parser.add_argument(
        "--fields", type=Path, metavar="FILE", help="write the fields inside one cell, as .vti or .png"
    )
    _add_set(parser)


def evaluate(options) -> int:
    """hpcmsm evaluate CASE --input NAME=VALUE"""
    from hpcmsm.config import load_case
    from hpcmsm.evaluate import evaluate_case

    case = load_case(options.case, options.set)
    rows = evaluate_case(case, options.case.parent, options.input)
    if options.json:
        print(json.dumps(rows, indent=2))
    elif options.csv:
        _write_csv(options.csv, rows)
    else:
        print("  ".join(f"{name:>16s}" for name in rows[0]))
        for row in rows:
            print("  ".join(f"{value:>16.9g}" for value in row.values()))
    failed = sum(row["status"] != 0 for row in rows)
    if failed:
        raise MicroError(
            f"{failed} of {len(rows)} answers have a status other than 0; "
            "raise micro.max_iterations or check the inputs"
        )
    if options.fields:
        _write_fields(options, case)
    return 0


def _write_fields(options, case) -> None:
    """Fields inside one cell, in the format that the name of the file asks for."""
    from hpcmsm.evaluate import inside_case
    from hpcmsm.io.vti import replace_file, write_vti

    if options.fields.suffix not in (".vti", ".png"):
        raise ConfigError(f"--fields must name a .vti or .png file, got '{options.fields}'; choose one")
    found = inside_case(case, options.case.parent, options.input)
    if options.fields.suffix == ".vti":
        write_vti(options.fields, found)
    else:
        replace_file(options.fields, pictures().fields(found).png)


def _write_csv(path: Path, rows: list[dict]) -> None:
    try:
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
    except OSError as error:
        raise ConfigError(
            f"--csv must be a file that can be written, got '{path}' ({error.strerror}); choose another"
        ) from None


def _add_compare(commands) -> None:
    parser = _command(commands, compare, "compare", "Say field by field whether two files are bitwise equal.")
    parser.add_argument("first", type=Path)
    parser.add_argument("second", type=Path)


def compare(options) -> int:
    """hpcmsm compare A B; exit code 0 if equal, 1 if not."""
    from hpcmsm.io.inspect import compare as compare_files
    from hpcmsm.io.inspect import comparison_table

    rows, equal = compare_files(options.first, options.second)
    print(comparison_table(rows, equal))
    return 0 if equal else 1


def _add_doctor(commands) -> None:
    _command(commands, doctor, "doctor", "Check that MPI, PETSc, HDF5, torch and the compiler fit together.")


def doctor(options) -> int:
    """hpcmsm doctor; exit code 1 if something is missing."""
    from hpcmsm.doctor import examine, exit_code
    from hpcmsm.doctor import report as findings_report

    findings = examine()
    print(findings_report(findings))
    return exit_code(findings)


def _add_submit(commands) -> None:
    parser = _command(commands, submit, "submit", "Fill the SLURM script for a case and submit it.")
    parser.add_argument("case", type=Path)
    parser.add_argument("--nodes", type=int, default=1)
    parser.add_argument("--ntasks-per-node", type=int, default=1, help="ranks on each node")
    parser.add_argument("--time", default="01:00:00", help="[days-]hours:minutes:seconds")
    parser.add_argument("--partition")
    parser.add_argument("--account")
    parser.add_argument("--name", help="name of the job (default: the case's)")
    parser.add_argument("--gpus-per-node", type=int)
    parser.add_argument("--module", dest="modules", action="append", default=[], help="module to load")
    parser.add_argument(
        "--env",
        dest="environment",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="variable to export",
    )
    parser.add_argument("--no-requeue", dest="requeue", action="store_false", help="do not start again")
    parser.add_argument("-o", "--output", help="output folder of the run")
    parser.add_argument("--dry-run", action="store_true", help="print the script only")


def submit(options) -> int:
    """hpcmsm submit CASE"""
    from hpcmsm.jobs import submit as submit_job

    words = {name: value for name, value in vars(options).items() if name != "command"}
    print(submit_job(**words), end="" if options.dry_run else "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
