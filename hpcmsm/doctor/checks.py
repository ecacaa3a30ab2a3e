"""The checks of `hpcmsm doctor`, one function each; `python -m hpcmsm.doctor.checks NAME` runs one.

This file is the one exception to the rule of who may import which library, and does so only inside
functions.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

LAUNCH_TIMEOUT = 60.0


@dataclass(frozen=True)
class Finding:
    """What one check found.

    Args:
        name: what was looked at.
        ok: whether it can be used.
        found: versions, or what is wrong, in one line.
        advice: what to do where it is not ok.
        optional: whether hpcmsm also runs without it.
    """

    name: str
    ok: bool
    found: str
    advice: str = ""
    optional: bool = False


def mpi_libraries() -> set[str]:
    """Names of the MPI libraries in this process, with their major version; empty where /proc is missing."""
    try:
        maps = Path("/proc/self/maps").read_text()
    except OSError:
        return set()
    return set(re.findall(r"/(libmpi(?:ch|_cray|_intel)?\.so[.\d]{0,3})", maps))


def one_mpi(name: str, found: str) -> Finding:
    """A good finding, unless this process holds more than one MPI library."""
    libraries = mpi_libraries()
    if len(libraries) < 2:
        return Finding(name, True, found)
    return Finding(
        name,
        False,
        f"{found}, but two MPI libraries are loaded: {' and '.join(sorted(libraries))}",
        f"build or install {name} and mpi4py with the same MPI",
    )


def missing(name: str, error: ImportError, advice: str, optional: bool = False) -> Finding:
    """The finding for a package that cannot be imported."""
    reason = "not installed" if isinstance(error, ModuleNotFoundError) else f"cannot be imported ({error})"
    return Finding(name, False, reason, advice, optional)


def check_python() -> Finding:
    import numpy

    found = f"{sys.version.split()[0]}, numpy {numpy.__version__}"
    return Finding("python", sys.version_info >= (3, 11), found, "use python 3.11 or newer")


def check_mpi() -> Finding:
    try:
        from mpi4py import MPI, __version__
    except ImportError as error:
        return missing(
            "mpi4py", error, "Debian: python3-mpi4py; else load the machine's MPI, then pip install mpi4py"
        )
    library = MPI.Get_library_version().strip("\0 ")
    vendor, numbers = MPI.get_vendor()
    built = f"{vendor} {'.'.join(map(str, numbers))}"
    # The library's text goes on for lines with its packager and build options.
    running = re.match(r".*?\d+(\.\d+)+", library) or re.match(r".*", library)
    found = f"{__version__} built with {built}, running with {running[0]}"
    if not same_release(vendor, numbers, library):
        return Finding(
            "mpi4py", False, found, "build mpi4py with the MPI that is loaded: pip install --no-binary=mpi4py"
        )
    return Finding("mpi4py", True, found)


def same_release(vendor: str, numbers: tuple[int, ...], library: str) -> bool:
    """Whether the MPI that mpi4py was built with is the one that runs, by name and major version."""
    name = vendor.lower().replace(" ", "")
    if name not in library.lower().replace("(r)", "").replace(" ", ""):
        return vendor == "unknown"
    running = re.search(r"(\d+)\.\d+", library)
    return running is None or int(running[1]) == numbers[0]


def check_launcher() -> Finding:
    """Whether mpirun starts ranks that see each other; a foreign mpirun starts lone ranks."""
    program = shutil.which("mpirun") or shutil.which("srun")
    if program is None:
        advice = "Debian: openmpi-bin; cluster: load the MPI module"
        return Finding("mpirun", False, "neither mpirun nor srun on PATH", advice)
    if Path(program).name == "srun":
        return Finding("mpirun", True, f"{program} (not tried)")
    # One write per rank: the launcher mixes pieces of lines.
    code = "import sys; from mpi4py import MPI; sys.stdout.write(f'size={MPI.COMM_WORLD.size};')"
    environment = os.environ | {
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
        "OMPI_MCA_rmaps_base_oversubscribe": "1",
        "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
    }
    command = [program, "-n", "2", sys.executable, "-c", code]
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=LAUNCH_TIMEOUT
        )
    except subprocess.TimeoutExpired:
        return Finding("mpirun", False, f"{program} gave no answer in {LAUNCH_TIMEOUT:g} s", "try it by hand")
    sizes = re.findall(r"size=(\d+);", done.stdout)
    if sizes == ["2", "2"]:
        return Finding("mpirun", True, f"{program} starts ranks that see each other")
    if sizes == ["1", "1"]:
        advice = "put the mpirun of mpi4py's MPI first on PATH"
        return Finding(
            "mpirun", False, f"{program} belongs to another MPI than mpi4py: its ranks are alone", advice
        )
    said = " ".join((done.stderr or done.stdout).split())[:200] or "nothing"
    return Finding("mpirun", False, f"{program} cannot start 2 ranks: {said}", "correct what it says")


def check_petsc() -> Finding:
    try:
        from mpi4py import MPI  # noqa: F401  (so that a second MPI library shows)
        from petsc4py import PETSc, __version__
    except ImportError as error:
        advice = "Debian: python3-petsc4py-real, and its folder on the python path (make setup does it); "
        return missing("petsc4py", error, advice + "cluster: load a PETSc that was built with petsc4py")
    scalar, preconditioners = PETSc.ScalarType().dtype, available_preconditioners(PETSc, ("hypre", "gamg"))
    found = f"{__version__}, {scalar} scalars, {' and '.join(preconditioners) or 'no'} multigrid"
    if scalar.kind != "f" or scalar.itemsize != 8:
        return Finding("petsc4py", False, found, "use a PETSc with real double-precision scalars")
    if not preconditioners:
        return Finding("petsc4py", False, found, "use a PETSc with hypre or GAMG")
    return one_mpi("petsc4py", found)


def available_preconditioners(petsc, names) -> list[str]:
    """Those of the named preconditioners that this PETSc was built with."""
    there = []
    for name in names:
        try:
            petsc.PC().create(petsc.COMM_SELF).setType(name)
        except petsc.Error:
            continue
        there.append(name)
    return there


def check_h5py() -> Finding:
    advice = (
        "Debian: python3-h5py-mpi; else CC=mpicc HDF5_MPI=ON CFLAGS=-O1 pip install --no-binary=h5py h5py"
    )
    try:
        import h5py
        from mpi4py import MPI
    except ImportError as error:
        return missing("h5py", error, advice)
    found = f"{h5py.__version__}, HDF5 {h5py.version.hdf5_version}"
    if not h5py.get_config().mpi:
        return Finding("h5py", False, f"{found}, without MPI", advice)
    with tempfile.TemporaryDirectory() as folder:
        try:
            with h5py.File(Path(folder) / "trial.h5", "w", driver="mpio", comm=MPI.COMM_SELF) as file:
                file.create_dataset("x", data=range(3))
        except (OSError, ValueError) as error:
            return Finding("h5py", False, f"{found}, cannot write with MPI ({error})", advice)
    return one_mpi("h5py", f"{found}, with MPI")


def check_torch() -> Finding:
    advice = "pip install 'torch>=2.4', one that fits the installed numpy"
    try:
        import numpy
        import torch
    except ImportError as error:
        return missing("torch", error, advice)
    found = f"{torch.__version__}, {torch.get_num_threads()} thread(s) per rank"
    try:
        answer = torch.from_numpy(numpy.eye(3)).sum().item()
    except RuntimeError as error:
        return Finding("torch", False, f"{found}, does not fit numpy {numpy.__version__} ({error})", advice)
    return Finding("torch", answer == 3.0, found, advice)


def check_compiler() -> Finding:
    compiler = os.environ.get("CC", "cc")
    with tempfile.TemporaryDirectory() as folder:
        source, library = Path(folder) / "trial.c", Path(folder) / "trial.so"
        source.write_text("int twice(int x) { return 2 * x; }\n")
        command = [*shlex.split(compiler), "-shared", "-fPIC", "-O1", "-o", str(library), str(source)]
        try:
            done = subprocess.run(command, capture_output=True, text=True)
        except OSError as error:
            advice = "Debian: build-essential; cluster: load a compiler, or set CC"
            return Finding("compiler", False, f"'{compiler}' cannot be started ({error.strerror})", advice)
        if done.returncode:
            said = " ".join(done.stderr.split())[:200]
            return Finding(
                "compiler", False, f"'{compiler}' fails: {said}", "install libc's headers, or set CC"
            )
        try:
            answer = ctypes.CDLL(str(library)).twice(21)
        except OSError as error:
            advice = "set TMPDIR to a folder on a file system that allows to run programs"
            return Finding("compiler", False, f"what '{compiler}' makes cannot be loaded ({error})", advice)
    version = subprocess.run([*shlex.split(compiler), "--version"], capture_output=True, text=True).stdout
    return Finding(
        "compiler", answer == 42, (version.splitlines() or [compiler])[0], "set CC to another compiler"
    )


def check_kernels() -> Finding:
    package = Path(__file__).resolve().parents[1]
    for folder in (package.parent / "kernels", package / "kernel_sources"):
        sources = sorted(path.name for path in folder.glob("*.c"))
        if sources:
            return Finding("kernels", True, f"{len(sources)} in {folder}: {', '.join(sources)}")
    return Finding("kernels", False, f"no sources beside {package}", "install hpcmsm again: pip install .")


def check_gpu() -> Finding:
    advice = "pip install cupy-cuda12x where there is an NVIDIA GPU"
    try:
        import cupy
    except ImportError as error:
        return missing("gpu", error, advice, optional=True)
    try:
        ndevices = cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        return Finding(
            "gpu", False, f"cupy {cupy.__version__}, no device ({error})", "check the driver", optional=True
        )
    names = [cupy.cuda.runtime.getDeviceProperties(i)["name"].decode() for i in range(ndevices)]
    return Finding("gpu", ndevices > 0, f"cupy {cupy.__version__}, {', '.join(names)}", advice, optional=True)


def check_vtk() -> Finding:
    try:
        from vtkmodules.vtkCommonCore import vtkVersion
    except ImportError as error:
        return missing(
            "vtk", error, "pip install vtk, to read snapshots in python (ParaView needs no vtk here)", True
        )
    return Finding("vtk", True, vtkVersion.GetVTKVersion(), optional=True)


def check_cantera() -> Finding:
    try:
        import cantera
    except ImportError as error:
        return missing(
            "cantera", error, "pip install 'hpcmsm[chemistry]', for micro.model = \"cantera\"", optional=True
        )
    release = tuple(int(part) for part in re.findall(r"\d+", cantera.__version__)[:2])
    advice = "pip install 'cantera>=3.2'"
    return Finding("cantera", release >= (3, 2), cantera.__version__, advice, optional=True)


CHECKS = {
    "python": check_python,
    "mpi4py": check_mpi,
    "mpirun": check_launcher,
    "petsc4py": check_petsc,
    "h5py": check_h5py,
    "torch": check_torch,
    "compiler": check_compiler,
    "kernels": check_kernels,
    "gpu": check_gpu,
    "vtk": check_vtk,
    "cantera": check_cantera,
}


if __name__ == "__main__":
    print(json.dumps(asdict(CHECKS[sys.argv[1]]())))
