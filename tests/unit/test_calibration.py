"""Calibration: weighted quantiles against exact arithmetic, the moving level, and coverage under drift."""

from fractions import Fraction

import numpy as np
import pytest
from mpi4py import MPI

from hpcmsm.closure.calibration import Calibration, weighted_quantile
from hpcmsm.surrogate.base import Samples
from tests.gate_harness import TellTale, make_batch, make_gate, same_arrays

COVERAGE = 0.9

# -- the quantile ---------------------------------------------------------------------------------


def exact_quantile(ratios, weights, level):
    """Smallest r that carries the level, by its definition, in exact arithmetic."""
    total = sum(Fraction(w) for w in weights)
    wanted = Fraction(level) * (total + total / len(ratios))
    for r in sorted(ratios):
        if sum(Fraction(w) for ratio, w in zip(ratios, weights, strict=True) if ratio <= r) >= wanted:
            return r
    return np.inf


@pytest.mark.parametrize("n", [1, 2, 4, 8, 32])
def test_quantile_by_its_definition(n):
    """Whole weights, a power of two of cells and levels in 64ths: no rounding anywhere, also on a tie."""
    random = np.random.default_rng(n)
    for _ in range(20):
        ratios = random.integers(0, 10, n).astype(float)
        weights = random.integers(1, 50, n).astype(float)
        for level in np.arange(0, 65) / 64:
            assert weighted_quantile(ratios, weights, level) == exact_quantile(ratios, weights, level)


def test_quantile_of_any_weights():
    random = np.random.default_rng(7)
    for n in (3, 10, 57, 200):
        ratios, weights = random.lognormal(0, 2, n), random.lognormal(0, 2, n)
        for level in random.uniform(0, 1, 20):
            assert weighted_quantile(ratios, weights, level) == exact_quantile(ratios, weights, level)


@pytest.mark.parametrize("percent", [50, 75, 90, 95, 99])
def test_unit_weights_give_the_order_statistic_of_split_conformal_prediction(percent):
    """The ceil((n + 1) level)-th smallest, infinity where there are not that many."""
    random = np.random.default_rng(percent)
    for n in range(1, 130):
        ratios = random.lognormal(0, 1, n)
        number = -(-(n + 1) * percent // 100)
        expected = np.sort(ratios)[number - 1] if number <= n else np.inf
        got = weighted_quantile(ratios, np.ones(n), 1.0 - (1.0 - percent / 100))
        assert got == expected, n
        assert got == weighted_quantile(ratios, np.full(n, 3.7), percent / 100), (
            "a common factor says nothing"
        )
        if number <= n:
            assert got == np.quantile(ratios, (number - 0.5) / n, method="inverted_cdf")


def test_what_cannot_be_reached_is_infinite():
    assert weighted_quantile(np.zeros(0), np.zeros(0), 0.5) == np.inf
    assert weighted_quantile(np.ones(8), np.ones(8), 0.9) == np.inf
    assert weighted_quantile(np.ones(9), np.ones(9), 0.9) == 1.0
    assert weighted_quantile(np.array([1.0, np.inf]), np.array([1.0, 9.0]), 0.5) == np.inf
    assert weighted_quantile(np.ones(50), np.ones(50), 1.0) == np.inf
    # One cell that stands for many others: its error must be counted as theirs.
    ratios, weights = np.arange(1.0, 101.0), np.append(np.ones(99), 100.0)
    assert weighted_quantile(ratios, weights, 0.6) == 100.0


def test_coverage_of_new_cells_is_the_one_promised():
    """Of exchangeable cells the quantile of n covers the next one with probability ceil((n+1)l)/(n+1)."""
    random = np.random.default_rng(3)
    n, repeats = 29, 4000
    draws = random.standard_cauchy((repeats, n + 1)) ** 2
    covered = [weighted_quantile(row[:-1], np.ones(n), 0.9) >= row[-1] for row in draws]
    expected = 27 / 30
    assert abs(np.mean(covered) - expected) < 4 * np.sqrt(expected * (1 - expected) / repeats)


# -- the window -----------------------------------------------------------------------------------


def samples(errors, scores, weights=None, first_id=0):
    """True answers where the surrogate has these errors and scores."""
    n = len(errors)
    inputs = np.array([np.linspace(-1, 1, n), errors, scores])
    number = np.zeros(n, dtype=np.int64)
    weight = np.ones(n) if weights is None else np.asarray(weights, dtype=float)
    return Samples(number, number, first_id + np.arange(n), inputs, 1.0 + inputs[0:1] ** 2, weight)


def random_samples(n, seed=0, first_id=0):
    random = np.random.default_rng(seed)
    scores = random.lognormal(-5, 0.5, n)
    return samples(scores * random.lognormal(0, 0.5, n), scores, random.lognormal(0, 1, n), first_id)


def calibrated(given, version=1, capacity=1024, coverage=COVERAGE):
    calibration = Calibration(3, 1, coverage, capacity)
    calibration.add(given, TellTale(version))
    return calibration


def covered_weight(calibration, shrink=1.0):
    """Part of the window's weight, with the cell to be judged, whose errors lie within the bound."""
    window = calibration.window
    within = np.abs(window.inputs[1]) <= shrink * calibration.bound(window.inputs[2]) * (1 + 1e-9)
    total = window.weight.sum() * (1 + 1 / len(window))
    return window.weight[within].sum() / total


@pytest.mark.parametrize("coverage", [0.6, 0.9, 0.99])
def test_bound_covers_the_window_and_no_more_than_needed(coverage):
    calibration = calibrated(random_samples(400), coverage=coverage)
    assert covered_weight(calibration) >= coverage
    assert covered_weight(calibration, shrink=0.9999) < coverage


def test_bound_rises_with_the_score_and_never_falls_to_nothing():
    """All members may be wrong alike: a score of zero promises no error of zero."""
    calibration = calibrated(random_samples(400))
    bounds = calibration.bound(np.array([0.0, 1e-6, 1e-3, 1e-2, 1.0]))
    assert (np.diff(bounds) > 0).all()
    assert bounds[0] > 0.0
    # Errors that have nothing to do with the scores: the bound of a tiny score is of their size.
    errors = np.random.default_rng(1).uniform(0.5, 1.5, 500)
    calibration = calibrated(samples(errors, np.full(500, 1e-12)))
    np.testing.assert_allclose(calibration.bound(np.zeros(1)), np.quantile(errors, 0.9), rtol=0.01)


def test_without_a_version_or_samples_nothing_is_bounded():
    assert Calibration(3, 1, COVERAGE).bound(np.array([1e-9]))[0] == np.inf
    assert calibrated(random_samples(100), version=0).bound(np.array([1e-9]))[0] == np.inf
    assert calibrated(random_samples(8)).bound(np.array([1e-9]))[0] == np.inf
    assert calibrated(samples(np.ones(9), np.ones(9))).bound(np.array([1e-9]))[0] < np.inf


def test_an_unchosen_part_counts_by_its_weight():
    """Errors of ten where one cell stands for 100: the quantile is theirs."""
    errors = np.append(np.full(99, 1e-3), np.full(3, 1e-2))
    light = calibrated(samples(errors, np.ones(102)))
    heavy = calibrated(samples(errors, np.ones(102), np.append(np.ones(99), np.full(3, 100.0))))
    assert light.bound(np.ones(1))[0] == pytest.approx(1e-3)
    assert heavy.bound(np.ones(1))[0] == pytest.approx(1e-2)


def test_window_keeps_the_newest():
    calibration = calibrated(random_samples(50, 0), capacity=64)
    for number in range(1, 4):
        calibration.add(random_samples(10, number, first_id=1000 * number), TellTale())
    assert len(calibration.window) == 64
    expected = np.concatenate([np.arange(16, 50), *(1000 * k + np.arange(10) for k in range(1, 4))])
    np.testing.assert_array_equal(calibration.window.ids, expected)
    # Figures that were kept belong to the samples that were kept.
    fresh = calibrated(calibration.window, capacity=64)
    assert fresh.q == calibration.q
    calibration.add(random_samples(500, 9, first_id=10_000), TellTale())
    np.testing.assert_array_equal(calibration.window.ids, 10_000 + np.arange(436, 500))


def test_adding_nothing_changes_nothing():
    calibration = calibrated(random_samples(50))
    before = calibration.state()
    calibration.add(random_samples(0), TellTale())
    assert same_arrays(calibration.state(), before)


class TwiceAsBad(TellTale):
    def predict(self, inputs):
        return (1.0 + inputs[0:1] ** 2) * (1.0 + 2.0 * inputs[1:2]), inputs[2].copy()


def test_a_new_version_is_scored_anew_and_starts_at_the_wanted_level():
    given = samples(np.linspace(1e-3, 1e-2, 100), np.full(100, 1e-12))
    calibration = calibrated(given)
    first = calibration.bound(np.zeros(1))[0]
    calibration.follow(100, 100)
    assert calibration.alpha < 1.0 - COVERAGE
    calibration.rescore(TwiceAsBad(version=2))
    assert calibration.alpha == pytest.approx(1.0 - COVERAGE)
    assert calibration.bound(np.zeros(1))[0] == pytest.approx(2.0 * first, rel=1e-9)


# -- the level ------------------------------------------------------------------------------------


def test_level_follows_the_audits():
    """alpha + gamma (target - missed): more misses, less alpha, a higher bound; and the other way."""
    calibration = calibrated(random_samples(1000))
    start, q = calibration.alpha, calibration.q
    calibration.follow(0, 0)
    assert (calibration.alpha, calibration.q) == (start, q)
    calibration.follow(1000, 100)  # as many as wanted
    assert calibration.alpha == pytest.approx(start, abs=1e-12)
    calibration.follow(1000, 300)
    cautious, q_cautious = calibration.alpha, calibration.q
    assert cautious < start and q_cautious > q
    calibration.follow(1000, 0)
    assert calibration.alpha > cautious and calibration.q < q_cautious


def test_few_audits_move_the_level_less():
    moved = {}
    for audited in (1, 10, 1000):
        calibration = calibrated(random_samples(100))
        calibration.follow(audited, audited)
        moved[audited] = (1.0 - COVERAGE) - calibration.alpha
    assert 0 < moved[1] < moved[10] < moved[1000]


def test_level_stays_where_the_window_can_answer():
    """However many audits miss, a full window still has a finite bound; the gate can recover."""
    calibration = calibrated(random_samples(1024), coverage=0.99)
    for _ in range(1000):
        calibration.follow(1000, 1000)
    assert calibration.at_floor and np.isfinite(calibration.q)
    for _ in range(1000):
        calibration.follow(1000, 0)
    assert not calibration.at_floor and 0.01 < calibration.alpha < 0.05
    assert covered_weight(calibration) > 0.9


def test_state_round_trip_is_bitwise_and_goes_on_alike():
    first = calibrated(random_samples(300), capacity=256)
    first.follow(1000, 400)
    second = Calibration(3, 1, COVERAGE, 256)
    second.load_state({name: array.copy() for name, array in first.state().items()})
    assert same_arrays(first.state(), second.state())
    assert (first.alpha, first.q) == (second.alpha, second.q)
    for calibration in (first, second):
        calibration.add(random_samples(40, 5), TellTale())
        calibration.follow(30, 1)
    assert same_arrays(first.state(), second.state())
    scores = np.logspace(-6, 0, 7)
    assert first.bound(scores).tobytes() == second.bound(scores).tobytes()


def test_an_empty_state_can_be_stored():
    second = calibrated(random_samples(30))
    second.load_state(Calibration(3, 1, COVERAGE).state())
    assert len(second.window) == 0 and second.q == np.inf


# -- coverage under drift -------------------------------------------------------------------------


class FallbackOnly(Calibration):
    """What calibrating without audits would be: only cells that the gate refused are known."""

    def add(self, samples, surrogate):
        super().add(samples.take(samples.weight < 50.0), surrogate)

    def follow(self, audited, missed):
        pass


def coverage_of_accepted(kind, seed, ncells=2000, steps=400):
    """A surrogate whose score is its true error times a noise that drifts; (covered, accepted) parts."""
    random = np.random.default_rng(seed)
    gate = make_gate(MPI.COMM_SELF, seed, audit=0.01, tolerance=0.01, spacing=1e9)
    gate.calibration = kind(3, 1, COVERAGE)
    covered = accepted = total = 0
    for step in range(1, steps + 1):
        error = 10.0 ** random.normal(-2.7, 0.2, ncells)
        drift = 0.4 * np.sin(2 * np.pi * step / 100)
        score = error * 10.0 ** -random.normal(drift, 0.3, ncells)
        bound = gate.calibration.bound(score)
        trusted = bound <= gate.gate.tolerance
        gate.evaluate(make_batch(np.arange(ncells), 0.5, error, score, step))
        gate.finish_step(step)
        if step > 20:
            covered += int((error <= bound)[trusted].sum())
            accepted, total = accepted + int(trusted.sum()), total + ncells
    return covered / accepted, accepted / total


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_accepted_cells_are_covered_as_asked_while_the_score_drifts(seed):
    covered, accepted = coverage_of_accepted(Calibration, seed)
    assert accepted > 0.8, "a gate that accepts nothing would be covered as well"
    assert abs(covered - COVERAGE) < 0.02, covered


def test_calibrating_on_fallback_cells_alone_does_not_cover():
    """The reason for the audits: refused cells know too little of accepted ones."""
    covered, accepted = coverage_of_accepted(FallbackOnly, seed=0)
    assert accepted > 0.8
    assert covered < COVERAGE - 0.05, covered
