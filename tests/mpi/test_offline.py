"""Collecting, training and tuning give on any number of ranks what one rank gives."""

from pathlib import Path

import numpy as np
import pytest
from mpi4py import MPI

from hpcmsm.config import parse_case
from hpcmsm.offline.collect import collect
from hpcmsm.offline.train import Recipe, train
from hpcmsm.offline.tune import tune
from hpcmsm.surrogate.base import Samples

CASE = """
[grid]
cells = [4, 4]
size = [1.0, 1.0]
[time]
end = 1.0
step = 0.1
[materials.a]
conductivity = "1 + temperature / 1000"
[materials.b]
conductivity = 3.0
[micro]
model = "unit_cell"
microstructure = "laminate"
phases = ["a", "b"]
resolution = 8
"""
RANGES = ["temperature=300:600", "fraction=0.2:0.6"]
QUICK = Recipe((8,), members=2, goal=1e-3, epochs=20)


def collected(count, comm):
    return collect(parse_case(CASE, "case.toml"), Path("."), count, RANGES, comm)


@pytest.mark.mpi
@pytest.mark.parametrize("count", [1, 2, 61])
def test_a_dataset_on_any_ranks(comm, agree, count):
    here, alone = collected(count, comm), collected(count, MPI.COMM_SELF)
    same = all(
        np.array_equal(getattr(here.samples, name), getattr(alone.samples, name))
        for name in Samples.__dataclass_fields__
    )
    agree(comm, same and len(here.samples) == count, f"{count} samples differ from those of one rank")


@pytest.mark.mpi
def test_tuning_and_training_on_any_ranks(comm, agree, mpi_tmp_path):
    data = collected(61, comm)
    here = learnt(data, comm, mpi_tmp_path / "all.json")
    # One rank does it alone; all of them would be in each other's way.
    alone = learnt(data, MPI.COMM_SELF, mpi_tmp_path / "one.json") if comm.rank == 0 else None
    trials, model = comm.bcast(alone)
    agree(comm, here[0] == trials, f"other trials than on one rank: {here[0]} {trials}")
    for name, array in here[1].state.items():
        agree(comm, np.array_equal(array, model.state[name]), f"{name} differs from that of one rank")
    agree(comm, here[1].history == model.history, "another learning curve than on one rank")


def learnt(data, comm, journal):
    """Collective. Trials of tuning, and a trained model."""
    trials = tune(QUICK, data.keyed(), data.inputs, data.outputs, 2, journal, comm)
    return trials, train(data, data.keyed(), QUICK, comm)
