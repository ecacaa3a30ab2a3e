"""The table [micro] of unit cells: which microstructures it names, and what it refuses."""

import numpy as np
import pytest

from hpcmsm.batch import Batch
from hpcmsm.config import Material, MicroSection
from hpcmsm.errors import ConfigError
from hpcmsm.micro.generators import Recipe
from hpcmsm.micro.unit_cell_case import from_case

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
    model = make(lambda name: labels, microstructure="image:a.npy", phases=["resin", "fibre", "void"])
    assert np.array_equal(model.microstructure.labels, labels)
