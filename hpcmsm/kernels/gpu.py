"""Kernels on a GPU: compiled by NVRTC, launched by CuPy. CuPy is imported by the first kernel only."""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import math
import operator
from ctypes.util import find_library
from pathlib import Path

import numpy as np

from hpcmsm.errors import KernelError, SetupError
from hpcmsm.kernels.build import find_source, full_source
from hpcmsm.kernels.kernel import Kernel
from hpcmsm.kernels.signature import INTEGER_TYPES

CELL_THREADS = 128  # of a block of a cell kernel
TEAM_THREADS = 128  # of a team, unless `load(threads=...)` says otherwise
LARGEST_GRID = 2**20  # blocks; further cells follow in the same threads
RESERVED_SHARED = 1024  # bytes that TEAM_SUM and its like may take

# As on the CPU: nothing is contracted or approximated, so both backends evaluate the same formulas.
OPTIONS = ("--std=c++17", "--fmad=false", "--prec-div=true", "--prec-sqrt=true", "--ftz=false")


def gpu_options(dtype: str) -> tuple[str, ...]:
    """Options of NVRTC where `real` is dtype."""
    return (*OPTIONS, *(("-DHPCMSM_FLOAT32",) if dtype == "float32" else ()))


def compile_for_gpu(source, architecture: str = "sm_90", dtype: str = "float64") -> bytes:
    """Compile a kernel file to the machine code of a GPU; needs NVRTC, but no GPU.

    Args:
        source: as for `Kernel.load`.
        architecture: sm_80, sm_90, ... for machine code (cubin), compute_90, ... for PTX.
        dtype: what `real` is.
    Raises:
        KernelError: the source does not compile; the first error line is shown.
        SetupError: NVRTC is not installed.
    """
    path = find_source(source)
    nvrtc = load_nvrtc()
    program = ctypes.c_void_p()
    text = full_source(path).encode()
    _nvrtc_call(nvrtc, "nvrtcCreateProgram", ctypes.byref(program), text, path.name.encode(), 0, None, None)
    try:
        options = [option.encode() for option in (f"--gpu-architecture={architecture}", *gpu_options(dtype))]
        failed = nvrtc.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*options))
        if failed:
            log = _nvrtc_bytes(nvrtc, "ProgramLog", program).decode(errors="replace")
            lines = [line for line in log.splitlines() if "error" in line] or [log.strip()]
            raise KernelError(
                f"kernel file {path} must compile for {architecture}, got '{lines[0]}'; correct it"
            )
        return _nvrtc_bytes(nvrtc, "CUBIN" if architecture.startswith("sm_") else "PTX", program)
    finally:
        nvrtc.nvrtcDestroyProgram(ctypes.byref(program))


@functools.cache
def load_nvrtc() -> ctypes.CDLL:
    """NVIDIA's run-time compiler, from its wheel or from the system.

    Raises:
        SetupError: it is in neither place.
    """
    wheel = importlib.util.find_spec("nvidia")
    folders = list(wheel.submodule_search_locations) if wheel else []
    found = [str(file) for folder in folders for file in sorted(Path(folder).glob("*/lib/libnvrtc.so.*"))]
    for name in [*found, find_library("nvrtc") or "libnvrtc.so"]:
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    raise SetupError("NVRTC must be installed, got none; pip install nvidia-cuda-nvrtc-cu12")


def _nvrtc_call(nvrtc: ctypes.CDLL, name: str, *arguments) -> None:
    code = getattr(nvrtc, name)(*arguments)
    if code:
        nvrtc.nvrtcGetErrorString.restype = ctypes.c_char_p
        raise KernelError(f"{name} must succeed, got {nvrtc.nvrtcGetErrorString(code).decode()}; check NVRTC")


def _nvrtc_bytes(nvrtc: ctypes.CDLL, what: str, program: ctypes.c_void_p) -> bytes:
    size = ctypes.c_size_t()
    _nvrtc_call(nvrtc, f"nvrtcGet{what}Size", program, ctypes.byref(size))
    buffer = ctypes.create_string_buffer(size.value)
    _nvrtc_call(nvrtc, f"nvrtcGet{what}", program, buffer)
    return buffer.raw


class GpuKernel(Kernel):
    """A kernel launched by CuPy in its current stream; arrays are CuPy arrays."""

    def _prepare(self, path: Path) -> None:
        self._cupy = import_cupy()
        # Header and source are one text, so that CuPy's cache sees a changed header.
        module = self._cupy.RawModule(
            code=full_source(path), options=gpu_options(self.dtype), backend="nvrtc"
        )
        try:
            self._function = module.get_function(self.signature.name)
        except self._cupy.cuda.compiler.CompileException as error:
            first = next((line for line in str(error).splitlines() if "error" in line), str(error))
            raise KernelError(
                f"kernel file {path} must compile for the GPU, got '{first}'; correct it"
            ) from None
        self._numpy_types = [argument.numpy_type(self.dtype) for argument in self.arguments]
        self._device_scratch = None

    def __call__(self, *values, **named) -> None:
        values = self._ordered(values, named)
        passed = [self._passed(place, value) for place, value in enumerate(values)]
        if self.debug:
            self._check(values)
        by_name = dict(zip(self.names, values, strict=True))
        ncells = max(math.prod(size(by_name) for size in factors) for factors in self.ncells)
        if ncells <= 0:
            return
        if self.signature.kind == "cell":
            blocks, threads, shared = min(-(-ncells // CELL_THREADS), LARGEST_GRID), CELL_THREADS, 0
        else:
            blocks, threads, shared = self._team_launch(ncells, by_name, passed)
        self._function((blocks,), (threads,), tuple(passed), shared_mem=shared)

    def on_device(self, array: np.ndarray):
        return self._cupy.asarray(array)

    def on_host(self, array) -> np.ndarray:
        return self._cupy.asnumpy(array)

    def _passed(self, place: int, value):
        """The value as the kernel declares it: CuPy itself would pass any number as a double."""
        argument, wanted = self.arguments[place], self._numpy_types[place]
        if not argument.array:
            try:
                return wanted.type(operator.index(value) if argument.type in INTEGER_TYPES else float(value))
            except (TypeError, ValueError):
                raise self._wrong_number(argument, value) from None
        if value is None and argument.role == "optional":
            return np.uintp(0)
        fine = isinstance(value, self._cupy.ndarray) and value.dtype == wanted and value.flags.c_contiguous
        if not fine:
            got = f"{type(value).__name__} {getattr(value, 'dtype', '')}".strip()
            raise self._wrong(argument, f"a C-contiguous CuPy array of {wanted}", got)
        return value

    def _team_launch(self, ncells: int, by_name: dict, passed: list) -> tuple[int, int, int]:
        """Blocks, threads and bytes of shared memory; adds the scratch argument to passed."""
        threads = self.threads if self.threads > 1 else TEAM_THREADS
        device = self._cupy.cuda.Device().attributes
        if self.scratch is None:
            return min(ncells, LARGEST_GRID), threads, 0
        where = self.signature.arguments.index(self.scratch)
        numbers = math.prod(size(by_name) for size in self.shapes[self.scratch.name])
        wanted = self.scratch.numpy_type(self.dtype)
        if numbers * wanted.itemsize <= device["MaxSharedMemoryPerBlockOptin"] - RESERVED_SHARED:
            passed.insert(where, np.uintp(0))
            nbytes = numbers * wanted.itemsize
            self._function.max_dynamic_shared_size_bytes = nbytes
            return min(ncells, LARGEST_GRID), threads, nbytes
        blocks = min(ncells, 8 * device["MultiProcessorCount"])
        passed.insert(where, self._global_scratch(blocks * numbers, wanted))
        return blocks, threads, 0

    def _global_scratch(self, numbers: int, wanted: np.dtype):
        if self._device_scratch is None or self._device_scratch.size < numbers:
            self._device_scratch = self._cupy.empty(numbers, wanted)
        return self._device_scratch


def import_cupy():
    """CuPy, with a clear error where it or a GPU is missing."""
    try:
        import cupy
    except ImportError as error:
        raise SetupError(
            f"backend 'gpu' must have CuPy, got none ({error}); pip install cupy-cuda12x or use backend 'cpu'"
        ) from error
    try:
        cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        raise SetupError(f"backend 'gpu' must have a GPU, got none ({error}); use backend 'cpu'") from error
    return cupy
