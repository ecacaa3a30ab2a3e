"""Drawn microstructures: fractions, periodicity, statistics with known values, and what they conduct."""

import numpy as np
import oracles
import pytest
import scipy.integrate
import scipy.spatial
import scipy.special

from hpcmsm.batch import Batch
from hpcmsm.errors import ConfigError
from hpcmsm.micro.generators import Recipe
from hpcmsm.micro.packing import nonoverlapping, radius, random_points
from hpcmsm.micro.unit_cell import UnitCell

RECIPES = {
    "random_discs 2": dict(name="random_discs", ndim=2, fraction=0.45),
    "random_fibres 2": dict(name="random_fibres", ndim=2, fraction=0.3),
    "random_fibres 3": dict(name="random_fibres", ndim=3, fraction=0.3, count=5),
    "random_spheres 3": dict(name="random_spheres", ndim=3, fraction=0.25, count=8),
    "voronoi 2": dict(name="voronoi", ndim=2, nphase=3, count=12),
    "voronoi 3": dict(name="voronoi", ndim=3, nphase=2, count=6),
    "level_set 2": dict(name="level_set", ndim=2, fraction=0.37),
    "level_set 3": dict(name="level_set", ndim=3, fraction=0.5, correlation_length=0.2),
}


@pytest.fixture(params=RECIPES)
def recipe(request):
    options = RECIPES[request.param]
    return Recipe(resolution=32 if options["ndim"] == 2 else 16, **options)


def test_labels_are_a_function_of_seed_and_realisation(recipe):
    first = recipe.labels(3)
    assert first.shape == (recipe.resolution,) * recipe.ndim
    assert first.dtype == np.int32
    assert np.array_equal(first, recipe.labels(3))
    assert not np.array_equal(first, recipe.labels(4))
    other = Recipe(**{**vars(recipe), "seed": 2})
    assert not np.array_equal(first, other.labels(3))
    assert set(np.unique(first)) == set(range(recipe.nphase))


@pytest.mark.parametrize("name", [name for name in RECIPES if "voronoi" not in name])
def test_fractions_are_exact_to_the_point(name):
    options = RECIPES[name]
    recipe = Recipe(resolution=32 if options["ndim"] == 2 else 16, **options)
    points = recipe.resolution ** (2 if recipe.name == "random_fibres" else recipe.ndim)
    for realisation in range(5):
        assert abs(recipe.labels(realisation).mean() - recipe.fraction) <= 0.5 / points + 1e-15


def test_the_seam_of_the_cell_cannot_be_seen(recipe):
    """Across the sides of the cell phases change as often as anywhere else."""
    changes = np.zeros(recipe.resolution)
    realisations = range(400 if recipe.ndim == 2 else 100)
    for realisation in realisations:
        labels = recipe.labels(realisation)
        for axis in range(recipe.ndim):
            if recipe.name == "random_fibres" and recipe.ndim == 3 and axis == 0:
                continue
            moved = np.moveaxis(labels, axis, 0)
            changes += (moved != np.roll(moved, -1, axis=0)).reshape(recipe.resolution, -1).sum(axis=1)
    inside = changes[:-1]
    assert inside.mean() > 50
    assert abs(changes[-1] - inside.mean()) < 4.5 * inside.std()


def test_a_finer_grid_shows_the_same_material(recipe):
    fine = Recipe(**{**vars(recipe), "resolution": 2 * recipe.resolution}).labels(7)
    coarse = recipe.labels(7).astype(float)
    corners = [fine[tuple(slice(c, None, 2) for c in corner)] for corner in np.ndindex((2,) * recipe.ndim)]
    assert np.mean(np.mean(corners, axis=0) == coarse) > 0.6
    majority = np.abs(np.mean(corners, axis=0) - coarse) <= (0.5 if recipe.nphase == 2 else 0)
    assert np.mean(majority) > (0.97 if recipe.nphase == 2 else 0.6)


@pytest.mark.parametrize("ndim, count, fraction", [(2, 1, 0.6), (2, 3, 0.6), (2, 40, 0.6), (3, 20, 0.45)])
def test_inclusions_do_not_overlap(ndim, count, fraction):
    for realisation in range(10):
        centres = nonoverlapping(ndim, count, fraction, 1, realisation)
        assert centres.shape == (count, ndim)
        tree = scipy.spatial.cKDTree(centres, boxsize=1.0)
        assert not tree.query_pairs(2.0 * radius(ndim, count, fraction) * 1.014)


def test_discs_are_discs():
    """Every point lies in phase 1 exactly if it is nearer to a centre than the radius of the fraction."""
    n, count, fraction = 128, 7, 0.4
    labels = Recipe("random_discs", 2, n, fraction=fraction, count=count).labels(2)
    centres = nonoverlapping(2, count, fraction, 1, 2)
    tree = scipy.spatial.cKDTree(centres, boxsize=1.0)
    y, x = np.meshgrid(*[(np.arange(n) + 0.5) / n] * 2, indexing="ij")
    distance, _ = tree.query(np.stack([x, y], axis=-1))
    sharp = np.abs(distance - radius(2, count, fraction)) > 0.5 / n
    assert np.array_equal(labels[sharp], (distance < radius(2, count, fraction))[sharp])
    assert sharp.mean() > 0.8


def test_grains_belong_to_the_nearest_point():
    labels = Recipe("voronoi", 3, 12, nphase=3, count=9).labels(4)
    tree = scipy.spatial.cKDTree(random_points(3, 9, 1, 4), boxsize=1.0)
    z, y, x = np.meshgrid(*[(np.arange(12) + 0.5) / 12] * 3, indexing="ij")
    _, nearest = tree.query(np.stack([x, y, z], axis=-1))
    assert np.array_equal(labels, nearest % 3)


def two_point(fraction, covariance):
    """Probability that two points of a Gaussian field with this covariance lie below the level.

    f^2 + 1/(2 pi) integral from 0 to rho of exp(-a^2 / (1 + t)) / sqrt(1 - t^2) dt, with Phi(a) = f.
    """
    level = scipy.special.ndtri(fraction)
    part, _ = scipy.integrate.quad(
        lambda t: np.exp(-(level**2) / (1 + t)) / np.sqrt(1 - t * t), 0, covariance
    )
    return fraction**2 + part / (2 * np.pi)


@pytest.mark.parametrize("ndim, n, length", [(2, 64, 0.05), (3, 24, 0.08)])
def test_level_set_has_the_two_point_statistics_of_a_gaussian_field(ndim, n, length):
    recipe = Recipe("level_set", ndim, n, fraction=0.3, correlation_length=length)
    total = np.zeros(n)
    realisations = 100
    for realisation in range(realisations):
        labels = recipe.labels(realisation).astype(float)
        for axis in range(ndim):
            spectrum = np.abs(np.fft.fft(labels, axis=axis)) ** 2
            line = np.fft.ifft(spectrum, axis=axis).real / n
            total += np.moveaxis(line, axis, 0).reshape(n, -1).mean(axis=1)
    measured = total / (realisations * ndim)
    # As the fraction of each realisation is fixed, the covariance adds up to nothing over the cell.
    shell = {2: lambda r: 2 * np.pi * r, 3: lambda r: 4 * np.pi * r * r}[ndim]
    excess, _ = scipy.integrate.quad(
        lambda r: shell(r) * (two_point(0.3, np.exp(-((r / length) ** 2))) - 0.09), 0, 4 * length
    )
    for distance in (1, 2, 3, 5, n // 2):
        expected = two_point(0.3, np.exp(-((distance / n / length) ** 2))) - excess
        assert measured[distance] == pytest.approx(expected, abs=2e-3), distance


def conductivities(recipe, phases, realisations, **options):
    """K (ncomponent, n) of some realisations."""
    found = []
    for realisation in range(realisations):
        functions = [lambda temperature, k=k: np.full_like(temperature, k) for k in phases]
        cell = UnitCell(recipe.labels(realisation), functions, tolerance=1e-8, **options)
        answer = cell.evaluate(Batch(np.arange(1), np.array([[300.0]]), np.empty((0, 1))))
        assert answer.status[0] == 0
        assert cell.admissible(np.array([[300.0]]), answer.outputs)[0]
        found.append(answer.outputs[:, 0])
    return np.array(found).T


@pytest.mark.parametrize("name", ["random_discs 2", "level_set 2", "random_fibres 2"])
@pytest.mark.parametrize("contrast", [5.0, 0.2])
def test_mean_over_realisations_keeps_the_bounds_of_hashin_and_shtrikman(name, contrast):
    """They hold for isotropic materials, which the realisations are on average."""
    recipe = Recipe(resolution=64, **RECIPES[name])
    k = conductivities(recipe, (1.0, contrast), 30)
    low, high = oracles.hashin_shtrikman_2d(recipe.fraction, 1.0, contrast)
    mean = 0.5 * (k[0] + k[1]).mean()
    assert low * (1 - 2e-3) < mean < high * (1 + 2e-3)
    assert abs((k[0] - k[1]).mean()) < 4 * (k[0] - k[1]).std() / np.sqrt(30) + 1e-12
    assert np.ptp(k[0]) > 1e-3 * mean


@pytest.mark.parametrize("name", ["random_spheres 3", "level_set 3"])
@pytest.mark.parametrize("contrast", [5.0, 0.2])
def test_bounds_of_hashin_and_shtrikman_in_3d(name, contrast):
    recipe = Recipe(resolution=24, **RECIPES[name])
    k = conductivities(recipe, (1.0, contrast), 10)
    low, high = oracles.hashin_shtrikman_3d(recipe.fraction, 1.0, contrast)
    assert low * (1 - 2e-3) < k[:3].mean() < high * (1 + 2e-3)
    assert abs(k[3:].mean()) < 0.1 * k[:3].mean()


def test_symmetric_level_set_conducts_by_dykhnes_mean():
    """Phases that are statistically alike: the geometric mean (Dykhne 1971), here over realisations."""
    recipe = Recipe("level_set", 2, 128, fraction=0.5, correlation_length=0.1)
    k = conductivities(recipe, (1.0, 4.0), 40)
    mean = np.exp(0.5 * np.log(k[0] * k[1] - k[2] ** 2).mean())
    assert mean == pytest.approx(2.0, rel=0.02)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (dict(name="random_disc"), "did you mean 'random_discs'"),
        (dict(name="foam"), "drawn ones are random_discs"),
        (dict(name="random_spheres", fraction=0.2), "must be in 3 dimensions, got 2"),
        (dict(name="random_discs"), "micro.fraction must be given for 'random_discs'"),
        (dict(name="random_discs", fraction=0.7), "from 0 to 0.6"),
        (dict(name="random_spheres", ndim=3, fraction=0.5), "from 0 to 0.45"),
        (dict(name="random_discs", fraction=float("nan")), "from 0 to 0.6"),
        (dict(name="random_discs", fraction=0.2, count=0), "micro.count must be from 1"),
        (dict(name="random_discs", fraction=0.2, nphase=3), "must name 2 phases"),
        (dict(name="random_discs", fraction=0.2, correlation_length=0.1), "must be left out"),
        (dict(name="voronoi", fraction=0.2), "micro.fraction must be left out for 'voronoi'"),
        (dict(name="voronoi", nphase=4, count=2), "micro.count must be from 3"),
        (dict(name="level_set", fraction=0.2, correlation_length=0.9), "from 0.01 to 0.5"),
        (dict(name="level_set", fraction=0.2, count=3), "micro.count must be left out"),
    ],
)
def test_wrong_options_are_named(options, text):
    with pytest.raises(ConfigError, match=text):
        Recipe(**{"ndim": 2, "resolution": 32, **options})
