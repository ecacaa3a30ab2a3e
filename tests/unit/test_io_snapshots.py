"""Snapshots on one rank: VTK's own reader sees what was written, also after a kill and a resume."""

import numpy as np
import pytest
import vtk
from vtk.util.numpy_support import vtk_to_numpy

from hpcmsm.errors import CheckpointError, ShapeError
from hpcmsm.fields import Field
from hpcmsm.io.snapshots import SnapshotWriter, read_snapshots
from tests.io_harness import SHOWN, a_grid, history, same_bits, write_history


def read_by_vtk(path):
    """By time and array name what VTK's own reader of the format finds, and the last image.

    VTK knows no time of a file with one step; here it gets the time 0.
    """
    reader = vtk.vtkHDFReader()
    reader.SetFileName(str(path))
    reader.UpdateInformation()
    key = vtk.vtkStreamingDemandDrivenPipeline.TIME_STEPS()
    information = reader.GetOutputInformation(0)
    found = {}
    times = [information.Get(key, number) for number in range(information.Length(key) or 0)]
    for time in times or [0.0]:
        reader.UpdateTimeStep(time)
        image = reader.GetOutputDataObject(0)
        data = image.GetCellData()
        arrays = [data.GetArray(place) for place in range(data.GetNumberOfArrays())]
        found[time] = {array.GetName(): vtk_to_numpy(array).copy() for array in arrays}
    return found, image


@pytest.mark.parametrize("cells", [(7, 5), (3, 4, 5)])
def test_vtk_reads_every_step(tmp_path, monkeypatch, cells):
    grid = a_grid(cells)
    values = history(grid, (0, 5, 12))
    write_history(tmp_path, grid, values)
    monkeypatch.chdir("/")
    found, image = read_by_vtk(tmp_path / "snapshots" / "fields.vtkhdf")
    assert list(found) == [0.0, 1.25, 3.0]
    for step, arrays in values.items():
        for name, array in arrays.items():
            assert np.array_equal(found[0.25 * step][name].reshape(grid.ncells, -1).T, array)
            assert found[0.25 * step][name].dtype == array.dtype
    assert image.GetNumberOfCells() == grid.ncells
    # A cell in the middle of VTK's image lies where the grid says.
    cell, centre = grid.ncells // 2, grid.coordinates()
    bounds = image.GetCell(cell).GetBounds()
    for axis, name in enumerate("xyz"[: grid.ndim]):
        assert np.isclose((bounds[2 * axis] + bounds[2 * axis + 1]) / 2, centre[name][cell])


@pytest.mark.parametrize("cells", [(6,), (7, 5), (3, 4, 5)])
@pytest.mark.parametrize("steps", [(0,), (0, 5)])
def test_values_at_vertices_are_data_of_points(tmp_path, cells, steps):
    grid = a_grid(cells, centring="vertex")
    values = history(grid, steps)
    write_history(tmp_path, grid, values)
    assert read_snapshots(tmp_path).centring == "vertex"
    reader = vtk.vtkHDFReader()
    reader.SetFileName(str(tmp_path / "snapshots" / "fields.vtkhdf"))
    reader.UpdateInformation()
    reader.UpdateTimeStep(0.25 * steps[-1])
    image = reader.GetOutputDataObject(0)
    assert image.GetCellData().GetNumberOfArrays() == 0 and image.GetNumberOfPoints() == grid.ncells
    assert image.GetBounds()[1 : 2 * len(cells) : 2] == pytest.approx(grid.size)
    for name, array in values[steps[-1]].items():
        found = vtk_to_numpy(image.GetPointData().GetArray(name))
        assert np.array_equal(found.reshape(grid.ncells, -1).T, array)
    centres = np.stack(list(grid.coordinates().values()), axis=1)
    points = np.array([image.GetPoint(number)[: len(cells)] for number in range(grid.ncells)])
    np.testing.assert_allclose(points, centres, atol=1e-15)


def test_snapshots_come_back_with_units(tmp_path):
    grid = a_grid((3, 4, 5))
    values = history(grid, (0, 5, 12))
    write_history(tmp_path, grid, values)
    found = read_snapshots(tmp_path)
    assert (found.steps.tolist(), found.times.tolist()) == ([0, 5, 12], [0.0, 1.25, 3.0])
    assert (found.cells, found.size) == (grid.cells, grid.size)
    assert [(field.name, field.unit, field.size, field.spd) for field in SHOWN] == [
        (name, found.fields[name].unit, found.fields[name].size, found.fields[name].spd)
        for name in ("temperature", "conductivity", "source")
    ]
    for number, arrays in enumerate(values.values()):
        for name, array in arrays.items():
            assert same_bits(found.arrays[name][number], array.reshape(-1, 5, 4, 3))
    assert list(read_snapshots(tmp_path, ["source"]).arrays) == ["source"]
    with pytest.raises(CheckpointError, match=r"field must be one of .*temperature.*, got 'temprature'"):
        read_snapshots(tmp_path, ["temprature"])


def test_a_tensor_in_3d_stands_in_the_order_of_viewers(tmp_path):
    grid = a_grid((2, 2, 2))
    field = Field("conductivity", 6, "W/(m K)", spd=True)
    tensor = np.arange(6.0)[:, None] + np.zeros(8)  # xx yy zz yz xz xy
    write_history(tmp_path, grid, {0: {"conductivity": tensor}}, (field,))
    found, _ = read_by_vtk(tmp_path / "snapshots" / "fields.vtkhdf")
    assert found[0.0]["conductivity"][0].tolist() == [0, 1, 2, 5, 3, 4]  # xx yy zz xy yz xz
    assert np.array_equal(read_snapshots(tmp_path).arrays["conductivity"][0, :, 0, 0, 0], np.arange(6.0))


def test_truth_values_are_shown_as_numbers(tmp_path):
    grid = a_grid()
    mask = np.arange(grid.ncells).reshape(1, -1) % 3 == 0
    write_history(tmp_path, grid, {0: {"accepted": mask}}, (Field("accepted"),))
    found, _ = read_by_vtk(tmp_path / "snapshots" / "fields.vtkhdf")
    assert np.array_equal(found[0.0]["accepted"], mask[0].astype(int))


def test_snapshots_after_the_checkpoint_are_dropped_on_resume(tmp_path):
    grid = a_grid()
    values = history(grid, (0, 5, 10, 15))
    write_history(tmp_path, grid, values)
    folder = tmp_path / "snapshots"
    (folder / "fields_00000020.h5.tmp").write_bytes(b"from a job that was killed")
    writer = SnapshotWriter(tmp_path, grid, SHOWN)
    writer.truncate(7)
    left = ["fields.vtkhdf", "fields_00000000.h5", "fields_00000005.h5"]
    assert sorted(path.name for path in folder.iterdir()) == left
    assert list(read_by_vtk(folder / "fields.vtkhdf")[0]) == [0.0, 1.25]
    writer.write(10, 2.5, values[10])
    assert list(read_by_vtk(folder / "fields.vtkhdf")[0]) == [0.0, 1.25, 2.5]
    writer.truncate(-1)
    assert not list(folder.iterdir())


def test_a_kill_before_the_index_is_mended_by_the_next_snapshot(tmp_path):
    grid = a_grid()
    values = history(grid, (0, 5, 10))
    write_history(tmp_path, grid, {step: values[step] for step in (0, 5)})
    index = tmp_path / "snapshots" / "fields.vtkhdf"
    old = index.read_bytes()
    SnapshotWriter(tmp_path, grid, SHOWN).write(10, 2.5, values[10])
    index.write_bytes(old)
    assert len(read_by_vtk(index)[0]) == 2
    SnapshotWriter(tmp_path, grid, SHOWN).truncate(10)
    assert len(read_by_vtk(index)[0]) == 3


def test_a_damaged_snapshot_stays_out_of_the_index(tmp_path):
    grid = a_grid()
    values = history(grid, (0, 5, 10))
    write_history(tmp_path, grid, values)
    damaged = tmp_path / "snapshots" / "fields_00000005.h5"
    damaged.write_bytes(damaged.read_bytes()[:1000])
    writer = SnapshotWriter(tmp_path, grid, SHOWN)
    assert writer.notes == ["snapshot fields_00000005.h5 is truncated; leaving it out of the index"]
    writer.truncate(10)
    assert list(read_by_vtk(tmp_path / "snapshots" / "fields.vtkhdf")[0]) == [0.0, 2.5]
    with pytest.raises(CheckpointError, match=r"fields_00000005\.h5 is truncated"):
        read_snapshots(tmp_path)


def test_snapshots_of_another_grid_or_without_a_field_are_refused(tmp_path):
    grid = a_grid()
    values = history(grid, (0,))
    write_history(tmp_path, grid, values)
    with pytest.raises(CheckpointError, match=r"with \[7, 5\] cells where the case has \[7, 6\]"):
        SnapshotWriter(tmp_path, a_grid((7, 6)), SHOWN)
    del values[0]["source"]
    with pytest.raises(ShapeError, match=r"got temperature, conductivity without 'source'"):
        SnapshotWriter(tmp_path, grid, SHOWN).write(1, 0.25, values[0])
    with pytest.raises(CheckpointError, match=r"must hold snapshots, got none"):
        read_snapshots(tmp_path / "elsewhere")


def test_a_field_added_later_is_shown_where_it_is(tmp_path):
    grid = a_grid()
    values = history(grid, (0, 5))
    write_history(tmp_path, grid, {0: values[0]}, SHOWN[:1])
    write_history(tmp_path, grid, {5: values[5]}, SHOWN)
    found, _ = read_by_vtk(tmp_path / "snapshots" / "fields.vtkhdf")
    assert np.array_equal(found[0.0]["temperature"], values[0]["temperature"][0])
    assert np.array_equal(found[1.25]["source"], values[5]["source"][0])
    assert list(read_snapshots(tmp_path).arrays) == ["temperature"]
