"""Cells in cells: laminates of laminates are exact, and a cell does not see its batch."""

import numpy as np
import pytest

from hpcmsm.batch import Answer, Batch
from hpcmsm.config import parse_case
from hpcmsm.errors import ConfigError, MicroError
from hpcmsm.evaluate import evaluate_case
from hpcmsm.micro.nested import Below
from hpcmsm.micro.registry import make_micro
from hpcmsm.micro.tensors import rotation
from hpcmsm.micro.trial import try_out

CASE = """
[grid]
cells = [4, 4]
size = [1.0, 1.0]
[time]
end = 1.0
step = 0.1
[materials.resin]
conductivity = "0.2 + 1e-4 * temperature"
heat_capacity = 1.0e6
[materials.fibre]
conductivity = 5.0
heat_capacity = 2.0e6
[materials.yarn]
{axes}
[materials.yarn.micro]
model = "unit_cell"
{below}
[micro]
model = "unit_cell"
{above}
"""
LAYERS = 'microstructure = "laminate"\nphases = ["resin", "fibre"]\nresolution = 8\ntolerance = 1e-14\n'
OF_YARN = 'microstructure = "laminate"\nphases = ["resin", "yarn"]\nresolution = 8\ntolerance = 1e-14\n'


def make(axes="", below=LAYERS, above=OF_YARN, more="", read_image=None):
    case = parse_case(CASE.format(axes=axes, below=below, above=above) + more, "nested.toml")
    return make_micro(case.micro, case.materials, case.fields, None, read_image)


def ask(model, *rows):
    inputs = np.array(np.broadcast_arrays(*(np.atleast_1d(row) for row in rows)), float)
    ncells = inputs.shape[1]
    return model.evaluate(Batch(np.arange(ncells), inputs, np.empty((0, ncells))))


def laminate(fraction, matrix, inclusion):
    """K across and along layers of materials that conduct (across, along) each."""
    across = 1.0 / ((1 - fraction) / matrix[0] + fraction / inclusion[0])
    return np.array([across, (1 - fraction) * matrix[1] + fraction * inclusion[1]])


@pytest.mark.parametrize("axes", ["xy", "yx", None])
def test_laminate_of_laminates_is_exact(axes):
    model = make(axes=f'axes = "{axes}"' if axes else "")
    assert [field.name for field in model.inputs] == ["temperature", "fraction", "yarn_fraction"]
    temperature, fraction, inner = np.array([300.0, 450.0, 500.0]), [0.3, 0.5, 0.9], [0.6, 0.1, 0.45]
    answer = ask(model, temperature, fraction, inner)
    assert not answer.status.any()
    for cell in range(3):
        resin = 0.2 + 1e-4 * temperature[cell]
        yarn = laminate(inner[cell], [resin] * 2, [5.0] * 2)
        yarn = yarn[::-1] if axes == "yx" else yarn
        expected = laminate(fraction[cell], [resin] * 2, yarn)
        np.testing.assert_allclose(answer.outputs[:2, cell], expected, rtol=1e-12)
        assert abs(answer.outputs[2, cell]) < 1e-12
    assert (answer.cost > 0).all()


def test_three_scales_below_each_other():
    below = 'microstructure = "laminate"\nphases = ["resin", "tow"]\nfraction = 0.5\nresolution = 8\n'
    tow = (
        f'[materials.tow]\naxes = "yx"\n[materials.tow.micro]\nmodel = "unit_cell"\nfraction = 0.25\n{LAYERS}'
    )
    model = make(below=below, more=tow)
    assert [field.name for field in model.inputs] == ["temperature", "fraction"]
    answer, resin = ask(model, 400.0, 0.4), [0.24, 0.24]
    expected = laminate(0.4, resin, laminate(0.5, resin, laminate(0.25, resin, [5.0, 5.0])[::-1]))
    np.testing.assert_allclose(answer.outputs[:2, 0], expected, rtol=1e-7)
    fractions = model.phase_fractions(np.array([[400.0], [0.4]]))
    assert model.phases == ("resin", "fibre")
    np.testing.assert_allclose(fractions[:, 0], [0.95, 0.05], rtol=1e-14)


def test_fibres_that_run_along_an_axis_of_the_cell_above():
    """A yarn of cylinders conducts along z by the mean of its phases; "zx" lays that along x."""
    below = 'microstructure = "cylinders"\nphases = ["resin", "fibre"]\nfraction = 0.5\nndim = 3\n'
    model = make(axes='axes = "zx"', below=below, above=OF_YARN + "fraction = 0.5\n")
    along = 0.5 * (0.23 + 5.0)
    answer = ask(model, 300.0)
    expected = 1.0 / (0.5 / 0.23 + 0.5 / along)
    assert answer.outputs[0, 0] == pytest.approx(expected, rel=1e-6)
    plane = ask(make(below=below.replace("ndim = 3", "ndim = 2"), above=OF_YARN + "fraction = 0.5\n"), 300.0)
    assert answer.outputs[1, 0] == pytest.approx(plane.outputs[1, 0], rel=1e-9)


@pytest.mark.parametrize(
    ("axes", "angle"), [("xy", 30.0), ("yx", -75.0), ("zx", 30.0), ("xz", [20.0, 50.0, 10.0])]
)
def test_a_turned_laminate_in_a_laminate_is_exact(axes, angle):
    """Layers of resin and of a yarn that is a laminate itself, its axes turned against the layers."""
    solid = "z" in axes
    below = LAYERS + ("ndim = 3\n" if solid else "")
    model = make(axes=f'axes = "{axes}"\nangle = {angle}', below=below)
    assert [field.name for field in model.inputs] == ["temperature", "fraction", "yarn_fraction"]
    answer = ask(model, [400.0, 400.0], [0.4, 0.7], [0.3, 0.3])
    assert not answer.status.any()
    across, along = laminate(0.3, [0.24] * 2, [5.0] * 2)
    yarn = dict(x=across, y=along, z=along)
    axes += "".join(sorted(set("xyz") - set(axes)))
    turn = rotation(angle)
    yarn = turn @ np.diag([yarn[axis] for axis in axes]) @ turn.T
    for number, fraction in enumerate((0.4, 0.7)):
        normal = 1.0 / (
            (1 - fraction) / 0.24 + fraction / yarn[0, 0]
        )  # flux and gradient along the layers agree
        slope = fraction * yarn[0, 1] / yarn[0, 0]
        yy = (
            (1 - fraction) * 0.24 + fraction * (yarn[1, 1] - yarn[0, 1] ** 2 / yarn[0, 0]) + normal * slope**2
        )
        np.testing.assert_allclose(answer.outputs[:, number], [normal, yy, normal * slope], rtol=1e-12)
    assert model.admissible(np.array([[400.0], [0.4], [0.3]]), answer.outputs[:, :1]).all()


@pytest.mark.parametrize(("axes", "size"), [((0, 1), 3), ((2, 0), 6), ((2, 0, 1), 6)])
def test_a_turned_tensor_does_not_see_the_batch(axes, size):
    part = Below(None, axes, rotation(20.0 if size == 3 else [20.0, 40.0, 10.0]))
    tensors = np.random.default_rng(0).uniform(1.0, 10.0, (size, 40))
    whole = part.tensor_above(tensors)
    for cell in range(40):
        assert np.array_equal(part.tensor_above(tensors[:, [cell]])[:, 0], whole[:, cell])


def test_a_composite_in_the_plane_is_not_turned_out_of_it():
    with pytest.raises(ConfigError, match="must leave a composite in 2D in its plane"):
        make(axes="angle = [0.0, 30.0, 0.0]")


def test_order_and_splits_do_not_change_a_bit():
    below = 'microstructure = "cylinders"\nphases = ["resin", "fibre"]\nresolution = 8\n'
    above = 'microstructure = "random_discs"\nphases = ["resin", "yarn"]\nfraction = 0.4\nrealisations = 3\n'
    model, rng = make(below=below, above=above + "resolution = 8\n"), np.random.default_rng(0)
    assert [field.name for field in model.inputs] == ["temperature", "realisation", "yarn_fraction"]
    inputs = np.stack([rng.uniform(300, 500, 19), rng.integers(0, 3, 19), rng.uniform(0.1, 0.7, 19)])
    batch = Batch(np.arange(19), inputs, np.empty((0, 19)))
    whole = model.evaluate(batch)
    assert not whole.status.any()
    order = rng.permutation(19)
    assert np.array_equal(model.evaluate(batch.take(order)).outputs, whole.outputs[:, order])
    for part in np.split(np.arange(19), [1, 4, 12]):
        answer = model.evaluate(batch.take(part))
        assert np.array_equal(answer.outputs, whole.outputs[:, part])
    assert model.evaluate(batch.take(np.arange(0))).outputs.shape == (3, 0)
    try_out(model, batch)
    assert list(model.draw_fields(np.arange(5))) == ["realisation"]
    assert model.admissible(inputs, whole.outputs).all()
    assert not model.admissible(inputs, 20.0 * whole.outputs).any()
    assert not model.admissible(inputs, whole.outputs / 20.0).any()


def test_states_of_all_scales_are_carried():
    """With warm starts each scale remembers its last solution; the answer stays within the tolerance."""
    discs = 'microstructure = "random_discs"\nfraction = 0.4\nresolution = 8\nwarm_start = true\n'
    below, above = discs + 'phases = ["resin", "fibre"]\n', discs + 'phases = ["resin", "yarn"]\n'
    model = make(below=below, above=above)
    cold = make(below=below.replace("true", "false"), above=above.replace("true", "false"))
    assert [(field.name, field.size) for field in model.state] == [("corrector", 64), ("yarn_corrector", 64)]
    assert model.history == "full"
    inputs = np.array([[300.0, 400.0, 500.0]])
    first = model.evaluate(Batch(np.arange(3), inputs, model.initial_state(inputs)))
    assert np.abs(first.state).max(axis=1).min() > 0.0
    again = model.evaluate(Batch(np.arange(3), inputs + 1.0, first.state))
    exact = ask(cold, inputs[0] + 1.0)
    np.testing.assert_allclose(again.outputs[:2], exact.outputs[:2], rtol=1e-5)
    try_out(model, Batch(np.arange(3), inputs, first.state))


def test_closures_are_asked_in_place_of_the_models():
    class Twice:
        """A closure that doubles what the model says."""

        def __init__(self, model):
            self.model, self.sizes = model, []

        def evaluate(self, batch):
            self.sizes.append(batch.ncells)
            answer = self.model.evaluate(batch)
            return Answer(2.0 * answer.outputs, answer.state, answer.status)

    model = make()
    closure = model.nested["yarn"] = Twice(model.lower["yarn"])
    answer = ask(model, 300.0, [0.5, 1.0], 0.5)
    np.testing.assert_allclose(answer.outputs[:2, 1], 2 * laminate(0.5, [0.23] * 2, [5.0] * 2), rtol=1e-12)
    ask(model, [], [], [])
    assert closure.sizes == [2, 0]
    twin = model.alone()
    assert not twin.nested
    assert model.nested
    np.testing.assert_allclose(
        ask(twin, 300.0, 1.0, 0.5).outputs[:2, 0], laminate(0.5, [0.23] * 2, [5.0] * 2), rtol=1e-12
    )


def test_evaluate_asks_both_scales(tmp_path):
    case = parse_case(CASE.format(axes="", below=LAYERS, above=OF_YARN), "nested.toml")
    row = evaluate_case(case, tmp_path, ["temperature=300", "fraction=1", "yarn_fraction=0:1:2"])
    assert row[0]["conductivity_xx"] == pytest.approx(0.23)
    assert row[1]["conductivity_xx"] == pytest.approx(5.0)


def test_what_conducts_askew_is_refused():
    stripes = np.add.outer(np.arange(8), np.arange(8)) // 2 % 2
    below = 'microstructure = "image:stripes.npy"\nphases = ["resin", "fibre"]\n'
    model = make(below=below, read_image=lambda name: stripes)
    with pytest.raises(MicroError, match="materials.yarn must conduct along its axes, .* in cell 0; take"):
        ask(model, 300.0, 0.5)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (dict(below=LAYERS.replace("fibre", "yarn")), "must not contain yarn itself, got yarn > yarn"),
        (dict(below=LAYERS.replace("laminate", "laminat")), r"\(in \[materials.yarn.micro\]\)"),
        (dict(axes='axes = "xz"'), "axes must be 2 different ones of xy, got 'xz'; .* ndim = 3"),
        (dict(axes='axes = "xx"'), "axes must be 2 different ones of xy, got 'xx'"),
        (dict(above=OF_YARN + "ndim = 3\n"), "axes must be 3 different ones of xy"),
        (dict(axes="conductivity = 1.0"), "either a conductivity or a table micro"),
        (dict(axes="heat_capacity = 1.0"), "must leave out heat_capacity"),
        (dict(axes="gate = {blend = 2}"), "gate.blend = 0 for a composite, got 2"),
        (dict(axes="gate = {macro_tolerance = 0.1}"), "leave out gate.macro_tolerance for a composite"),
        (dict(axes='surrogate = {load = "a.h5"}'), "must leave out surrogate.load"),
        (
            dict(more="[materials.void]\nconductivity = 1.0\naxes = 'xy'\n"),
            "a table micro where it has 'axes'",
        ),
        (dict(more="[materials.void]\nheat_capacity = 1.0\n"), "either a conductivity or a table micro"),
    ],
)
def test_wrong_options_are_named(options, text):
    with pytest.raises(ConfigError, match=text):
        make(**options)
