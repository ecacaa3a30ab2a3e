"""Bad input gives one line and exit code 2, never a traceback, also on several ranks."""

import shutil

import numpy as np
import pytest

from tests.launch import ROOT, launch

SMALL = """
[grid]
cells = [12, 6]
size = ["12 mm", "6 mm"]
[time]
step = "1 s"
end = "4 s"
[fields]
fraction = 0.3
[materials.epoxy]
conductivity = 0.2
heat_capacity = 1.4e6
[materials.fibre]
conductivity = 2.5
heat_capacity = 1.4e6
[macro.boundary.x_low]
kind = "temperature"
temperature = 350
[micro]
model = "unit_cell"
microstructure = "cylinders"
phases = ["epoxy", "fibre"]
resolution = 16
[surrogate]
enabled = false
[checkpoint]
every = 1
keep = 3
"""


@pytest.fixture
def case(tmp_path):
    path = tmp_path / "case.toml"
    path.write_text(SMALL)
    return path


def refused(result, *words):
    """Exit code 2, one line on stderr that holds the words, no traceback."""
    lines = [line for line in result.stderr.splitlines() if "Error: " in line]
    assert result.returncode == 2, (result.returncode, result.stderr)
    assert len(lines) == 1, result.stderr
    assert "Traceback" not in result.stderr
    for word in words:
        assert word in lines[0], (word, lines[0])


@pytest.mark.parametrize(
    "override, words",
    [
        ("grid.cels=[1, 2]", ["unknown key 'grid.cels'", "case.toml", "did you mean 'grid.cells'?"]),
        ("micro.tolerence=1e-6", ["micro.tolerence", "micro.tolerance"]),
        ("micro.model=unit_sell", ["micro.model", "'unit_sell'", "did you mean 'unit_cell'?"]),
        ("micro.model=nowhere:Model", ["micro.model", "nowhere.py"]),
        ("micro.microstructure=cylindres", ["microstructure", "cylinders"]),
        ("grid.cells=[-8, 4]", ["grid.cells", "-8"]),
        ("gate.tolerance=tight", ["gate.tolerance", "'tight'"]),
        ("grid.size=['1 s', '1 m']", ["grid.size", "must be in m", "'1 s'"]),
        ("fields.fraction={value=0.3, unit='kg'}", ["field 'fraction' must be in 1", "got kg"]),
        ("fields.fraction=0.95", ["fields.fraction.value must lie between", "got 0.95 at"]),
        ("macro.coupling=stage", ["macro.coupling", "explicit"]),
        ("time.adaptive=true", ["time.adaptive", "backward_euler"]),
        ("macro.initial=temp(3)", ["macro.initial", "'temp'"]),
        ("macro.boundary.y_low.kind=periodic", ["macro.boundary.y_low", "periodic"]),
        ("macro.petsc.ksp_type=nosuch", ["macro.petsc", "nosuch"]),
        ("micro.phases=['epoxy', 'glass']", ["phases", "'glass'"]),
        ("micro.microstructure=image:missing.npy", ["missing.npy"]),
    ],
)
def test_wrong_key_or_value(case, tmp_path, override, words):
    refused(launch(0, ["hpcmsm", "run", case, "-o", tmp_path / "out", "--set", override]), *words)
    assert not (tmp_path / "out" / "checkpoints").exists()


def test_petsc_option_that_nothing_uses(case, tmp_path):
    """Only PETSc knows its options, so this shows after the first step."""
    result = launch(2, ["hpcmsm", "run", case, "-o", tmp_path / "out", "--set", "macro.petsc.ksp_tpye=cg"])
    refused(result, "macro.petsc.ksp_tpye", "spelling")


def test_one_line_from_several_ranks(case, tmp_path):
    result = launch(3, ["hpcmsm", "run", case, "-o", tmp_path / "out", "--set", "grid.cels=[1, 2]"])
    refused(result, "grid.cels")


def test_a_field_that_is_wrong_on_one_rank(case, tmp_path):
    """The other rank must not go on alone into what all ranks make together."""
    wrong = "fields.fraction='where(x > 10e-3, 0.95, 0.3)'"
    result = launch(2, ["hpcmsm", "run", case, "-o", tmp_path / "out", "--set", wrong])
    refused(result, "fields.fraction.value must lie between", "got 0.95 at x = 0.0105 m", "on rank 1")


def test_more_ranks_than_cells(case, tmp_path):
    result = launch(3, ["hpcmsm", "run", case, "-o", tmp_path / "out", "--set", "grid.cells=[2, 2]"])
    refused(result, "grid.cells", "3 ranks")


def test_unreadable_image(case, tmp_path):
    (tmp_path / "broken.npy").write_bytes(b"not an array")
    override = "micro.microstructure=image:broken.npy"
    refused(launch(0, ["hpcmsm", "run", case, "-o", tmp_path / "out", "--set", override]), "broken.npy")


def test_image_that_would_unpickle(case, tmp_path):
    np.save(tmp_path / "objects.npy", np.array([{}, {}], dtype=object), allow_pickle=True)
    override = "micro.microstructure=image:objects.npy"
    refused(launch(0, ["hpcmsm", "run", case, "-o", tmp_path / "out", "--set", override]), "objects.npy")


def test_image_with_one_phase_too_many(case, tmp_path):
    np.save(tmp_path / "three.npy", np.arange(256).reshape(16, 16) % 3)
    override = "micro.microstructure=image:three.npy"
    refused(launch(0, ["hpcmsm", "run", case, "-o", tmp_path / "out", "--set", override]), "three.npy", "3")


def test_missing_case(tmp_path):
    refused(launch(0, ["hpcmsm", "run", tmp_path / "no.toml"]), "no.toml")


def test_output_cannot_be_written(case, tmp_path):
    (tmp_path / "file").write_text("")
    result = launch(2, ["hpcmsm", "run", case, "-o", tmp_path / "file" / "out"])
    refused(result, "--output")


def test_output_holds_a_run_already(case, tmp_path):
    out = tmp_path / "out"
    assert launch(0, ["hpcmsm", "run", case, "-o", out, "--quiet"]).returncode == 0
    refused(launch(0, ["hpcmsm", "run", case, "-o", out]), "--overwrite")
    assert launch(0, ["hpcmsm", "run", case, "-o", out, "--overwrite", "--quiet"]).returncode == 0


def test_resume_of_an_empty_directory(tmp_path):
    refused(launch(2, ["hpcmsm", "resume", tmp_path]), "checkpoint")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished small run, to be copied by each test."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "case.toml").write_text(SMALL)
    result = launch(0, ["hpcmsm", "run", folder / "case.toml", "-o", folder / "out", "--quiet"])
    assert result.returncode == 0, result.stderr
    return folder / "out"


def test_resume_with_a_changed_grid(finished, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(finished, out)
    refused(launch(2, ["hpcmsm", "resume", out, "--set", "grid.cells=[10, 6]"]), "grid.cells", "12")


def test_truncated_checkpoint_falls_back(finished, tmp_path):
    """The newest file is cut short: the run goes on from the one before, says so, and ends alike."""
    out = tmp_path / "out"
    shutil.copytree(finished, out)
    newest = out / "checkpoints" / "step_00000004.h5"
    newest.write_bytes(newest.read_bytes()[: newest.stat().st_size // 2])
    result = launch(2, ["hpcmsm", "resume", out])
    assert result.returncode == 0, result.stderr
    assert "step_00000004.h5" in result.stderr and "continuing from step_00000003.h5" in result.stderr
    again = launch(0, ["hpcmsm", "compare", newest, finished / "checkpoints" / newest.name])
    assert "macro/temperature" in again.stdout


def test_show_and_compare_refuse_other_files(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    refused(launch(0, ["hpcmsm", "show", tmp_path / "notes.txt"]), "notes.txt")
    refused(launch(0, ["hpcmsm", "compare", tmp_path / "notes.txt", tmp_path / "notes.txt"]), "notes.txt")


BUGGY = """
import numpy as np
from hpcmsm.batch import Answer
from hpcmsm.fields import Field
from hpcmsm.micro.base import MicroModel
from hpcmsm.parallel import world


class Buggy(MicroModel):
    inputs = (Field("temperature", unit="K"),)
    outputs = (Field("conductivity", 3, "W/(m K)", spd=True),)

    def evaluate(self, batch):
        if batch.step == 2 and world().rank == 1:
            raise IndexError("a bug of the user")
        one = np.ones(batch.ncells)
        return Answer(np.stack([one, one, 0 * one]), batch.state, np.zeros(batch.ncells, np.int32))
"""


def with_users_model():
    """The small case with the micro model of buggy.py."""
    return (
        SMALL.replace('"unit_cell"', '"buggy:Buggy"')
        .replace('microstructure = "cylinders"\nphases = ["epoxy", "fibre"]\nresolution = 16\n', "")
        .replace("[macro.boundary.x_low]", "[macro]\nheat_capacity = 1e6\n[macro.boundary.x_low]")
    )


def test_bug_in_a_users_model_on_one_rank_ends_the_job(case, tmp_path):
    (tmp_path / "buggy.py").write_text(BUGGY)
    case.write_text(with_users_model())
    result = launch(3, ["hpcmsm", "run", case, "-o", tmp_path / "out"], timeout=60)
    assert result.returncode not in (0, 2, 124), result.stderr
    assert "rank 1 of 3" in result.stderr
    assert "IndexError: a bug of the user" in result.stderr
    assert "buggy.py" in result.stderr


def test_sys_exit_in_a_users_model_on_one_rank_ends_the_job(case, tmp_path):
    text = BUGGY.replace('raise IndexError("a bug of the user")', "raise SystemExit(5)")
    (tmp_path / "buggy.py").write_text(text)
    case.write_text(with_users_model())
    result = launch(3, ["hpcmsm", "run", case, "-o", tmp_path / "out"], timeout=60)
    assert result.returncode not in (0, 124), result.stderr
    assert "rank 1 of 3: sys.exit(5) inside a run" in result.stderr


@pytest.mark.parametrize("where", ["evaluate", "initial_state"])
def test_an_error_of_one_rank_ends_all(case, tmp_path, where):
    """Where it is agreed on (evaluate), and where nobody thought of it (initial_state)."""
    text = BUGGY.replace("IndexError", "MicroError")
    text = text.replace("from hpcmsm.fields", "from hpcmsm.errors import MicroError\nfrom hpcmsm.fields")
    if where == "initial_state":
        text = text.replace("if batch.step == 2 and world().rank == 1", "if False")
        text += """
    def initial_state(self, inputs):
        if world().rank == 1:
            raise MicroError("a bug of the user")
        return super().initial_state(inputs)
"""
    (tmp_path / "buggy.py").write_text(text)
    case.write_text(with_users_model())
    result = launch(3, ["hpcmsm", "run", case, "-o", tmp_path / "out"], timeout=60)
    assert result.returncode == 3, (result.returncode, result.stderr)
    assert "MicroError: a bug of the user" in result.stderr and "rank 1" in result.stderr
    assert "Traceback" not in result.stderr


def test_repository_cases_are_valid():
    from hpcmsm.config import load_case

    paths = sorted((ROOT / "cases").glob("*.toml"))
    assert len(paths) >= 2
    for path in paths:
        load_case(path)
