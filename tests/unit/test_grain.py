"""A growing and dissolving grain against a sparse twin, sharp fronts and bounds; the same in any batch."""

import grain_oracle as oracle
import numpy as np
import oracles
import pytest

from hpcmsm.batch import Batch
from hpcmsm.errors import ConfigError
from hpcmsm.kernels import Kernel
from hpcmsm.micro.grain import Grain
from hpcmsm.micro.trial import try_out

TIGHT = {"tolerance": 1e-11, "phase_tolerance": 1e-12}


def batch(u, state, dt=0.01):
    inputs = np.atleast_2d(np.asarray(u, float))
    return Batch(np.arange(inputs.shape[1]), inputs, state, 0.0, dt, 1)


def bumpy(n, seed=0):
    """A smooth phase field without symmetry, from below 0.1 to above 0.9."""
    rng, x = np.random.default_rng(seed), 2 * np.pi * (np.arange(n) + 0.5) / n
    waves = [(rng.uniform(0, 7), rng.uniform(0, 7), k, m) for k in (1, 2) for m in (1, 2)]
    field = sum(np.cos(k * x[:, None] + a) * np.cos(m * x + b) for a, b, k, m in waves)
    return 1.0 / (1.0 + np.exp(-3.0 * field))


def run(model, u, dt, steps, state=None):
    """State and outputs of one cell after some steps at a fixed u."""
    state = model.initial_state(np.zeros((1, 1))) if state is None else state
    for _ in range(steps):
        answer = model.evaluate(batch([u], state, dt))
        assert not answer.status.any()
        state = answer.state
    return state, answer.outputs[:, 0]


# ------------------------------------------------------------------------------ independent answers


@pytest.mark.parametrize("resolution", [4, 10, 16, 32])
def test_a_step_is_that_of_the_twin(resolution):
    model = Grain(resolution=resolution, grain=1e-3, **TIGHT)
    u = np.array([0.0, 0.3, 0.5, 0.6, 0.8])
    start = np.stack([bumpy(resolution, seed).ravel() for seed in range(u.size)], axis=1)
    answer = model.evaluate(batch(u, start, 0.008))
    assert not answer.status.any()
    for cell in range(u.size):
        phase = oracle.step(start[:, cell].reshape(resolution, -1), u[cell], 0.008)
        np.testing.assert_allclose(answer.state[:, cell], phase.ravel(), atol=1e-11)
        assert answer.outputs[0, cell] == pytest.approx(phase.mean(), abs=1e-12)
        exact = oracle.conductivity(phase, 1.0, 1e-3)
        np.testing.assert_allclose(answer.outputs[1:, cell], exact, rtol=1e-9, atol=1e-9)
        assert abs(exact[2]) > 1e-4  # the cell has no symmetry that would hide an exchange of axes
    assert np.abs(answer.state - start).max() > 0.05


@pytest.mark.parametrize("grain", [1e-2, 1e-6])
def test_the_diffusivity_is_within_its_tolerance(grain):
    """The estimate of the error, too, for grains from a dot to one that reaches its neighbours."""
    radii, n = [0.05, 0.2, 0.3, 0.4, 0.45, 0.49], 32
    start = np.stack([oracle.disc(n, radius).ravel() for radius in radii], axis=1)
    exact = [oracle.conductivity(oracle.disc(n, radius), 1.0, grain)[0] for radius in radii]
    for tolerance in (1e-3, 1e-6, 1e-9):
        model = Grain(resolution=n, grain=grain, tolerance=tolerance)
        answer = model.evaluate(batch(np.full(len(radii), 0.5), start, 0.0))
        assert not answer.status.any()
        np.testing.assert_allclose(answer.outputs[1], exact, rtol=tolerance)


def test_second_order_in_the_points():
    found = []
    for resolution in (32, 64, 128):
        _, outputs = run(Grain(resolution=resolution, **TIGHT), 0.25, 0.01, 25)
        found.append(outputs[:2])
    change = np.diff(found, axis=0)
    assert np.all(np.abs(change[1]) > 1e-4)
    np.testing.assert_allclose(np.log2(change[0] / change[1]), 2.0, atol=0.25)


def test_first_order_in_time():
    found = []
    for steps in (40, 80, 160):
        found.append(run(Grain(resolution=32, **TIGHT), 0.2, 0.2 / steps, steps)[1][:2])
    change = np.diff(found, axis=0)
    assert np.all(np.abs(change[1]) > 1e-4)
    np.testing.assert_allclose(np.log2(change[0] / change[1]), 1.0, atol=0.2)


def test_the_front_moves_as_a_sharp_one():
    """d porosity/dt = - 2 pi r (f(u) - gam/r); at the equilibrium it is 2 pi gam, whatever the radius."""
    model = Grain(resolution=64)
    for u in (0.5, 0.35, 0.0):
        state, before = run(model, u, 0.001, 20)
        _, after = run(model, u, 0.001, 1, state)
        radius = np.sqrt((1.0 - 0.5 * (before[0] + after[0])) / np.pi)
        speed = (u / 0.5) ** 2 - 1.0 - 0.05 / radius
        assert (after[0] - before[0]) / 0.001 == pytest.approx(-2 * np.pi * radius * speed, rel=0.02)


def test_conduction_is_isotropic_and_within_bounds():
    model = Grain(resolution=48, **TIGHT)
    state = model.initial_state(np.zeros((1, 1)))
    for _ in range(6):
        state, (porosity, xx, yy, xy) = run(model, 0.1, 0.02, 1, state)
        assert xx == pytest.approx(yy, rel=1e-9)
        assert abs(xy) < 1e-7 * xx
        # Hashin and Shtrikman's upper bound of many phases, of which 1 is the best.
        k = 1e-6 + (1 - 1e-6) * np.concatenate(
            [k.ravel() for k in oracle.faces(state.reshape(48, 48), 1.0, 0.0)]
        )
        highest = 1.0 / np.mean(1.0 / (k + 1.0)) - 1.0
        assert oracles.wiener([porosity, 1 - porosity], [1.0, 1e-6])[0] < xx < highest < porosity
        assert model.admissible(np.zeros((1, 1)), np.array([[porosity], [xx], [yy], [xy]])).all()
        assert not model.admissible(np.zeros((1, 1)), np.array([[xx], [porosity], [yy], [xy]])).any()


def test_a_cell_without_a_grain_and_one_that_is_a_grain():
    model = Grain(resolution=16, grain=1e-3)
    answer = model.evaluate(batch([0.5, 0.5], np.array([[1.0, 0.0]] * 256), 0.0))
    np.testing.assert_allclose(answer.outputs, [[1, 0], [1, 1e-3], [1, 1e-3], [0, 0]], atol=1e-14)


def test_porosity_alone_is_no_state():
    """Why the history is full: touching grains do not conduct as a disc of the same porosity."""
    model = Grain(resolution=32)
    _, (porosity, grown, *_) = run(model, 0.6, 0.01, 22)
    radii = np.linspace(0.4, 0.6, 201)
    means = [oracle.disc(32, radius).mean() for radius in radii]
    radius = np.interp(-porosity, -np.array(means), radii)
    disc = oracle.conductivity(oracle.disc(32, radius), 1.0, 1e-6)[0]
    assert disc > 2 * grown


# ----------------------------------------------------------------------- rules of the problem, failures


def test_without_time_the_present_state_answers():
    model = Grain(resolution=16, **TIGHT)
    start = bumpy(16).reshape(-1, 1)
    answer = model.evaluate(batch([0.1], start, 0.0))
    assert np.array_equal(answer.state, start)
    np.testing.assert_allclose(answer.outputs[1:, 0], oracle.conductivity(bumpy(16), 1.0, 1e-6), rtol=1e-9)


def test_a_cell_stops_at_its_porosity():
    model = Grain(resolution=32, stop=0.6)
    state = model.initial_state(np.zeros((1, 2)))
    for _ in range(6):
        before, answer = state, model.evaluate(batch([0.0, 0.4], state))
        state = answer.state
    assert answer.outputs[0, 0] >= 0.6 > answer.outputs[0, 1]
    assert np.array_equal(state[:, 0], before[:, 0])
    assert not np.array_equal(state[:, 1], before[:, 1])
    assert model.solve(batch([0.0, 0.4], state)).newton.tolist()[0] == 0


def test_faults_are_a_status_of_their_cell_alone():
    model = Grain(resolution=16)
    u = np.array([0.2, np.nan, -0.1, 0.2, 0.2, 1e9, 0.3])
    start = np.repeat(model.initial_state(np.zeros((1, 1))), 7, axis=1)
    start[5, 3], start[100, 4] = np.nan, 3.0
    answer = model.evaluate(batch(u, start))
    assert answer.status.tolist() == [0, 2, 2, 2, 2, 2, 0]
    assert np.isnan(answer.outputs[:, answer.status == 2]).all()
    assert np.isnan(answer.state[:, answer.status == 2]).all()
    good = model.evaluate(batch(u[[0, 6]], np.ascontiguousarray(start[:, [0, 6]])))
    assert np.array_equal(answer.outputs[:, [0, 6]], good.outputs)
    assert np.array_equal(answer.state[:, [0, 6]], good.state)


def test_a_concentration_below_zero_by_the_error_of_a_solver_is_none():
    model = Grain(resolution=16)
    start = np.repeat(model.initial_state(np.zeros((1, 1))), 2, axis=1)
    answer = model.evaluate(batch([0.0, -1e-8], start))
    assert not answer.status.any()
    np.testing.assert_allclose(answer.outputs[:, 1], answer.outputs[:, 0], rtol=1e-12, atol=1e-12)


def test_a_step_that_is_too_long_is_a_status():
    model = Grain(resolution=32)
    start = np.repeat(model.initial_state(np.zeros((1, 1))), 2, axis=1)
    assert model.evaluate(batch([0.5, 1.0], start, 0.05)).status.tolist() == [0, 1]
    found = Grain(resolution=32, max_iterations=1, tolerance=1e-12).solve(batch([0.5, 0.5], start))
    assert found.status.tolist() == [3, 3]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"resolution": 31}, "resolution must be a multiple of 2, got 31"),
        ({"lamb": 0.1}, "unknown key 'lamb' .*did you mean 'lam'"),
        ({"gam": -1.0}, "gam must be greater than 0, got -1.0"),
        ({"grain": 0.0}, "grain must be greater than 0, got 0.0"),
        ({"grain": 2.0}, "grain must be at most conducting, got 2 > 1"),
        ({"radius": float("nan")}, "radius must be"),
    ],
)
def test_wrong_arguments_are_named(options, text):
    with pytest.raises(ConfigError, match=text):
        Grain(**options)


# -------------------------------------------------------------------------- the same bits in any batch


@pytest.fixture(scope="module")
def varied():
    """A model and cells that need different numbers of iterations, one of them at rest."""
    rng = np.random.default_rng(4)
    start = np.stack([bumpy(12, seed).ravel() for seed in range(19)], axis=1)
    start[:, 7] = 0.99
    return Grain(resolution=12), rng.uniform(0.0, 0.7, 19), start


def test_order_splits_and_padding_do_not_change_a_bit(varied):
    model, u, start = varied
    whole = model.solve(batch(u, start))
    assert not whole.status.any()
    assert len(set(whole.linear)) > 3
    order = np.random.default_rng(3).permutation(19)
    parts = [order, *np.split(np.arange(19), [1, 4, 11, 12])]
    for part in parts:
        found = model.solve(batch(u[part], np.ascontiguousarray(start[:, part])))
        for one, all_cells in zip(found, whole, strict=True):
            assert np.array_equal(one, all_cells[..., part])


def test_the_trial_call_before_a_run_is_passed(varied):
    model, u, start = varied
    try_out(model, batch(u, start))


def test_empty_batch_and_cost(varied):
    model, u, start = varied
    assert model.evaluate(batch(np.empty(0), np.empty((144, 0)))).outputs.shape == (4, 0)
    answer = model.evaluate(batch(u, start))
    assert 0 < answer.cost[7] < answer.cost[:7].min()


def test_single_precision_comes_near():
    n, u = 32, np.array([0.0, 0.3, 0.5, 0.6], np.float32)
    start = np.repeat(oracle.disc(n).reshape(-1, 1), 4, axis=1)
    exact = Grain(resolution=n, grain=1e-3).evaluate(batch(u, start)).outputs
    found = {name: np.empty(4, np.float32) for name in ("porosity", "residual")}
    found |= {name: np.empty(4, np.int32) for name in ("newton", "linear", "iterations", "status")}
    diffusivity, after = np.empty((3, 4), np.float32), np.empty((n * n, 4), np.float32)
    Kernel.load("grain", "grain_2d", dtype="float32")(
        ncells=4, n=n, nword=16, max_iterations=100, dt=0.01, lam=1 / 12, gam=0.05, rate=1.0, equilibrium=0.5,
        stop=0.95, conducting=1.0, grain=1e-3, tolerance=1e-5, phase_tolerance=1e-10, concentration=u,
        before=start.astype(np.float32), after=after, diffusivity=diffusivity, **found,
    )  # fmt: skip
    assert not found["status"].any()
    np.testing.assert_allclose(found["porosity"], exact[0], rtol=2e-5)
    np.testing.assert_allclose(diffusivity[:2], exact[1:3], rtol=5e-5)
