"""The cardiac cell against its NumPy twin, a solver of differential equations and published values."""

import math
import re

import numpy as np
import oracle_tt06 as oracle
import pytest
from scipy.integrate import solve_ivp

from hpcmsm.batch import Batch
from hpcmsm.config import MicroSection
from hpcmsm.errors import ConfigError
from hpcmsm.fields import within_bounds
from hpcmsm.kernels import Kernel, kernel_folder
from hpcmsm.micro.registry import make_micro
from hpcmsm.micro.trial import try_out
from hpcmsm.micro.tt06 import TT06

NSTATE = 18


def advance(v, state, stimulus, dt, nsubstep=1, dtype="float64", size=64):
    """Voltages and states after one call of the kernel; the status must be 0."""
    kernel = Kernel.load("tt06", "tt06_advance", dtype=dtype)
    n = v.size
    after, state_after = np.empty(n, dtype), np.empty((NSTATE, n), dtype)
    status = np.full(n, -1, np.int32)
    given = [np.ascontiguousarray(array, dtype) for array in (np.broadcast_to(stimulus, n), v, state)]
    kernel(n, -(-n // size), size, nsubstep, dt, *given, after, state_after, status)
    assert not status.any()
    return after, state_after


@pytest.fixture(scope="module")
def beat():
    """Cells in all phases of a beat, voltages spread further so that every formula is met."""
    v, state = oracle.states_along_a_beat(300)
    return v + np.linspace(-25.0, 25.0, v.size), state


# --- against the twin


@pytest.mark.parametrize(
    ("dtype", "dt", "tolerance"), [("float64", 0.02, 2e-12), ("float64", 0.5, 1e-11), ("float32", 0.02, 3e-4)]
)
def test_a_step_is_that_of_the_twin(beat, dtype, dt, tolerance):
    v, state = beat
    stimulus = np.linspace(0.0, 50.0, v.size)
    after, state_after = advance(v, state, stimulus, dt, dtype=dtype)
    wanted, wanted_state = oracle.step(v, state, stimulus, dt)
    # What a step changes, against the largest change of that state (and the rounding of the state itself).
    moved = np.abs(wanted_state - state).max(axis=1) + np.abs(state).max(axis=1) * 1e-3
    assert np.all(np.abs(state_after - wanted_state).max(axis=1) <= tolerance * moved)
    assert np.abs(after - wanted).max() <= tolerance * max(1.0, np.abs(wanted - v).max())
    assert np.abs(wanted - v).max() > 0.5 and np.ptp(v) > 100.0


def test_the_goldman_current_is_smooth_at_15_mV():
    v = 15.0 + np.concatenate([[0.0], np.geomspace(1e-12, 1.0, 60), -np.geomspace(1e-12, 1.0, 60)])
    state = np.repeat(oracle.START[:, None], v.size, axis=1)
    state[6] = state[7] = 0.9
    after, _ = advance(v, state, 0.0, 0.02)
    wanted, _ = oracle.step(v, state, 0.0, 0.02)
    np.testing.assert_allclose(after, wanted, rtol=1e-11)


def test_substeps_are_steps(beat):
    v, state = beat
    wanted = v, state
    for _ in range(7):
        wanted = advance(*wanted, 3.0, 0.01)
    got = advance(v, state, 3.0, 0.01, nsubstep=7)
    assert np.array_equal(got[0], wanted[0]) and np.array_equal(got[1], wanted[1])


def test_the_constants_of_the_source_are_what_they_say():
    text = (kernel_folder() / "tt06.c").read_text()
    found = re.findall(r"(EXP|LOG)\(([^,()]+), ([-\d.e]+)\)", text)
    assert len(found) > 25 and {kind for kind, _, _ in found} == {"EXP", "LOG"}
    for kind, argument, value in found:
        known = {"EXP": math.exp, "LOG": math.log}[kind](
            quotient(argument.replace("RT_PER_F", repr(oracle.RTF)))
        )
        assert float(value) == pytest.approx(known, rel=1e-15)


def quotient(text):
    """Value of "a + b * c / d", nothing in parentheses."""
    if "+" in text:
        return sum(quotient(part) for part in text.split("+"))
    if "*" in text:
        return math.prod(quotient(part) for part in text.split("*"))
    above, *below = text.split("/")
    return float(above) / math.prod(float(number) for number in below)


# --- against a solver, and published values


def beat_of(dt, span):
    """Times, voltages and calcium of one cell, stimulated with 52 mV/ms for 1 ms."""
    kernel = Kernel.load("tt06", "tt06_advance", debug=False)
    v, state, status = np.array([oracle.REST]), oracle.START[:, None].copy(), np.zeros(1, np.int32)
    nstep = round(span / dt)
    trace = np.empty((2, nstep + 1))
    trace[:, 0] = v[0], state[12, 0]
    on, off = np.array([52.0]), np.zeros(1)
    for number in range(nstep):
        kernel(1, 1, 1, 1, dt, on if number * dt < 1.0 - dt / 2 else off, v, state, v, state, status)
        trace[:, number + 1] = v[0], state[12, 0]
    assert not status.any()
    return np.arange(nstep + 1) * dt, *trace


def test_a_beat_has_the_reference_values():
    time, v, calcium = beat_of(0.005, 400.0)
    slope = np.diff(v) / 0.005
    upstroke, peak = slope.argmax(), v.argmax()
    v90 = v[peak] - 0.9 * (v[peak] - oracle.REST)
    end = peak + np.flatnonzero(v[peak:] < v90)[0]
    assert slope[upstroke] == pytest.approx(369.1, abs=0.2)
    assert time[end] - time[upstroke] == pytest.approx(290.14, abs=0.05)
    # The peak of calcium alone tells a port with the wrong volumes; first order in dt: 0.96132 at dt 0.01.
    assert 1e3 * calcium.max() == pytest.approx(0.9619, abs=4e-4)


def test_the_step_is_of_first_order():
    def slopes(t, y):
        rate, states = oracle.right_side(y[:1], y[1:, None], 52.0 if t < 1.0 else 0.0)
        return np.concatenate([rate, states[:, 0]])

    start = np.concatenate([[oracle.REST], oracle.START])
    options = {"method": "LSODA", "rtol": 1e-10, "atol": 1e-12}
    first = solve_ivp(slopes, (0.0, 1.0 - 1e-13), start, **options)
    exact = solve_ivp(slopes, (1.0, 20.0), first.y[:, -1], **options).y[:, -1]
    errors = []
    for dt in (0.02, 0.01, 0.005):
        _, v, calcium = beat_of(dt, 20.0)
        errors.append([abs(v[-1] - exact[0]), abs(calcium[-1] - exact[13])])
    ratios = np.array(errors[:-1]) / np.array(errors[1:])
    assert np.all((ratios > 1.8) & (ratios < 2.2)), ratios
    assert errors[-1][0] < 0.03


# --- the micro model


def batch_of(v, state, stimulus=0.0, dt=2e-5):
    inputs = np.stack([v, np.broadcast_to(stimulus, v.shape)])
    return Batch(np.arange(v.size), np.ascontiguousarray(inputs), np.ascontiguousarray(state), dt=dt, step=1)


def test_the_model_advances_by_a_step_in_seconds(beat):
    v, state = beat
    answer = TT06(substeps=4).evaluate(batch_of(v, state, 2.0, dt=8e-5))
    wanted = advance(v, state, 2.0, 0.08 / 4, nsubstep=4)
    assert np.array_equal(answer.outputs[0], wanted[0]) and np.array_equal(answer.state, wanted[1])


def test_the_model_starts_as_the_benchmark_says():
    micro = TT06()
    state = micro.initial_state(np.zeros((2, 3)))
    assert np.array_equal(state, np.repeat(oracle.START[:, None], 3, axis=1))
    try_out(micro, batch_of(np.full(9, oracle.REST), micro.initial_state(np.zeros((2, 9)))))


def test_without_time_the_present_is_told(beat):
    v, state = beat
    answer = TT06().evaluate(batch_of(v, state, 5.0, dt=0.0))
    assert np.array_equal(answer.outputs[0], v) and np.array_equal(answer.state, state)
    assert answer.state is not state and not answer.status.any()


def test_gates_and_concentrations_stay_possible():
    micro = TT06(substeps=2)
    v, state = np.linspace(-120.0, 60.0, 97), np.repeat(oracle.START[:, None], 97, axis=1)
    largest = v.max()
    for number in range(4500):
        answer = micro.evaluate(batch_of(v, state, 50.0 if number < 10 else 0.0, dt=1e-4))
        assert not answer.status.any()
        v, state = answer.outputs[0], answer.state
        assert within_bounds(micro.state, state).all()
        largest = max(largest, v[0])
    assert largest > 20.0 and v.max() < -70.0


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_cell_depends_on_itself_alone(beat, dtype):
    """Permuted, cut into pieces of odd sizes, padded, in blocks of other sizes: the same bits."""
    v, state = (array.astype(dtype) for array in beat)
    whole, whole_state = advance(v, state, 1.0, 0.02, nsubstep=3, dtype=dtype)
    order = np.random.default_rng(1).permutation(v.size)
    permuted = advance(v[order], state[:, order], 1.0, 0.02, 3, dtype)
    assert np.array_equal(permuted[0], whole[order]) and np.array_equal(permuted[1], whole_state[:, order])
    cuts = np.cumsum([1, 2, 3, 5, 7, 8, 15, 16, 17, 31, 64, 65])
    for part in np.split(np.arange(v.size), cuts):
        got = advance(v[part], state[:, part], 1.0, 0.02, 3, dtype, size=13)
        assert np.array_equal(got[0], whole[part]) and np.array_equal(got[1], whole_state[:, part])
    padded = advance(np.append(v, [0.0] * 5), np.append(state, state[:, :5], axis=1), 1.0, 0.02, 3, dtype)
    assert np.array_equal(padded[0][:-5], whole)


def test_what_went_wrong_is_told_of_the_cell_alone(beat):
    v, state = beat[0][:9].copy(), beat[1][:, :9].copy()
    v[2], state[12, 4], v[7] = np.nan, -1.0, 1e4
    answer = TT06().evaluate(batch_of(v, state))
    assert answer.status.tolist() == [0, 0, 1, 0, 1, 0, 0, 1, 0]


def test_the_case_names_its_substeps():
    micro = make_micro(MicroSection(model="tt06", substeps=3), {}, {}, None, None)
    assert isinstance(micro, TT06) and micro.substeps == 3 and micro.history == "full"
    with pytest.raises(ConfigError, match=r"unknown key 'micro\.substep'.*did you mean 'micro\.substeps'"):
        make_micro(MicroSection(model="tt06", substep=3), {}, {}, None, None)
