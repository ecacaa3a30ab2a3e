"""Waves on any number of ranks: the same bits as on one."""

from __future__ import annotations

import numpy as np
import pytest
from mpi4py import MPI

from hpcmsm.config import Boundary
from hpcmsm.errors import SolverError
from tests.wave_harness import WRAP, Bar, stiffening

pytestmark = pytest.mark.mpi
COMM = MPI.COMM_WORLD
ENDS = {
    "periodic": WRAP,
    "free": {"x_high": Boundary(kind="free")},
    "moving": {"x_low": Boundary(kind="moving", velocity="t")},
}


@pytest.mark.parametrize("n", [5, 13])  # on four ranks some have a single cell
@pytest.mark.parametrize("ends", ENDS)
def test_every_rank_count_gives_the_same_bits(agree, ends, n):
    initial = {"stretch": "1 - 0.1 * exp(-((x - 0.4) / 0.1)**2)", "velocity": "0.1 * sin(2*pi*x)"}
    runs = [
        Bar(n, initial, ENDS[ends], stiffening, sound=lambda f: np.full_like(f, 5.0), comm=comm)
        for comm in (COMM, MPI.COMM_SELF)
    ]
    mine, alone = (bar.run(2.6 / n) for bar in runs)
    assert runs[0].steps > 20
    agree(COMM, np.array_equal(mine, alone[:, runs[0].grid.ids]), "unknowns differ from those of one rank")


def test_a_step_too_long_is_refused_by_every_rank(agree):
    bar = Bar(13, {}, WRAP, stiffening, comm=COMM)
    with pytest.raises(SolverError, match="time.step must be at most .* at step 1"):
        bar.stepper.advance(1, 0.0, 2.0 * bar.dt)
    agree(COMM, bar.stepper.unknown.shape[1] == bar.grid.ncells, "the unknowns must stay")
