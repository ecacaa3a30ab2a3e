"""Waves in 1D: exact solutions, order, conservation, a shock, ends, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from mpi4py import MPI

from hpcmsm.assembly import build
from hpcmsm.batch import Batch
from hpcmsm.config import Boundary, parse_case
from hpcmsm.errors import ConfigError
from hpcmsm.macro.central import limited_slopes
from hpcmsm.micro.cauchy_born import CauchyBorn
from hpcmsm.micro.crystal import Crystal
from tests.macro_harness import order
from tests.wave_harness import DENSITY, SPEED, WRAP, Bar, stiffening


def wave(x, amplitude=0.02):
    """A smooth travelling profile of period 1."""
    return 1.0 + amplitude * np.exp(np.sin(2 * np.pi * x) - 1.0)


TRAVELLING = {
    "stretch": "1 + 0.02 * exp(sin(2*pi*x) - 1)",
    "velocity": f"-{SPEED} * 0.02 * exp(sin(2*pi*x) - 1)",
}


def test_linear_waves_are_those_of_d_alembert_and_of_second_order():
    errors = []
    for n in (53, 106, 212):
        bar = Bar(n, TRAVELLING)
        bar.run(0.7)
        errors.append(bar.error(wave(bar.x - SPEED * 0.7)))
    assert order(errors) > 1.85 and errors[-1] < 2e-5, errors


@pytest.mark.parametrize("ends", ["fixed fixed", "fixed free", "free free"])
def test_standing_waves_between_ends(ends):
    low, high = ends.split()
    number = np.pi * (1.5 if low != high else 2.0)
    shape = "cos" if low == "fixed" else "sin"
    boundary = {"x_low": Boundary(kind=low), "x_high": Boundary(kind=high)}
    errors = []
    for n in (40, 80, 160):
        bar = Bar(n, {"stretch": f"1 + 0.01 * {shape}({number} * x)"}, boundary)
        bar.run(0.41)
        exact = 1.0 + 0.01 * getattr(np, shape)(number * bar.x) * np.cos(number * SPEED * 0.41)
        errors.append(bar.error(exact))
    assert order(errors) > 1.8 and errors[-1] < 5e-6, errors


def test_a_moving_end_sends_its_velocity_as_a_wave():
    push = "0.05 * where(t < 0.1, sin(10*pi*t)**2, 0)"
    errors = []
    for n in (60, 120, 240):
        bar = Bar(n, {}, {"x_low": Boundary(kind="moving", velocity=push)})
        stretch, velocity = bar.run(0.25)
        sent = 0.25 - bar.x / SPEED
        exact = np.where((sent > 0) & (sent < 0.1), 0.05 * np.sin(10 * np.pi * sent) ** 2, 0.0)
        one_way = np.abs(velocity + SPEED * (stretch - 1.0)).max(initial=0.0)
        errors.append(bar.error(1.0 - exact / SPEED))
        assert one_way < 3.0 / n
    assert order(errors) > 1.7, errors


def simple_wave(x, time, sound, profile):
    """Stretch of a wave that runs to the right into itself: F(x, t) = F0(x - c(F) t), by fixed point."""
    stretch = profile(x)
    for _ in range(200):
        stretch = profile(x - sound(stretch) * time)
    return stretch


def test_a_steepening_wave_of_the_crystal_is_of_second_order():
    crystal = CauchyBorn(Crystal(1.0, 1.0, 1.0))

    def stress(stretch):
        return crystal.evaluate(
            Batch(np.arange(stretch.size), stretch[None].copy(), np.empty((0, 0)))
        ).outputs[0]

    # v = -integral of c from 1 to F, on a fine table (Gauss); F itself steepens while it travels.
    nodes, weights = np.polynomial.legendre.leggauss(20)

    def velocity(stretch):
        half = (stretch - 1.0) / 2.0
        points = (1.0 + half)[:, None] + half[:, None] * nodes
        return -(crystal.wave_speed(points.ravel()).reshape(points.shape) @ weights) * half

    errors = []
    for n in (64, 128, 256):
        bar = Bar(n, {}, WRAP, stress, density=crystal.density, sound=crystal.wave_speed)
        start = wave(bar.x, -0.02)
        bar.stepper.set_unknown(np.stack([start, velocity(start)]))
        bar.dt = 0.4 / n / 11.0
        bar.run(0.05)
        errors.append(bar.error(simple_wave(bar.x, 0.05, crystal.wave_speed, lambda x: wave(x, -0.02))))
    assert order(errors) > 1.8 and errors[-1] < 3e-5, errors


def test_small_waves_of_the_crystal_travel_at_its_longitudinal_speed():
    crystal = CauchyBorn(Crystal(1.0, 1.0, 1.0))

    def stress(stretch):
        return crystal.evaluate(
            Batch(np.arange(stretch.size), stretch[None].copy(), np.empty((0, 0)))
        ).outputs[0]

    size, speed = 1e-6, 9.53400
    initial = {"stretch": f"1 + {size} * sin(2*pi*x)", "velocity": f"-{speed * size} * sin(2*pi*x)"}
    bar = Bar(128, initial, WRAP, stress, density=crystal.density, sound=crystal.wave_speed, steepness=2.0)
    end = 0.95 / speed
    stretch, _ = bar.run(end)
    phase = np.array([np.sum((stretch - 1.0) * f(2 * np.pi * bar.x)) for f in (np.sin, np.cos)])
    travelled = np.mod(np.arctan2(-phase[1], phase[0]) / (2 * np.pi), 1.0)
    assert abs(travelled / end / speed - 1.0) < 2e-4, travelled / end


@pytest.mark.parametrize("ends", ["periodic periodic", "fixed fixed", "free free"])
def test_what_no_end_lets_through_is_kept_to_rounding(ends):
    boundary = dict(zip(("x_low", "x_high"), (Boundary(kind=kind) for kind in ends.split()), strict=True))
    initial = {"stretch": "1 - 0.1 * exp(-((x - 0.4) / 0.1)**2)", "velocity": "0.3 * smoothstep(x, 0.2, 0.3)"}
    bar = Bar(
        67, initial, boundary, stiffening, sound=lambda f: np.sqrt(18.0 * f**-4.0 / DENSITY), courant=0.3
    )
    before = [bar.total(row) for row in bar.stepper.unknown]
    after = [bar.total(row) for row in bar.run(0.4)]
    apart = np.abs(np.array(after) - before)
    kept = {"periodic": [0, 1], "fixed": [0], "free": [1]}[ends.split()[0]]
    assert np.all(apart[kept] < 1e-14), apart
    assert np.all(np.delete(apart, kept) > 1e-4)  # the others change


def riemann():
    """A shock that runs to the right: states behind and ahead, and its speed (Rankine, Hugoniot)."""
    ahead, behind = 1.0, 0.85
    speed = np.sqrt((stiffening(ahead) - stiffening(behind)) / (DENSITY * (ahead - behind)))
    return ahead, behind, speed, -speed * (behind - ahead)


def test_a_shock_has_the_right_speed_does_not_ring_and_loses_energy():
    ahead, behind, speed, velocity = riemann()
    initial = {"stretch": f"where(x < 0.3, {behind}, {ahead})", "velocity": f"where(x < 0.3, {velocity}, 0)"}
    boundary = {"x_low": Boundary(kind="moving", velocity=velocity)}
    bar = Bar(200, initial, boundary, stiffening, sound=lambda f: np.sqrt(18.0 * f**-4.0 / DENSITY))
    energies = []
    for _ in range(6):
        stretch, v = bar.run(0.025)
        # Elastic energy is the integral of P; what the moving end puts in is its power, P v.
        elastic = 6.0 * (stretch + 0.5 * stretch**-2.0 - 1.5)
        work = -stiffening(behind) * velocity * bar.now
        energies.append(bar.total(0.5 * DENSITY * v**2 + elastic) - work)
    middle = bar.total(np.where(stretch < 0.5 * (ahead + behind), 1.0, 0.0))
    assert abs(middle - (0.3 + speed * bar.now)) < 1.0 / 200
    overshoot = max((behind - stretch).max(initial=-1), (stretch - ahead).max(initial=-1))
    assert overshoot < 0.01 * (ahead - behind), overshoot
    assert np.all(np.diff(energies) < 0.0), energies


def test_slopes_are_exact_for_lines_and_flat_at_extrema():
    line = np.arange(6.0)[None] * 2.0
    assert np.array_equal(limited_slopes(line, 1.0), np.full((1, 4), 2.0))
    peak = np.array([[0.0, 1.0, 0.0], [0.0, 0.0, 5.0], [1.0, 2.0, 5.0]])
    assert limited_slopes(peak, 1.5)[:, 0].tolist() == [0.0, 0.0, 1.5]
    assert limited_slopes(peak, 2.0)[2, 0] == 2.0


CASE = """
[grid]
cells = [50]
size = ["1 mm"]
[time]
scheme = "nessyahu_tadmor"
step = "5 ns"
end = "50 ns"
[macro]
model = "elastic_waves"
[micro]
model = "cauchy_born"
[surrogate]
enabled = false
"""


@pytest.mark.parametrize(
    ("override", "text"),
    [
        ("time.step=1e-8", "time.step must be at most .* for waves of 1505.5 m/s"),
        ("time.scheme=rk4", "time.scheme must be one of nessyahu_tadmor"),
        ("macro.initial=1.0", "macro.initial must be a table of stretch and velocity"),
        ("macro.initial.strain=1.0", "macro.initial must be a table of stretch and velocity"),
        ("macro.initial.stretch='0.9 + t'", "macro.initial.stretch"),
        ("macro.boundary.x_low.kind=free", None),
        ("macro.boundary.x_low={kind='flux', flux=0.0}", "x_low.kind must be one of periodic, fixed"),
        ("macro.steepness=3.0", "macro.steepness"),
        ("micro.model=constant", "macro.density must be given"),
    ],
)
def test_what_a_case_may_say(tmp_path, override, text):
    case = parse_case(CASE, "case.toml", [override])
    if text is None:
        assert build(case, MPI.COMM_SELF, tmp_path).macro.free == [True, False]
        return
    with pytest.raises(ConfigError, match=text):
        build(case, MPI.COMM_SELF, tmp_path)


def test_waves_need_a_line_and_heat_no_free_ends(tmp_path):
    plane = ["grid.cells=[50, 4]", 'grid.size=["1 mm", "1 mm"]']
    with pytest.raises(ConfigError, match="grid.cells must have one entry"):
        build(parse_case(CASE, "case.toml", plane), MPI.COMM_SELF, tmp_path)
    heat = ["macro.model=heat", "time.scheme=euler", "micro.model=constant", "macro.heat_capacity=1.0"]
    heat.append("macro.boundary.x_low.kind=free")
    with pytest.raises(ConfigError, match="x_low.kind must be one of temperature, flux"):
        build(parse_case(CASE, "case.toml", heat), MPI.COMM_SELF, tmp_path)
