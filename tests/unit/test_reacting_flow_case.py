"""The table [macro] of a reacting flow: what it makes of formulas, and what it refuses."""

import cantera
import numpy as np
import pytest
from mpi4py import MPI

from hpcmsm.assembly import build
from hpcmsm.config import parse_case
from hpcmsm.errors import ConfigError

TEXT = """
[grid]
cells = [8, 4]
size = ["8 mm", "4 mm"]
[time]
scheme = "strang"
step = "1 us"
end = "2 us"
[macro]
model = "reacting_flow"
velocity = ["3 + t", "x"]
[macro.initial]
temperature = "300 + 1e5 * x"
H2 = 2
O2 = "1 + 0 * y"
N2 = 3.76
[micro]
model = "cantera"
[surrogate]
enabled = false
"""


def parts(tmp_path, *overrides, text=TEXT):
    return build(parse_case(text, "case.toml", list(overrides)), MPI.COMM_SELF, tmp_path)


def test_moles_become_mass_fractions(tmp_path):
    made = parts(tmp_path)
    start = made.macro.initial()
    gas = cantera.Solution("h2o2.yaml")
    gas.X = "H2:2, O2:1, N2:3.76"
    np.testing.assert_allclose(start[1:], np.repeat(gas.Y[:, None], 32, axis=1), rtol=1e-13)
    np.testing.assert_allclose(start[0], 300.0 + 1e5 * made.grid.coordinates()["x"])


def test_velocity_is_that_of_the_formulas_or_a_flux_of_mass(tmp_path):
    made = parts(tmp_path)
    x = made.grid.coordinates()["x"]
    np.testing.assert_allclose(made.macro._velocity(2.0, np.ones(32)), [np.full(32, 5.0), x])
    text = TEXT.replace('velocity = ["3 + t", "x"]', "mass_flux = [2.0, 0.5]")
    found = parts(tmp_path, text=text).macro._velocity(0.0, np.full(32, 0.25))
    np.testing.assert_allclose(found, [np.full(32, 8.0), np.full(32, 2.0)])


def test_conduction_is_that_of_cantera_or_a_formula(tmp_path):
    macro = parts(tmp_path).macro
    values = macro.initial()
    gas = cantera.Solution("h2o2.yaml")
    gas.TPY = values[0, 5], 101325.0, values[1:, 5]
    density, diffusion = macro._properties(values[0].copy(), values[1:].copy())
    assert abs(density[5] / gas.density - 1.0) < 1e-12
    assert abs(diffusion[5] * gas.cp_mass / gas.thermal_conductivity - 1.0) < 1e-10
    macro = parts(tmp_path, "macro.diffusion='1e-5 * temperature'").macro
    np.testing.assert_allclose(macro._properties(values[0], values[1:])[1], 1e-5 * values[0])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("macro.initial=300", "macro.initial must be a table of the temperature and the moles of species"),
        (
            "macro.initial.H2O3=1",
            "macro.initial must name species of the mechanism, got 'H2O3'; did you mean",
        ),
        ("macro.initial.H2='x - 2e-3'", "macro.initial must give a positive temperature and amounts from 0"),
        ("macro.velocity=[1.0]", "macro.velocity must have one formula per axis of the grid, got 1 for 2"),
        ("macro.mass_flux=[1.0, 0]", "macro.velocity must be left out beside macro.mass_flux"),
        ("macro.velocities=[1.0]", "unknown key 'macro.velocities'.*did you mean 'macro.velocity'"),
        ("time.scheme='rk4'", "time.scheme must be one of godunov, strang for macro.model 'reacting_flow'"),
        ("micro.model='constant'", "micro.model must have a mixture for macro.model 'reacting_flow'"),
        ("grid.cells=[8, 1]", "grid.cells must give every rank 2 cells along each axis, got a block of"),
        ("macro.boundary.y_low={kind='flux', flux=2.0}", "macro.boundary.y_low must be 'temperature'"),
    ],
)
def test_what_is_wrong_is_refused_in_one_line(tmp_path, override, message):
    with pytest.raises(ConfigError, match=message) as caught:
        parts(tmp_path, override)
    assert "\n" not in str(caught.value)


def test_a_mechanism_without_transport_data_needs_a_formula(tmp_path):
    source = cantera.Solution("h2o2.yaml", transport_model=None)
    source.write_yaml(str(tmp_path / "bare.yaml"))
    with pytest.raises(ConfigError, match=r"macro.diffusion must be given where the mechanism has no"):
        parts(tmp_path, "micro.mechanism='bare.yaml'")
    assert parts(tmp_path, "micro.mechanism='bare.yaml'", "macro.diffusion=4e-5").macro.mixture.nspecies == 10
