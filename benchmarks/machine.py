"""What this machine can do at most: bandwidth of streams through memory, and fused multiply-adds.

    python benchmarks/machine.py --output benchmarks/results/machine.json

One core. Bandwidth counts as STREAM does: what the loop names, without the line that a store reads first.
Other benchmarks take `limits()`, or `Streams` to measure the bandwidth in turns with what they measure.
"""

from __future__ import annotations

import argparse
import ctypes
import functools
import json
import os
import platform
import shlex
import subprocess
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np

FLAGS = ("-O3", "-march=native")
LENGTH = 2**24  # numbers of a stream: 128 MiB, more than the caches hold
APART = 128  # numbers, 1 KiB
ADDRESSES = np.ctypeslib.ndpointer(np.float64, flags="C")

SOURCE = """
void triad(long n, double s, const double *restrict b, const double *restrict c, double *restrict a)
{
    for (long i = 0; i < n; ++i)
        a[i] = b[i] + s * c[i];
}

#if defined(__AVX512F__)
#define WIDTH 64
#elif defined(__AVX__)
#define WIDTH 32
#else
#define WIDTH 16
#endif

/* Ten sums that do not wait for one another hide the latency of the unit that adds. */
#define SUMS(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9)
#define START(i) vector s##i = start * (i + 1);
#define STEP(i) s##i = s##i * factor + start;
#define ADD(i) start += s##i;
#define FMA_LOOP(name, number)                                    \\
    long name(long n, number *inout)                              \\
    {                                                             \\
        typedef number vector __attribute__((vector_size(WIDTH))); \\
        vector start, factor;                                     \\
        for (int l = 0; l < WIDTH / (int)sizeof(number); ++l) {   \\
            start[l] = inout[0];                                  \\
            factor[l] = inout[1];                                 \\
        }                                                         \\
        SUMS(START)                                               \\
        for (long i = 0; i < n; ++i) {                            \\
            SUMS(STEP)                                            \\
        }                                                         \\
        SUMS(ADD)                                                 \\
        inout[0] = start[0];                                      \\
        return 20 * (WIDTH / (long)sizeof(number)) * n;           \\
    }
FMA_LOOP(fma_float64, double)
FMA_LOOP(fma_float32, float)
"""


def main(arguments: list[str] | None = None) -> dict:
    """Measure; what the JSON file holds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args(arguments)
    result = {**facts(), **limits(options.repeats)}
    for name, value in result.items():
        print(f"{name}: {value}")
    if options.output:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps(result, indent=2) + "\n")
    return result


def limits(repeats: int = 20) -> dict:
    """Most bytes a second and most operations a second of one core: the best and the median repeat."""
    streams = Streams()
    seconds = timed(streams.triad, repeats)
    streams.check()
    found = {"triad_gb_per_s": streams.nbytes / min(seconds) / 1e9}
    found["triad_gb_per_s_median"] = streams.nbytes / median(seconds) / 1e9
    for dtype in ("float64", "float32"):
        best, middle = peak_gflops(dtype, repeats)
        found |= {f"fma_gflops_{dtype}": best, f"fma_gflops_{dtype}_median": middle}
    return found


def facts() -> dict:
    """Where this is measured, and by what."""
    version = subprocess.run([*compiler(), "--version"], capture_output=True, text=True, check=True).stdout
    return {
        "host": platform.node(),
        "processor": processor(),
        "ncores": os.cpu_count(),
        "compiler": version.partition("\n")[0],
        "flags": " ".join(FLAGS),
    }


def processor() -> str:
    """Name of the processor with its instruction sets, where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    known = {line.partition(":")[0].strip(): line.partition(":")[2].strip() for line in lines}
    has = known.get("flags", "").split()
    sets = [name for name in ("avx2", "avx512f") if name in has]
    name = known.get("model name", platform.machine())
    return f"{name} (family {known.get('cpu family')}, model {known.get('model')}; {', '.join(sets)})"


class Streams:
    """Three arrays that no cache holds, and STREAM's triad over them.

    Args:
        length: numbers of an array.
    Attributes:
        nbytes: bytes that a call counts as moved.
    """

    def __init__(self, length: int = LENGTH):
        # A quarter of a page apart: in step they share places of the cache, which costs a quarter here.
        memory = np.full(3 * (length + APART), 0.0)
        self.b, self.c, self.a = (row[:length] for row in memory.reshape(3, length + APART))
        self.b[:], self.c[:] = 1.0, 2.0
        self.nbytes = 3 * self.a.nbytes
        self._function = compiled(SOURCE).triad
        self._function.argtypes = [ctypes.c_long, ctypes.c_double, ADDRESSES, ADDRESSES, ADDRESSES]

    def triad(self) -> None:
        """a = b + 3 c."""
        self._function(self.a.size, 3.0, self.b, self.c, self.a)

    def check(self) -> None:
        """Raises AssertionError unless the triad was computed."""
        if not np.all(self.a == 7.0):
            raise AssertionError(f"triad must give 7, got {self.a.min()} to {self.a.max()}")


def peak_gflops(dtype: str, repeats: int = 20, steps: int = 1_000_000) -> tuple[float, float]:
    """Additions and multiplications a second, fused, nothing waiting: best and median, in 1e9/s."""
    function = getattr(compiled(SOURCE), f"fma_{dtype}")
    function.restype = ctypes.c_long
    function.argtypes = [ctypes.c_long, np.ctypeslib.ndpointer(np.dtype(dtype), flags="C")]
    values = np.array([1.0, 0.5], dtype)
    operations = function(steps, values)
    # Each of the ten sums ends at 1 / (1 - 0.5).
    if values[0] != 21.0:
        raise AssertionError(f"the sums must end at 21, got {values[0]}")
    seconds = timed(lambda: function(steps, np.array([1.0, 0.5], dtype)), repeats)
    return operations / min(seconds) / 1e9, operations / median(seconds) / 1e9


def timed(work, repeats: int) -> list[float]:
    """Seconds of each call; the first, which warms up, is dropped."""
    seconds = []
    for _ in range(repeats + 1):
        start = perf_counter()
        work()
        seconds.append(perf_counter() - start)
    return seconds[1:]


def compiler() -> list[str]:
    """The C compiler as a command: CC, else cc."""
    return shlex.split(os.environ.get("CC", "")) or ["cc"]


@functools.cache
def compiled(source: str) -> ctypes.CDLL:
    """C text as a library, compiled as a user would: optimised for this processor."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "benchmark.so"
        command = [*compiler(), *FLAGS, "-fPIC", "-shared", "-x", "c", "-", "-o", str(target)]
        subprocess.run(command, input=source, text=True, check=True)
        return ctypes.CDLL(str(target))


if __name__ == "__main__":
    main()
