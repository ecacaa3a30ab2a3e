"""What gate.tolerance may say: relative, in a unit, or output by output; and the norm that follows."""

import numpy as np
import pytest
from mpi4py import MPI

from hpcmsm.closure.tolerance import Tolerance
from hpcmsm.config import parse_case
from hpcmsm.errors import ConfigError
from hpcmsm.fields import Field
from hpcmsm.summary import summary_table
from hpcmsm.surrogate import transform
from tests.gate_harness import TellTale, Told, make_batch, make_gate

OUTPUTS = (Field("conductivity", 3, "W/(m K)", spd=True), Field("rate", 2, "mol/(m3 s)"))


class Scaled:
    """A surrogate whose rate had a root mean square of 5."""

    field_scales = np.array([1.0, 5.0])

    def misfit(self, predicted, truth):
        return transform.misfit(OUTPUTS, self.field_scales, predicted, truth)


PREDICTED = np.array([[2.0, 1.0], [3.0, 1.0], [0.5, 0.0], [4.0, -1.0], [0.0, 1.0]])
TRUTH = PREDICTED + np.array([[0.03, 0.0], [0.0, 0.0], [0.04, 0.0], [0.3, 0.0], [0.4, 0.05]])
# By hand: Frobenius norm of the tensor's error, hypotenuse of that of the rate.
TENSOR, RATE = np.array([np.sqrt(0.03**2 + 2 * 0.04**2), 0.0]), np.array([0.5, 0.05])
SIZE = np.sqrt(np.array([2.0**2 + 3.0**2 + 2 * 0.5**2, 2.0]))


def learnt(given):
    """A tolerance that knows tensors of a root mean square of 3, and a rate of 5."""
    tolerance = Tolerance(given, OUTPUTS)
    tolerance.learn(np.array([[3.0, 0], [0, 3.0], [0, 0], [5.0, 0], [0, 5.0]]))
    return tolerance


def told(given):
    return learnt(given).told(Scaled(), PREDICTED, TRUTH)


def test_a_number_is_relative():
    tolerance = learnt(0.01)
    assert (tolerance.limit, tolerance.text) == (0.01, "0.01")
    for measure in (tolerance.told, tolerance.error):
        got = measure(Scaled(), PREDICTED, TRUTH)
        np.testing.assert_allclose(got, np.maximum(TENSOR / SIZE, RATE / 5.0))
    np.testing.assert_array_equal(tolerance.allowed(PREDICTED), [0.01, 0.01])


def test_with_units_errors_are_parts_of_the_tolerance():
    given = {"conductivity": "0.2 W/(m K)", "rate": "2 mol/(m3 s)"}
    tolerance = Tolerance(given, OUTPUTS)
    assert tolerance.limit == 1.0
    assert tolerance.text == "conductivity 0.2 W/(m K), rate 2 mol/(m3 s)"
    np.testing.assert_allclose(told(given), np.maximum(TENSOR / 0.2, RATE / 2.0), rtol=1e-14)


def test_units_and_relative_numbers_may_be_mixed():
    given = {"rate": 0.1, "conductivity": "0.2 W/(m K)"}
    np.testing.assert_allclose(told(given), np.maximum(TENSOR / 0.2, RATE / 5.0 / 0.1), rtol=1e-14)
    given = {"rate": "2 mol/(m3 s)", "conductivity": 0.01}
    np.testing.assert_allclose(told(given), np.maximum(TENSOR / SIZE / 0.01, RATE / 2.0), rtol=1e-14)


MIXTURES = [
    {"conductivity": "0.2 W/(m K)", "rate": "2 mol/(m3 s)"},
    {"conductivity": 0.003, "rate": "2 mol/(m3 s)"},
    {"conductivity": "0.2 W/(m K)", "rate": 1e-4},
    {"conductivity": 0.3, "rate": 1e-4},
]


@pytest.mark.parametrize("given", MIXTURES)
def test_an_error_that_is_allowed_is_within_the_tolerance(given):
    """Over all kinds of errors; and what is allowed is not much less than could be."""
    random = np.random.default_rng(0)
    tolerance, n = learnt(given), 2000
    factor = random.lognormal(0, 1, (2, n)).repeat([3, 2], axis=0)
    predicted = PREDICTED[:, [0]] * factor
    apart = random.normal(size=(5, n)) * random.lognormal(-6, 2, (2, n)).repeat([3, 2], axis=0)
    truth = predicted + apart
    allowed = tolerance.error(Scaled(), predicted, truth) <= tolerance.allowed(predicted)
    within = tolerance.told(Scaled(), predicted, truth) <= 1.0
    assert 50 < allowed.sum() < n and not (allowed & ~within).any()
    assert (within & ~allowed).mean() < 0.2


def test_scores_are_measured_like_errors():
    score = np.array([1e-3, 1e-3])
    assert learnt(0.01).score(score) is score
    given = {"conductivity": "0.2 W/(m K)", "rate": "2 mol/(m3 s)"}
    np.testing.assert_allclose(learnt(given).score(score), 1e-3 * max(3.0 / 0.2, 5.0 / 2.0))


def test_goal_is_a_tenth_of_the_sharpest_tolerance():
    assert learnt(0.01).goal == 1e-3
    given = {"conductivity": "0.2 W/(m K)", "rate": 0.1}
    assert learnt(given).goal == pytest.approx(0.1 * min(0.2 / 3.0, 0.1))
    assert Tolerance(given, OUTPUTS).goal > 0, "something before there are any samples"


@pytest.mark.parametrize(
    "given, words",
    [
        ("0.01 W/m", ["'conductivity'", "must be in W/(m K)", "'0.01 W/m'"]),
        ("0.01 W/(m K)", ["'rate'", "must be in mol/(m3 s)"]),
        ({"conductivity": 1e-3}, ["must name every output", "'rate'", "add rate = 2e-3"]),
        ({"conductivty": 1e-3, "rate": 1e-3}, ["'conductivty'", "did you mean 'conductivity'?"]),
        ({"conductivity": 1e-3, "rate": 1e-3, "x": 1e-3}, ["'x'", "there are conductivity, rate"]),
    ],
)
def test_what_does_not_fit_is_refused(given, words):
    with pytest.raises(ConfigError) as caught:
        Tolerance(given, OUTPUTS)
    assert all(word in str(caught.value) for word in ["gate.tolerance", *words]), caught.value
    assert "\n" not in str(caught.value)


CASE = """
grid = {cells = [4, 4], size = [1, 1]}
time = {end = 1, step = 1}
micro = {model = "constant"}
"""


@pytest.mark.parametrize(
    "override", ["gate.tolerance='0.01 W/(m K)'", "gate.tolerance.conductivity='0.01 W/(m K)'"]
)
def test_a_case_file_keeps_it(override):
    case = parse_case(CASE, "case", [override])
    again = parse_case(case.to_toml(), "again")
    assert again.gate.tolerance == case.gate.tolerance
    assert Tolerance(again.gate.tolerance, OUTPUTS[:1]).text == "conductivity 0.01 W/(m K)"


class Tensor(Told):
    """A conductivity that grows with x."""

    outputs = (Field("conductivity", 3, "W/(m K)", lower=0.0, spd=True),)

    def truth(self, inputs):
        k = 1.0 + inputs[0] * inputs[0]
        return np.stack([k, k, 0.0 * k])


class TensorTale(TellTale):
    outputs = Tensor.outputs

    def predict(self, inputs):
        k = (1.0 + inputs[0] * inputs[0]) * (1.0 + inputs[1])
        return np.stack([k, k, 0.0 * k]), inputs[2].copy()


def test_a_gate_accepts_by_the_unit():
    """K from 1 to 101 with relative errors of 1e-3: those whose error is below 0.05 may pass."""
    given = "0.05 W/(m K)"
    gate = make_gate(
        MPI.COMM_SELF,
        micro=Tensor(),
        surrogate=TensorTale(version=0),
        tolerance=given,
        audit=1e-9,
        training={"first_samples": 10},
    )
    ids = np.arange(400)
    x, relative = np.linspace(0.0, 10.0, ids.size), 1e-3 * (1 + 0.1 * np.sin(ids))
    for step in (1, 2):
        batch = make_batch(ids, x, relative, 1e-3, step)
        answer = gate.evaluate(batch)
        gate.finish_step(step)
    truth = gate.micro.truth(batch.inputs)[0]
    wrong = np.sqrt(2.0) * np.abs(answer.outputs[0] - truth)
    accepted = answer.source == 1
    assert accepted[truth < 30].all() and wrong[accepted].max() <= 0.05
    assert not accepted[truth > 36].any() and accepted.sum() > 200
    totals = gate.totals()
    assert (totals["tolerance"], totals["tolerance_text"]) == (1.0, "conductivity 0.05 W/(m K)")


def test_a_run_resumed_with_another_tolerance_measures_anew():
    def made(tolerance):
        return make_gate(MPI.COMM_SELF, tolerance=tolerance, version=0, training={"first_samples": 10})

    first, ids = made(0.05), np.arange(200)
    for step in (1, 2):
        first.evaluate(make_batch(ids, np.linspace(0, 5, 200), 1e-3, 1e-3, step))
        first.finish_step(step)
    second = made("0.05 1")
    second.load_state(first.state())
    k, size = first.calibration.window.outputs[0], np.sqrt(np.mean(first.replay.samples.outputs**2))
    assert second.tolerance.sizes[0] == pytest.approx(size) and second.surrogate.goal == pytest.approx(
        0.005 / size
    )
    np.testing.assert_allclose(second.calibration.errors, 1e-3 * k / 0.05, rtol=1e-6)
    assert second.calibration.q != first.calibration.q
    third = made("0.05 1")
    third.load_state(second.state())
    assert third.calibration.q == second.calibration.q and third.surrogate.goal == second.surrogate.goal


def test_summary_names_the_tolerance():
    summary = {
        "audit_error": {"p50": 0.3, "max": 0.9, "mean_signed": 0.0, "p99": 0.8},
        "tolerance": 1.0,
        "tolerance_text": "conductivity 0.01 W/(m K)",
        "coverage": {"asked": 0.99, "obtained": 1.0},
    }
    text = summary_table(summary)
    assert "conductivity 0.01 W/(m K)" in text and "in parts of the tolerance" in text
    text = summary_table({**summary, "tolerance": 0.002, "tolerance_text": "0.002"})
    assert "in parts of the tolerance" not in text
