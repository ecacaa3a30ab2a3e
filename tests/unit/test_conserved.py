"""Answers are moved onto the sums that the micro model keeps: nearest, exactly, each cell for itself."""

import numpy as np
import pytest
from mpi4py import MPI

from hpcmsm.closure.conserved import project
from hpcmsm.errors import MicroError
from hpcmsm.fields import Field
from hpcmsm.micro.trial import try_out
from tests.gate_harness import TellTale, Told, make_batch, make_gate

# Mass of H, O, C in H2, O2, H2O, CO, CO2, N2 (per mass), and all of it together.
ATOMS = np.array([[2, 0, 2, 0, 0, 0], [0, 2, 1, 1, 2, 0], [0, 0, 0, 1, 1, 0], [0, 0, 0, 0, 0, 2]])
MASSES = np.array([1.008, 15.999, 12.011, 14.007])
ELEMENTS = (ATOMS * MASSES[:, None] / (MASSES @ ATOMS))[:3]
SUMS = np.vstack([ELEMENTS, np.ones(6)])


def cells(n=200, seed=3):
    """Right mass fractions, and wrong ones that do not add up."""
    random = np.random.default_rng(seed)
    right = random.dirichlet(np.full(6, 0.5), n).T
    return right, np.ascontiguousarray(right * random.normal(1, 0.02, right.shape))


def test_it_is_the_weighted_least_squares_solution():
    """Cell by cell by the equations of Lagrange, in another library call and order."""
    right, wrong = cells(50)
    totals = SUMS @ right
    got = project(wrong, SUMS, totals)
    for cell in range(50):
        share = np.maximum(np.abs(wrong[:, cell]), 1e-9 * np.abs(wrong[:, cell]).max())
        kkt = np.block([[np.diag(1 / share), SUMS.T], [SUMS, np.zeros((4, 4))]])
        rest = np.concatenate([np.zeros(6), totals[:, cell] - SUMS @ wrong[:, cell]])
        move = np.linalg.lstsq(kkt, rest, rcond=None)[0][:6]
        np.testing.assert_allclose(got[:, cell] - wrong[:, cell], move, atol=1e-10)


def test_sums_are_kept_to_rounding_and_answers_improve():
    right, wrong = cells()
    totals = SUMS @ right
    got = project(wrong, SUMS, totals)
    assert np.abs(SUMS @ got - totals).max() < 4e-15
    assert np.abs(SUMS @ wrong - totals).max() > 1e-3, "there was something to mend"
    assert np.abs(got - right).sum() < 0.8 * np.abs(wrong - right).sum()
    np.testing.assert_allclose(project(got, SUMS, totals), got, rtol=1e-13, atol=1e-15)


def test_one_sum_of_fractions_is_a_division():
    _, wrong = cells()
    got = project(wrong, np.ones((1, 6)), np.ones((1, wrong.shape[1])))
    np.testing.assert_allclose(got, wrong / wrong.sum(axis=0), rtol=1e-7, atol=1e-12)
    assert (got >= 0).all()


def test_a_cell_depends_on_itself_alone():
    right, wrong = cells()
    totals = SUMS @ right
    whole = project(wrong, SUMS, totals)
    order = np.random.default_rng(1).permutation(200)
    shuffled = project(wrong[:, order].copy(), SUMS, totals[:, order].copy())
    assert shuffled.tobytes() == whole[:, order].tobytes()
    for cell in (0, 17, 199):
        alone = project(wrong[:, [cell]], SUMS, totals[:, [cell]])
        assert alone.tobytes() == whole[:, [cell]].tobytes()


def test_sums_that_follow_from_others_do_no_harm():
    right, wrong = cells()
    twice = np.vstack([SUMS, 2.0 * SUMS[0] - SUMS[2], np.zeros(6)])
    got = project(wrong, twice, twice @ right)
    assert np.abs(twice @ got - twice @ right).max() < 1e-13
    np.testing.assert_allclose(got, project(wrong, SUMS, SUMS @ right), atol=1e-10)


def test_nothing_to_do_and_nothing_finite():
    right, _ = cells(5)
    assert project(right[:, :0], SUMS, np.zeros((4, 0))).shape == (6, 0)
    spoilt = right.copy()
    spoilt[2, 1] = np.nan
    got = project(spoilt, SUMS, SUMS @ right)
    assert np.isnan(got[2, 1]) and np.isfinite(np.delete(got, 1, axis=1)).all()
    zero = project(np.zeros((6, 1)), np.ones((1, 6)), np.ones((1, 1)))
    np.testing.assert_allclose(zero.sum(), 1.0)


# -- behind the gate ------------------------------------------------------------------------------


class Split(Told):
    """Two parts of what came in: they add up to x squared plus one."""

    outputs = (Field("part", 2, lower=0.0),)

    def truth(self, inputs):
        whole = 1.0 + inputs[0] * inputs[0]
        return np.stack([0.25 * whole, 0.75 * whole])

    def conserved(self, inputs):
        return np.ones((1, 2)), 1.0 + inputs[:1] * inputs[:1]


class Wrong(Split):
    def conserved(self, inputs):
        return np.ones((1, 2)), 2.0 + inputs[:1]


class Misshapen(Split):
    def conserved(self, inputs):
        return np.ones((1, 3)), inputs[:1]


class Lossy(TellTale):
    """Gets one part a little wrong, so that the sum is wrong as well."""

    outputs = Split.outputs

    def predict(self, inputs):
        whole = 1.0 + inputs[0] * inputs[0]
        return np.stack([0.25 * whole * (1 + inputs[1]), 0.75 * whole]), inputs[2].copy()

    def misfit(self, predicted, truth):
        return np.abs(predicted - truth).max(axis=0) / np.abs(truth).sum(axis=0)


def test_accepted_answers_keep_the_sums():
    micro = Split()
    gate = make_gate(
        MPI.COMM_SELF, surrogate=Lossy(version=0), micro=micro, training={"first_samples": 10}, audit=1e-9
    )
    ids, x = np.arange(100), np.linspace(0, 3, 100)
    for step in (1, 2):
        batch = make_batch(ids, x, 4e-3, 1e-3, step)
        answer = gate.evaluate(batch)
        gate.finish_step(step)
    assert (answer.source == 1).all()
    whole = 1.0 + x * x
    assert np.abs(answer.outputs.sum(axis=0) / whole - 1).max() < 1e-15
    truth = micro.truth(batch.inputs)
    assert np.abs(answer.outputs - truth).max() > 1e-4, "it is not the micro model's answer"
    # What calibrates is the answer that is given, not the raw prediction.
    window = gate.calibration
    expected = np.abs(gate.predictor.predict(window.window.inputs)[0] - window.window.outputs).max(axis=0)
    np.testing.assert_allclose(window.errors, expected / window.window.outputs.sum(axis=0), rtol=1e-12)


def test_a_model_that_does_not_keep_its_sums_is_told_so():
    batch = make_batch(np.arange(4), np.linspace(0, 1, 4), 0.0, 0.0, 1)
    try_out(Split(), batch)
    with pytest.raises(MicroError, match="Wrong must keep the sums that its 'conserved' declares"):
        try_out(Wrong(), batch)
    with pytest.raises(MicroError, match=r"A of shape \(nsum, 2\)"):
        try_out(Misshapen(), batch)
