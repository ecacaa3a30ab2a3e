"""Coupled problems with known answers: both scales together, through the case file."""

import numpy as np
import pytest

from hpcmsm.config import parse_case
from hpcmsm.simulation import Simulation

CASE = """
[grid]
cells = [{nx}, 3]
size = [1.0, 0.1]
[time]
scheme = "{scheme}"
step = {step}
end = {end}
[materials.matrix]
conductivity = "{matrix}"
[materials.inclusion]
conductivity = "{inclusion}"
[macro]
initial = "{initial}"
heat_capacity = 1.0
coupling = "{coupling}"
picard_tolerance = 1e-10
[macro.boundary.x_low]
kind = "temperature"
temperature = {low}
[macro.boundary.x_high]
kind = "temperature"
temperature = {high}
[micro]
model = "unit_cell"
microstructure = "{microstructure}"
phases = ["matrix", "inclusion"]
resolution = {resolution}
fraction = 0.5
tolerance = 1e-8
[surrogate]
enabled = false
[checkpoint]
every = 0
"""


def run(comm, folder, **values):
    """Centres of the first row of cells, their temperature, and the simulation."""
    case = parse_case(CASE.format(**values), "two_scale.toml")
    simulation = Simulation(case, comm, folder, folder / "out", quiet=True)
    simulation.start(overwrite=True)
    simulation.run()
    grid = simulation.grid
    whole = np.zeros(grid.total_cells)
    whole[grid.ids] = simulation.unknown[0]
    total = np.empty_like(whole)
    comm.Allreduce(whole, total)
    total = total.reshape(grid.grid_shape)
    return (np.arange(values["nx"]) + 0.5) / values["nx"], total, simulation


def test_decay_of_a_sine_through_cylinders(comm, agree, mpi_tmp_path):
    """sin(pi x) exp(-pi^2 K t) with K = 2.41546738 (f = 0.5, contrast 10): 0.6207703014 at t = 0.02."""
    errors = []
    for nx, resolution in ((16, 32), (32, 128)):
        x, temperature, _ = run(
            comm,
            mpi_tmp_path,
            nx=nx,
            scheme="rk4",
            coupling="lagged",
            step=0.02 / 120,
            end=0.02,
            low=300,
            high=300,
            matrix="1",
            inclusion="10",
            microstructure="cylinders",
            resolution=resolution,
            initial="300 + sin(pi * x)",
        )
        amplitude = 2.0 * np.mean((temperature[1] - 300.0) * np.sin(np.pi * x))
        errors.append(abs(amplitude - 0.6207703014))
    agree(comm, errors[1] < 1e-3, f"amplitude off by {errors}")
    agree(comm, errors[1] < errors[0] / 2, f"refining both scales must help: {errors}")


@pytest.mark.parametrize("scheme, coupling", [("backward_euler", "picard"), ("bdf2", "picard")])
def test_kirchhoff_with_a_laminate(comm, agree, mpi_tmp_path, scheme, coupling):
    """Both phases follow 1 + T: the steady state is T + T^2/2 linear in x, T(0.5) = 0.5811388301."""
    errors = []
    for nx in (9, 27):
        x, temperature, _ = run(
            comm,
            mpi_tmp_path,
            nx=nx,
            scheme=scheme,
            coupling=coupling,
            step=0.25,
            end=5,
            low=301,
            high=300,
            matrix="1 + (temperature - 300)",
            inclusion="7 * (1 + (temperature - 300))",
            microstructure="laminate",
            resolution=8,
            initial="300.5",
        )
        exact = -1.0 + np.sqrt(1.0 + 2.0 * 1.5 * (1.0 - x))
        errors.append(np.abs(temperature[1] - 300.0 - exact).max())
        middle = temperature[1][nx // 2] - 300.0
    agree(comm, abs(middle - 0.5811388301) < 2e-4, f"T(0.5) = {middle}")
    agree(comm, errors[1] < errors[0] / 7, f"second order in the macro grid: {errors}")


def test_heat_is_conserved_between_insulated_sides(comm, agree, mpi_tmp_path):
    """No flux anywhere and a constant capacity: the mean temperature stays."""
    text = CASE.format(
        nx=13,
        scheme="bdf2",
        coupling="picard",
        step=1e-3,
        end=0.02,
        low=0,
        high=0,
        matrix="1 + temperature / 300",
        inclusion="10",
        microstructure="cylinders",
        resolution=16,
        initial="300 + 50 * cos(pi * x)",
    )
    start = text.index("[macro.boundary.x_low]")
    case = parse_case(text[:start] + text[text.index("[micro]") :], "insulated.toml")
    simulation = Simulation(case, comm, mpi_tmp_path, mpi_tmp_path / "out", quiet=True)
    simulation.start(overwrite=True)
    before = comm.allreduce(simulation.unknown[0].sum())
    simulation.run()
    after = comm.allreduce(simulation.unknown[0].sum())
    agree(comm, abs(after / before - 1.0) < 1e-9, f"{before} became {after}")
    spread = comm.allreduce(float(np.ptp(simulation.unknown[0])))
    agree(comm, spread < 100.0 * comm.size, "heat flowed")
