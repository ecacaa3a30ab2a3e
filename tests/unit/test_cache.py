"""The plain cache: which cells it asks for, and what it gives the others."""

import numpy as np
import pytest
from mpi4py import MPI

from hpcmsm.batch import MICRO, SIMILAR, Answer, Batch
from hpcmsm.closure.cache import Cache
from hpcmsm.closure.direct import Direct
from hpcmsm.errors import ConfigError
from hpcmsm.fields import Field
from hpcmsm.micro.base import MicroModel
from hpcmsm.timers import Timers


class Square(MicroModel):
    """k = 1 + T^2 f, and the ids that it was asked for."""

    inputs = (Field("temperature", unit="K"), Field("fraction", lower=0.0, upper=2.0))
    outputs = (Field("k"),)

    def __init__(self):
        self.asked = []

    def evaluate(self, batch):
        self.asked.append(batch.ids.tolist())
        outputs = 1.0 + batch.inputs[:1] ** 2 * batch.inputs[1:]
        return Answer(outputs, batch.state.copy(), np.zeros(batch.ncells, np.int32))


def batch(ids, temperatures, fractions, step):
    inputs = np.array([temperatures, fractions], dtype=float)
    return Batch(np.array(ids, dtype=np.int64), inputs, np.zeros((0, len(ids))), step=step)


def test_only_cells_that_moved_since_their_last_true_answer_are_asked_for():
    micro = Square()
    cache = Cache(Direct(micro, MPI.COMM_SELF, Timers()), 1e-2)
    first = cache.evaluate(batch([7, 3, 5], [300, 400, 500], [1, 1, 1], 1))
    assert first.source.tolist() == [MICRO] * 3
    # 300 K may move by 3 K, a fraction by 0.02 of its range of 2.
    second = cache.evaluate(batch([3, 5, 7, 9], [405, 500, 302.9, 1], [1, 1.019, 1, 1], 2))
    assert micro.asked == [[7, 3, 5], [3, 9]]
    assert second.source.tolist() == [MICRO, SIMILAR, SIMILAR, MICRO]
    np.testing.assert_allclose(second.outputs, [[1 + 405**2, 1 + 500**2, 1 + 300**2, 2]])
    # Small moves add up: what counts is the last true answer, not the last step.
    third = cache.evaluate(batch([5, 7, 3], [500, 303.1, 405], [1.021, 1, 1], 3))
    assert micro.asked[-1] == [5, 7]
    np.testing.assert_allclose(third.outputs, [[1 + 500**2 * 1.021, 1 + 303.1**2, 1 + 405**2]])
    figures = cache.finish_step(3)
    assert (figures["calls"], figures["accepted"], figures["fallback"]) == (10, 3, 7)
    assert cache.totals()["closure"]["accepted_fraction"] == pytest.approx(0.3)


def test_with_no_tolerance_only_equal_inputs_are_reused():
    cache = Cache(Direct(Square(), MPI.COMM_SELF, Timers()), 0.0)
    cache.evaluate(batch([0, 1], [300, 300], [1, 1], 1))
    again = cache.evaluate(batch([0, 1], [300, np.nextafter(300, 301)], [1, 1], 2))
    assert again.source.tolist() == [SIMILAR, MICRO]
    assert cache.evaluate(batch([], [], [], 3)).outputs.shape == (1, 0)


def test_what_cannot_be_cached_is_refused():
    direct = Direct(Square(), MPI.COMM_SELF, Timers())
    with pytest.raises(ConfigError, match="tolerance of a cache must not be negative, got -1"):
        Cache(direct, -1.0)
    direct.micro_state = (Field("porosity"),)
    with pytest.raises(ConfigError, match="without micro state, got 'porosity'"):
        Cache(direct, 1e-3)
