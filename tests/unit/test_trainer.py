"""When a surrogate is trained, and that a version begins to answer in the step that was said before."""

import threading
import time

import numpy as np
import pytest
from mpi4py import MPI

from hpcmsm.config import SurrogateSection
from hpcmsm.errors import SurrogateError
from hpcmsm.fields import Field
from hpcmsm.surrogate.base import Samples, Surrogate
from hpcmsm.surrogate.replay import ReplayBuffer
from hpcmsm.surrogate.trainer import Trainer
from hpcmsm.timers import Timers

INPUTS, OUTPUTS = (Field("x", lower=0.0, upper=1.0),), (Field("y"),)
CALM = {"calls": 100, "fallback": 0}


class Slow(Surrogate):
    """Learns how many samples there are, in its own time."""

    inputs, outputs, comm = INPUTS, OUTPUTS, MPI.COMM_SELF

    def __init__(self, seconds=0.0, error=None):
        self.version, self.known, self.seconds, self.error = 0, 0, seconds, error
        self.threads, self.goals = [], []

    def predict(self, inputs):
        return np.full((1, inputs.shape[1]), self.known), np.zeros(inputs.shape[1])

    def misfit(self, predicted, truth):
        return np.zeros(predicted.shape[1])

    def study(self, lesson):
        self.threads.append(threading.current_thread().name)
        self.goals.append(lesson.goal)
        time.sleep(self.seconds)
        if self.error:
            raise self.error
        lesson.found = len(lesson.samples)

    def adopt(self, lesson):
        self.version, self.known = self.version + 1, lesson.found
        return {}

    def state(self):
        return {"version": np.array([self.version]), "known": np.array([self.known])}

    def load_state(self, state):
        self.version, self.known = int(state["version"][0]), int(state["known"][0])


def samples(n, first=0):
    ids = np.arange(first, first + n)
    return Samples(ids, ids * 0, ids, ids[None] / 1000.0, ids[None] * 1.0, np.ones(n))


def make(surrogate, **options):
    replay = ReplayBuffer(INPUTS, OUTPUTS, spacing=1e-9)
    section = SurrogateSection(**{"first_samples": 10, "growth": 0.5, **options})
    return Trainer(surrogate, replay, section, lambda outputs: 1e-3, MPI.COMM_SELF, Timers())


def history(trainer, steps, first=0):
    """What the surrogate knows in each step, while five samples come with every step."""
    known = []
    for step in range(first, steps):
        trainer.replay.add(samples(5, 5 * step))
        trainer.finish_step(step, CALM, weak=False)
        known.append(trainer.surrogate.known)
    return known


def test_at_once_it_is_trained_whenever_the_buffer_grew_by_its_part():
    trainer = make(Slow(), swap_after=0)
    assert history(trainer, 8) == [0, 10, 15, 15, 25, 25, 25, 40]
    assert set(trainer.surrogate.threads) == {"MainThread"}


def test_left_out_a_training_may_take_a_fifth_of_the_steps_since_the_one_before():
    trainer = make(Slow(), growth=1.0)
    told = [trainer.swap_step for step in range(60) if history(trainer, step + 1, first=step)]
    # Begun with 10, 20, 40, 80 and 160 samples after the steps 1, 3, 7, 15 and 31.
    assert trainer.surrogate.threads == ["MainThread"] * 3 + ["training"] * 2
    assert [step for step in range(60) if told[step] >= 0] == [15, 31, 32, 33]
    assert told[15] == 15 + (15 - 7) // 5 and told[31] == 31 + (31 - 15) // 5
    assert trainer.surrogate.goals == [1e-3] * 3 + [0.5e-3] * 2, "there is time to aim lower"
    assert trainer.surrogate.known == 160


@pytest.mark.parametrize("figures, weak", [({"calls": 100, "fallback": 30}, False), (CALM, True)])
def test_left_out_a_version_of_little_use_is_not_kept_for_long(figures, weak):
    trainer = make(Slow(), first_samples=40)
    trainer.replay.add(samples(40))
    trainer.finish_step(1, CALM, False)
    trainer.replay.add(samples(20, 40))
    trainer.finish_step(100, figures, weak)
    assert trainer.surrogate.known == 60 and not trainer.busy


@pytest.mark.parametrize("seconds", [0.0, 0.02])
def test_the_swap_falls_in_the_step_said_before_however_long_it_takes(seconds):
    trainer = make(Slow(seconds), swap_after=3)
    assert history(trainer, 8) == [0, 10, 10, 10, 10, 15, 15, 15]
    assert trainer.surrogate.threads == ["MainThread", "training", "training"]
    assert trainer.busy, "with the 30 samples of step 5"


def test_the_steps_go_on_while_it_is_trained():
    trainer = make(Slow(0.0), swap_after=2)
    history(trainer, 2)
    trainer.surrogate.seconds = 0.3
    start = time.perf_counter()
    history(trainer, 4, first=2)
    assert time.perf_counter() - start < 0.15
    history(trainer, 6, first=4)
    assert time.perf_counter() - start >= 0.3 and trainer.surrogate.known == 20 - 5


@pytest.mark.parametrize("options, steps", [({"swap_after": 3}, 5), ({"growth": 1.0}, 32)])
def test_a_restart_in_the_middle_ends_in_the_same_step(options, steps):
    whole, cut = make(Slow(), **options), make(Slow(), **options)
    expected = history(whole, 70)
    begun = history(cut, steps)
    assert cut.busy
    stored = {**cut.state()}, cut.surrogate.state(), cut.replay.state()
    again = make(Slow(), **options)
    again.surrogate.load_state(stored[1])
    again.replay.load_state(stored[2])
    again.load_state(stored[0])
    assert again.busy
    for name, array in stored[0].items():
        assert np.array_equal(array, again.state()[name]), name
    assert begun + history(again, 70, first=steps) == expected


@pytest.mark.parametrize("swap_after", [0, 2])
def test_what_the_work_found_wrong_is_raised_by_the_run(swap_after):
    trainer = make(Slow(), swap_after=swap_after)
    history(trainer, 2)
    trainer.surrogate.error = SurrogateError("the training error must be finite, got nan")
    with pytest.raises(SurrogateError, match="must be finite"):
        history(trainer, 8, first=2)


def test_a_fault_of_the_work_ends_the_run(capfd):
    trainer = make(Slow(), swap_after=1)
    history(trainer, 2)
    trainer.surrogate.error = ZeroDivisionError("a fault")
    shown = []
    before, threading.excepthook = threading.excepthook, lambda told: shown.append(told.exc_value)
    try:
        with pytest.raises(RuntimeError, match="shown above"):
            history(trainer, 8, first=2)
    finally:
        threading.excepthook = before
    assert str(shown[0]) == "a fault"


def test_many_fallbacks_or_a_weak_calibration_ask_for_training_early():
    for figures, weak in (({"calls": 100, "fallback": 30}, False), (CALM, True)):
        trainer = make(Slow(), first_samples=40, swap_after=0)
        trainer.replay.add(samples(40))
        trainer.finish_step(1, CALM, False)
        for size, version in ((44, 1), (49, 2)):
            trainer.replay.add(samples(size - len(trainer.replay), len(trainer.replay)))
            trainer.finish_step(2, figures, weak)
            assert trainer.surrogate.version == version
