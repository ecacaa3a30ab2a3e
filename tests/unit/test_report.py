"""The report of a run: pictures that show the data, and a page that needs nothing else."""

import base64
import csv
import io
import json
from html.parser import HTMLParser

import numpy as np
import pytest
from matplotlib import colormaps
from matplotlib.image import imread
from mpi4py import MPI

from hpcmsm.errors import CheckpointError, ConfigError
from hpcmsm.fields import Field
from hpcmsm.grid import Grid
from hpcmsm.io.snapshots import SnapshotWriter
from hpcmsm.report import make
from hpcmsm.report.lines import profiles, time_edges
from hpcmsm.report.maps import chosen_times, colour_limits, extremes, fields, rows_of, shown_components
from hpcmsm.report.rundata import History, Run, read_run
from hpcmsm.report.style import styled

NCELLS, NSTEPS = 200, 30
COLUMNS = (
    *("step", "time", "dt", "calls", "accepted", "audited", "fallback", "missed", "q", "alpha", "version"),
    *("samples", "audit_error_mean", "audit_error_max", "iterations", "wall_time"),
)
CASE = """title = "A wall & <its> fire"
[surrogate]
enabled = {enabled}
[gate]
tolerance = 0.002
"""
SUMMARY = {
    "case": "wall <script>",
    "hpcmsm": "0.1.0",
    "nranks": 2,
    "steps": NSTEPS,
    "time": 3.0,
    "wall_time": 41.0,
    "closure": {"calls": 6000, "accepted": 4321, "audited": 123, "fallback": 1556, "versions": 2},
    "audit_error": {"mean_signed": -1.5e-5, "p50": 1e-4, "p99": 8.7e-4, "max": 2.5e-3},
    "tolerance": 0.002,
    "coverage": {"asked": 0.99, "obtained": 0.985},
    "phases": {
        "closure.micro": {"min": 1.0, "mean": 2.125, "max": 3.0, "calls": 30},
        "macro": {"min": 0.5, "mean": 0.5, "max": 0.5, "calls": 30},
        "surrogate.train": {"min": 0.1, "mean": 0.2, "max": 0.3, "calls": 2},
    },
    "fields": {"temperature": {"unit": "K", "min": 293.25, "max": 512.5}},
    "files": {"steps": "out/steps.csv"},
    "provenance": {"host": "node17", "versions": {"numpy": "1.26"}, "command": ["hpcmsm", "run"]},
}


def step_rows(surrogate: bool) -> list[dict]:
    """Rows of a steps.csv: two versions, the first steps without audits."""
    rows = []
    for step in range(1, NSTEPS + 1):
        row = dict.fromkeys(COLUMNS, "")
        row |= {"step": step, "time": 0.1 * step, "dt": 0.1, "calls": NCELLS, "fallback": NCELLS}
        if surrogate:
            trained = step > 5
            audited = 4 if trained else 0
            fallback = 10 + step if trained else NCELLS
            row |= {"audited": audited, "fallback": fallback, "accepted": NCELLS - audited - fallback}
            row |= {"version": (step > 3) + (step > 15), "q": 2.5 if trained else "inf", "alpha": 0.01}
            row |= {"missed": int(step % 9 == 0)}
            if trained:
                row |= {"audit_error_mean": 1e-4 * (-1) ** step, "audit_error_max": 1e-3}
        rows.append(row)
    return rows


def write_steps(folder, rows):
    with open(folder / "steps.csv", "w", newline="") as file:
        table = csv.DictWriter(file, COLUMNS)
        table.writeheader()
        table.writerows(rows)


def write_snapshots(folder, cells=(20, 10), times=(0.0, 1.0, 2.0, 3.0), heat=100.0):
    """A hot lower left corner that grows with time; the fraction stays the same."""
    grid = Grid(cells, [0.01 * n for n in cells], comm=MPI.COMM_SELF)
    nentries = 3 if len(cells) == 2 else 6
    fields = (
        Field("temperature", unit="K"),
        Field("conductivity", nentries, "W/(m K)", spd=True),
        Field("fraction"),
    )
    writer = SnapshotWriter(folder, grid, fields)
    place = grid.coordinates()
    corner = (place["x"] < grid.size[0] / 4) & (place["y"] < grid.size[1] / 4)
    for number, time in enumerate(times):
        temperature = np.where(corner, 300.0 + heat * time, 300.0)
        entries = [temperature / 300.0] * (2 if nentries == 3 else 3)
        entries += [np.zeros(grid.ncells)] * (nentries - len(entries))
        arrays = {
            "temperature": temperature[None],
            "conductivity": np.array(entries),
            "fraction": (0.4 + place["y"])[None],
        }
        writer.write(10 * number, time, arrays)


def write_run(folder, surrogate=True, finished=True, **snapshots):
    folder.mkdir(parents=True)
    (folder / "case.toml").write_text(CASE.format(enabled=str(surrogate).lower()))
    write_steps(folder, step_rows(surrogate))
    if finished:
        (folder / "summary.json").write_text(json.dumps(SUMMARY))
    write_snapshots(folder, **snapshots)
    return folder


class Reader(HTMLParser):
    """Collects the tags, attributes and text of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.text, self.style = [], [], "", ""
        self._inside = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self._inside = tag
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        self._inside = ""

    def handle_data(self, data):
        if self._inside == "style":
            self.style += data
        else:
            self.text += data + "\n"

    def all(self, name):
        return [value for key, value in self.attributes if key == name]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run with a surrogate, and the files of its report."""
    folder = write_run(tmp_path_factory.mktemp("report") / "wall")
    return folder, make(folder)


def test_every_picture_is_made_and_nothing_else_is_left(finished):
    folder, paths = finished
    names = ["fields", "constant_fields", "extremes", "answers", "gate", "audits", "phases"]
    assert [path.name for path in paths] == [f"{name}.png" for name in names] + ["index.html"]
    assert sorted(path.name for path in (folder / "report").iterdir()) == sorted(p.name for p in paths)


def test_pictures_are_large_and_not_blank(finished):
    for path in finished[1][:-1]:
        image = imread(path)
        assert image.shape[0] >= 250
        assert image.shape[1] >= 800
        ncolours = len(np.unique((image[..., :3] * 255).astype(int) @ [65536, 256, 1]))
        assert ncolours > 30, path.name


def pixels_of(image, colour):
    """Rows and columns of the pixels of a colour."""
    return np.nonzero((np.abs(image[..., :3] - np.array(colour[:3])) < 2 / 255).all(axis=-1))


def test_the_map_shows_the_hot_corner_where_it_is(finished):
    image = imread(finished[0] / "report" / "fields.png")
    # The first field is the temperature; its map of the last time is the last of four.
    rows, columns = pixels_of(image, colormaps["plasma"](1.0))
    width = image.shape[1]
    in_maps = columns < 0.91 * width  # the colour bar shows the colour, too
    hot_rows, hot_columns = rows[in_maps], columns[in_maps]
    cold_rows, cold_columns = pixels_of(image, colormaps["plasma"](0.0))
    last = (cold_columns >= hot_columns.min()) & (cold_columns < 0.91 * width)
    cold_rows, cold_columns = cold_rows[last], cold_columns[last]
    assert hot_columns.min() > 0.6 * width
    # The hot corner takes 5 x 2 (centres below a quarter of the height) of 20 x 10 cells.
    assert len(hot_rows) / (len(hot_rows) + len(cold_rows)) == pytest.approx(10 / 200, abs=0.01)
    assert hot_rows.max() > np.percentile(cold_rows, 95)
    assert hot_columns.mean() < np.percentile(cold_columns, 15)


def test_other_data_gives_another_picture_and_the_same_data_the_same(finished, tmp_path):
    same = make(write_run(tmp_path / "same"))
    other = make(write_run(tmp_path / "other", heat=150.0))
    first = {path.name: path.read_bytes() for path in finished[1]}
    assert {path.name: path.read_bytes() for path in same if path.suffix == ".png"} == {
        name: content for name, content in first.items() if name.endswith(".png")
    }
    differing = {path.name for path in other[:-1] if path.read_bytes() != first[path.name]}
    assert differing == {"fields.png", "extremes.png"}


def test_the_page_needs_nothing_from_outside(finished):
    paths = finished[1]
    page = Reader(paths[-1].read_text())
    assert not {"script", "link", "iframe", "object"} & set(page.tags)
    assert page.all("href") == []
    assert "url(" not in page.style
    assert "@import" not in page.style
    pictures = [base64.b64decode(source.removeprefix("data:image/png;base64,")) for source in page.all("src")]
    assert pictures == [path.read_bytes() for path in paths[:-1]]
    assert all(len(text) > 20 for text in page.all("alt"))
    assert page.tags.count("figcaption") == len(pictures)


def test_the_page_states_counts_phases_case_and_provenance(finished):
    text = Reader(finished[1][-1].read_text()).text
    assert "wall <script>" in text  # as text, not as a tag
    for number in ("6000", "4321", "123", "1556", "72.02 %", "0.00087", "98.5 % (asked 99.0 %)", "512.5"):
        assert number in text, number
    for name, phase in SUMMARY["phases"].items():
        assert name in text
        assert f"{phase['mean']:.3f}" in text
    assert CASE.format(enabled="true") in text
    for word in ("node17", "versions.numpy", "1.26", "hpcmsm run", "0.1.0", "finished"):
        assert word in text
    assert "unfinished" not in text


def test_a_run_without_surrogate_says_so(tmp_path):
    paths = make(write_run(tmp_path / "plain", surrogate=False))
    names = [path.name for path in paths]
    assert names == ["fields.png", "constant_fields.png", "extremes.png", "phases.png", "index.html"]
    assert "no surrogate" in Reader(paths[-1].read_text()).text


def test_an_unfinished_run_is_reported_up_to_its_last_whole_step(tmp_path):
    folder = write_run(tmp_path / "killed", finished=False)
    with open(folder / "steps.csv", "a") as file:
        file.write("31,3.1,0.1,200,1")
    paths = make(folder)
    assert "phases.png" not in [path.name for path in paths]
    assert "gate.png" in [path.name for path in paths]
    text = Reader(paths[-1].read_text()).text
    assert "unfinished" in text
    assert "after step 30 at t = 3 s" in text


def test_a_run_that_has_only_its_case_gives_a_page(tmp_path):
    (tmp_path / "case.toml").write_text(CASE.format(enabled="true"))
    (tmp_path / "snapshots").mkdir()
    paths = make(tmp_path)
    assert [path.name for path in paths] == ["index.html"]
    text = Reader(paths[0].read_text()).text
    assert "No step is finished yet" in text
    assert "no snapshots yet" in text


def test_a_single_snapshot_gives_single_maps(tmp_path):
    folder = tmp_path / "single"
    folder.mkdir()
    write_snapshots(folder, times=(0.5,))
    assert [path.name for path in make(folder)] == ["fields.png", "index.html"]


def test_in_3d_the_middle_slices_are_shown(tmp_path):
    folder = tmp_path / "block"
    folder.mkdir()
    write_snapshots(folder, cells=(8, 6, 4), times=(0.0, 1.0))
    run = read_run(folder)
    temperature = run.histories[[history.name for history in run.histories].index("temperature")]
    assert temperature.values.shape == (2, 1, 4, 6, 8)
    temperature.values = np.arange(temperature.values.size, dtype=float).reshape(temperature.values.shape)
    upright, flat = rows_of(run, temperature, np.array([0, 1]))
    assert upright.label == "temperature at y = 0.035 m"
    assert upright.extent == pytest.approx((0.0, 0.08, 0.0, 0.04))
    np.testing.assert_array_equal(upright.values, temperature.values[:, 0, :, 3, :])
    assert flat.label == "temperature at z = 0.025 m"
    assert flat.extent == pytest.approx((0.0, 0.08, 0.0, 0.06))
    np.testing.assert_array_equal(flat.values, temperature.values[:, 0, 2])
    conductivity = next(history for history in run.histories if history.name == "conductivity")
    assert conductivity.components == ("xx", "yy", "zz", "yz", "xz", "xy")
    assert shown_components(conductivity) == [0, 1, 2]
    assert imread(make(folder)[0]).shape[0] > 800


def test_off_diagonal_entries_are_shown_where_they_are_not_round_off():
    values = np.ones((2, 3, 4, 4))
    values[:, 2] = 1e-15
    history = History("conductivity", "W/(m K)", ("xx", "yy", "xy"), values)
    assert shown_components(history) == [0, 1]
    values[1, 2, 0, 0] = -0.25
    assert shown_components(history) == [0, 1, 2]
    rows = rows_of(Run(None, size=(1.0, 1.0)), history, np.array([0, 1]))
    assert [row.limits for row in rows[:2]] == [(0.99, 1.01)] * 2
    assert rows[2].limits == (-0.25, 0.25)
    assert rows[2].colours.name == "RdBu_r"


def test_the_map_of_who_answered_names_the_kinds_and_is_left_out_where_all_are_alike():
    source = History("source", "1", ("",), np.zeros((3, 1, 4, 4)))
    run = Run(None, times=np.arange(3.0), size=(1.0, 1.0), histories=[source])
    assert fields(run) == []
    source.values[2, 0, 1:] = 1.0
    (row,) = rows_of(run, source, np.array([0, 2]))
    assert row.label == "answered by"
    assert row.labels == ("micro", "surrogate")
    assert row.limits == (-0.5, 1.5)
    assert row.colours.N == 2
    assert extremes(run) is None
    (picture,) = fields(run)
    assert picture.name == "fields.png"


def test_fields_come_in_the_order_of_the_summary(tmp_path):
    folder = tmp_path / "ordered"
    folder.mkdir()
    write_snapshots(folder, times=(0.0,))
    assert [history.name for history in read_run(folder).histories] == [
        "fraction",
        "temperature",
        "conductivity",
    ]
    ranges = {"temperature": {}, "conductivity_xx": {}, "conductivity_yy": {}}
    (folder / "summary.json").write_text(json.dumps({"fields": ranges}))
    assert [history.name for history in read_run(folder).histories] == [
        "temperature",
        "conductivity",
        "fraction",
    ]


def test_colour_limits_pass_over_what_is_not_finite():
    assert colour_limits(np.array([np.nan, 2.0, 5.0, np.inf]), False) == (2.0, 5.0)
    assert colour_limits(np.array([np.nan]), False) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("times", "indices"),
    [
        (np.arange(9.0), [0, 2, 4, 6, 8]),
        (np.array([0.0, 0.1, 0.2, 8.0]), [0, 2, 3]),
        (np.array([3.0]), [0]),
    ],
)
def test_times_are_chosen_evenly_in_time(times, indices):
    assert chosen_times(times).tolist() == indices


def test_steps_repeated_by_a_resumed_run_count_once(tmp_path):
    rows = step_rows(True)
    repeated = [row | {"accepted": 77} for row in rows[18:20]]
    write_steps(tmp_path, rows[:20] + repeated + rows[20:])
    run = read_run(tmp_path)
    assert run.column("step").tolist() == list(range(1, NSTEPS + 1))
    assert run.column("accepted")[18:20].tolist() == [77, 77]
    assert np.isinf(run.column("q")[0])
    assert np.isnan(run.column("audit_error_max")[0])
    assert np.isnan(run.column("unheard_of")).all()


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"DIR must be the output folder of a run, got .*nowhere") as caught:
        make(tmp_path / "nowhere")
    assert "\n" not in str(caught.value)


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"DIR must hold a run .*; give the folder") as caught:
        make(tmp_path)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("summary.json", '{"case": ', "Expecting value"),
        ("summary.json", "[]", "not a table"),
        ("steps.csv", "time,step\n", "first columns"),
        ("case.toml", "[grid\n", "line 1"),
        ("steps.csv", "step,time\n1,0.1\n2,abc\n", "could not convert string to float: 'abc'"),
        ("steps.csv", "step,time\n1\n2,0.2\n", "line 2 has 1 fields, not 2"),
        ("steps.csv", "step,time\n\xff\xfe", "codec"),
    ],
)
def test_a_damaged_file_is_named(tmp_path, name, content, reason):
    (tmp_path / name).write_bytes(content.encode("latin-1"))
    with pytest.raises(CheckpointError, match=f"'{name}' must be as the run wrote it") as caught:
        make(tmp_path)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_damaged_snapshot_is_named(tmp_path):
    folder = tmp_path / "damaged"
    folder.mkdir()
    write_snapshots(folder, times=(0.0, 1.0))
    path = folder / "snapshots" / "fields_00000010.h5"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=r"fields_00000010\.h5"):
        make(folder)


def test_a_report_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "case.toml").write_text(CASE.format(enabled="true"))
    (tmp_path / "report").write_text("in the way")
    with pytest.raises(ConfigError, match=r"report folder must be writable, got .*File exists"):
        make(tmp_path)


@pytest.mark.parametrize("times", [(0.0, 1.0, 2.5), (0.0,)])
def test_a_line_is_drawn_as_profiles_and_in_space_and_time(tmp_path, times):
    # One cell is hot all the time: its colour fills a column of the map on the right.
    values = np.zeros((len(times), 1, 40))
    values[:, 0, 30] = 1.0
    values[-1, 0, 0] = 0.5
    sources = np.zeros_like(values)
    sources[-1, 0, :20] = 1.0
    histories = [History("stretch", "1", ("",), values), History("source", "1", ("",), sources)]
    run = Run(tmp_path, times=np.array(times), size=(1e-3,), histories=histories)
    (picture,) = styled(profiles)(run)
    image = imread(io.BytesIO(picture.png))[..., :3]
    assert image.shape[0] > 400 and image.shape[1] > 1500
    rows, columns = pixels_of(image, colormaps["cividis"](255))
    inside = columns < 0.9 * image.shape[1]  # beyond stands the colour bar, which has the colour too
    assert inside.any() == (len(times) > 1)  # a single snapshot has no history
    if inside.any():
        assert np.ptp(rows[inside]) > 100 and columns[inside].min() > 0.55 * image.shape[1]
    assert np.all(np.diff(time_edges(run.times)) > 0) and len(time_edges(run.times)) == len(times) + 1
