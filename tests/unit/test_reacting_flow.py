"""Exact solutions of reacting flows on one rank: a steady front, and the orders of the splitting."""

import numpy as np
import pytest
from mpi4py import MPI
from scipy.integrate import solve_ivp
from scipy.optimize import brentq

from tests.flow_harness import DENSITY, FlowRun, gases, two


def steady_front(flux):
    """T(x) between 300 K at x = 0 and 700 K at x = 1 where flux cp T' = (cp g T')', g = (T / 300)^0.7."""

    def slope(x, temperature, constant):
        return flux * (temperature - constant) / (temperature / 300.0) ** 0.7

    def at_the_end(constant):
        return solve_ivp(slope, (0, 1), [300.0], args=(constant,), rtol=1e-10).y[0, -1] - 700.0

    constant = brentq(at_the_end, -500.0, 299.99, xtol=1e-10)
    return solve_ivp(slope, (0, 1), [300.0], args=(constant,), rtol=1e-11, dense_output=True).sol


def test_a_steady_front_of_variable_density_is_met_with_second_order():
    flux, errors = 3.0, []
    exact = steady_front(flux)
    sides = {
        side: {"kind": "temperature", "temperature": value}
        for side, value in (("x_low", 300.0), ("x_high", 700.0))
    }
    for n in (8, 16):
        run = FlowRun(
            MPI.COMM_SELF,
            (n,),
            (1.0,),
            gases(),
            lambda places: two(np.full_like(places["x"], 0.4), exact(places["x"])[0]),
            lambda places, time: np.full((1, places["x"].size), flux),
            "(temperature / 300) ** 0.7",
            boundary=sides,
            by_mass=True,
        )
        run.run(0.15, 1)
        errors.append(run.error(exact(run.coordinates["x"])[0], 0))
    orders = np.log2(np.array(errors[:-1]) / errors[1:])
    assert errors[-1] < 2.0 and (orders > 1.8).all(), f"errors {errors} K, orders {orders}"


# ------------------------------------------------------------------------------------- splitting


def logistic(fractions, dt):
    """Exact solution of dA/dt = 4 A (1 - A) over dt, as a change."""
    a = fractions[0]
    grown = a * np.exp(4.0 * dt)
    change = grown / (1.0 - a + grown) - a
    return np.stack([change, -change])


def grown(scheme, nstep):
    """A spreading and growing population on a grid so coarse that one step of transport is stable."""
    run = FlowRun(
        MPI.COMM_SELF,
        (12,),
        (1.0,),
        gases(),
        lambda places: two(0.2 + 0.15 * np.cos(2 * np.pi * places["x"])),
        lambda places, time: np.full((1, places["x"].size), 0.2),
        repr(4e-3 * DENSITY),
        logistic,
        {side: {"kind": "periodic"} for side in ("x_low", "x_high")},
        scheme,
    )
    return run, run.run(0.5 / nstep, nstep)[1]


@pytest.mark.parametrize(("scheme", "order", "largest"), [("strang", 2.0, 4e-4), ("godunov", 1.0, 6e-3)])
def test_splitting_has_its_order(scheme, order, largest):
    _, best = grown("strang", 64)
    errors = []
    for nstep in (4, 8, 16):
        grown_run, _ = grown(scheme, nstep)
        errors.append(grown_run.error(best, 1))
    orders = np.log2(np.array(errors[:-1]) / errors[1:])
    fine = 0 < errors[-1] < largest and (np.abs(orders - order) < 0.2).all()
    assert fine, f"{scheme}: errors {errors}, orders {orders}"
