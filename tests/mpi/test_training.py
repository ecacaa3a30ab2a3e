"""Training depends on no rank count: the ranks together get the bits that one rank gets alone."""

import numpy as np
import pytest
from mpi4py import MPI

from hpcmsm.errors import SurrogateError
from hpcmsm.fields import Field
from hpcmsm.surrogate.base import Samples
from hpcmsm.surrogate.ensemble import Ensemble
from hpcmsm.surrogate.replay import ReplayBuffer

INPUTS = (Field("temperature", unit="K"), Field("fraction", lower=0.0, upper=1.0))
OUTPUTS = (Field("conductivity", 3, "W/m/K", spd=True), Field("heat_capacity", unit="J/m3/K"))


def make_samples(n, seed=0, first_step=0):
    random = np.random.default_rng(seed)
    temperature, fraction = random.uniform(300, 600, n), random.uniform(0.1, 0.6, n)
    k = 0.2 * (1 + 1e-3 * (temperature - 300)) * (1 + fraction) / (1 - fraction)
    outputs = np.array([k, k * (1 + fraction), 0.1 * fraction * k, 1e6 * (1 + fraction)])
    step = first_step + np.arange(n) // 10
    inputs = np.array([temperature, fraction])
    return Samples(step, np.zeros(n, int), np.arange(n) % 10, inputs, outputs, np.ones(n))


def same(one, other):
    """Whether two states, or two pairs of arrays, are equal bit by bit."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def equal_on_all_ranks(comm, state):
    return all(same(state, other) for other in comm.allgather(state))


@pytest.mark.mpi
@pytest.mark.parametrize("members", [2, 5])
def test_weights_are_those_of_one_rank_alone(comm, agree, members):
    together = Ensemble(INPUTS, OUTPUTS, comm, 3, members=members)
    alone = Ensemble(INPUTS, OUTPUTS, MPI.COMM_SELF, 3, members=members)
    asked = make_samples(100, seed=8).inputs
    for nsample in (40, 70):
        figures = together.train(make_samples(nsample))
        expected = alone.train(make_samples(nsample))
        agree(comm, same(together.state(), alone.state()), f"{nsample} samples: other weights than alone")
        agree(comm, same(together.predict(asked), alone.predict(asked)), "other answers than alone")
        for name in figures.keys() - {"seconds"}:
            agree(comm, figures[name] == expected[name], f"{name}: {figures[name]}, alone {expected[name]}")
        agree(comm, equal_on_all_ranks(comm, together.state()), "ranks differ")


@pytest.mark.mpi
def test_training_continues_alike_after_a_restart(comm, agree):
    first = Ensemble(INPUTS, OUTPUTS, comm, 4)
    first.train(make_samples(40))
    second = Ensemble(INPUTS, OUTPUTS, comm, 4)
    second.load_state({name: array.copy() for name, array in first.state().items()})
    for ensemble in (first, second):
        ensemble.train(make_samples(80, seed=2))
    agree(comm, first.version == second.version == 2, f"versions {first.version}, {second.version}")
    agree(comm, same(first.state(), second.state()), "the restarted one went another way")


class BrokenOnTheLastRank(Ensemble):
    def _train_member(self, *arguments):
        if self.comm.rank == self.comm.size - 1:
            raise SurrogateError("the training error must be finite, got nan")
        return super()._train_member(*arguments)


@pytest.mark.mpi
def test_a_failure_of_one_rank_is_raised_by_all(comm, agree):
    ensemble = BrokenOnTheLastRank(INPUTS, OUTPUTS, comm, 5)
    caught = None
    try:
        ensemble.train(make_samples(30))
    except SurrogateError as error:
        caught = str(error)
    agree(comm, caught is not None and "must be finite" in caught, f"got {caught}")


@pytest.mark.mpi
def test_the_replay_buffer_is_the_same_on_all_ranks(comm, agree):
    buffer = ReplayBuffer(INPUTS, OUTPUTS, 60, 0.03)
    for round_ in range(3):
        buffer.add(make_samples(200, seed=round_, first_step=100 * round_))
    agree(comm, equal_on_all_ranks(comm, buffer.state()), "ranks differ")
    agree(comm, 0 < len(buffer) <= 60, f"{len(buffer)} samples")
    asked = make_samples(101, seed=9).inputs
    mine = slice(comm.rank, None, comm.size)
    whole, part = buffer.distance(asked), buffer.distance(np.ascontiguousarray(asked[:, mine]))
    agree(comm, (whole[mine] == part).all(), "distances depend on the batch")
