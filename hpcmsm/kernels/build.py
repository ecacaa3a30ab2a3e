"""Find kernel sources, and compile them for the CPU into a cache that many ranks may race for."""

from __future__ import annotations

import atexit
import ctypes
import difflib
import functools
import hashlib
import os
import platform
import re
import shlex
import shutil
import subprocess
import tempfile
import uuid
from pathlib import Path

from hpcmsm.errors import KernelError, SetupError

HEADER = "hpcmsm.h"
INCLUDED = re.compile(r'#include "([\w.]+)"')  # a part of a kernel file

# No -ffast-math and no contraction: every operation is rounded by itself, so the vector body and the
# scalar remainder of a loop give the same bits, and a cell's answer does not depend on the batch.
FLAGS = (
    *("-std=c11", "-O3", "-march=native", "-fPIC", "-shared", "-fvisibility=hidden", "-fopenmp-simd"),
    *("-fno-math-errno", "-fno-trapping-math", "-ffp-contract=off"),
)


def kernel_folder() -> Path:
    """The folder of the kernel sources: beside the package in a checkout, inside it when installed.

    Raises:
        SetupError: it is in neither place.
    """
    package = Path(__file__).resolve().parents[1]
    for folder in (package.parent / "kernels", package / "kernel_sources"):
        if (folder / HEADER).is_file():
            return folder
    raise SetupError(
        f"folder 'kernels' must hold {HEADER}, got none near {package}; install the package again"
    )


def find_source(source: str | os.PathLike) -> Path:
    """The file of a kernel: the name of one in `kernel_folder()`, or the path of any .c file.

    Raises:
        KernelError: no such file; the closest match is named.
    """
    path = Path(source)
    if path.suffix == ".c" or len(path.parts) > 1:
        folder, name = path.parent, path.name
    else:
        folder, name = kernel_folder(), f"{path.name}.c"
    found = folder / name
    if found.is_file():
        return found
    names = sorted(file.name for file in folder.glob("*.c")) if folder.is_dir() else []
    raise KernelError(f"kernel file must exist, got '{found}'; {suggestion(name, names)}")


def suggestion(name: str, names: list[str]) -> str:
    """What to write instead of a name that does not exist."""
    close = difflib.get_close_matches(name, names, 1)
    return f"did you mean '{close[0]}'?" if close else f"choose from {', '.join(names) or 'nothing here'}"


def files_of(path: Path) -> list[Path]:
    """The kernel file and the parts that it includes."""
    found = (INCLUDED.fullmatch(line) for line in path.read_text().splitlines())
    return [path, *(path.parent / part[1] for part in found if part)]


def full_source(path: Path) -> str:
    """Header, kernel file and its parts as one text; #line keeps the line numbers of all in messages.

    Raises:
        KernelError: a part that the file includes does not lie beside it.
    """
    header = (kernel_folder() / HEADER).read_text()
    lines = []
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        part = INCLUDED.fullmatch(line)
        lines += [line] if part is None else [_part(path, part[1]), f'#line {number + 1} "{path.name}"']
    text = "\n".join(lines)
    return f'#line 1 "{HEADER}"\n{header}\n#line 1 "{path.name}"\n{text}\n'


def _part(path: Path, name: str) -> str:
    part = path.parent / name
    if not part.is_file():
        raise KernelError(f"part included by {path.name} must lie beside it, got none as '{part}'; add it")
    return f'#line 1 "{name}"\n{part.read_text()}'


def compiler() -> tuple[tuple[str, ...], str]:
    """The C compiler (CC, else cc) as a command, and its version.

    Raises:
        SetupError: there is none.
    """
    command = tuple(shlex.split(os.environ.get("CC", ""))) or ("cc",)
    return command, _compiler_version(command)


@functools.cache
def _compiler_version(command: tuple[str, ...]) -> str:
    try:
        answer = subprocess.run([*command, "--version"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise SetupError(
            f"a C compiler must be installed, got none as '{shlex.join(command)}' ({error}); "
            "install gcc or set CC to a compiler"
        ) from error
    return answer.stdout.partition("\n")[0]


@functools.cache
def processor() -> str:
    """Model and features of this processor: code of -march=native fits only its like."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    keys = ("model name", "flags", "CPU part", "Features")
    facts = {line for line in lines if line.split("\t")[0].strip() in keys}
    return f"{platform.machine()} {sorted(facts)}"


def cache_folder() -> Path:
    """Where compiled kernels are kept: HPCMSM_CACHE, else hpcmsm in XDG_CACHE_HOME or ~/.cache."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("HPCMSM_CACHE") or Path(base) / "hpcmsm")


@functools.cache
def writable(folder: Path) -> Path:
    """The folder, made if need be; where it cannot be written, a temporary one until this process ends."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError:
        temporary = Path(tempfile.mkdtemp(prefix="hpcmsm-kernels-"))
        atexit.register(shutil.rmtree, temporary, ignore_errors=True)
        return temporary


def compile_for_cpu(path: Path, dtype: str, threads: int) -> Path:
    """The shared object of a kernel file, compiled unless the cache has it.

    Raises:
        KernelError: the source has an error; the compiler's first error line is shown.
        SetupError: there is no compiler.
    """
    command, version = compiler()
    flags = [
        *FLAGS,
        *(["-DHPCMSM_FLOAT32"] if dtype == "float32" else []),
        *(["-fopenmp"] if threads > 1 else []),
    ]
    source = full_source(path)
    recipe = "\0".join((source, version, *command, *flags, processor()))
    folder = writable(cache_folder())
    target = folder / f"{path.stem}-{hashlib.sha256(recipe.encode()).hexdigest()[:24]}.so"
    if not target.exists():
        # Each process builds under its own name; whoever renames last wins, with the same content.
        draft = folder / f"{target.stem}.{uuid.uuid4().hex}.tmp"
        _run_compiler([*command, *flags, "-x", "c", "-", "-o", str(draft), "-lm"], source, path)
        os.replace(draft, target)
    return target


def _run_compiler(command: list[str], source: str, path: Path) -> None:
    answer = subprocess.run(command, input=source, capture_output=True, text=True, check=False)
    if answer.returncode:
        lines = [line for line in answer.stderr.splitlines() if "error" in line] or [answer.stderr.strip()]
        raise KernelError(f"kernel file {path} must compile, got '{lines[0]}'; correct it")


@functools.cache
def load_library(compiled: Path) -> ctypes.CDLL:
    """A compiled kernel file, ready for calls."""
    return ctypes.CDLL(str(compiled))
