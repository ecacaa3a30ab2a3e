"""The trap: inputs leave the trained region suddenly. The real ensemble behind the real gate."""

import numpy as np
import pytest

from hpcmsm.batch import MICRO, SURROGATE, Answer, Batch
from hpcmsm.closure.direct import Direct
from hpcmsm.closure.gate import Gate
from hpcmsm.config import GateSection, SurrogateSection
from hpcmsm.fields import Field
from hpcmsm.micro.base import MicroModel
from hpcmsm.surrogate.ensemble import Ensemble
from hpcmsm.surrogate.replay import ReplayBuffer
from hpcmsm.timers import Timers

pytestmark = pytest.mark.mpi
N, TOLERANCE, COVERAGE = 600, 5e-3, 0.99
TRAP, END = 16, 46


class Fibres(MicroModel):
    """Maxwell's formula for phases that follow the temperature; bounds of Wiener."""

    inputs = (Field("temperature", unit="K"), Field("fraction", unit="1", lower=0.0, upper=0.9))
    outputs = (Field("conductivity", 3, "W/(m K)", lower=0.0, spd=True),)

    def phases_at(self, temperature):
        return 0.2 + 4e-4 * (temperature - 273), 3.0 - 2e-3 * (temperature - 273)

    def evaluate(self, batch: Batch) -> Answer:
        temperature, fraction = batch.inputs
        matrix, fibre = self.phases_at(temperature)
        contrast = (fibre - matrix) / (fibre + matrix)
        k = matrix * (1 + contrast * fraction) / (1 - contrast * fraction)
        outputs = np.stack([k, k, np.zeros_like(k)])
        return Answer(outputs, batch.state, np.zeros(batch.ncells, np.int32))

    def admissible(self, inputs, outputs):
        matrix, fibre = self.phases_at(inputs[0])
        upper = matrix + inputs[1] * (fibre - matrix)
        lower = 1.0 / (1.0 / matrix + inputs[1] * (1.0 / fibre - 1.0 / matrix))
        mean, difference = (outputs[0] + outputs[1]) / 2, (outputs[0] - outputs[1]) / 2
        radius = np.hypot(difference, outputs[2])
        return (mean + radius <= upper) & (mean - radius >= lower)


def make_gate(comm, micro):
    timers = Timers()
    section = GateSection(tolerance=TOLERANCE, coverage=COVERAGE)
    return Gate(
        Direct(micro, comm, timers),
        micro,
        Ensemble(micro.inputs, micro.outputs, comm, 1, goal=TOLERANCE / 10),
        ReplayBuffer(micro.inputs, micro.outputs, spacing=section.novelty / 10),
        section,
        SurrogateSection(),
        comm,
        1,
        timers,
    )


def inputs_at(step):
    """A wall that warms slowly; from TRAP on a third of it is hot and of another material."""
    x = (np.arange(N) + 0.5) / N
    temperature = 300 + 0.5 * step + 40 * x
    fraction = 0.3 + 0.1 * np.sin(6 * np.pi * x)
    struck = (x > 0.4) & (x < 0.73) & (step >= TRAP)
    return np.array([np.where(struck, 700 + 60 * x, temperature), np.where(struck, 0.7, fraction)]), struck


def test_trap_is_survived(comm, agree):
    """Never an impossible answer, fallback where the inputs are new, and then coverage again."""
    micro = Fibres()
    gate = make_gate(comm, micro)
    ids = np.arange(comm.rank, N, comm.size)
    accepted, errors, struck_by_surrogate = [], [], 0
    for step in range(END):
        everywhere, struck = inputs_at(step)
        inputs = np.ascontiguousarray(everywhere[:, ids])
        batch = Batch(ids, inputs, np.zeros((0, ids.size)), float(step), 1.0, step)
        answer = gate.evaluate(batch)
        agree(comm, micro.admissible(inputs, answer.outputs).all(), f"impossible answer in step {step}")
        served = answer.source == SURROGATE
        if step == TRAP:
            struck_by_surrogate = comm.allreduce(int((served & struck[ids]).sum()))
            agree(comm, (answer.source[struck[ids]] == MICRO).all(), "the trap caught the surrogate")
        truth = micro.evaluate(batch).outputs
        misfit = np.abs(answer.outputs - truth)[:2].max(axis=0) / truth[0]
        errors.append(np.concatenate(comm.allgather(misfit[served])))
        figures = gate.finish_step(step)
        accepted.append(figures["accepted"] / figures["calls"])
    before, after = np.mean(accepted[5:TRAP]), np.mean(accepted[TRAP + 10 :])
    agree(comm, struck_by_surrogate == 0, "cells of the trap must fall back")
    agree(comm, before > 0.9, f"accepted before the trap: {before:.3f}")
    agree(comm, accepted[TRAP] < 0.68, f"accepted in the step of the trap: {accepted[TRAP]:.3f}")
    agree(comm, after > 0.9, f"accepted after the trap: {after:.3f}")
    late = np.concatenate(errors[TRAP + 1 :])
    agree(comm, np.mean(late <= TOLERANCE) >= COVERAGE, f"coverage after: {np.mean(late <= TOLERANCE):.4f}")
    agree(comm, late.max() > 0.0, "the surrogate is not the micro model")
