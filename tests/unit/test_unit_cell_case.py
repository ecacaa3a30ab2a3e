"""The table [micro] of unit cells: which microstructures it names, and what it refuses."""

import numpy as np
import pytest

from hpcmsm.batch import Batch
from hpcmsm.config import Material, MicroSection, Section
from hpcmsm.errors import ConfigError
from hpcmsm.micro.generators import Recipe
from hpcmsm.micro.unit_cell_case import from_case
from hpcmsm.validation import validate


class Materials(Section):
    materials: dict[str, Material]


MATERIALS = {
    "resin": Material(conductivity="1 + 1e-3 * temperature"),
    "fibre": Material(conductivity=9.0),
    "void": Material(conductivity=0.02),
}


def batch_of(inputs):
    return Batch(np.arange(inputs.shape[1]), inputs, np.empty((0, inputs.shape[1])))


def make(read_image=None, **options):
    section = MicroSection(**{"model": "unit_cell", "phases": ["resin", "fibre"], **options})
    return from_case(section, MATERIALS, {}, read_image)


def test_drawn_microstructures_get_their_options():
    model = make(microstructure="random_discs", fraction=0.4, count=7, seed=5, resolution=24)
    assert [field.name for field in model.inputs] == ["temperature"]
    expected = Recipe("random_discs", 2, 24, seed=5, fraction=0.4, count=7).labels(0)
    assert np.array_equal(model.microstructure.labels, expected)
    grains = make(microstructure="voronoi", phases=["resin", "fibre", "void"])
    assert np.array_equal(grains.microstructure.labels, Recipe("voronoi", 2, 32, nphase=3).labels(0))
    field = make(microstructure="level_set", fraction=0.4, correlation_length=0.3)
    assert field.phase_fractions(np.array([[300.0]]))[1] == pytest.approx(0.4, abs=1e-3)


def test_drawn_microstructures_may_be_finer_than_the_grid():
    model = make(microstructure="random_discs", fraction=0.4, resolution=16, subsamples=4)
    assert model.microstructure.resolution == 16 and model.facts()["subsamples"] == 4
    assert np.array_equal(model.microstructure.labels, Recipe("random_discs", 2, 64, fraction=0.4).labels(0))
    library = make(microstructure="voronoi", realisations=3, resolution=8, subsamples=2)
    assert library.labels_of(np.array([[300.0], [2.0]])).shape == (16, 16)
    assert [model.microstructure.number for model in (model, library)] == [7, 6]


def test_a_material_may_conduct_differently_along_the_axes():
    anisotropic = MATERIALS | {"fibre": Material(conductivity=[2.0, 3.0, "20 + 0 * temperature"])}
    section = MicroSection(
        model="unit_cell", phases=["resin", "fibre"], microstructure="laminate", fraction=0.5
    )
    inputs, resin = np.array([[300.0]]), 1.3
    k = from_case(section, anisotropic, {}, None).evaluate(batch_of(inputs)).outputs[:2, 0]
    np.testing.assert_allclose(k, [2 / (1 / resin + 1 / 2.0), (resin + 3.0) / 2], rtol=1e-6)
    section = MicroSection(**{**section.model_dump(), "ndim": 3})
    k = from_case(section, anisotropic, {}, None).evaluate(batch_of(inputs)).outputs[:3, 0]
    np.testing.assert_allclose(k[2], (resin + 20.0) / 2, rtol=1e-6)
    flat = MATERIALS | {"fibre": Material(conductivity=[2.0, 3.0])}
    with pytest.raises(ConfigError, match="one for each of 3 axes, got 2"):
        from_case(section, flat, {}, None)


def test_named_microstructures_still_take_a_fraction_of_the_cell():
    assert [field.name for field in make(microstructure="laminate").inputs] == ["temperature", "fraction"]
    assert [field.name for field in make(microstructure="laminate", fraction=0.2).inputs] == ["temperature"]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (dict(microstructure="random_disks"), "did you mean 'random_discs'"),
        (dict(microstructure="foam"), "laminate, cylinders, .*random_discs, .*image:FILE, got 'foam'"),
        (dict(microstructure="random_discs"), "micro.fraction must be given"),
        (dict(microstructure="level_set", fraction=0.4, count=3), "micro.count must be left out"),
        (dict(microstructure="random_discs", fraction=0.4, cuont=3), "did you mean 'micro.count'"),
        (dict(microstructure="random_spheres", fraction=0.2, ndim=2), "must be in 3 dimensions, got 2"),
        (dict(microstructure="laminate", phases=["resin", "glass"]), r"add a table \[materials.glass\]"),
        (dict(microstructure="cylinders", grid="fit"), "micro.grid must be one of even, fitted, got 'fit'"),
        (dict(microstructure="voronoi", grid="fitted"), "micro.grid must be 'even' for 'voronoi'"),
        (dict(microstructure="voronoi", subsamples=5), "subsamples must be 1 or an even number"),
        (dict(microstructure="spheres", subsamples=8), "subsamples must be 1 for 'spheres', got 8"),
        (dict(microstructure="voronoi", subsamples=0), "micro.subsamples"),
        (dict(microstructure="voronoi", subsamples=2000), "up to 16, got 2000"),
        (dict(microstructure="voronoi", subsamples=8, resolution=256), "at most 1024, got 256 times 8"),
        (dict(microstructure="cylindres", grid="fitted"), "did you mean 'cylinders'"),
        (dict(microstructure="laminate", phases=["resin", "fiber"]), "did you mean 'fibre'"),
    ],
)
def test_wrong_options_are_named(options, text):
    with pytest.raises(ConfigError, match=text):
        make(**options)


def test_phases_must_be_those_of_the_image():
    labels = np.arange(64).reshape(8, 8) % 3
    with pytest.raises(ConfigError, match="got 2 names for 3 phases"):
        make(lambda name: labels, microstructure="image:a.npy")
    with pytest.raises(ConfigError, match="image 'a.npy' must hold some points"):
        make(lambda name: labels[:0, :0], microstructure="image:a.npy")
    model = make(lambda name: labels, microstructure="image:a.npy", phases=["resin", "fibre", "void"])
    assert np.array_equal(model.microstructure.labels, labels)


# ------------------------------------------------------------------------- tensors with cross terms

CRYSTAL = {"crystal": Material(conductivity=[8.0, 1.0, 2.0])}
TURNED = np.array([[4.5, 3.5, 0.0], [3.5, 4.5, 0.0], [0.0, 0.0, 2.0]])  # the crystal, by 45 degrees about z


def answer(materials, **options):
    """K of one cell, and its model."""
    defaults = {"model": "unit_cell", "microstructure": "voronoi", "phases": list(materials), "resolution": 8}
    model = from_case(MicroSection(**defaults | options), materials, {}, lambda name: np.zeros((8, 8), int))
    found = model.evaluate(batch_of(np.full((1, 1), 300.0)))
    assert found.status.tolist() == [0]
    return found.outputs[:, 0], model


@pytest.mark.parametrize(
    "tables",
    [
        {"conductivity": [8.0, 1.0, "2 + 0 * temperature"], "angle": 45.0},
        {"conductivity": {"xx": 4.5, "yy": 4.5, "zz": 2.0, "xy": "3.5 + 0 * temperature"}},
        {"conductivity": {"xx": 4.5, "yy": 4.5, "zz": 2.0, "xy": -3.5}, "angle": 90.0},
        {"conductivity": [8.0, 1.0, 2.0], "angle": [30.0, 0.0, 15.0]},
        {"conductivity": [2.0, 8.0, 1.0], "angle": [45.0, 90.0, 90.0]},
    ],
)
def test_axes_of_a_material_may_be_turned(tables):
    materials = {"crystal": Material(**tables)}
    k, model = answer(materials, ndim=3, resolution=4)
    np.testing.assert_allclose(k, [4.5, 4.5, 2.0, 0.0, 0.0, 3.5], atol=1e-12)
    k, model = answer(materials)
    np.testing.assert_allclose(k, [4.5, 4.5, 3.5], atol=1e-12)
    assert model.full


def test_a_right_angle_only_swaps_the_axes():
    k, model = answer({"crystal": Material(conductivity=[8.0, 1.0], angle=90.0)})
    np.testing.assert_allclose(k, [1.0, 8.0, 0.0], atol=1e-12)
    assert not model.full


def test_orientations_make_a_polycrystal_of_one_material():
    k, model = answer(CRYSTAL, orientations=5, count=9)
    assert (model.phases, model.nphase) == (("crystal",) * 5, 5)
    lengths = np.linalg.eigvalsh([[k[0], k[2]], [k[2], k[1]]])
    assert 1.0 < lengths[0] < lengths[1] < 8.0
    other, _ = answer(CRYSTAL, orientations=5, count=9, seed=2)
    assert not np.allclose(k, other)
    listed, _ = answer(CRYSTAL, orientations=[45.0, [20.0, 0.0, 25.0]], count=3)
    np.testing.assert_allclose(listed, [4.5, 4.5, 3.5], atol=1e-12)
    solid, model = answer(CRYSTAL, orientations=6, count=6, ndim=3)
    assert model.ndim == 3 and np.abs(solid[3:]).min() > 1e-3


@pytest.mark.parametrize(
    ("materials", "options", "text"),
    [
        ({"a": dict(conductivity={"xx": 1.0, "yy": 2.0, "xy": 1.5})}, {}, "positive definite, got the eigen"),
        (
            {"a": dict(conductivity={"xx": 1.0, "yy": 2.0, "xy": 0.5})},
            {"ndim": 3},
            "have a component zz in 3D",
        ),
        ({"a": dict(conductivity=[1.0, 2.0], angle=[0.0, 30.0, 0.0])}, {}, "turned out of the plane"),
        (
            {"a": dict(micro={"model": "unit_cell"})},
            {"orientations": 3},
            "must turn a material with a conductivity, got the composite 'a'",
        ),
        ({"a": dict(conductivity=1.0)}, {"orientations": 3}, "must be different along its axes to be turned"),
        ({"a": dict(conductivity=[1.0, -2.0])}, {"orientations": 3}, "definite, got the eigenvalues -2, 1"),
        (CRYSTAL | MATERIALS, {"orientations": 3}, "must name one material"),
        (CRYSTAL, {"orientations": []}, "must be at least one"),
    ],
)
def test_wrong_tensors_are_named(materials, options, text):
    materials = {k: v if isinstance(v, Material) else Material(**v) for k, v in materials.items()}
    with pytest.raises(ConfigError, match=text):
        answer(materials, **options)


@pytest.mark.parametrize(
    ("table", "text"),
    [
        ({"conductivity": {"xx": 1.0, "yx": 2.0}}, "materials.a.conductivity.yx"),
        ({"conductivity": {"xx": 1.0, "xy": 0.5}}, "must have the components xx and yy"),
        ({"conductivity": 1.0, "angle": 30.0}, "must list what it conducts along its axes"),
        (
            {"conductivity": [1.0, 2.0], "angle": [30.0, 0.0]},
            "a.angle must be an angle in degrees, or a",
        ),
    ],
)
def test_wrong_tables_of_a_material_are_named(table, text):
    with pytest.raises(ConfigError, match=text) as caught:
        validate(Materials, {"materials": {"a": table}}, "wall.toml")
    assert "\n" not in str(caught.value)
