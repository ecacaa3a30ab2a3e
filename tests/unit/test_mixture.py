"""The mixture kernels against Cantera and a numpy twin, in both precisions, cell by cell."""

import cantera
import numpy as np
import pytest

from hpcmsm.kernels import Kernel
from hpcmsm.micro.chemistry import mixture_of

PRESSURE = 2.0e5


@pytest.fixture(scope="module", params=["h2o2.yaml", "gri30.yaml"])
def gas(request):
    return cantera.Solution(request.param)


@pytest.fixture(scope="module")
def states(gas):
    """Temperatures on both sides of the middle one, and mass fractions over many orders of magnitude."""
    rng = np.random.default_rng(3)
    fractions = rng.random((gas.n_species, 61)) ** 8
    return rng.uniform(280.0, 3200.0, 61), np.ascontiguousarray(fractions / fractions.sum(axis=0))


def of_cantera(gas, states, *names):
    """Properties of every state by name, each (n,)."""
    rows = []
    for temperature, fractions in zip(states[0], states[1].T, strict=True):
        gas.TPY = temperature, PRESSURE, fractions
        rows.append([getattr(gas, name) for name in names])
    return np.array(rows).T


def twin_conserve(share, before, fractions):
    """The nearest point in relative change, by least squares of the scaled problem, cell by cell."""
    after = fractions.copy()
    for cell in range(fractions.shape[1]):
        y = fractions[:, cell]
        rows = share * y
        size = np.linalg.norm(rows, axis=1)
        rows, wanted = rows / size[:, None], share @ (before[:, cell] - y) / size
        after[:, cell] = y + y * np.linalg.lstsq(rows, wanted, rcond=1e-7)[0]
    return after


def test_properties_are_those_of_cantera(gas, states):
    mixture = mixture_of(gas, PRESSURE)
    names = ("enthalpy_mass", "density", "thermal_conductivity", "cp_mass")
    enthalpy, density, conductivity, capacity = of_cantera(gas, states, *names)
    np.testing.assert_allclose(mixture.enthalpy(*states), enthalpy, rtol=1e-12, atol=1e-6)
    found = mixture.properties(*states)
    np.testing.assert_allclose(found[0], density, rtol=1e-12)
    np.testing.assert_allclose(found[1], conductivity / capacity, rtol=1e-11)


def test_temperature_is_found_from_afar(gas, states):
    mixture = mixture_of(gas, PRESSURE)
    enthalpy = mixture.enthalpy(*states)
    for guess in (250.0, 1000.0, 3000.0):
        found, exists = mixture.temperature(enthalpy, states[1], np.full(states[0].shape, guess))
        assert exists.all()
        np.testing.assert_allclose(found, states[0], rtol=1e-11)


def test_an_impossible_enthalpy_has_no_temperature(gas, states):
    mixture = mixture_of(gas, PRESSURE)
    enthalpy = mixture.enthalpy(*states)
    enthalpy[::3], enthalpy[1] = -1e9, np.nan
    _, exists = mixture.temperature(enthalpy, states[1], states[0])
    expected = np.ones(61, bool)
    expected[::3] = expected[1] = False
    np.testing.assert_array_equal(exists, expected)


def test_elements_are_restored_by_the_least_relative_change(gas, states):
    mixture, before = mixture_of(gas, PRESSURE), states[1]
    rng = np.random.default_rng(4)
    moved = before * (1.0 + 1e-4 * rng.standard_normal(before.shape))
    after = mixture.conserve(before, moved)
    assert np.abs(mixture.share @ (after - before)).max() < 1e-15
    assert np.abs(after.sum(axis=0) - 1.0).max() < 1e-15
    np.testing.assert_allclose(after, twin_conserve(mixture.share, before, moved), rtol=1e-9, atol=1e-18)


def test_a_direction_without_species_is_left_alone(gas):
    mixture = mixture_of(gas, PRESSURE)
    before = np.zeros((mixture.nspecies, 2))
    before[mixture.species.index("H2O"), 0] = 1.0  # hydrogen and oxygen in one ratio alone
    before[mixture.species.index("N2"), 1] = 1.0
    moved = before * (1.0 + 1e-7)
    np.testing.assert_allclose(mixture.conserve(before, moved), before, atol=1e-15)


def arguments(mixture, states, dtype):
    """What each kernel is called with, and the names of what it writes."""
    temperature, fractions = (np.ascontiguousarray(part, dtype) for part in states)
    common = {"ncells": temperature.size, "nspecies": mixture.nspecies}
    thermo, n = mixture.thermo.astype(dtype), temperature.size
    state = {"temperature": temperature, "fractions": fractions}
    enthalpy = mixture.enthalpy(*states).astype(dtype)
    guess = np.full(n, 1200, dtype)
    properties = {
        "moles": (1 / mixture.weights).astype(dtype),
        "conduction": mixture.conduction.astype(dtype),
    }
    properties |= {"pressure_over_r": PRESSURE / 8.314, "density": np.empty(n, dtype)}
    moved = fractions * dtype(1.001)
    return {
        "enthalpy": {**common, "thermo": thermo, **state, "enthalpy": np.empty(n, dtype)},
        "temperature": {
            **common,
            "thermo": thermo,
            "enthalpy": enthalpy,
            "fractions": fractions,
            "temperature": guess,
            "residual": np.empty(n, dtype),
        },
        "properties": {**common, "thermo": thermo, **properties, **state, "diffusion": np.empty(n, dtype)},
        "conserve": {
            **common,
            "nelement": len(mixture.share),
            "share": mixture.share.astype(dtype),
            "before": fractions,
            "fractions": moved,
        },
    }


WRITTEN = {
    "enthalpy": ["enthalpy"],
    "temperature": ["temperature", "residual"],
    "properties": ["density", "diffusion"],
    "conserve": ["fractions"],
}


def part_of(given, cells):
    """The arguments for some of the cells, in memory of their own."""
    n = given["ncells"]
    taken = {
        name: np.ascontiguousarray(value[..., cells]) if np.shape(value)[-1:] == (n,) else value
        for name, value in given.items()
    }
    return {**taken, "ncells": len(cells)}


@pytest.mark.parametrize("name", WRITTEN)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_a_cell_knows_nothing_of_the_others(gas, states, name, dtype):
    mixture = mixture_of(gas, PRESSURE)
    kernel = Kernel.load("mixture", f"mixture_{name}", dtype=np.dtype(dtype).name, debug=True)
    given = arguments(mixture, states, dtype)[name]
    for cells in (np.random.default_rng(1).permutation(61), np.arange(7), np.array([60]), np.arange(3, 36)):
        some, whole = part_of(given, cells), part_of(given, np.arange(61))
        kernel(**some)
        kernel(**whole)
        for written in WRITTEN[name]:
            assert some[written].tobytes() == np.ascontiguousarray(whole[written][..., cells]).tobytes()


def test_single_precision_is_close(gas, states):
    mixture = mixture_of(gas, PRESSURE)
    exact, rough = (arguments(mixture, states, dtype) for dtype in (np.float64, np.float32))
    for name, written in WRITTEN.items():
        Kernel.load("mixture", f"mixture_{name}", dtype="float64")(**exact[name])
        Kernel.load("mixture", f"mixture_{name}", dtype="float32")(**rough[name])
        result = written[0]
        scale = np.abs(exact[name][result]).max()
        np.testing.assert_allclose(rough[name][result], exact[name][result], rtol=1e-3, atol=1e-5 * scale)
