"""Every kind of surrogate is the same on any number of ranks as on one alone."""

import numpy as np
import pytest
from mpi4py import MPI

from hpcmsm.config import SurrogateSection
from hpcmsm.errors import SurrogateError
from hpcmsm.fields import Field
from hpcmsm.surrogate.base import Samples
from hpcmsm.surrogate.registry import KINDS, make_surrogate

INPUTS = (Field("temperature", unit="K"), Field("fraction", lower=0.0, upper=1.0))
OUTPUTS = (Field("conductivity", 3, "W/m/K", spd=True), Field("heat_capacity", unit="J/m3/K"))


def make_samples(n, seed=0):
    random = np.random.default_rng(seed)
    temperature, fraction = random.uniform(300, 600, n), random.uniform(0.1, 0.6, n)
    k = 0.2 * (1 + 1e-3 * (temperature - 300)) * (1 + fraction) / (1 - fraction)
    outputs = np.array([k, k * (1 + fraction), 0.1 * fraction * k, 1e6 * (1 + fraction)])
    inputs = np.array([temperature, fraction])
    return Samples(np.arange(n) // 10, np.zeros(n, int), np.arange(n) % 10, inputs, outputs, np.ones(n))


def same(one, other):
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


@pytest.mark.mpi
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "ensemble"])
def test_ranks_together_are_one_rank_alone(comm, agree, kind):
    if kind == "random_forest":
        pytest.importorskip("sklearn", reason="scikit-learn, of the extra 'forest', is not installed")
    section = SurrogateSection(kind=kind, members=3)
    together = make_surrogate(section, INPUTS, OUTPUTS, comm, 3, 1e-4)
    alone = make_surrogate(section, INPUTS, OUTPUTS, MPI.COMM_SELF, 3, 1e-4)
    for nsample in (50, 70):
        for surrogate in (together, alone):
            surrogate.train(make_samples(nsample))
        agree(comm, same(together.state(), alone.state()), f"{nsample} samples: another {kind} than alone")
        # Every rank asks for its own part of the cells, as in a run.
        asked = make_samples(101, seed=8).inputs
        mine = np.arange(comm.rank, 101, comm.size)
        mean, score = together.predict(asked[:, mine])
        whole_mean, whole_score = alone.predict(asked)
        equal = np.array_equal(mean, whole_mean[:, mine]) and np.array_equal(score, whole_score[mine])
        agree(comm, equal, f"{kind}: other answers than alone")
        states = comm.allgather(together.state())
        agree(comm, all(same(states[0], state) for state in states), "ranks differ")


@pytest.mark.mpi
def test_samples_that_cannot_be_learnt_are_refused_by_all(comm, agree):
    surrogate = make_surrogate(SurrogateSection(kind="rbf"), INPUTS, OUTPUTS, comm, 3, 1e-4)
    repeated = make_samples(20).take(np.zeros(20, dtype=int))
    caught = None
    try:
        surrogate.train(repeated)
    except SurrogateError as error:
        caught = str(error)
    agree(comm, caught is not None and "differ" in caught, f"raised {caught}")
    agree(comm, surrogate.version == 0, "nothing was learnt")
