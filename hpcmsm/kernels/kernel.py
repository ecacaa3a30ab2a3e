"""`Kernel`: one function of a kernel file, compiled and ready to be called with arrays."""

from __future__ import annotations

import ctypes
import math
import operator
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from hpcmsm.errors import KernelError
from hpcmsm.kernels.build import compile_for_cpu, find_source, load_library, suggestion
from hpcmsm.kernels.signature import INTEGER_TYPES, Argument, Signature, parse_file, size_expression

CTYPES = {
    "float64": ctypes.c_double,
    "float32": ctypes.c_float,
    "int32": ctypes.c_int,
    "int64": ctypes.c_long,
    "uint8": ctypes.c_ubyte,
}


class Kernel:
    """A kernel. Make one with `Kernel.load`, then call it with its arguments.

    Attributes:
        signature: its arguments with shapes and units.
        path: the file it stands in.
        backend, dtype, threads, debug: as given to `load`.
        lanes: cells that one team of a team kernel holds.
    """

    path: Path

    def __init__(self, signature: Signature, where: str, backend: str, dtype: str, debug: bool, threads: int):
        self.signature = signature
        self.where = where
        self.backend, self.dtype, self.debug, self.threads = backend, dtype, debug, threads
        self.arguments = [argument for argument in signature.arguments if argument.role != "scratch"]
        self.names = tuple(argument.name for argument in self.arguments)
        self.integers = tuple(a.name for a in self.arguments if not a.array and a.type in INTEGER_TYPES)
        self.shapes = {a.name: tuple(self._size(part) for part in a.shape) for a in signature.arguments}
        # Only the GPU needs it, but a kernel that works on one backend shall work on the other.
        self.ncells = [[self._size(text) for text in factors] for factors in signature.ncells]
        self.scratch = next((a for a in signature.arguments if a.role == "scratch"), None)
        self.lanes = 1

    @staticmethod
    def load(source, function, backend="cpu", dtype="float64", debug=None, threads=1) -> Kernel:
        """Compile a kernel, or take it from the cache.

        Args:
            source: name of a file in kernels/ without .c, or the path of a .c file.
            function: name of a KERNEL in it.
            backend: "cpu" or "gpu".
            dtype: what `real` is, "float64" or "float32".
            debug: check shapes in every call; None takes it from the environment's HPCMSM_DEBUG.
            threads: OpenMP threads of a call (cpu); they do not change the answer.
        Raises:
            KernelError: no such file or function, or it does not compile.
            SetupError: there is no compiler, or no CuPy for the backend gpu.
        """
        if backend not in ("cpu", "gpu"):
            raise KernelError(f"backend must be cpu or gpu, got '{backend}'; choose one of them")
        if threads < 1:
            raise KernelError(f"threads of a kernel must be at least 1, got {threads}; correct it")
        if dtype not in ("float64", "float32"):
            raise KernelError(
                f"dtype of a kernel must be float64 or float32, got '{dtype}'; choose one of them"
            )
        path = find_source(source)
        signatures = parse_file(path.read_text(), path.name)
        if function not in signatures:
            raise KernelError(
                f"kernel must be one of {path.name}, got '{function}'; "
                f"{suggestion(function, sorted(signatures))}"
            )
        if debug is None:
            debug = os.environ.get("HPCMSM_DEBUG", "0") not in ("", "0")
        where = f" (kernel '{function}' of {path.name})"
        kernel = backend_class(backend)(signatures[function], where, backend, dtype, debug, threads)
        kernel.path = path
        kernel._prepare(path)
        return kernel

    def __call__(self, *values, **named) -> None:
        """Run the kernel on arrays and numbers, given in the declared order or by name.

        Raises:
            KernelError: an argument is missing, too many, or not as declared.
        """
        raise NotImplementedError

    def on_device(self, array: np.ndarray):
        """The array where the kernel works: itself (cpu), or a copy of it on the GPU."""
        return array

    def on_host(self, array) -> np.ndarray:
        """A NumPy array of what the kernel wrote."""
        return array

    def _size(self, text: str) -> Callable:
        return size_expression(text, self.integers, self.where)

    def _ordered(self, values: tuple, named: dict) -> list:
        """Values in the declared order."""
        if not named and len(values) == len(self.names):
            return list(values)
        rest = self.names[len(values) :]
        if len(named) == len(rest) and len(values) <= len(self.names):
            try:
                return [*values, *(named[name] for name in rest)]
            except KeyError:
                pass
        given = {*self.names[: len(values)], *named}
        missing = [name for name in self.names if name not in given]
        unknown = [name for name in named if name not in rest]
        fault = f"{missing[0]} missing" if missing else f"{(unknown or ['too many'])[0]} besides"
        raise KernelError(
            f"arguments must be ({', '.join(self.names)}), got {fault}{self.where}; correct the call"
        )

    def _check(self, values: list) -> None:
        """The checks of debug mode: shape and writability of each array."""
        by_name = dict(zip(self.names, values, strict=True))
        for argument, value in zip(self.arguments, values, strict=True):
            if argument.array and value is not None:
                self._check_array(argument, value, by_name)

    def _check_array(self, argument: Argument, value, by_name: dict) -> None:
        expected = tuple(size(by_name) for size in self.shapes[argument.name])
        if tuple(value.shape) != expected:
            text = f"of shape ({', '.join(argument.shape)}) = {expected}"
            raise self._wrong(argument, text, f"shape {tuple(value.shape)}")
        if isinstance(value, np.ndarray) and not argument.const and not value.flags.writeable:
            raise self._wrong(argument, "writable, as the kernel writes it", "a read-only array")

    def _wrong_number(self, argument: Argument, value) -> KernelError:
        kind = "an integer" if argument.type in INTEGER_TYPES else "a number"
        return self._wrong(argument, kind, repr(value))

    def _wrong(self, argument: Argument, expected: str, got: str) -> KernelError:
        return KernelError(
            f"argument '{argument.name}' must be {expected}, got {got}{self.where}; correct the call"
        )


class CpuKernel(Kernel):
    """A kernel of a shared object, called through ctypes."""

    def _prepare(self, path) -> None:
        library = load_library(compile_for_cpu(path, self.dtype, self.threads))
        # Shared by all kernels of the library, so it is set again in each call.
        self._nthread = ctypes.c_int.in_dll(library, "hpcmsm_threads")
        self._function = getattr(library, self.signature.name)
        self._function.restype = None
        self._function.argtypes = [
            ctypes.c_void_p if a.array else CTYPES[a.numpy_type(self.dtype).name]
            for a in self.signature.arguments
        ]
        if self.signature.kind == "team":
            self.lanes = ctypes.c_int.in_dll(library, "hpcmsm_lanes").value
        self._types = [a.numpy_type(self.dtype) if a.array else None for a in self.arguments]
        self._convert = [operator.index if a.type in INTEGER_TYPES else float for a in self.arguments]
        self._scratch = np.empty(0, np.uint8)
        if self.scratch:
            self._scratch_at = self.signature.arguments.index(self.scratch)

    def __call__(self, *values, **named) -> None:
        values = self._ordered(values, named)
        # The types of arrays are checked always: it costs little, and a wrong one would end the process.
        passed = []
        for place, value in enumerate(values):
            if self._types[place] is None:
                passed.append(self._number(place, value))
            elif value is None:
                passed.append(self._nothing(place))
            else:
                passed.append(self._address(place, value))
        if self.debug:
            self._check(values)
        if self.scratch:
            passed.insert(self._scratch_at, self._scratch_address(values))
        self._nthread.value = self.threads
        self._function(*passed)

    def _address(self, place: int, value) -> int:
        if (
            not isinstance(value, np.ndarray)
            or value.dtype != self._types[place]
            or not value.flags.c_contiguous
        ):
            raise self._wrong_type(place, value)
        try:
            # A fifth of the time that numpy's own ways to the address take.
            return ctypes.addressof(ctypes.c_char.from_buffer(value))
        except (TypeError, ValueError):  # a read-only or an empty array
            return value.ctypes.data

    def _number(self, place: int, value):
        try:
            return self._convert[place](value)
        except (TypeError, ValueError):
            raise self._wrong_number(self.arguments[place], value) from None

    def _nothing(self, place: int) -> None:
        if self.arguments[place].role != "optional":
            raise self._wrong(self.arguments[place], "an array", "None")

    def _wrong_type(self, place: int, value) -> KernelError:
        argument = self.arguments[place]
        wanted = f"a C-contiguous numpy array of {argument.numpy_type(self.dtype)}"
        if isinstance(value, np.ndarray):
            return self._wrong(argument, wanted, f"{value.dtype} with strides {value.strides}")
        return self._wrong(argument, wanted, type(value).__name__)

    def _scratch_address(self, values: list) -> int:
        """Address of scratch memory for all threads, aligned to a cache line."""
        by_name = dict(zip(self.names, values, strict=True))
        numbers = math.prod(size(by_name) for size in self.shapes[self.scratch.name])
        nbytes = numbers * self.lanes * self.threads * self.scratch.numpy_type(self.dtype).itemsize + 64
        if self._scratch.size < nbytes:
            self._scratch = np.empty(nbytes, np.uint8)
        address = self._scratch.__array_interface__["data"][0]
        return address + -address % 64


def backend_class(backend: str) -> type[Kernel]:
    """The class of kernels of a backend; that of the gpu is imported only when asked for."""
    if backend == "cpu":
        return CpuKernel
    from hpcmsm.kernels.gpu import GpuKernel

    return GpuKernel
