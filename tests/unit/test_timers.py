"""Nested phases add up to the whole, each counted once."""

from time import perf_counter, sleep

import pytest

from hpcmsm import timers
from hpcmsm.timers import Timers


class Clock:
    """A clock that advances only when told to."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(timers, "perf_counter", clock)
    return clock


def test_inner_phases_are_taken_out_of_outer_ones(clock):
    t = Timers()
    with t.phase("step"):
        clock.now += 1.0
        with t.phase("macro"):
            clock.now += 2.0
            with t.phase("micro"):
                clock.now += 4.0
            with t.phase("micro"):
                clock.now += 8.0
            clock.now += 16.0
        clock.now += 32.0
    assert t.seconds == {"step": 33.0, "macro": 18.0, "micro": 12.0}
    assert t.calls == {"step": 1, "macro": 1, "micro": 2}
    assert sum(t.seconds.values()) == clock.now


def test_a_phase_inside_itself_counts_once(clock):
    t = Timers()
    for _ in range(3):
        with t.phase("solve"):
            clock.now += 1.0
            with t.phase("solve"):
                clock.now += 2.0
    assert t.seconds == {"solve": 9.0} and t.calls == {"solve": 6}


def fail_inside(t, clock):
    with t.phase("outer"):
        clock.now += 1.0
        with t.phase("inner"):
            clock.now += 2.0
            raise ValueError("stop")


def test_an_error_closes_its_phases(clock):
    t = Timers()
    with pytest.raises(ValueError, match="stop"):
        fail_inside(t, clock)
    with t.phase("after"):
        clock.now += 4.0
    assert t.seconds == {"inner": 2.0, "outer": 1.0, "after": 4.0}


def test_real_time_is_measured():
    t = Timers()
    began = perf_counter()
    with t.phase("sleep"):
        sleep(0.02)
    assert 0.02 <= t.seconds["sleep"] <= perf_counter() - began
