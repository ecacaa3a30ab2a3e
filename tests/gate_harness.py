"""A gate around a surrogate whose error and score the test itself decides, cell by cell."""

from __future__ import annotations

import numpy as np

from hpcmsm.batch import Answer, Batch
from hpcmsm.closure.direct import Direct
from hpcmsm.closure.gate import Gate
from hpcmsm.config import GateSection, SurrogateSection
from hpcmsm.fields import Field
from hpcmsm.micro.base import MicroModel
from hpcmsm.surrogate.base import Surrogate
from hpcmsm.surrogate.replay import ReplayBuffer
from hpcmsm.timers import Timers

INPUTS = (
    Field("x", lower=-100.0, upper=100.0),
    Field("error", lower=-100.0, upper=100.0, about="relative error of the surrogate"),
    Field("score", lower=-100.0, upper=100.0, about="what the surrogate says of its error"),
)
OUTPUTS = (Field("k", lower=0.0),)


class Told(MicroModel):
    """k = 1 + x^2, whatever the surrogate is told to make of it; an empty batch is a fault."""

    inputs, outputs = INPUTS, OUTPUTS

    def __init__(self):
        self.asked = []

    def truth(self, inputs):
        return 1.0 + inputs[0:1] * inputs[0:1]

    def evaluate(self, batch: Batch) -> Answer:
        if batch.ncells == 0:
            raise AssertionError("a micro model is never asked for nothing")
        self.asked.append(batch.ids)
        return Answer(self.truth(batch.inputs), batch.state.copy(), np.zeros(batch.ncells, np.int32))


class TellTale(Surrogate):
    """Errs as the inputs say; every operation is exact to the bit on any part of the cells."""

    inputs, outputs = INPUTS, OUTPUTS
    goal = 1e-3

    def __init__(self, version: int = 1):
        self.version = version
        self.learnt = []

    def predict(self, inputs):
        return (1.0 + inputs[0:1] * inputs[0:1]) * (1.0 + inputs[1:2]), inputs[2].copy()

    def misfit(self, predicted, truth):
        return np.abs(predicted - truth)[0] / np.abs(truth[0])

    def adopt(self, lesson):
        self.version += 1
        self.learnt.append(lesson.samples)
        return {}

    def state(self):
        return {"version": np.array([self.version])}

    def load_state(self, state):
        self.version = int(state["version"][0])


def make_gate(
    comm, seed=5, version=1, micro=None, surrogate=None, spacing=1e-9, training=None, **section
) -> Gate:
    """A gate with everything around it; novelty and blending are switched off unless they are given."""
    micro = micro or Told()
    timers = Timers()
    return Gate(
        Direct(micro, comm, timers),
        micro,
        surrogate or TellTale(version),
        ReplayBuffer(micro.inputs, micro.outputs, spacing=spacing),
        GateSection(**{"novelty": 1e9, "coverage": 0.9, "tolerance": 0.01, "blend": 0, **section}),
        SurrogateSection(**(training or {})),
        comm,
        seed,
        timers,
    )


def make_batch(ids, x, error, score, step, iteration=0, micro=None) -> Batch:
    """Cells with these inputs, shape (n,) or numbers."""
    ids = np.asarray(ids, dtype=np.int64)
    inputs = np.array([np.broadcast_to(np.asarray(a, dtype=float), ids.shape) for a in (x, error, score)])
    state = micro.initial_state(inputs) if micro else np.zeros((0, ids.size))
    return Batch(ids, inputs, state, time=float(step), dt=1.0, step=step, iteration=iteration)


def same_arrays(one: dict, other: dict) -> bool:
    """Whether two states hold the same names, types and bits."""
    return one.keys() == other.keys() and all(
        np.asarray(one[name]).dtype == np.asarray(other[name]).dtype
        and np.shape(one[name]) == np.shape(other[name])
        and np.asarray(one[name]).tobytes() == np.asarray(other[name]).tobytes()
        for name in one
    )
