"""`Trainer`: when a surrogate is trained in a run, and from which step on the new version answers."""

from __future__ import annotations

from collections.abc import Callable
from threading import Thread

import numpy as np

from hpcmsm.config import SurrogateSection
from hpcmsm.errors import HpcmsmError
from hpcmsm.parallel import raise_together
from hpcmsm.surrogate.base import Lesson, Samples, Surrogate
from hpcmsm.surrogate.replay import ReplayBuffer
from hpcmsm.timers import Timers

# A step in which more than this falls back asks for training even if the buffer grew little.
MANY_FALLBACKS, FEW_NEW_SAMPLES = 0.2, 8
# Where the case does not say how long a training may take: one step in so many since the last one began.
# Fewer steps than the work lasts would be waited for; in more of them too much falls back to the micro model.
STEPS_PER_STEP_OF_TRAINING = 5
# Part of the goal that a training aims at which nobody waits for: what it gains, fewer cells fall back later.
UNHURRIED = 0.5
NEVER = -1


class Trainer:
    """Trains a surrogate on a replay buffer, at the end of a step or while the next steps go on.

    With `surrogate.swap_after = n` a training that begins after step s ends after step s + n, whether
    the work is done by then or is waited for; left out, n is a fifth of the steps since the training
    before, and 0 while most of the answers are still to be learnt. So what answers in a step depends on no
    clock: not on the machine, nor on the number of ranks. A checkpoint between the two holds the samples
    that are learnt from; a run that is resumed from it begins the training again and ends it in the same
    step.

    Args:
        surrogate: answers with its last version meanwhile.
        replay: the samples; those of the moment when a training begins are learnt from.
        section: [surrogate] of the case file.
        goal_of: what a training on outputs (noutput, n) is to reach, see `Surrogate.prepare`.
        comm: communicator of the ranks that train together.
        timers: where the waiting is counted, as the phase "train".
    """

    def __init__(
        self,
        surrogate: Surrogate,
        replay: ReplayBuffer,
        section: SurrogateSection,
        goal_of: Callable[[np.ndarray], float],
        comm,
        timers: Timers,
    ):
        self.surrogate, self.replay, self.section, self.goal_of = surrogate, replay, section, goal_of
        self.comm, self.timers = comm, timers
        self.trained_size, self.begun_step = 0, 0
        self.swap_step, self.lesson, self.work = NEVER, None, None

    @property
    def busy(self) -> bool:
        """Whether a training is under way."""
        return self.lesson is not None

    def finish_step(self, step: int, figures: dict[str, float], weak: bool) -> Lesson | None:
        """Collective. Begin and end trainings as they are due; the one that has ended, if one has.

        Args:
            step: the step that has been finished.
            figures: its counts "calls" and "fallback", equal on all ranks.
            weak: whether the calibration says that the surrogate is not good enough.
        """
        ended = None
        with self.timers.phase("train"):
            if self.busy and step >= self.swap_step:
                ended = self._end()
            if not self.busy and self._is_due(figures, weak):
                delay = self._delay(step, figures, weak)
                self.begun_step = step
                self._begin(step + delay, self.replay.samples, waits=delay == 0)
                if delay == 0:
                    ended = self._end()
        return ended

    def _is_due(self, figures: dict[str, float], weak: bool) -> bool:
        size = len(self.replay.samples)
        if self.surrogate.version == 0:
            return size >= self.section.first_samples
        grown = size - self.trained_size
        urgent = _is_urgent(figures, weak) and grown >= FEW_NEW_SAMPLES
        return urgent or grown >= self.section.growth * self.trained_size

    def _delay(self, step: int, figures: dict[str, float], weak: bool) -> int:
        """Steps from the beginning of a training to the swap; 0 where it is waited for."""
        if self.surrogate.version == 0:
            return 0  # nothing answers before it
        if self.section.swap_after is not None:
            return self.section.swap_after
        # While much is new trainings follow one another fast: they are short, and an old version costs more.
        urgent = _is_urgent(figures, weak)
        return 0 if urgent else (step - self.begun_step) // STEPS_PER_STEP_OF_TRAINING

    def _begin(self, swap_step: int, samples: Samples, waits: bool) -> None:
        self.trained_size, self.swap_step = len(samples), swap_step
        goal = self.goal_of(samples.outputs)
        self.lesson = self.surrogate.prepare(samples, goal if waits else goal * UNHURRIED)
        self.work = Work(self.surrogate, self.lesson)
        if waits:
            self.work.run()
        else:
            self.work.start()

    def _end(self) -> Lesson:
        """Collective. Wait for the work on every rank, then answer with what it gave."""
        if self.work.ident is not None:
            self.work.join()
        raise_together(self.comm, self.work.error)
        if not self.work.done:
            raise RuntimeError("training ended with the error that was shown above")
        lesson = self.lesson
        self.surrogate.adopt(lesson)
        self.swap_step, self.lesson, self.work = NEVER, None, None
        return lesson

    def state(self) -> dict[str, np.ndarray]:
        """What a restart needs, equal on every rank: samples and last step of a training under way."""
        samples = self.lesson.samples if self.busy else self.replay.samples.take(np.zeros(0, dtype=np.int64))
        arrays = {f"samples/{name}": getattr(samples, name).copy() for name in Samples.__dataclass_fields__}
        return {
            "trained_size": np.array([self.trained_size]),
            "begun_step": np.array([self.begun_step]),
            "swap_step": np.array([self.swap_step]),
            **arrays,
        }

    def load_state(self, state: dict[str, np.ndarray]) -> None:
        """Take over what `state` gave; a training that was under way begins again at once.

        The surrogate must have its own state already.
        """
        self.swap_step, self.lesson, self.work = NEVER, None, None
        if state["swap_step"][0] != NEVER:
            names = Samples.__dataclass_fields__
            samples = Samples(*(np.ascontiguousarray(state[f"samples/{name}"]) for name in names))
            self._begin(int(state["swap_step"][0]), samples, waits=False)
        self.trained_size, self.begun_step = (int(state[name][0]) for name in ("trained_size", "begun_step"))


def _is_urgent(figures: dict[str, float], weak: bool) -> bool:
    """Whether the version that answers is of little use."""
    return weak or figures["fallback"] > MANY_FALLBACKS * figures["calls"]


class Work(Thread):
    """The work of one training on this rank; a thread that does not keep the program from ending."""

    def __init__(self, surrogate: Surrogate, lesson: Lesson):
        super().__init__(name="training", daemon=True)
        self.surrogate, self.lesson = surrogate, lesson
        self.error: HpcmsmError | None = None
        self.done = False

    def run(self) -> None:
        """Do it; an error that was foreseen is kept for all ranks to raise."""
        try:
            self.surrogate.study(self.lesson)
        except HpcmsmError as error:
            self.error = error
        self.done = True
