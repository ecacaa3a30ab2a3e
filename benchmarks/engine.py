"""What the kernel engine itself costs.

    OMP_NUM_THREADS=1 python benchmarks/engine.py --output benchmarks/results/engine.json

Calls: a kernel of five and one of twenty arguments for a batch of one cell, by place and by name, beside a
bare ctypes call of the same function; the goal is 20 us. Stream: a * x + y over arrays that no cache holds,
beside the machine's triad in the same run: what the engine leaves of the bandwidth. Every answer is asserted
before a time is taken.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
from mpi4py import MPI

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

import machine  # noqa: E402

from hpcmsm.kernels import Kernel  # noqa: E402
from hpcmsm.provenance import provenance  # noqa: E402

GOAL = 20.0  # us of a call for one cell
CALL_REPEATS = 400  # of 50 calls: short, so that on a busy machine some are undisturbed
MANY = 20  # arguments of the second kernel
LENGTH = 2**23  # numbers of an array of the stream: 64 MiB

AXPY = """
KERNEL axpy(
    long ncells,    // number of cells
    real factor,    // what x is multiplied with
    const real *x,  // (ncells) numbers
    const real *y,  // (ncells) numbers
    real *sum       // (ncells) factor x + y
) {
    FOR_EACH_CELL(c, ncells) sum[c] = factor * x[c] + y[c];
}
"""


def main(arguments: list[str] | None = None) -> dict:
    """Both tables; what the JSON file holds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "engine.c"
        path.write_text(AXPY + many_arguments())
        result = {
            "provenance": provenance(MPI.COMM_SELF),
            "us_goal": GOAL,
            "calls": calls(path),
            "stream": stream(path, options.repeats),
        }
    if options.output:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps(result, indent=2) + "\n")
    return result


def many_arguments() -> str:
    """A kernel that adds up MANY - 2 arrays."""
    arrays = [f"a{i}" for i in range(MANY - 2)]
    lines = [f"    const real *{name},  // (ncells) a summand" for name in arrays]
    head = [
        "KERNEL total(",
        "    long ncells,  // number of cells",
        *lines,
        "    real *sum  // (ncells) total",
    ]
    body = " + ".join(f"{name}[c]" for name in arrays)
    return "\n".join([*head, ") {", f"    FOR_EACH_CELL(c, ncells) sum[c] = {body};", "}", ""])


def least(work, repeats: int, number: int = 1) -> tuple[float, float]:
    """Least and median seconds of a call."""
    work()
    seconds = []
    for _ in range(repeats):
        start = perf_counter()
        for _ in range(number):
            work()
        seconds.append((perf_counter() - start) / number)
    return min(seconds), median(seconds)


# ------------------------------------------------------------------------------------------- calls


def calls(path: Path) -> list[dict]:
    """Microseconds of a call for one cell."""
    x, y, out = np.array([3.0]), np.array([4.0]), np.empty(1)
    summands = [np.array([float(i)]) for i in range(MANY - 2)]
    values = {
        "axpy": ((1, 2.0, x, y, out), 10.0),
        "total": ((1, *summands, out), sum(range(MANY - 2))),
    }
    rows = []
    for name, (given, answer) in values.items():
        for debug in (False, True):
            kernel = Kernel.load(path, name, debug=debug)
            named = dict(zip(kernel.names, given, strict=True))
            for way, work in (("place", lambda: kernel(*given)), ("name", lambda: kernel(**named))):  # noqa: B023
                out[:] = np.nan
                work()
                check(out[0] == answer, f"{name} must give {answer}, got {out[0]}")
                rows.append(_call_row(name, way, debug, given, least(work, CALL_REPEATS, 50)))
        bare = least(bare_call(path, name, given), CALL_REPEATS, 50)
        rows.append(_call_row(name, "bare ctypes", False, given, bare))
    slow = [row for row in rows if row["us"] > GOAL and not row["debug"]]
    check(not slow, f"a call must take at most {GOAL} us, got {slow}")
    return rows


def _call_row(name: str, way: str, debug: bool, given: tuple, seconds: tuple[float, float]) -> dict:
    best, middle = (1e6 * value for value in seconds)
    shown = f"{way}{', debug' if debug else ''}"
    print(
        f"{name}, {len(given)} arguments, one cell, {shown}: {best:.2f} us (median {middle:.2f})", flush=True
    )
    return {
        "kernel": name,
        "narguments": len(given),
        "way": way,
        "debug": debug,
        "us": best,
        "us_median": middle,
    }


def bare_call(path: Path, name: str, given: tuple):
    """The same function called through ctypes with addresses at hand: nothing can be less."""
    function = Kernel.load(path, name, debug=False)._function
    passed = [value.ctypes.data if isinstance(value, np.ndarray) else value for value in given]
    return lambda: function(*passed)


# ------------------------------------------------------------------------------------------ stream


def stream(path: Path, repeats: int) -> dict:
    """Bandwidth of a kernel that only moves memory, and of the machine's triad, in turns."""
    streams = machine.Streams(LENGTH)
    kernel = Kernel.load(path, "axpy", debug=False)

    def work():
        kernel(LENGTH, 3.0, streams.c, streams.b, streams.a)

    ours, theirs = [], []
    for _ in range(repeats):
        ours += machine.timed(work, 1)
        streams.check()
        theirs += machine.timed(streams.triad, 1)
    found = {
        "kernel_gb_per_s": streams.nbytes / min(ours) / 1e9,
        "triad_gb_per_s": streams.nbytes / min(theirs) / 1e9,
    }
    found["part"] = found["kernel_gb_per_s"] / found["triad_gb_per_s"]
    print(
        f"axpy over {LENGTH} cells: {found['kernel_gb_per_s']:.1f} GB/s, triad "
        f"{found['triad_gb_per_s']:.1f} GB/s: {100 * found['part']:.0f} %",
        flush=True,
    )
    return found


def check(fine: bool, text: str) -> None:
    """Raises AssertionError with the text unless fine."""
    if not fine:
        raise AssertionError(text)


if __name__ == "__main__":
    main()
