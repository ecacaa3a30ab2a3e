"""The replay buffer against a buffer that looks at one sample after the other with plain loops."""

import numpy as np
import pytest

from hpcmsm.errors import SurrogateError
from hpcmsm.fields import Field
from hpcmsm.surrogate.base import Samples
from hpcmsm.surrogate.replay import ReplayBuffer

INPUTS = (Field("temperature", unit="K"), Field("fraction", lower=0.0, upper=1.0))
OUTPUTS = (Field("conductivity", unit="W/m/K"),)


def make_samples(n, seed=0, first_step=0):
    random = np.random.default_rng(seed)
    inputs = np.array([random.uniform(300, 600, n), random.uniform(0.1, 0.6, n)])
    step = first_step + np.arange(n) // 7
    return Samples(step, np.zeros(n, int), np.arange(n), inputs, inputs[:1] * 2, np.ones(n))


class OneByOne:
    """The rule of the buffer, written down as directly as possible."""

    def __init__(self, capacity, spacing):
        self.capacity, self.spacing = capacity, spacing
        self.points, self.low, self.high = [], np.inf, -np.inf

    def distance(self, point, others):
        gaps = [np.hypot((point[0] - o[0]) / (self.high - self.low), (point[1] - o[1]) / 1.0) for o in others]
        return min(gaps, default=np.inf)

    def add(self, samples, misfit, tolerance):
        self.low = min(self.low, samples.inputs[0].min())
        self.high = max(self.high, samples.inputs[0].max())
        for point, error in zip(samples.inputs.T, misfit, strict=True):
            while self.distance(point, self.points) > self.spacing * (0.25 if error > tolerance else 1.0):
                if len(self.points) < self.capacity:
                    self.points.append(point)
                else:
                    self.spacing *= 2.0
                    old, self.points = self.points, []
                    for known in old:
                        if self.distance(known, self.points) > self.spacing:
                            self.points.append(known)


@pytest.mark.parametrize("capacity", [1, 30, 1000])
@pytest.mark.parametrize("missed", [0.0, 0.3])
def test_keeps_what_the_plain_rule_keeps(capacity, missed):
    buffer, plain = ReplayBuffer(INPUTS, OUTPUTS, capacity, 0.03), OneByOne(capacity, 0.03)
    for round_ in range(3):
        samples = make_samples(300, seed=round_, first_step=100 * round_)
        misfit = np.where(np.random.default_rng(round_).uniform(size=300) < missed, 1.0, 1e-4)
        taken = buffer.add(samples, misfit, 1e-2)
        plain.add(samples, misfit, 1e-2)
        np.testing.assert_array_equal(buffer.samples.inputs.T, np.array(plain.points))
        assert buffer.spacing == plain.spacing
        assert taken >= 1 or round_ > 0
    assert len(buffer) <= capacity


def test_order_of_adding_in_parts_does_not_matter():
    samples = make_samples(900)
    whole, parts = (ReplayBuffer(INPUTS, OUTPUTS, 2000, 0.02) for _ in range(2))
    everyone = np.arange(900)
    ends = samples.take(np.array([samples.inputs[0].argmin(), samples.inputs[0].argmax()]))
    for buffer in (whole, parts):
        buffer.add(ends)  # fixes the range of the temperature
    whole.add(samples)
    for part in np.array_split(everyone, 17):
        parts.add(samples.take(part))
    np.testing.assert_array_equal(whole.samples.inputs, parts.samples.inputs)


def test_distance_is_that_of_the_nearest_sample_alone_or_in_any_batch():
    buffer = ReplayBuffer(INPUTS, OUTPUTS, 500, 0.03)
    buffer.add(make_samples(400))
    asked = make_samples(1001, seed=5).inputs
    scale = buffer.scale[:, None, None]
    gaps = (asked[:, :, None] - buffer.samples.inputs[:, None, :]) / scale
    expected = np.sqrt((gaps**2).sum(axis=0)).min(axis=1)
    got = buffer.distance(asked)
    np.testing.assert_allclose(got, expected, rtol=1e-12)
    shuffled = np.random.default_rng(1).permutation(1001)
    assert (buffer.distance(asked[:, shuffled]) == got[shuffled]).all()
    assert all(buffer.distance(asked[:, c : c + 1])[0] == got[c] for c in range(0, 1001, 50))
    near = buffer.distance(asked, bound=0.02)
    assert (near[expected < 0.02] == got[expected < 0.02]).all()
    assert np.isinf(near[expected > 0.02]).all()


def test_an_input_that_never_varied_is_new_once_it_does():
    buffer = ReplayBuffer(INPUTS, OUTPUTS, 500, 0.03)
    samples = make_samples(50)
    samples.inputs[0] = 300.0
    buffer.add(samples)
    moved = np.array([[300.0, 310.0], samples.inputs[1, :2]])
    moved[1] = buffer.samples.inputs[1, 0]
    here, elsewhere = buffer.distance(moved)
    assert here == 0.0
    assert elsewhere > 1.0


def test_empty_buffer_and_empty_questions():
    buffer = ReplayBuffer(INPUTS, OUTPUTS)
    none = make_samples(3).take(np.zeros(0, int))
    assert buffer.add(none) == 0
    assert np.isinf(buffer.distance(np.array([[300.0], [0.5]]))).all()
    buffer.add(make_samples(3))
    assert buffer.distance(np.zeros((2, 0))).shape == (0,)


def test_state_goes_there_and_back_and_continues_alike():
    first = ReplayBuffer(INPUTS, OUTPUTS, 60, 0.02)
    first.add(make_samples(300))
    second = ReplayBuffer(INPUTS, OUTPUTS, 60, 0.02)
    second.load_state({name: array.copy() for name, array in first.state().items()})
    later = make_samples(300, seed=9, first_step=1000)
    for buffer in (first, second):
        buffer.add(later, np.full(300, 0.5), 0.1)
    for name, array in first.state().items():
        np.testing.assert_array_equal(array, second.state()[name])
    assert set(first.samples.ids) - set(make_samples(300).ids) == set()


@pytest.mark.parametrize(
    ("capacity", "spacing", "text"), [(0, 0.1, "capacity"), (5, 0.0, "spacing"), (5, np.nan, "spacing")]
)
def test_impossible_settings_are_refused(capacity, spacing, text):
    with pytest.raises(SurrogateError, match=text):
        ReplayBuffer(INPUTS, OUTPUTS, capacity, spacing)


def test_a_state_with_something_missing_is_refused():
    buffer = ReplayBuffer(INPUTS, OUTPUTS)
    state = buffer.state()
    del state["ids"]
    with pytest.raises(SurrogateError, match="'ids'"):
        buffer.load_state(state)
