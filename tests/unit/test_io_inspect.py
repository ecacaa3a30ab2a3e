"""What `hpcmsm show` and `hpcmsm compare` say of checkpoints and snapshots."""

import numpy as np
import pytest

from hpcmsm.errors import CheckpointError
from hpcmsm.io import inspect
from hpcmsm.io.checkpoint import read_checkpoint, write_checkpoint
from hpcmsm.io.store import h5py
from tests.io_harness import ARRAYS, FIELDS, history, some_data, write_history, write_two


@pytest.fixture
def two_checkpoints(tmp_path):
    return write_two(tmp_path)


def test_describe_tells_what_is_inside(two_checkpoints, tmp_path):
    text = inspect.describe(two_checkpoints.newer)
    values = some_data(two_checkpoints.grid).cell_fields["macro/temperature"][1]
    for words in (
        "checkpoint step_00000120.h5",
        "7 x 5 cells",
        "12 s",
        "version 3",
        "node1",
        f"macro/temperature      K        float64  {values.min():.6g}",
        f"{values.max():.6g}",
        "micro/conductivity xy",
        "surrogate/weights_0        4x6    float32",
    ):
        assert words in text
    write_history(tmp_path / "shown", two_checkpoints.grid, history(two_checkpoints.grid, (0, 5)))
    shown = tmp_path / "shown" / "snapshots"
    assert "temperature" in inspect.describe(shown / "fields_00000005.h5")
    assert "0 to 1.25 s" in inspect.describe(shown / "fields.vtkhdf")


def test_equal_files_compare_equal_whatever_the_provenance(two_checkpoints, tmp_path):
    data = some_data(two_checkpoints.grid)
    data.provenance = {"host": "node2"}
    other = write_checkpoint(tmp_path / "other", data, two_checkpoints.grid)
    rows, equal = inspect.compare(two_checkpoints.newer, other)
    assert equal
    assert {row.name for row in rows} == {*FIELDS, *ARRAYS, "step", "time", "dt"}
    assert inspect.comparison_table(rows, equal).endswith("bitwise equal")


def test_differences_are_found_and_measured(two_checkpoints, tmp_path):
    data = some_data(two_checkpoints.grid)
    temperature = data.cell_fields["macro/temperature"][1]
    before = temperature.copy()
    temperature[0, 11] = np.nextafter(temperature[0, 11], np.inf)
    temperature[0, 20] *= 1.5
    data.cell_fields["micro/phase"][1][0, 0] = 0.0  # was -0.0
    data.arrays = {**ARRAYS, "gate/scores": np.zeros((1, 5)), "extra": np.array([np.nan])}
    data.dt = 0.25
    other = write_checkpoint(tmp_path / "other", data, two_checkpoints.grid)
    rows, equal = inspect.compare(two_checkpoints.newer, other)
    rows = {row.name: row for row in rows}
    assert not equal
    assert {name for name, row in rows.items() if not row.equal} == {
        "macro/temperature", "micro/phase", "gate/scores", "extra", "dt",
    }  # fmt: skip
    assert rows["macro/temperature"].absolute == abs(temperature - before).max()
    assert np.isclose(rows["macro/temperature"].relative, 1 / 3)
    assert (rows["micro/phase"].absolute, rows["micro/phase"].relative) == (0.0, 0.0)
    assert rows["extra"].note == "missing in the first file"
    assert "(0, 5)" in rows["gate/scores"].note
    assert inspect.comparison_table(list(rows.values()), equal).endswith("5 of 12 fields differ")


def test_one_ulp_and_not_a_number_are_differences(two_checkpoints, tmp_path):
    data = some_data(two_checkpoints.grid)
    data.cell_fields["macro/temperature"][1][0, 3] = np.nan
    other = write_checkpoint(tmp_path / "other", data, two_checkpoints.grid)
    rows, equal = inspect.compare(two_checkpoints.newer, other)
    row = next(row for row in rows if row.name == "macro/temperature")
    assert (equal, row.equal, row.absolute, row.relative) == (False, False, np.inf, np.inf)


def test_what_cannot_be_shown_or_compared_is_one_line(two_checkpoints, tmp_path):
    write_history(tmp_path / "shown", two_checkpoints.grid, history(two_checkpoints.grid, (0,)))
    shown = tmp_path / "shown" / "snapshots"
    (tmp_path / "text").write_text("no HDF5")
    with h5py.File(tmp_path / "foreign.h5", "w") as file:
        file["x"] = 1
    for bad, said in (
        (tmp_path / "text", "text is not an HDF5 file"),
        (tmp_path / "foreign.h5", "foreign.h5 is not a complete file of hpcmsm"),
        (tmp_path / "nowhere", "nowhere must be a file, got none"),
        (tmp_path, "must be a file"),
    ):
        with pytest.raises(CheckpointError, match=said):
            inspect.describe(bad)
        with pytest.raises(CheckpointError, match=said):
            inspect.compare(two_checkpoints.newer, bad)
    with pytest.raises(CheckpointError, match=r"fields_00000000\.h5 is a snapshot, not a checkpoint"):
        inspect.compare(two_checkpoints.newer, shown / "fields_00000000.h5")
    with pytest.raises(CheckpointError, match=r"fields\.vtkhdf is an index of snapshots"):
        inspect.compare(shown / "fields.vtkhdf", two_checkpoints.newer)
    with pytest.raises(CheckpointError, match=r"is a snapshot, not a checkpoint"):
        read_checkpoint(shown / "fields_00000000.h5", two_checkpoints.grid)
