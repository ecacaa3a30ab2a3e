"""How fast a checkpoint is written and read, with the speed of plain files beside it.

    python benchmarks/checkpoint.py --ranks 1,2 --mib 512 --output benchmarks/results/checkpoint.json

A checkpoint of one scalar and one vector field, cut along the slow axis (each rank one piece of the
file) and along the fast one (cells are exchanged first), against the same bytes through pwrite and pread.
All writes include fsync. What was read is compared with what was written first. The small
checkpoint is that of the composite wall: its time is latency.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np

SMALL = (96, 48)


def main(arguments: list[str] | None = None) -> dict:
    """Measure on every rank count; what the JSON file holds."""
    options = _options(arguments)
    if options.folder:
        return _measure_here(options)
    rows = []
    for nranks in options.ranks:
        with tempfile.TemporaryDirectory(dir=options.where) as folder:
            rows += _start(nranks, options, folder)
    result = {"host": platform.node(), "ncores": os.cpu_count(), "commit": _commit(), "rows": rows}
    if options.output:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps(result, indent=2) + "\n")
    _print(rows)
    return result


def _options(arguments):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ranks", type=lambda text: [int(n) for n in text.split(",")], default=[1, 2])
    parser.add_argument("--mib", type=int, default=512, help="size of the large checkpoint")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--where", type=Path, help="folder on the file system to measure")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def _start(nranks: int, options, folder: str) -> list[dict]:
    allowed = {
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
        "OMPI_MCA_rmaps_base_oversubscribe": "1",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]),
    }
    output = Path(folder) / "rows.json"
    command = ["mpirun", "-n", str(nranks), sys.executable, __file__, "--folder", folder]
    sizes = ["--mib", str(options.mib), "--repeats", str(options.repeats), "--output", str(output)]
    subprocess.run([*command, *sizes], check=True, env={**os.environ, **allowed})
    return json.loads(output.read_text())["rows"]


def _print(rows: list[dict]) -> None:
    print(f"{'ranks':>5} {'cut':>5} {'MiB':>7}  {'what':22} {'median':>10} {'fastest':>10} {'GB/s':>6}")
    for row in rows:
        speed = row["bytes"] / row["seconds_median"] / 1e9
        print(
            f"{row['nranks']:5d} {row['cut']:>5} {row['bytes'] / 2**20:7.2f}  {row['what']:22} "
            f"{row['seconds_median'] * 1e3:7.1f} ms {row['seconds_fastest'] * 1e3:7.1f} ms {speed:6.2f}"
        )


def _commit() -> str:
    from hpcmsm.provenance import _commit as commit

    return commit()


# ------------------------------------------------------------------------------- on the ranks


def _measure_here(options) -> dict:
    """Collective. Both sizes and cuts on the ranks of this job."""
    from hpcmsm.grid import Grid
    from hpcmsm.parallel import world

    comm, rows = world(), []
    side = int((options.mib * 2**20 / 8 / 4) ** 0.5)
    for cells, cut in (((side, side), "slow"), ((side, side), "fast"), (SMALL, "slow")):
        if cut == "fast" and comm.size == 1:
            continue
        shape = (1, comm.size) if cut == "slow" else (comm.size, 1)
        grid = Grid(cells, (1.0, 1.0), proc_shape=shape, comm=comm)
        for what, seconds in _measure(grid, options.folder, options.repeats).items():
            rows.append(_row(comm, what, cut, 4 * 8 * grid.total_cells, seconds))
    if comm.rank == 0:
        options.output.write_text(json.dumps({"rows": rows}))
    return {"rows": rows}


def _row(comm, what: str, cut: str, nbytes: int, seconds: list[float]) -> dict:
    return {
        "what": what,
        "nranks": comm.size,
        "cut": cut,
        "bytes": nbytes,
        "seconds_median": median(seconds),
        "seconds_fastest": min(seconds),
    }


def _measure(grid, folder: Path, repeats: int) -> dict[str, list[float]]:
    """Collective. Seconds of each repeat, the slowest rank's, by what was done; the first is dropped."""
    from hpcmsm.fields import Field
    from hpcmsm.io.checkpoint import CheckpointData, newest_checkpoint, read_checkpoint, write_checkpoint

    random = np.random.default_rng(grid.comm.rank)
    cell_fields = {
        "macro/temperature": (Field("temperature", 1, "K"), random.random((1, grid.ncells))),
        "micro/flux": (Field("flux", 3, "W/m^2"), random.random((3, grid.ncells))),
    }
    data = CheckpointData(1, 0.0, 1.0, cell_fields)
    path = write_checkpoint(folder, data, grid)
    _check(read_checkpoint(path, grid), data)
    block = np.concatenate([values.ravel() for _, values in cell_fields.values()])
    raw, target = folder / "raw", np.empty_like(block)
    _raw_write(raw, block, grid.comm)
    _raw_read(raw, target, grid.comm)
    if target.tobytes() != block.tobytes():
        raise AssertionError("a plain file must be read as it was written")
    actions = {
        "checkpoint write": lambda: write_checkpoint(folder, data, grid, keep=1),
        "checkpoint read": lambda: read_checkpoint(path, grid),
        "checkpoint find newest": lambda: newest_checkpoint(folder, grid.comm),
        "plain write": lambda: _raw_write(raw, block, grid.comm),
        "plain read": lambda: _raw_read(raw, target, grid.comm),
    }
    return {what: _timed(grid.comm, action, repeats) for what, action in actions.items()}


def _check(found, written) -> None:
    for name, (_, values) in written.cell_fields.items():
        if found.cell_fields[name][1].tobytes() != values.tobytes():
            raise AssertionError(f"{name} must be read as it was written")


def _timed(comm, action, repeats: int) -> list[float]:
    from mpi4py import MPI

    seconds = []
    for _ in range(repeats + 1):
        comm.Barrier()
        start = perf_counter()
        action()
        seconds.append(comm.allreduce(perf_counter() - start, op=MPI.MAX))
    return seconds[1:]


def _raw_write(path: Path, block: np.ndarray, comm) -> None:
    """Every rank its block at its place of a new file, then fsync."""
    if comm.rank == 0:
        path.unlink(missing_ok=True)
        path.touch()
    comm.Barrier()
    handle = os.open(path, os.O_WRONLY)
    _all_of(os.pwrite, handle, block, comm)
    os.fsync(handle)
    os.close(handle)
    comm.Barrier()


def _raw_read(path: Path, target: np.ndarray, comm) -> None:
    handle = os.open(path, os.O_RDONLY)
    _all_of(lambda file, part, start: os.preadv(file, [part], start), handle, target, comm)
    os.close(handle)


def _all_of(transfer, handle: int, block: np.ndarray, comm) -> None:
    """Move the whole block, at most 64 MiB in a call."""
    sizes = comm.allgather(block.nbytes)
    start, done, raw = sum(sizes[: comm.rank]), 0, block.view(np.uint8)
    while done < raw.size:
        done += transfer(handle, raw[done : done + 2**26], start + done)


if __name__ == "__main__":
    main()
