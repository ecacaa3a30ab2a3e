"""Heat conduction in one dimension: exact solutions, conservation, tensors of more dimensions."""

from __future__ import annotations

import numpy as np
import pytest
from mpi4py import MPI

from tests.macro_harness import MacroRun, order

pytestmark = pytest.mark.mpi
COMM = MPI.COMM_WORLD
ENDS = {side: {"kind": "temperature", "temperature": 0.0} for side in ("x_low", "x_high")}


def scalar(formula):
    """K = formula(temperature), one component."""
    return lambda temperature, coordinates: formula(temperature)[None]


def decay_error(scheme, n, step):
    """Largest error of sin(pi x) after t = 0.05 between ends held at 0."""
    run = MacroRun(
        COMM,
        (n,),
        (1.0,),
        {"scheme": scheme, "end": 0.05, "step": step},
        {"initial": "sin(pi * x)", "boundary": ENDS},
        scalar(np.ones_like),
    )
    exact = np.sin(np.pi * run.coordinates["x"]) * np.exp(-(np.pi**2) * 0.05)
    return COMM.allreduce(float(np.abs(run.run() - exact).max(initial=0.0)), op=MPI.MAX)


@pytest.mark.parametrize("scheme", ["rk4", "bdf2"])
def test_decay_is_second_order(scheme):
    errors = [decay_error(scheme, n, 0.3 / n**2 if scheme == "rk4" else 0.1 / n) for n in (11, 22, 44)]
    assert errors[-1] < 1.5e-3 and abs(order(errors) - 2.0) < 0.2, errors


def test_nonlinear_steady_state_meets_the_kirchhoff_solution():
    ends = {
        "x_low": {"kind": "temperature", "temperature": 1.0},
        "x_high": {"kind": "temperature", "temperature": 0.0},
    }
    run = MacroRun(
        COMM,
        (27,),
        (1.0,),
        {"scheme": "backward_euler", "end": 40.0, "step": 4.0},
        {"initial": 0.5, "boundary": ends, "coupling": "picard"},
        scalar(lambda temperature: 1.0 + temperature),
    )
    middle = run.gathered(run.run())[13]
    assert abs(middle - 0.5811388301) < 2e-4, middle


def test_insulated_bar_keeps_its_heat():
    run = MacroRun(
        COMM,
        (13,),
        (2.0,),
        {"scheme": "rk2", "end": 0.2, "step": 0.002},
        {"initial": "1 + x * x"},
        scalar(lambda temperature: 1.0 + 0.1 * temperature),
    )
    before = COMM.allreduce(float(run.heat.initial().sum()))
    after = COMM.allreduce(float(run.run().sum()))
    assert abs(after - before) < 1e-12 * before


def test_a_flux_enters_through_the_right_end():
    flux = {"x_high": {"kind": "flux", "flux": 3.0}, "x_low": {"kind": "flux", "flux": 0.5}}
    run = MacroRun(
        COMM,
        (9,),
        (1.0,),
        {"scheme": "backward_euler", "end": 0.2, "step": 0.05},
        {"initial": 0.0, "boundary": flux},
        scalar(np.ones_like),
    )
    values = run.gathered(run.run())
    assert abs(values.mean() - 3.5 * 0.2) < 1e-9 and values[-1] > values[0]


def tensor(components):
    """A tensor whose rows vary in space, the first ones of a 3D tensor (xx yy zz yz xz xy)."""

    def conductivity(temperature, coordinates):
        x = coordinates["x"]
        whole = np.stack([2 + x, 3 - x, 9 + x, 0.5 + 0 * x, 0.6 + 0 * x, 0.4 * x])
        return np.ascontiguousarray(whole[components])

    return conductivity


@pytest.mark.parametrize(("ndim", "kept"), [(1, [0]), (2, [0, 1, 5])])
def test_a_tensor_of_three_dimensions_acts_by_its_leading_axes(ndim, kept):
    time = {"scheme": "rk2", "end": 0.01, "step": 0.001}
    macro = {"initial": "sin(3 * x)" if ndim == 1 else "sin(3 * x) + y * y"}
    size = (12, 9)[:ndim]
    found = [
        MacroRun(COMM, size, (1.0, 0.8)[:ndim], time, macro, tensor(list(rows)), components=len(rows)).run()
        for rows in (range(6), kept)
    ]
    assert np.array_equal(*found) and np.ptp(found[0]) > 0.01
