"""What happens inside a cell: the means of its fields are what the cell answers, and files hold them."""

import numpy as np
import pytest
from vtkmodules.util.numpy_support import vtk_to_numpy
from vtkmodules.vtkIOXML import vtkXMLImageDataReader

from hpcmsm.batch import Batch
from hpcmsm.cli import main
from hpcmsm.errors import ConfigError
from hpcmsm.fields import Field
from hpcmsm.io.vti import write_vti
from hpcmsm.micro.generators import Recipe
from hpcmsm.micro.microstructure import make_microstructure
from hpcmsm.micro.unit_cell import UnitCell

CASE = """
[grid]
cells = [4, 4]
size = [1.0, 1.0]
[time]
end = 1.0
step = 0.1
[materials.a]
conductivity = "1 + temperature / 1000"
[materials.b]
conductivity = 8.0
[micro]
model = "unit_cell"
phases = ["a", "b"]
resolution = 16
"""


def constants(*values):
    return [lambda temperature, value=value: np.full_like(temperature, value) for value in values]


def inside(cell, *inputs):
    return {field.name: values for field, values in cell.inside(np.array(inputs, float)[:, None])}


@pytest.mark.parametrize(
    ("labels", "phases"),
    [
        (Recipe("voronoi", 2, 16, nphase=3, count=9).labels(), (1.0, 20.0, 0.3)),
        (Recipe("random_spheres", 3, 12, count=4, fraction=0.3).labels(), (1.0, 20.0)),
        (Recipe("level_set", 2, 16, fraction=0.4).labels(), (1.0, [5.0, 0.5])),
    ],
)
def test_mean_fluxes_are_the_columns_of_the_tensor(labels, phases):
    functions = [constants(*p) if isinstance(p, list) else constants(p)[0] for p in phases]
    cell = UnitCell(labels, functions, tolerance=1e-12)
    fields, ndim = inside(cell, 300.0), labels.ndim
    k = cell.evaluate(Batch(np.arange(1), np.array([[300.0]]), np.empty((0, 1)))).outputs[:, 0]
    entries = {2: [[0, 2], [2, 1]], 3: [[0, 5, 4], [5, 1, 3], [4, 3, 2]]}[ndim]
    for load, axis in enumerate("xyz"[:ndim]):
        flux = fields[f"flux_{axis}"].reshape(ndim, -1).mean(axis=1)
        np.testing.assert_allclose(flux, k[entries[load]], atol=2e-5 * k[0])
        gradient = fields[f"gradient_{axis}"].reshape(ndim, -1).mean(axis=1)
        np.testing.assert_allclose(gradient, np.eye(ndim)[load], atol=1e-12)
        assert abs(fields[f"corrector_{axis}"].mean()) < 1e-12
    assert np.array_equal(fields["phase"][0], labels)


def test_fields_of_a_laminate_are_those_of_resistances_in_a_row():
    cell = UnitCell("laminate", constants(1.0, 4.0), resolution=16, fraction=0.5, tolerance=1e-14)
    fields = inside(cell, 300.0)
    np.testing.assert_allclose(fields["flux_x"][0], 1.6, rtol=1e-6)  # everywhere the same
    np.testing.assert_allclose(fields["flux_y"][1], np.where(fields["phase"][0] == 1, 4.0, 1.0), rtol=1e-6)
    # 1.6 and 0.4 in the phases, 1.0 through the faces between them; of each point the mean of its faces.
    assert set(np.round(fields["gradient_x"][0, 0], 6)) == {0.4, 0.7, 1.3, 1.6}
    np.testing.assert_allclose(fields["corrector_y"], 0.0, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "fraction", "ndim"), [("laminate", 0.3, 2), ("cylinders", 0.4, 2), ("spheres", 0.3, 3)]
)
def test_pixels_of_named_microstructures_have_their_fraction(name, fraction, ndim):
    labels = make_microstructure(name, 64, 2).pixels(fraction)
    assert labels.shape == (64,) * ndim
    assert labels.mean() == pytest.approx(fraction, abs=0.02)
    assert all(np.array_equal(labels, np.flip(labels, axis)) for axis in range(ndim))
    assert labels[tuple([32] * ndim)] == 1


def read_vti(path):
    reader = vtkXMLImageDataReader()
    reader.SetFileName(str(path))
    reader.Update()
    data = reader.GetOutput()
    cells = data.GetCellData()
    arrays = {
        cells.GetArrayName(i): vtk_to_numpy(cells.GetArray(i)) for i in range(cells.GetNumberOfArrays())
    }
    return data, arrays


@pytest.mark.parametrize("shape", [(4, 4), (3, 3, 3)])
def test_vtk_reads_what_was_written(tmp_path, shape):
    rng = np.random.default_rng(0)
    vector, scalar = rng.normal(size=(len(shape), *shape)), rng.normal(size=(1, *shape))
    fields = [(Field("flux", len(shape), "W/m2"), vector), (Field("phase"), scalar)]
    write_vti(tmp_path / "a.vti", fields)
    data, arrays = read_vti(tmp_path / "a.vti")
    n = shape[0]
    assert data.GetDimensions() == ((n + 1, n + 1, 2) if len(shape) == 2 else (n + 1,) * 3)
    assert data.GetSpacing() == (1 / n,) * 3
    assert np.array_equal(arrays["phase [1]"], scalar.ravel())
    for axis in range(len(shape)):
        assert np.array_equal(arrays["flux [W/m2]"][:, axis], vector[axis].ravel())
    assert arrays["flux [W/m2]"].shape == (n ** len(shape), 3)
    with pytest.raises(ConfigError, match="must be writable"):
        write_vti(tmp_path / "none" / "a.vti", fields)


@pytest.fixture
def case(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = CASE + 'microstructure = "random_discs"\nfraction = 0.3\ncount = 3\nrealisations = 5\n'
    (tmp_path / "discs.toml").write_text(text)
    return tmp_path / "discs.toml"


def test_evaluate_writes_the_fields_of_a_cell(case, tmp_path, capsys):
    asked = ["evaluate", str(case), "--input", "temperature=400", "--input", "realisation=2"]
    assert main([*asked, "--fields", "cell.vti"]) == 0
    _, arrays = read_vti(tmp_path / "cell.vti")
    recipe = Recipe("random_discs", 2, 16, fraction=0.3, count=3)
    assert np.array_equal(arrays["phase [1]"], recipe.labels(2).ravel())
    printed = [float(word) for word in capsys.readouterr().out.splitlines()[1].split()]
    assert arrays["flux_x [W/(m K)]"][:, 0].mean() == pytest.approx(printed[2], rel=1e-4)
    assert main([*asked, "--fields", "cell.png"]) == 0
    assert (tmp_path / "cell.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("given", "fields", "text"),
    [
        (["realisation=0:4:5"], "a.vti", "--input must name one cell for --fields, got 5 combinations"),
        (["realisation=1"], "a.vtu", "--fields must name a .vti or .png file, got 'a.vtu'"),
        (["realisation=1.5"], "a.vti", "--input realisation must be whole numbers"),
        (["realisation=1"], "none/a.png", "output file must be writable"),
    ],
)
def test_wrong_questions_are_named(case, capsys, given, fields, text):
    inputs = [word for value in ["temperature=400", *given] for word in ("--input", value)]
    assert main(["evaluate", str(case), *inputs, "--fields", fields]) == 2
    assert text in capsys.readouterr().err


def test_a_model_without_points_has_no_fields(tmp_path, capsys):
    text = CASE[: CASE.index("[micro]")] + '[micro]\nmodel = "constant"\n'
    (tmp_path / "a.toml").write_text(text)
    arguments = ["evaluate", str(tmp_path / "a.toml"), "--input", "temperature=400", "--fields", "a.vti"]
    assert main(arguments) == 2
    assert "whose cells have no points" in capsys.readouterr().err


def test_show_draws_the_microstructures_of_a_case(case, tmp_path, capsys):
    assert main(["show", str(case), "--set", "micro.realisations=2"]) == 0
    printed = capsys.readouterr().out
    assert "realisation" in printed
    assert "0 to 1" in printed
    assert printed.rstrip().endswith("discs_microstructure.png")
    assert (tmp_path / "discs_microstructure.png").read_bytes().startswith(b"\x89PNG")
    assert main(["show", str(tmp_path / "none.toml")]) == 2
