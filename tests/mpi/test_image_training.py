"""Data-parallel training: any number of ranks together get the bits that one rank gets alone."""

import numpy as np
import pytest
from mpi4py import MPI

from hpcmsm.errors import SurrogateError
from hpcmsm.fields import Field
from hpcmsm.surrogate.base import Samples
from hpcmsm.surrogate.registry import IMAGE_KINDS, make_image_surrogate

INPUTS = (Field("angle", lower=0.0, upper=10.0),)
OUTPUTS = (Field("conductivity", 3, "W/(m K)", spd=True),)


def render(inputs):
    y, x = np.mgrid[:8, :8] * (2 * np.pi / 8)
    return np.exp(np.sin(x + inputs[0][:, None, None]) * np.cos(y - 2 * inputs[0][:, None, None]))


def make_samples(n):
    order = np.arange(n)
    inputs = 10.0 * ((0.618 * order) % 1.0)[None]
    k = 1.0 + 0.1 * np.sin(inputs[0])
    outputs = np.array([k, 1.1 * k, 0.1 * k])
    return Samples(order * 0 - 1, order * 0, order, inputs, outputs, np.ones(n))


def make(kind, comm):
    return make_image_surrogate(kind, INPUTS, OUTPUTS, comm, 2, render=render, epochs=1)


def same(one, other):
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


@pytest.mark.mpi
@pytest.mark.parametrize("kind", IMAGE_KINDS)
def test_ranks_together_are_one_rank_alone(comm, agree, kind):
    together, alone = make(kind, comm), make(kind, MPI.COMM_SELF)
    for nsample in (20, 40):
        figures, expected = (one.train(make_samples(nsample)) for one in (together, alone))
        agree(comm, same(together.state(), alone.state()), f"{nsample} samples: other weights than alone")
        for name in figures.keys() - {"seconds"}:
            agree(comm, figures[name] == expected[name], f"{name}: {figures[name]}, alone {expected[name]}")
    asked = np.linspace(0, 10, 41)[None]
    mine = np.arange(comm.rank, 41, comm.size)
    part, whole = together.predict(np.ascontiguousarray(asked[:, mine])), alone.predict(asked)
    equal = np.array_equal(part[0], whole[0][:, mine]) and np.array_equal(part[1], whole[1][mine])
    agree(comm, equal, "other answers than alone")


@pytest.mark.mpi
def test_a_loss_that_is_not_finite_is_raised_by_all(comm, agree):
    surrogate = make("cnn", comm)
    surrogate.train(make_samples(20))
    surrogate.arrays["weights"] = np.full_like(surrogate.arrays["weights"], np.inf)
    caught = None
    try:
        surrogate.train(make_samples(20))
    except SurrogateError as error:
        caught = str(error)
    agree(comm, caught is not None and "must be finite" in caught, f"got {caught}")
