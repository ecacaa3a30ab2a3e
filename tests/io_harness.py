"""What the tests of files share: small grids, and data whose every bit matters."""

from types import SimpleNamespace

import numpy as np
from mpi4py import MPI

from hpcmsm.fields import Field
from hpcmsm.grid import Grid
from hpcmsm.io.checkpoint import CheckpointData, write_checkpoint
from hpcmsm.io.snapshots import SnapshotWriter

COMM = MPI.COMM_SELF
FIELDS = {
    "macro/temperature": Field("temperature", 1, "K", "Temperature of the cell."),
    "micro/conductivity": Field("conductivity", 3, "W/(m K)", spd=True),
    "micro/phase": Field("phase", 2),
}
ARRAYS = {
    "surrogate/weights_0": np.linspace(-1.0, 1.0, 24, dtype=np.float32).reshape(4, 6),
    "closure/surrogate/version": np.array(3),
    "gate/scores": np.zeros((0, 5)),
    "gate/accepted": np.array([True, False, True]),
    "gate/names": np.array([b"temperature", b"fraction"]),
}
SHOWN = (
    Field("temperature", 1, "K", "Temperature of the cell."),
    Field("conductivity", 3, "W/(m K)", spd=True),
    Field("source", 1, "1", "Who answered."),
)


def a_grid(cells=(7, 5), size=None, periodic=None, centring="cell"):
    return Grid(cells, size or (0.7, 0.5, 0.6)[: len(cells)], periodic, comm=COMM, centring=centring)


def some_data(grid, step=120, seed=1):
    random = np.random.default_rng(seed)
    values = {
        name: random.standard_normal((field.size, grid.total_cells))[:, grid.ids]
        for name, field in FIELDS.items()
    }
    # Bits that a sloppy way through text or arithmetic would lose.
    values["micro/phase"][0, :4] = [-0.0, np.inf, 5e-324, np.nan]
    values["micro/phase"].view(np.uint64)[1, 0] = 0x7FF8000000000123
    return CheckpointData(
        step=step,
        time=0.1 * step,
        dt=1.0 / 3.0,
        cell_fields={name: (FIELDS[name], array) for name, array in values.items()},
        arrays=ARRAYS,
        config="[time]\nend = 1.0  # µ\n",
        provenance={"host": "node1", "versions": {"numpy": "1.26"}},
    )


def same_bits(a, b):
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def write_two(folder):
    """A run's folder with the checkpoints of steps 110 and 120."""
    grid = a_grid()
    older, newer = (write_checkpoint(folder, some_data(grid, step), grid) for step in (110, 120))
    return SimpleNamespace(folder=folder, grid=grid, older=older, newer=newer)


def history(grid, steps, fields=SHOWN):
    """By step and field name random values (size, ncells)."""
    random = np.random.default_rng(5)
    values = {}
    for step in steps:
        values[step] = {field.name: random.standard_normal((field.size, grid.ncells)) for field in fields}
        if "source" in values[step]:
            values[step]["source"] = random.integers(0, 3, (1, grid.ncells)).astype(np.int8)
    return values


def write_history(folder, grid, values, fields=SHOWN):
    writer = SnapshotWriter(folder, grid, fields)
    for step, arrays in values.items():
        writer.write(step, 0.25 * step, arrays)
    return writer
