"""Cells with microstructures of their own: each gets what its microstructure alone would get."""

from types import SimpleNamespace

import numpy as np
import pytest

from hpcmsm.batch import Batch
from hpcmsm.closure.gate import Gate
from hpcmsm.config import Material, MicroSection
from hpcmsm.errors import ConfigError
from hpcmsm.micro import varied
from hpcmsm.micro.generators import Recipe
from hpcmsm.micro.trial import try_out
from hpcmsm.micro.unit_cell import UnitCell
from hpcmsm.micro.unit_cell_case import from_case

MATERIALS = {
    "resin": Material(conductivity="1 + 1e-3 * temperature"),
    "fibre": Material(conductivity=9.0),
    "void": Material(conductivity=0.05),
}
CONDUCTIVITIES = {
    "resin": lambda temperature: 1 + 1e-3 * temperature,
    "fibre": lambda temperature: np.full_like(temperature, 9.0),
    "void": lambda temperature: np.full_like(temperature, 0.05),
}
DISCS = dict(microstructure="random_discs", fraction=0.4, count=5, resolution=16, seed=3)


def make(read_image=None, **options):
    section = MicroSection(**{"model": "unit_cell", "phases": ["resin", "fibre"], **options})
    return from_case(section, MATERIALS, {}, read_image)


def batch(inputs, ids=None):
    ids = np.arange(inputs.shape[1]) if ids is None else ids
    return Batch(ids, np.ascontiguousarray(inputs), np.empty((0, inputs.shape[1])))


def some_inputs(realisations, n=40):
    rng = np.random.default_rng(0)
    return np.stack([rng.uniform(300, 500, n), rng.choice(realisations, n).astype(float)])


def alone(temperature, labels, phases, **options):
    """Answer of a unit cell that has these labels."""
    cell = UnitCell(labels, [CONDUCTIVITIES[name] for name in phases], **options)
    return cell.evaluate(batch(np.array([[temperature]]))).outputs[:, 0]


@pytest.mark.parametrize("realisations, used", [(4, range(4)), ("own", [0, 7, 10**12, 2**53])])
def test_each_cell_gets_what_its_microstructure_gives(realisations, used):
    model = make(realisations=realisations, **DISCS)
    assert [field.name for field in model.inputs] == ["temperature", "realisation"]
    inputs = some_inputs(list(used))
    answer = model.evaluate(batch(inputs))
    assert not answer.status.any()
    recipe = Recipe("random_discs", 2, 16, seed=3, fraction=0.4, count=5)
    for cell in range(inputs.shape[1]):
        labels = recipe.labels(int(inputs[1, cell]))
        assert np.array_equal(answer.outputs[:, cell], alone(inputs[0, cell], labels, ["resin", "fibre"]))
    assert len(np.unique(answer.outputs[2])) == inputs.shape[1]
    assert (answer.cost > 0).all()
    assert model.admissible(inputs, answer.outputs).all()
    assert not model.admissible(inputs, 3.0 * answer.outputs).any()
    points = round(0.4 * 256) / 256
    np.testing.assert_allclose(model.phase_fractions(inputs)[:, 5], [1 - points, points])


@pytest.mark.parametrize(
    ("options", "recipe"),
    [
        (dict(microstructure="random_fibres", fraction=0.4, count=5, ndim=3), dict(ndim=2)),
        (dict(microstructure="voronoi", count=5, ndim=3), dict(ndim=3)),
        (dict(microstructure="random_spheres", count=5, fraction=0.2), dict(ndim=3)),
    ],
)
def test_in_three_dimensions_too(options, recipe):
    model = make(realisations=3, resolution=8, **options)
    inputs = some_inputs(range(3), n=9)
    answer = model.evaluate(batch(inputs))
    drawn = {name: options[name] for name in ("fraction", "count") if name in options}
    recipe = Recipe(options["microstructure"], resolution=8, **drawn, **recipe)
    for cell in range(9):
        labels = recipe.labels(int(inputs[1, cell]))
        expected = alone(inputs[0, cell], labels, ["resin", "fibre"], ndim=3)
        assert np.array_equal(answer.outputs[:, cell], expected)
    assert model.admissible(inputs, answer.outputs).all()
    bad = model.evaluate(batch(np.array([[300.0, 300.0], [7.0, 1.0]])))
    assert bad.status.tolist() == [2, 0]
    assert np.isnan(bad.outputs[:, 0]).all()


def test_an_image_of_a_library_may_be_refined():
    stack = np.random.default_rng(4).integers(0, 2, (3, 8, 8))
    model = make(lambda name: stack, microstructure="image:a.npy", realisations=3, resolution=16)
    answer = model.evaluate(batch(np.array([[350.0], [2.0]])))
    expected = alone(350.0, stack[2], ["resin", "fibre"], resolution=16)
    assert np.array_equal(answer.outputs[:, 0], expected)


def test_order_and_splits_do_not_change_a_bit():
    model, inputs = make(realisations=5, **DISCS), some_inputs(range(5))
    whole = model.evaluate(batch(inputs))
    order = np.random.default_rng(1).permutation(40)
    shuffled = model.evaluate(batch(inputs[:, order]))
    assert np.array_equal(shuffled.outputs, whole.outputs[:, order])
    for part in np.split(np.arange(40), [1, 9, 17]):
        answer = model.evaluate(batch(inputs[:, part]))
        assert np.array_equal(answer.outputs, whole.outputs[:, part])
        assert np.array_equal(answer.residual, whole.residual[part])
    assert model.evaluate(batch(inputs[:, :0])).outputs.shape == (3, 0)
    try_out(model, batch(inputs))


def test_what_is_not_kept_at_hand_is_drawn_again(monkeypatch):
    inputs = some_inputs(range(30))
    whole = make(realisations=30, **DISCS).evaluate(batch(inputs))
    monkeypatch.setattr(varied, "MOST_POINTS", 3 * 256 + 5)
    monkeypatch.setattr(varied, "MOST_KEPT", 5 * 256 + 5)
    model = make(realisations=30, **DISCS)
    inputs[1, 7] = 99.0
    whole.outputs[:, 7] = np.nan
    again = model.evaluate(batch(inputs))
    assert len(model._kept) == 5
    assert np.array_equal(whole.outputs, again.outputs, equal_nan=True)


def test_fractions_of_grains_are_those_of_each_cell():
    model = make(microstructure="voronoi", realisations=4, count=9, resolution=16)
    inputs = np.array([[300.0] * 4, [0, 1, 2, 3]])
    recipe = Recipe("voronoi", 2, 16, count=9)
    expected = [recipe.labels(number).mean() for number in range(4)]
    np.testing.assert_allclose(model.phase_fractions(inputs)[1], expected, rtol=1e-14)
    assert np.ptp(expected) > 0.01
    assert model.phases == ("resin", "fibre")


def test_a_stack_of_images_is_a_library():
    stack = np.random.default_rng(4).integers(0, 3, (5, 8, 8))
    options = dict(microstructure="image:a.npy", phases=["resin", "fibre", "void"])
    model = make(lambda name: stack, realisations=5, **options)
    answer = model.evaluate(batch(np.array([[350.0, 350.0], [4.0, 1.0]])))
    for cell, number in enumerate((4, 1)):
        assert np.array_equal(answer.outputs[:, cell], alone(350.0, stack[number], options["phases"]))
    with pytest.raises(ConfigError, match="micro.realisations must be 5, the number of images"):
        make(lambda name: stack, realisations=4, **options)
    with pytest.raises(ConfigError, match="the number of images"):
        make(lambda name: stack, realisations="own", **options)


def test_a_realisation_that_does_not_exist_is_a_status():
    model = make(realisations=4, **DISCS)
    inputs = np.array([[300.0] * 6, [0.0, 4.0, -1.0, 1.5, np.nan, 3.0]])
    answer = model.evaluate(batch(inputs))
    assert answer.status.tolist() == [0, 2, 2, 2, 2, 0]
    assert np.isnan(answer.outputs[:, 1:5]).all()
    assert np.array_equal(answer.outputs[:, [0, 5]], model.evaluate(batch(inputs[:, [0, 5]])).outputs)


def test_realisations_are_drawn_by_the_id_alone():
    model, ids = make(realisations=16, **DISCS), np.arange(20000)
    drawn = model.draw_fields(ids)["realisation"]
    assert set(drawn) == set(range(16))
    share = np.bincount(drawn.astype(int)) / ids.size
    assert np.abs(share - 1 / 16).max() < 4 * np.sqrt(1 / 16 / ids.size)
    assert np.array_equal(model.draw_fields(ids[7:99:3])["realisation"], drawn[7:99:3])
    assert not np.array_equal(make(realisations=16, **{**DISCS, "seed": 4}).draw_fields(ids), drawn)
    assert np.array_equal(make(realisations="own", **DISCS).draw_fields(ids)["realisation"], ids)


def test_no_surrogate_where_its_inputs_say_nothing():
    model = make(realisations="own", **DISCS)
    with pytest.raises(ConfigError, match="surrogate.enabled must be false .* use a library"):
        Gate(SimpleNamespace(), model, None, None, None, None, None, 1, None)
    assert make(realisations=16, **DISCS).no_surrogate == ""


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (dict(microstructure="laminate", realisations=4), "must be left out for 'laminate', got 4"),
        (dict(realisations=0, **DISCS), "micro.realisations"),
        (dict(realisations="all", **DISCS), "micro.realisations"),
    ],
)
def test_wrong_options_are_named(options, text):
    with pytest.raises(ConfigError, match=text):
        make(**options)
