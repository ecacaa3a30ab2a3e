"""Coverage of accepted cells while the score drifts away from the error: up, down, and in a jump."""

import numpy as np
import pytest
from mpi4py import MPI

from hpcmsm.closure.calibration import Calibration
from tests.gate_harness import make_batch, make_gate

COVERAGE, STEPS, CELLS = 0.9, 400, 2000
DRIFTS = {
    "up": lambda step: 0.6 * step / STEPS,
    "down": lambda step: -0.6 * step / STEPS,
    "jump": lambda step: 0.3 * (step > STEPS // 2),
}


class FallbackOnly(Calibration):
    """Calibration as it is without audits: only cells that the gate refused are known."""

    def add(self, samples, surrogate):
        super().add(samples.take(samples.weight < 50.0), surrogate)

    def follow(self, audited, missed):
        pass


def coverage_of_accepted(kind, drift, seed):
    """Scores are errors times a noise whose median falls by 10**-drift; (covered, accepted) parts."""
    random = np.random.default_rng(seed)
    gate = make_gate(MPI.COMM_SELF, seed, audit=0.01, tolerance=0.01, spacing=1e9)
    gate.calibration = kind(3, 1, COVERAGE)
    covered = accepted = total = 0
    for step in range(1, STEPS + 1):
        error = 10.0 ** random.normal(-2.7, 0.2, CELLS)
        score = error * 10.0 ** -random.normal(drift(step), 0.3, CELLS)
        bound = gate.calibration.bound(score)
        trusted = bound <= gate.gate.tolerance
        gate.evaluate(make_batch(np.arange(CELLS), 0.5, error, score, step))
        gate.finish_step(step)
        if step > 20:
            covered += int((error <= bound)[trusted].sum())
            accepted, total = accepted + int(trusted.sum()), total + CELLS
    return covered / accepted, accepted / total


@pytest.mark.parametrize("name", DRIFTS)
def test_coverage_is_within_a_point_of_what_was_asked(name):
    """1 % audits; asked 90 %."""
    covered, accepted = coverage_of_accepted(Calibration, DRIFTS[name], seed=1)
    assert accepted > 0.7, "a gate that accepts nothing would be covered as well"
    assert abs(covered - COVERAGE) < 0.01, covered


def test_fallback_cells_alone_do_not_tell():
    """Their errors are those of cells with bad scores; of the accepted ones they know nothing."""
    covered, accepted = coverage_of_accepted(FallbackOnly, DRIFTS["jump"], seed=1)
    assert accepted > 0.7
    assert covered < COVERAGE - 0.1, covered
