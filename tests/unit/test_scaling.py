"""benchmarks/scaling.py: its arithmetic and files, with a launcher whose runs take known times."""

import json
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))
import scaling  # noqa: E402

# Stands for `mpirun -n N`: "runs" the case in a time by Amdahl's law (weak: Gustafson's), 20 % serial.
FAKE = """
import json, sys
from pathlib import Path
nranks, words = int(sys.argv[1]), sys.argv[2:]
folder = Path(words[words.index("-o") + 1])
sets = dict(w.split("=") for i, w in enumerate(words) if words[i - 1] == "--set")
cells = json.loads(sets.get("grid.cells", "[8, 4]"))
work = cells[0] * cells[1] / 32
seconds = 0.2 + 0.8 * work / nranks
folder.mkdir(parents=True, exist_ok=True)
shift = float(sets.get("shift", 0)) * (nranks - 1)
(folder / "summary.json").write_text(json.dumps({
    "case": "fake", "nranks": nranks, "steps": 3, "wall_time": seconds,
    "phases": {"serial": {"min": 0.2, "mean": 0.2, "max": 0.2, "calls": 3},
               "spread": {"min": 0, "mean": 0, "max": 0.8 * work / nranks, "calls": 3}},
    "fields": {"temperature": {"unit": "K", "min": 300.0, "max": 400.0 + shift}},
}))
sys.exit(int(sets.get("code", 0)))
"""


@pytest.fixture
def study(tmp_path, monkeypatch):
    """Run the program with the fake launcher; its result and output folder."""
    fake = tmp_path / "fake.py"
    fake.write_text(FAKE)
    monkeypatch.setattr(scaling, "grid_of", lambda case, overrides: ([8, 4], [0.8, 0.4]))

    def run(*words):
        arguments = ["--case", "cases/fake.toml", "--ranks", "1,2,4", "--repeats", "2"]
        launcher = f"{sys.executable} {fake} {{n}}"
        arguments += ["--launcher", launcher, "--output", str(tmp_path / "out")]
        return scaling.main([*arguments, *words])

    run.folder = tmp_path / "out"
    return run


def test_strong_study_follows_amdahl(study):
    rows = study()["strong"]
    assert [row["nranks"] for row in rows] == [1, 2, 4]
    assert [row["cells"] for row in rows] == [[8, 4]] * 3
    expected = [1.0 / (0.2 + 0.8 / n) for n in (1, 2, 4)]
    assert [row["speed_up"] for row in rows] == pytest.approx(expected, rel=1e-12)
    assert rows[2]["efficiency"] == pytest.approx(expected[2] / 4, rel=1e-12)
    # The serial phase gains nothing, the other everything.
    assert rows[2]["phases"]["serial"]["efficiency"] == pytest.approx(0.25)
    assert rows[2]["phases"]["spread"]["efficiency"] == pytest.approx(1.0)


def test_weak_study_grows_the_cells_and_keeps_their_size(study):
    rows = study("--weak-axis", "y")["weak"]
    assert [row["cells"] for row in rows] == [[8, 4], [8, 8], [8, 16]]
    assert [row["seconds"]["median"] for row in rows] == pytest.approx([1.0] * 3)
    assert [row["efficiency"] for row in rows] == pytest.approx([1.0] * 3)
    assert rows[2]["speed_up"] == pytest.approx(4.0)


def test_files_say_what_was_measured(study):
    result = study()
    assert json.loads((study.folder / "scaling.json").read_text()) == result
    table = (study.folder / "scaling.md").read_text()
    strong = re.search(r"^\| 4 \| 8 x 4 \| 0.400 \| 2.50 \| 62% \|.*$", table, re.MULTILINE)
    assert strong, table
    assert (study.folder / "scaling.png").read_bytes().startswith(b"\x89PNG")


def test_runs_that_disagree_are_not_reported(study):
    # 4 ranks are 3 K off, of a range of 100 K.
    with pytest.raises(scaling.ScalingError, match="temperature must agree"):
        study("--set", "shift=1.0", "--agree", "0.02")
    assert not (study.folder / "scaling.json").exists()
    worst = study("--set", "shift=1.0", "--agree", "0.05")["largest_difference"]
    assert worst == {"temperature": pytest.approx(0.03)}


def test_failed_run_is_told(study):
    with pytest.raises(scaling.ScalingError, match="return code 7"):
        study("--set", "code=7")


def test_grid_is_read_with_overrides():
    case = ROOT / "cases" / "composite_wall.toml"
    cells, size = scaling.grid_of(case, ["grid.cells=[12, 6]"])
    assert cells == [12, 6]
    assert size == pytest.approx([0.048, 0.024])


def test_nodes_are_filled_in(study, tmp_path, monkeypatch):
    seen = []

    def note(command, **_):
        seen.append(command[:3])
        raise InterruptedError

    monkeypatch.setattr(scaling.subprocess, "run", note)
    with pytest.raises(InterruptedError):
        study("--ranks-per-node", "2", "--launcher", "srun -N{nodes} -n{n}")
    assert seen == [["srun", "-N2", "-n4"]]
