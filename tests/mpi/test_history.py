"""Micro models with a state behind a gate, through the whole assembly: refused or lifted as they declare."""

import numpy as np
import pytest

from hpcmsm.batch import MICRO, SURROGATE
from hpcmsm.config import parse_case
from hpcmsm.errors import ConfigError
from hpcmsm.simulation import Simulation

pytestmark = pytest.mark.mpi
CASE = """
[grid]
cells = [17, 9]
size = [17.0, 9.0]
[time]
scheme = "backward_euler"
step = 1.0
end = 12.0
[macro]
initial = "300 + 2 * x"
heat_capacity = 10.0
[macro.boundary.x_low]
kind = "temperature"
temperature = "300 + 2 * t"
[micro]
model = "soaked:{model}"
[surrogate]
enabled = true
kind = "rbf"
[gate]
tolerance = 1e-2
audit = 0.1
[checkpoint]
every = 0
"""
MODEL = """
import numpy as np

from hpcmsm.batch import Answer
from hpcmsm.fields import Field
from hpcmsm.micro.base import MicroModel


class Soaked(MicroModel):
    '''Conducts by its moisture, which follows the temperature at once; keeps how often it was asked.'''

    inputs = (Field("temperature", unit="K", lower=0.0, upper=600.0),)
    outputs = (Field("conductivity", 3, "W/(m K)", lower=0.0, spd=True),)
    state = (Field("moisture", start=0.5), Field("asked"))
    history = "liftable"

    def evaluate(self, batch):
        k = 1.0 + 1e-3 * (batch.inputs[0] - 300.0)
        moisture = k - 1.0
        state = np.stack([moisture, batch.state[1] + 1.0])
        return Answer(np.stack([k, k, 0.0 * k]), state, np.zeros(batch.ncells, np.int32))

    def lift(self, inputs, outputs):
        return np.stack([outputs[0] - 1.0, np.full(outputs.shape[1], -1.0)])


class Remembers(Soaked):
    history = "full"
"""


def simulation(comm, folder, model, *overrides):
    if comm.rank == 0:
        (folder / "soaked.py").write_text(MODEL)
    comm.Barrier()
    case = parse_case(CASE.format(model=model), "history.toml", list(overrides))
    return Simulation(case, comm, folder, folder / "out", quiet=True)


def test_full_history_is_refused_with_the_reason(comm, agree, mpi_tmp_path):
    text = None
    try:
        simulation(comm, mpi_tmp_path, "Remembers")
    except ConfigError as error:
        text = str(error)
    agree(comm, text is not None and "surrogate.enabled must be false for Remembers" in text, f"{text}")
    agree(comm, "its history is 'full'" in text and "\n" not in text, text)
    run = simulation(comm, mpi_tmp_path, "Remembers", "surrogate.enabled=false")
    run.start(overwrite=True)
    run.run()
    agree(comm, (run.state[1] == 12.0).all(), "without a surrogate every cell is advanced in every step")


def test_liftable_history_is_lifted(comm, agree, mpi_tmp_path):
    """Cells of the surrogate get a state that belongs to their answer, and all others the micro model's."""
    run = simulation(comm, mpi_tmp_path, "Soaked")
    run.start(overwrite=True)
    summary = run.run()
    answer = run.answer
    served, true = answer.source == SURROGATE, answer.source == MICRO
    agree(comm, np.array_equal(run.state, answer.state), "the loop took another state")
    agree(comm, np.array_equal(run.state[0], answer.outputs[0] - 1.0), "moisture belongs to the answer")
    agree(comm, (run.state[1, served] == -1.0).all(), "a served cell was not lifted")
    agree(comm, (run.state[1, true] >= 0.0).all(), "a cell of the micro model was lifted")
    moisture = comm.allreduce(float(np.abs(run.state[0]).sum()))
    counts = summary["closure"]
    agree(comm, counts["accepted"] > 0.4 * counts["calls"] and counts["audited"] > 0, f"{counts}")
    agree(comm, moisture > 0.0, "no moisture")
