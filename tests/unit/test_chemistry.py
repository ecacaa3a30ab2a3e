"""The reactor of a cell against Cantera run by hand, what it conserves, and what it refuses."""

import sys
from pathlib import Path

import cantera
import numpy as np
import pytest

from hpcmsm.batch import Batch
from hpcmsm.closure.conserved import project
from hpcmsm.config import MicroSection
from hpcmsm.errors import ConfigError, MicroError, SetupError
from hpcmsm.micro.chemistry import FAILED, NO_MIXTURE, Chemistry
from hpcmsm.micro.registry import make_micro
from hpcmsm.micro.trial import try_out

STOICHIOMETRIC = "H2:2, O2:1, N2:3.76"


def integrated(times, temperature=1200.0, tolerance=1e-10):
    """Rows temperature and mass fractions of a hydrogen-air reactor at these times, (11, ntimes)."""
    gas = cantera.Solution("h2o2.yaml")
    gas.TPX = temperature, cantera.one_atm, STOICHIOMETRIC
    reactor = cantera.IdealGasConstPressureReactor(gas, clone=False)
    net = cantera.ReactorNet([reactor])
    net.rtol, net.atol = tolerance, 1e-16
    states = []
    for time in times:
        if time > 0:
            net.advance(time)
        states.append([reactor.T, *reactor.phase.Y])
    return np.array(states).T.copy()


@pytest.fixture(scope="module")
def states():
    """Fresh, igniting and burnt cells: 0.3 ms contain all of the ignition."""
    return integrated(np.linspace(0.0, 1.2e-4, 25))


@pytest.fixture(scope="module")
def model():
    return Chemistry("h2o2.yaml")


def batch(inputs, dt=1e-6):
    n = inputs.shape[1]
    return Batch(np.arange(n) + 7, np.ascontiguousarray(inputs), np.empty((0, n)), 0.0, dt, 1)


def stepped(model, inputs, dt):
    """Temperature and mass fractions after one step, the temperature from the enthalpy."""
    answer = model.evaluate(batch(inputs, dt))
    assert not answer.status.any()
    after = inputs[1:] + answer.outputs
    before = np.ascontiguousarray(inputs[1:])
    enthalpy = model.mixture.enthalpy(np.ascontiguousarray(inputs[0]), before)
    temperature, exists = model.mixture.temperature(enthalpy, after, np.ascontiguousarray(inputs[0]))
    assert exists.all()
    return np.vstack([temperature, after])


def test_states_are_those_of_cantera_to_the_tolerance(model):
    times = np.linspace(0.0, 1.2e-4, 41)
    exact = integrated(times)
    assert exact[0, 0] == 1200.0
    assert exact[0, -1] > 2500.0  # it has ignited
    found = stepped(model, exact[:, :-1], times[1])
    np.testing.assert_allclose(found[0], exact[0, 1:], rtol=2e-6)
    np.testing.assert_allclose(found[1:], exact[1:, 1:], atol=2e-6)


def test_ignition_delay_step_by_step(model):
    times = np.linspace(0.0, 1.2e-4, 121)
    exact = integrated(times)[0]
    state = integrated([0.0])
    temperatures = [state[0, 0]]
    for _ in times[1:]:
        state = stepped(model, state, times[1])
        temperatures.append(state[0, 0])

    def delay(temperature):
        return np.interp(2000.0, temperature, times)

    assert 2e-5 < delay(exact) < 1e-4
    assert abs(delay(temperatures) / delay(exact) - 1.0) < 1e-3
    assert abs(temperatures[-1] / exact[-1] - 1.0) < 1e-5


def test_elements_and_sums_are_conserved_to_rounding(model, states):
    answer = model.evaluate(batch(states, 2e-5))
    assert np.abs(answer.outputs).max() > 1e-2
    assert np.abs(model.mixture.share @ answer.outputs).max() < 1e-15
    assert np.abs(answer.outputs.sum(axis=0)).max() < 1e-15
    assert (states[1:] + answer.outputs).min() >= 0.0


def test_no_time_means_no_change(model, states):
    answer = model.evaluate(batch(states, 0.0))
    assert not answer.status.any()
    assert not answer.outputs.any()


def test_a_cell_knows_nothing_of_the_others(model, states):
    whole = model.evaluate(batch(states))
    order = np.random.default_rng(2).permutation(states.shape[1])
    for cells in (order, order[:5], np.array([20]), np.repeat(order[:3], 2)):
        part = model.evaluate(batch(states[:, cells]))
        assert part.outputs.tobytes() == np.ascontiguousarray(whole.outputs[:, cells]).tobytes()
    other = Chemistry("h2o2.yaml").evaluate(batch(states[:, ::-1]))
    assert other.outputs[:, ::-1].tobytes() == whole.outputs.tobytes()
    try_out(model, batch(states))


def test_cost_is_measured_cell_by_cell(model, states):
    cost = model.evaluate(batch(states)).cost
    assert (cost > 1e-6).all()
    assert cost.max() > 1.2 * cost.min()


def test_true_answers_are_admissible_and_others_are_not(model, states):
    inputs = np.ascontiguousarray(states)
    changes = model.evaluate(batch(states)).outputs
    assert model.admissible(inputs, changes).all()
    created, negative = changes.copy(), changes.copy()
    created[0] += 1e-6
    water = [model.mixture.species.index(name) for name in ("H2", "O2", "H2O")]
    negative[water] += 2.0 * np.array([[-2.016], [-31.998], [34.014]]) / 34.014  # more than there is
    assert not model.admissible(inputs, created).any()
    assert not model.admissible(inputs, negative).any()
    assert not model.admissible(inputs, np.full_like(changes, np.nan)).any()


def test_a_surrogates_answer_can_be_moved_onto_the_elements(model, states):
    inputs = np.ascontiguousarray(states[:, 10:])
    changes = model.evaluate(batch(inputs)).outputs
    guess = changes * (1.0 + 1e-3 * np.random.default_rng(5).standard_normal(changes.shape))
    assert not model.admissible(inputs, guess).any()
    moved = project(guess, *model.conserved(inputs))
    assert model.admissible(inputs, moved).all()
    assert np.abs(moved - changes).max() < 10 * np.abs(guess - changes).max()


@pytest.mark.parametrize(
    ("row", "value", "status"),
    [(0, 40.0, NO_MIXTURE), (0, np.nan, NO_MIXTURE), (1, 0.9, NO_MIXTURE), (1, -0.2, NO_MIXTURE)],
)
def test_what_is_no_mixture_gets_a_status(model, states, row, value, status):
    wrong = states.copy()
    wrong[row, 3] = value
    answer = model.evaluate(batch(wrong))
    assert answer.status[3] == status
    assert (np.delete(answer.status, 3) == 0).all()
    right = model.evaluate(batch(states))
    assert np.delete(answer.outputs, 3, axis=1).tobytes() == np.delete(right.outputs, 3, axis=1).tobytes()


def test_a_failed_integration_gets_a_status(states):
    answer = Chemistry("h2o2.yaml", max_steps=2).evaluate(batch(states))
    assert (answer.status == FAILED).all()


def test_a_failure_names_the_cell(states):
    from mpi4py import MPI

    from hpcmsm.closure.direct import Direct
    from hpcmsm.timers import Timers

    closure = Direct(Chemistry("h2o2.yaml", max_steps=2), MPI.COMM_SELF, Timers())
    with pytest.raises(MicroError, match=r"25 of 25 cells .* \(first: cell 7 on rank 0, status 1.*N2 = "):
        closure.evaluate(batch(states))


def section(**options):
    return MicroSection(model="cantera", **options)


def made(folder, **options):
    return make_micro(section(**options), {}, {}, folder, None)


def test_a_mechanism_beside_the_case_comes_first(tmp_path):
    text = (Path(cantera.__file__).parent / "data" / "h2o2.yaml").read_text()
    (tmp_path / "own.yaml").write_text(text)
    model = made(tmp_path, mechanism="own.yaml", pressure=5e5)
    assert model.facts()["mechanism"] == "own.yaml"
    assert model.mixture.pressure == 5e5
    assert [field.name for field in model.inputs][:3] == ["temperature", "H2", "H"]


def test_wrong_options_are_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"micro.mechanism must be .* got 'none.yaml' .*none.yaml"):
        made(tmp_path, mechanism="none.yaml")
    (tmp_path / "bad.yaml").write_text("species: [")
    with pytest.raises(ConfigError, match=r"micro.mechanism must be a mechanism that Cantera can read"):
        made(tmp_path, mechanism="bad.yaml")
    with pytest.raises(ConfigError, match="unknown key 'micro.presure'.*micro.pressure"):
        made(tmp_path, presure=1e5)
    with pytest.raises(ConfigError, match="NASA7 polynomials, got Nasa9PolyMultiTempRegion for"):
        made(tmp_path, mechanism="airNASA9.yaml")


def test_without_cantera_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "cantera", None)
    with pytest.raises(SetupError, match=r"pip install 'hpcmsm\[chemistry\]'"):
        Chemistry()
