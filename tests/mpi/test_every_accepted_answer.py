"""The stated coverage against the truth: every accepted answer of a run is evaluated by the micro model."""

import numpy as np

from hpcmsm.batch import SURROGATE
from hpcmsm.closure.base import Closure
from hpcmsm.config import load_case
from hpcmsm.simulation import Simulation
from tests.launch import ROOT


class Witness(Closure):
    """Hands every answer on, and compares those of the surrogate with the micro model."""

    def __init__(self, gate, micro):
        self.gate, self.micro = gate, micro
        self.inputs, self.outputs, self.micro_state = gate.inputs, gate.outputs, gate.micro_state
        self.errors = []

    def evaluate(self, batch):
        answer = self.gate.evaluate(batch)
        accepted = answer.source == SURROGATE
        truth = self.micro.evaluate(batch.take(accepted))
        given = answer.outputs[:, accepted]
        size = np.linalg.norm(truth.outputs, axis=0)
        self.errors.append(np.linalg.norm(given - truth.outputs, axis=0) / size)
        assert self.micro.admissible(batch.inputs, answer.outputs).all()
        return answer

    def finish_step(self, step):
        return self.gate.finish_step(step)

    def totals(self):
        return self.gate.totals()


def test_coverage_of_all_accepted_answers(comm, agree, mpi_tmp_path):
    overrides = ["micro.resolution=32", "time.end=60", "grid.cells=[48, 24]", "checkpoint.every=0"]
    overrides += ["snapshots.every=0", "gate.tolerance=5e-3"]
    path = ROOT / "cases" / "composite_wall.toml"
    simulation = Simulation(load_case(path, overrides), comm, path.parent, mpi_tmp_path / "out", quiet=True)
    simulation.closure = witness = Witness(simulation.closure, simulation.micro)
    simulation.start()
    summary = simulation.run()
    errors = np.concatenate(comm.allgather(np.concatenate(witness.errors)))
    agree(comm, errors.size == summary["closure"]["accepted"], "every accepted answer was looked at")
    agree(comm, errors.size > 0.6 * summary["closure"]["calls"], f"accepted {errors.size}")
    within = np.mean(errors <= 5e-3)
    agree(comm, within >= 0.99, f"coverage {within:.4f} of {errors.size} accepted answers")
    # The audits must have told the truth about it.
    told = summary["coverage"]["obtained"]
    agree(comm, abs(told - within) < 0.01, f"audits say {told:.4f}, the truth is {within:.4f}")
    agree(comm, errors.max() > 0.0, "the surrogate is not the micro model")
