"""Diffusion with capacity and diffusivity from cells: beside a plain two-scale loop, and conservation."""

import grain_oracle as oracle
import numpy as np
import pytest

from hpcmsm.assembly import build
from hpcmsm.batch import Batch
from hpcmsm.config import parse_case
from hpcmsm.errors import ConfigError
from hpcmsm.micro.grain import Grain
from hpcmsm.simulation import Simulation

CASE = """
[grid]
cells = [{nx}, 3]
size = [1.0, 0.5]
[time]
scheme = "backward_euler"
step = 0.01
end = {end}
[macro]
model = "diffusion"
initial = "{initial}"
capacity = "{capacity}"
linear_tolerance = 1e-13
[micro]
model = "{micro}"
[surrogate]
enabled = false
[checkpoint]
every = 0
"""
LEFT = '[macro.boundary.x_low]\nkind = "concentration"\nconcentration = 0.0\n'
GRAIN = "resolution = 12\ntolerance = 1e-12\ngrain = 1e-4\n"

# A stand-in with a diffusivity that does not change.
PLAIN = """
from hpcmsm.micro.grain import Grain
class Plain(Grain):
    def evaluate(self, batch):
        answer = super().evaluate(batch)
        answer.outputs[0] = 0.25
        answer.outputs[1:] = [[0.7], [0.7], [0.0]]
        return answer
"""


def simulate(comm, folder, micro="grain", extra=LEFT, options=GRAIN, **values):
    """A finished run, and a function that gathers a row (ncells,) to the grid [y, x] on every rank."""
    values = {"nx": 6, "end": 0.05, "initial": "0.5", "capacity": "1", "micro": micro} | values
    text = CASE.format(**values).replace("[surrogate]", options + extra + "[surrogate]")
    simulation = Simulation(parse_case(text, "diffusion.toml"), comm, folder, folder / "out", quiet=True)
    simulation.start(overwrite=True)
    simulation.run()
    grid = simulation.grid

    def gathered(row):
        whole = np.zeros(grid.total_cells)
        whole[grid.ids] = row
        total = np.empty_like(whole)
        comm.Allreduce(whole, total)
        return total.reshape(grid.grid_shape)

    return simulation, gathered


def plain_loop(nx, steps, initial, solid, pores):
    """u, porosity and K of a row of cells, by numpy and scipy: lagged closure, then one implicit step."""
    dt, h = 0.01, 1.0 / nx
    phases, u = [oracle.disc(12)] * nx, initial.copy()
    for _ in range(steps):
        phases = [oracle.step(phase, value, dt) for phase, value in zip(phases, u, strict=True)]
        porosity = np.array([phase.mean() for phase in phases])
        k = np.array([oracle.conductivity(phase)[0] for phase in phases])
        faces = 2 * k[1:] * k[:-1] / (k[1:] + k[:-1]) / h**2
        inertia = (pores * porosity + solid * (1 - porosity)) / dt
        matrix = np.diag(inertia)
        for i, face in enumerate(faces):
            matrix[i : i + 2, i : i + 2] += face * np.array([[1, -1], [-1, 1]])
        matrix[0, 0] += 2 * k[0] / h**2  # the left side, half a cell away, is held at 0
        u = np.linalg.solve(matrix, inertia * u)
    return u, porosity, k


def test_both_scales_as_in_a_plain_loop(comm, agree, mpi_tmp_path):
    simulation, gathered = simulate(
        comm, mpi_tmp_path, nx=5, end=0.04, capacity="1.5 * porosity + 0.8 * (1 - porosity)"
    )
    u, porosity, k = plain_loop(5, 4, np.full(5, 0.5), 0.8, 1.5)
    for name, row, wanted in (
        ("u", simulation.unknown[0], u),
        ("porosity", simulation.answer.outputs[0], porosity),
        ("K", simulation.answer.outputs[1], k),
    ):
        error = np.abs(gathered(row) - wanted).max()
        agree(comm, error < 1e-8, f"{name} differs by {error:.1e}")
    agree(comm, porosity[0] > porosity[-1] + 0.02, "the grains must dissolve where u is low")


def test_nothing_is_lost_without_a_flux(comm, agree, mpi_tmp_path):
    """As the densities of both phases are the same, grains that dissolve add nothing."""
    capacity = "2.0 * porosity + 2.0 * (1 - porosity)"
    initial = "0.5 - 0.45 * smoothstep(x, 0, 1) * (1 - y)"
    simulation, gathered = simulate(comm, mpi_tmp_path, extra="", initial=initial, capacity=capacity)
    before = gathered(simulation.macro.initial()[0])
    after = gathered(simulation.unknown[0])
    change = abs(after.sum() / before.sum() - 1.0)
    agree(comm, change < 1e-11, f"the total changes by {change:.1e}")
    agree(comm, np.ptp(after) < 0.9 * np.ptp(before), "the substance must spread")


def test_rows_of_other_capacities_as_a_dense_solve(comm, agree, mpi_tmp_path):
    """A formula of an output and of the coordinates; the rows exchange across y."""
    if comm.rank == 0:
        (mpi_tmp_path / "plain.py").write_text(PLAIN)
    comm.Barrier()
    extra = LEFT + LEFT.replace("x_low", "x_high")
    options = {"micro": "plain:Plain", "extra": extra, "options": "resolution = 4\n"}
    simulation, gathered = simulate(
        comm, mpi_tmp_path, nx=20, end=0.1, initial="sin(pi * x)", capacity="4 * porosity + 2 * y", **options
    )
    x, y = (np.arange(20) + 0.5) / 20, (np.arange(3) + 0.5) / 6
    agree(comm, simulation.step == 10, f"10 steps, got {simulation.step}")
    row, capacity = gathered(simulation.unknown[0]), 1.0 + 2.0 * y
    u = direct(capacity, np.tile(np.sin(np.pi * x), (3, 1)), 0.7, 1 / 20, 1 / 6, 0.01, 10)
    error = np.abs(row - u).max()
    agree(comm, error < 1e-9, f"u differs by {error:.1e}")


def direct(capacity, u, diffusivity, hx, hy, dt, steps):
    """Dense backward Euler on [y, x], u = 0 at both ends of x, no flux across y."""
    ny, nx = u.shape
    one = np.diag(np.full(nx, 2.0)) - np.eye(nx, k=1) - np.eye(nx, k=-1)
    one[0, 0] = one[-1, -1] = 3.0
    two = np.diag(np.full(ny, 2.0)) - np.eye(ny, k=1) - np.eye(ny, k=-1)
    two[0, 0] = two[-1, -1] = 1.0
    operator = diffusivity * (np.kron(np.eye(ny), one) / hx**2 + np.kron(two, np.eye(nx)) / hy**2)
    inertia = np.diag(np.repeat(capacity, nx)) / dt
    for _ in range(steps):
        u = np.linalg.solve(inertia + operator, inertia @ u.ravel()).reshape(ny, nx)
    return u


def test_cells_get_the_same_bits_on_any_rank(comm, agree):
    """Each rank answers its share of 13 cells; together they are what one rank answers for all."""
    model, ncells = Grain(resolution=12), 13
    u = np.linspace(0.0, 0.6, ncells)[None]
    state = model.initial_state(u)
    mine = np.array_split(np.arange(ncells), comm.size)[comm.rank]
    whole = model.evaluate(Batch(np.arange(ncells), u, state, 0.0, 0.01, 1))
    part = model.evaluate(Batch(np.arange(ncells), u, state, 0.0, 0.01, 1).take(mine))
    for what in ("outputs", "state"):
        pieces = comm.allgather(getattr(part, what))
        same = np.array_equal(np.concatenate(pieces, axis=1), getattr(whole, what))
        agree(comm, same, f"{what} must be the same bits")


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        (
            'kind = "concentration"\nconcentration',
            'kind = "temperature"\ntemperature',
            "must be one of concentr",
        ),
        ('capacity = "1"', 'capacity = "porosty"', "macro.capacity .* did you mean 'porosity'"),
        ('capacity = "1"', "heat_capacity = 1.0", "macro.heat_capacity must be left out"),
        ('initial = "0.5"', "", "macro.initial must be given for macro.model 'diffusion'"),
        ("[micro]", "capasity = 2\n[micro]", "unknown key 'macro.capasity' .* did you mean 'macro.capacity'"),
    ],
)
def test_wrong_keys_are_named(comm, agree, mpi_tmp_path, old, new, text):
    values = {"nx": 6, "end": 0.05, "initial": "0.5", "capacity": "1", "micro": "grain"}
    case = CASE.format(**values).replace("[surrogate]", LEFT + "[surrogate]")
    assert old in case
    changed = case.replace(old, new)
    changed = changed.replace('"grain"\n', '"grain"\nresolution = 4\n')
    with pytest.raises(ConfigError, match=text):
        build(parse_case(changed, "diffusion.toml"), comm, mpi_tmp_path)
