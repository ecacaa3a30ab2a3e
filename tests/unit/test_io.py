"""Checkpoints on one rank: every bit comes back, damage is found, a file is whole or not there."""

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from hpcmsm.errors import CheckpointError, SetupError, ShapeError
from hpcmsm.fields import Field
from hpcmsm.io import blocks, store
from hpcmsm.io.checkpoint import newest_checkpoint, read_checkpoint, write_checkpoint
from hpcmsm.io.checksum import cell_keys, cell_sums
from hpcmsm.io.sealed import open_sealed, write_sealed
from hpcmsm.io.snapshots import read_snapshots
from tests.io_harness import (
    ARRAYS,
    COMM,
    FIELDS,
    a_grid,
    history,
    same_bits,
    some_data,
    write_history,
    write_two,
)

h5py = store.h5py
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def two_checkpoints(tmp_path):
    return write_two(tmp_path)


@pytest.mark.parametrize("cells", [(7, 5), (3, 4, 5), (1, 6)])
def test_checkpoint_comes_back_bit_by_bit(tmp_path, cells):
    grid = a_grid(cells)
    data = some_data(grid)
    path = write_checkpoint(tmp_path, data, grid)
    assert path == tmp_path / "checkpoints" / "step_00000120.h5"
    found = read_checkpoint(path, grid, FIELDS)
    assert (found.step, found.time, found.dt) == (data.step, data.time, data.dt)
    assert (found.config, found.provenance) == (data.config, data.provenance)
    assert found.arrays.keys() == ARRAYS.keys()
    assert all(same_bits(found.arrays[name], array) for name, array in ARRAYS.items())
    for name, (_, values) in data.cell_fields.items():
        assert same_bits(found.cell_fields[name][1], values)


@pytest.mark.parametrize("most", [1, 90, 400])
def test_what_is_too_large_for_one_call_goes_in_several(tmp_path, monkeypatch, most):
    monkeypatch.setattr(blocks, "LARGEST_WRITE", most)
    grid = a_grid((3, 4, 5))
    data = some_data(grid)
    found = read_checkpoint(write_checkpoint(tmp_path, data, grid), grid, FIELDS)
    for name, (_, values) in data.cell_fields.items():
        assert same_bits(found.cell_fields[name][1], values)
    values = history(grid, (0, 5))
    write_history(tmp_path, grid, values)
    shown = read_snapshots(tmp_path).arrays["conductivity"][1]
    assert same_bits(shown, values[5]["conductivity"].reshape(3, 5, 4, 3))


def test_datasets_are_in_natural_order_with_units(tmp_path):
    grid = a_grid((3, 4, 5))
    data = some_data(grid)
    data.cell_fields["micro/phase"][1][...] = grid.ids + np.array([[0.0], [0.5]])
    with h5py.File(write_checkpoint(tmp_path, data, grid)) as file:
        phase = file["cells/micro/phase"]
        z, y, x = np.meshgrid(np.arange(5), np.arange(4), np.arange(3), indexing="ij")
        assert np.array_equal(phase[0], (z * 4 + y) * 3 + x)
        assert np.array_equal(phase[1] - phase[0], np.full((5, 4, 3), 0.5))
        tensor = file["cells/micro/conductivity"]
        assert (tensor.attrs["unit"], tensor.attrs["components"]) == (b"W/(m K)", b"xx yy xy")
        assert file.attrs["kind"] == b"checkpoint"


def test_the_newest_are_kept_and_nothing_of_a_future_that_was_given_up(tmp_path):
    grid = a_grid()

    def left():
        return sorted(path.name for path in (tmp_path / "checkpoints").iterdir())

    for step in (10, 20, 30):
        write_checkpoint(tmp_path, some_data(grid, step), grid, keep=2)
    assert left() == ["step_00000020.h5", "step_00000030.h5"]
    (tmp_path / "checkpoints" / "step_00000040.h5.tmp").write_bytes(b"from a job that was killed")
    (tmp_path / "checkpoints" / "notes.txt").write_text("not ours")
    write_checkpoint(tmp_path, some_data(grid, 25), grid, keep=2)
    assert left() == ["notes.txt", "step_00000020.h5", "step_00000025.h5"]
    write_checkpoint(tmp_path, some_data(grid, 100_000_000), grid, keep=1)
    assert left() == ["notes.txt", "step_100000000.h5"]
    assert newest_checkpoint(tmp_path, COMM)[0].name == "step_100000000.h5"


# ---------------------------------------------------------------------------------- damaged files


def content(path, grid):
    """Everything that a checkpoint gives back, as something that can be compared."""
    data = read_checkpoint(path, grid)
    cells = {name: (str(field), values.tobytes()) for name, (field, values) in data.cell_fields.items()}
    arrays = {name: (array.dtype, array.shape, array.tobytes()) for name, array in data.arrays.items()}
    return data.step, data.time, data.dt, data.config, data.provenance, cells, arrays


@pytest.mark.parametrize("part", [0.0, 1e-4, 1e-3, 0.02, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_checkpoint_is_passed_over_and_named(two_checkpoints, part):
    whole = two_checkpoints.newer.read_bytes()
    two_checkpoints.newer.write_bytes(whole[: int(part * len(whole))])
    path, notes = newest_checkpoint(two_checkpoints.folder, COMM)
    assert path == two_checkpoints.older
    assert notes == ["checkpoint step_00000120.h5 is truncated; continuing from step_00000110.h5"]
    with pytest.raises(CheckpointError, match=r"step_00000120\.h5 is truncated"):
        read_checkpoint(two_checkpoints.newer, two_checkpoints.grid)


def test_every_flipped_bit_is_found_or_does_no_harm(two_checkpoints):
    path = two_checkpoints.newer
    whole, expected = path.read_bytes(), content(path, two_checkpoints.grid)
    random, nfound = np.random.default_rng(0), 0
    positions = random.choice(len(whole), 300, replace=False)
    for position in positions:
        damaged = bytearray(whole)
        damaged[position] ^= 1 << random.integers(8)
        path.write_bytes(damaged)
        try:
            assert content(path, two_checkpoints.grid) == expected
        except CheckpointError:
            nfound += 1
    # HDF5 leaves gaps between its structures; most bytes carry something.
    assert nfound > 0.75 * len(positions)


def test_a_flipped_bit_of_a_value_is_named_with_its_field(two_checkpoints):
    path = two_checkpoints.newer
    with h5py.File(path) as file:
        start = file["cells/macro/temperature"].id.get_offset()
    damaged = bytearray(path.read_bytes())
    damaged[start + 100] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(
        CheckpointError, match=r"step_00000120\.h5 is damaged \(checksum of macro/temperature"
    ):
        read_checkpoint(path, two_checkpoints.grid)
    _, notes = newest_checkpoint(two_checkpoints.folder, COMM)
    assert "macro/temperature" in notes[0]
    assert notes[0].endswith("continuing from step_00000110.h5")


def change(path, how):
    with h5py.File(path, "r+") as file:
        how(file)


def replace(file, name, **dataset):
    attributes = dict(file[name].attrs)
    del file[name]
    file.create_dataset(name, **dataset).attrs.update(attributes)


@pytest.mark.parametrize(
    ("how", "said"),
    [
        (lambda file: file.__delitem__("cells/micro/phase"), "cells/micro/phase is missing"),
        (lambda file: file.__delitem__("arrays/gate/accepted"), "arrays/gate/accepted is missing"),
        (lambda file: file.__delitem__("contents"), "contents is missing"),
        (lambda file: replace(file, "cells/micro/phase", data=np.zeros((2, 7, 5))), "phase has the shape"),
        (
            lambda file: replace(file, "arrays/gate/names", data=["a"], dtype=h5py.string_dtype()),
            "neither numbers nor text",
        ),
        (lambda file: file.attrs.__setitem__("header", file.attrs["header"].replace(b"12", b"13")), "seal"),
        (lambda file: file.attrs.__setitem__("format", 99), "newer format 99"),
        (lambda file: file.attrs.__delitem__("seal"), "not a complete file"),
    ],
)
def test_what_was_changed_after_writing_is_refused(two_checkpoints, how, said):
    change(two_checkpoints.newer, how)
    with pytest.raises(CheckpointError, match=said):
        read_checkpoint(two_checkpoints.newer, two_checkpoints.grid)
    assert newest_checkpoint(two_checkpoints.folder, COMM)[0] == two_checkpoints.older


def test_no_checkpoint_at_all(tmp_path, two_checkpoints):
    for folder in (tmp_path / "nothing", tmp_path / "empty"):
        (tmp_path / "empty").mkdir(exist_ok=True)
        with pytest.raises(CheckpointError, match=r"must hold a checkpoint, got none"):
            newest_checkpoint(folder, COMM)
    for path in (two_checkpoints.older, two_checkpoints.newer):
        path.write_bytes(b"\x89HDF\r\n\x1a\n")
    with pytest.raises(CheckpointError, match=r"only damaged ones \(step_00000120\.h5 is truncated, step_0"):
        newest_checkpoint(two_checkpoints.folder, COMM)


@pytest.mark.parametrize(
    ("grid", "said"),
    [
        ({"cells": (7, 6)}, r"grid.cells must be \[7, 5\] as in step_00000120.h5, got \[7, 6\]"),
        ({"cells": (5, 7)}, r"grid.cells must be \[7, 5\]"),
        ({"cells": (7, 5, 1)}, r"grid.cells must be \[7, 5\]"),
        ({"size": (0.7, 0.4)}, r"grid.size must be \[0.7, 0.5\] .* got \[0.7, 0.4\]"),
        ({"periodic": (True, False)}, r"grid.periodic must be \[False, False\]"),
    ],
)
def test_a_changed_grid_is_refused(two_checkpoints, grid, said):
    with pytest.raises(CheckpointError, match=said):
        read_checkpoint(two_checkpoints.newer, a_grid(**grid), FIELDS)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"micro/phase": None}, "'micro/phase' in step_00000120.h5 but not in the case"),
        ({"micro/damage": Field("damage")}, "'micro/damage' in the case but not in step_00000120.h5"),
        ({"micro/phase": Field("phase", 3)}, "must have 2 components in 1 as in .* got 3 in 1"),
        ({"macro/temperature": Field("temperature", 1, "degC")}, "in K as in .* in degC"),
    ],
)
def test_changed_fields_are_refused(two_checkpoints, changes, said):
    fields = {name: field for name, field in {**FIELDS, **changes}.items() if field is not None}
    with pytest.raises(CheckpointError, match=said):
        read_checkpoint(two_checkpoints.newer, two_checkpoints.grid, fields)


# -------------------------------------------------------------------------------- whole or not at all


def test_an_error_while_writing_leaves_the_old_file(two_checkpoints):
    before = two_checkpoints.newer.read_bytes()
    data = some_data(two_checkpoints.grid)
    data.cell_fields["micro/phase"] = (FIELDS["micro/phase"], np.zeros((2, 3)))
    with pytest.raises(ShapeError, match=r"'micro/phase' must be an array of numbers of shape"):
        write_checkpoint(two_checkpoints.folder, data, two_checkpoints.grid)
    assert two_checkpoints.newer.read_bytes() == before
    assert not list(two_checkpoints.newer.parent.glob("*.tmp*"))


def test_an_array_of_objects_is_refused(two_checkpoints):
    data = some_data(two_checkpoints.grid)
    data.arrays = {"bad": np.array([{}, []], dtype=object)}
    with pytest.raises(ShapeError, match=r"array 'bad' must hold numbers or byte strings, got object"):
        write_checkpoint(two_checkpoints.folder, data, two_checkpoints.grid)


def run_python(text, *args):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(text), *map(str, args)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_a_kill_in_the_middle_leaves_the_old_file(tmp_path):
    write_sealed(COMM, tmp_path / "step_00000001.h5", "checkpoint", {"n": 1}, lambda writer: None)
    killed = run_python(
        """
        import os, signal, sys
        from mpi4py import MPI
        from hpcmsm.io.sealed import write_sealed

        def fill(writer):
            writer.array("half", [1.0, 2.0])
            os.kill(os.getpid(), signal.SIGKILL)

        write_sealed(MPI.COMM_SELF, sys.argv[1], "checkpoint", {"n": 2}, fill)
        """,
        tmp_path / "step_00000001.h5",
    )
    assert killed.returncode == -signal.SIGKILL
    assert (tmp_path / "step_00000001.h5.tmp").exists()
    with open_sealed(tmp_path / "step_00000001.h5") as reader:
        assert reader.header == {"n": 1}


def test_a_full_disk_is_one_line_and_no_crash(tmp_path):
    """A limit on the size of files stands for the full disk; it is lifted where memory takes over."""
    result = run_python(
        """
        import resource, sys
        from pathlib import Path
        from mpi4py import MPI
        from hpcmsm.errors import SetupError
        from hpcmsm.io import store
        from hpcmsm.io.sealed import write_sealed

        path = Path(sys.argv[1])
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        let_go = store._let_go

        def lifted(temporary):
            resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
            let_go(temporary)

        store._let_go = lifted

        def fill(writer):
            for number in range(20):
                writer.array(f"number_{number}", [number] * 500)

        for limit in (100, 1000, 20_000, 80_000):
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
            try:
                write_sealed(MPI.COMM_SELF, path, "checkpoint", {}, fill)
            except SetupError as error:
                print(error)
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        write_sealed(MPI.COMM_SELF, path, "checkpoint", {}, fill)
        print([path.name for path in path.parent.iterdir()])
        """,
        tmp_path / "step_00000001.h5",
    )
    assert result.returncode == 0, result.stderr
    *errors, files = result.stdout.splitlines()
    assert len(errors) == 4
    assert all("must be writable and have room" in e and "File too large" in e for e in errors), errors
    assert files == "['step_00000001.h5']"


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(SetupError, match=r"output folder must be writable .*; free some space"):
        write_checkpoint(tmp_path / "file", some_data(a_grid()), a_grid())


def test_several_ranks_need_parallel_hdf5(monkeypatch):
    monkeypatch.setattr(store.h5py, "get_config", lambda: SimpleNamespace(mpi=False))
    with pytest.raises(SetupError, match=r"h5py must be built with MPI to write from 2 ranks"):
        store.need_parallel_hdf5(SimpleNamespace(size=2))
    store.need_parallel_hdf5(SimpleNamespace(size=1))


# --------------------------------------------------------------------------------------- checksums


def test_checksums_add_up_over_any_division_and_see_order():
    random = np.random.default_rng(3)
    values, ids = random.standard_normal((2, 1000)), np.arange(1000)
    whole = cell_sums(values, cell_keys(ids))
    cells = random.permutation(1000)
    with np.errstate(over="ignore"):
        parts = sum(
            cell_sums(values[:, part], cell_keys(ids[part])) for part in np.split(cells, [1, 400, 400])
        )
    assert np.array_equal(whole, parts)
    swapped = values.copy()
    swapped[:, [3, 700]] = swapped[:, [700, 3]]
    assert (cell_sums(swapped, cell_keys(ids)) != whole).all()


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int64, np.int8, bool])
def test_checksums_see_every_bit_and_pairs_of_signs(dtype):
    values = np.ones((1, 64), dtype)
    keys = cell_keys(np.arange(64))
    seen = {int(cell_sums(values, keys)[0])}
    raw = values.view(np.uint8)
    for byte in range(raw.size):
        for bit in range(1 if dtype is bool else 8):
            raw[0, byte] ^= 1 << bit
            seen.add(int(cell_sums(values, keys)[0]))
            raw[0, byte] ^= 1 << bit
    assert len(seen) == 1 + raw.size * (1 if dtype is bool else 8)
    if dtype is np.float64:
        pairs = [(i, j) for i in range(64) for j in range(i)]
        flipped = np.ones((len(pairs), 64))
        for row, pair in enumerate(pairs):
            flipped[row, list(pair)] = -1.0
        assert len({*cell_sums(flipped, keys).tolist(), int(cell_sums(values, keys)[0])}) == len(pairs) + 1
