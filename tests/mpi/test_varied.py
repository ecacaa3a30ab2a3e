"""Cells with microstructures of their own: the same bits on any number of ranks."""

import numpy as np
import pytest
from mpi4py import MPI

from hpcmsm.config import parse_case
from hpcmsm.errors import ConfigError
from hpcmsm.simulation import Simulation

CASE = """
[grid]
cells = [11, 7]
size = [0.011, 0.007]
[time]
scheme = "rk2"
step = 0.05
end = 0.25
[materials.matrix]
conductivity = "0.2 + 4e-4 * (temperature - 300)"
[materials.fibre]
conductivity = 3.0
[macro]
initial = "300 + 200 * sin(300 * x)"
heat_capacity = 1e6
coupling = "stage"
[micro]
model = "unit_cell"
microstructure = "random_discs"
phases = ["matrix", "fibre"]
fraction = 0.4
count = 4
resolution = 12
realisations = {realisations}
[surrogate]
enabled = {gated}
kind = "gaussian_process"
[gate]
audit = 0.1
[checkpoint]
every = 0
"""


@pytest.mark.parametrize("realisations, gated", [("3", "true"), ('"own"', "false")])
def test_any_ranks_give_the_same_bits(comm, agree, mpi_tmp_path, realisations, gated):
    case = parse_case(CASE.format(realisations=realisations, gated=gated), "varied.toml")
    answers = []
    for ranks, folder in ((comm, "all"), (MPI.COMM_SELF, f"alone_{comm.rank}")):
        simulation = Simulation(case, ranks, mpi_tmp_path, mpi_tmp_path / folder, quiet=True)
        simulation.start()
        simulation.run()
        answers.append((simulation.grid.ids, simulation.unknown[0].copy(), simulation))
    (ids, shared, first), (_, alone, second) = answers
    agree(comm, np.array_equal(shared, alone[ids]), "temperatures differ from those of one rank")
    agree(comm, first.closure.totals() == second.closure.totals(), "counts differ from those of one rank")
    k = second.answer.outputs
    agree(comm, np.abs(k[2]).max() > 1e-3 * k[0].mean(), "every cell seems to have the same microstructure")
    if gated == "true":
        agree(comm, first.closure.totals()["closure"]["accepted"] > 100, "nothing was accepted")


@pytest.mark.parametrize("value", ["1.5", "3"])
def test_realisations_of_a_case_must_exist(comm, agree, mpi_tmp_path, value):
    text = CASE.format(realisations=3, gated="false") + f"[fields]\nrealisation = {value}\n"
    case = parse_case(text, "varied.toml")
    try:
        Simulation(case, comm, mpi_tmp_path, mpi_tmp_path / "out", quiet=True)
        told = ""
    except ConfigError as error:
        told = str(error)
    agree(comm, "fields.realisation.value must be a whole number and lie between 0 and 2" in told, told)
