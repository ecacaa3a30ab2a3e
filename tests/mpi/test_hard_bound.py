"""What an error of the closure can do to the macro field: |u - u~| <= eps / (1 - eps) |u| in the energy norm.

Steady diffusion between given temperatures. Every conductivity is off by at most the part eps; so is
every harmonic mean on a face. The energies are added up here, face by face, by hand.
"""

import numpy as np
import pytest

from hpcmsm.config import parse_case
from hpcmsm.simulation import Simulation

pytestmark = pytest.mark.mpi
NX, NY, COLD, HOT = 20, 13, 300.0, 400.0
CASE = f"""
[grid]
cells = [{NX}, {NY}]
size = [{NX}.0, {NY}.0]
[time]
scheme = "backward_euler"
step = 1e9
end = 1e9
[fields]
base = "1 + 0.8 * sin(1.3 * x + 2 * y) * cos(0.7 * y * y)"
wobble = "{{wobble}}"
[macro]
initial = 350.0
heat_capacity = 1.0
[macro.boundary.x_low]
kind = "temperature"
temperature = {COLD}
[macro.boundary.x_high]
kind = "temperature"
temperature = {HOT}
[micro]
model = "wobbly:Wobbly"
[surrogate]
enabled = false
[checkpoint]
every = 0
"""
MODEL = """
import numpy as np

from hpcmsm.batch import Answer
from hpcmsm.fields import Field
from hpcmsm.micro.base import MicroModel


class Wobbly(MicroModel):
    inputs = (Field("base", lower=0.1, upper=2.0), Field("wobble", lower=-1.0, upper=1.0))
    outputs = (Field("conductivity", 3, "W/(m K)", lower=0.0, spd=True),)

    def evaluate(self, batch):
        k = batch.inputs[0] * (1.0 + batch.inputs[1])
        return Answer(np.stack([k, k, 0.0 * k]), batch.state, np.zeros(batch.ncells, np.int32))
"""


def steady(comm, folder, wobble):
    """Temperature and conductivity of all cells, (NY, NX), on every rank."""
    if comm.rank == 0:
        (folder / "wobbly.py").write_text(MODEL)
    comm.Barrier()
    case = parse_case(CASE.format(wobble=wobble), "bound.toml")
    simulation = Simulation(case, comm, folder, folder / "out", quiet=True)
    simulation.start(overwrite=True)
    simulation.run()
    mine = np.zeros((2, NX * NY))
    rows = simulation.unknown[0], simulation.answer.outputs[0]
    mine[:, simulation.grid.ids] = rows
    whole = np.empty_like(mine)
    comm.Allreduce(mine, whole)
    return whole.reshape(2, NY, NX)


def energy(u, k, low=0.0, high=0.0):
    """Square of the norm of u with conductivity k on unit cells, u being low and high at the ends of x."""

    def across(a, b):
        return 2.0 * a * b / (a + b)

    inside = (across(k[:, 1:], k[:, :-1]) * np.diff(u, axis=1) ** 2).sum()
    inside += (across(k[1:], k[:-1]) * np.diff(u, axis=0) ** 2).sum()
    return inside + 2.0 * (k[:, 0] * (u[:, 0] - low) ** 2 + k[:, -1] * (u[:, -1] - high) ** 2).sum()


@pytest.mark.parametrize("eps", [0.3, 0.01])
def test_macro_error_is_bounded_by_that_of_the_closure(comm, agree, mpi_tmp_path, eps):
    u, k = steady(comm, mpi_tmp_path, "0")
    bound = eps / (1.0 - eps)
    ratios = []
    for pattern in ("sin(37 * x * x + 11 * y)", "1", "2 * (x > 10) - 1"):
        other, wrong = steady(comm, mpi_tmp_path, f"{eps} * ({pattern})")
        agree(comm, np.abs(wrong / k - 1.0).max() <= eps * (1 + 1e-9), "the closure errs by eps at most")
        apart = np.sqrt(energy(other - u, k) / energy(u, k, COLD, HOT))
        agree(comm, apart <= bound + 1e-5, f"{pattern}: {apart} > {bound}")
        ratios.append(apart / bound)
    agree(comm, max(ratios) > 0.1, f"the bound must be worth something: {ratios}")
