"""Boundary faces against resistances added by hand, each side, on any number of ranks."""

import numpy as np
import pytest

from hpcmsm.config import Boundary
from hpcmsm.errors import ConfigError
from hpcmsm.grid import Grid
from hpcmsm.macro.boundary import SIDES, boundary_faces, flux_slope, periodic_axes

pytestmark = pytest.mark.mpi
FLAT, DEEP = (7, 5), (5, 4, 3)
SIZE = (0.7, 0.4, 0.9)


def setup(comm, cells, boundaries):
    """Grid and faces of a box whose temperature and conductivity vary from cell to cell."""
    given = {side: Boundary(**values) for side, values in boundaries.items()}
    grid = Grid(cells, SIZE[: len(cells)], periodic_axes(given, len(cells)), comm=comm)
    return grid, boundary_faces(given, grid)


def fields(grid):
    """Temperature (ncells,) and conductivity (size, ncells) of the owned cells."""
    random = np.random.default_rng(1)
    size = {2: 3, 3: 6}[grid.ndim]
    temperature = random.uniform(300.0, 400.0, grid.total_cells)
    conductivity = random.uniform(0.5, 4.0, (size, grid.total_cells))
    return temperature[grid.ids], np.ascontiguousarray(conductivity[:, grid.ids])


def centres(cells):
    """Ids, centre and position along each axis of every cell, by loops."""
    ndim = len(cells)
    strides = np.cumprod([1, *cells[:-1]])
    found = {}
    for index in np.ndindex(*cells):
        centre = [(i + 0.5) * SIZE[axis] / cells[axis] for axis, i in enumerate(index)]
        found[int(np.dot(index, strides))] = (index, dict(zip("xyz"[:ndim], centre, strict=True)))
    return found


def flux_into(faces, time, temperature, conductivity):
    """W/m2 into the domain through each face."""
    coefficient, value, flux = faces.evaluate(time, temperature, conductivity)
    return coefficient * (value - temperature[faces.cells]) + flux


def by_hand(kind, half, inside, here, time):
    """Flux through a face from the cell's centre by a network of resistances."""
    if kind == "temperature":
        return (given_temperature(here, time) - inside) / (1.0 / half)
    if kind == "flux":
        return 40.0 * here["y"] - 3.0 * time
    if kind == "convection":
        return (310.0 + 5.0 * time - inside) / (1.0 / film(here) + 1.0 / half)
    # Film, half a cell and a heated surface between them: the surface's own temperature first.
    surface = (50.0 + film(here) * (310.0 + 5.0 * time) + half * inside) / (film(here) + half)
    return half * (surface - inside)


def given_temperature(here, time):
    return 320.0 + 7.0 * here["x"] * time - here["y"]


def film(here):
    return 12.0 + 10.0 * here["x"] + 3.0 * here["y"]


GIVEN = {
    "temperature": dict(kind="temperature", temperature="320 + 7 * x * t - y"),
    "flux": dict(kind="flux", flux="40 * y - 3 * t"),
    "convection": dict(kind="convection", coefficient="12 + 10*x + 3*y", ambient="310 + 5*t"),
    "heated": dict(kind="convection", coefficient="12 + 10*x + 3*y", ambient="310 + 5*t", flux=50.0),
}


@pytest.mark.parametrize("kind", GIVEN)
@pytest.mark.parametrize("cells", [FLAT, DEEP])
def test_flux_is_that_of_a_network_of_resistances(comm, agree, cells, kind):
    sides = SIDES[: 2 * len(cells)]
    grid, found = setup(comm, cells, dict.fromkeys(sides, GIVEN[kind]))
    temperature, conductivity = fields(grid)
    every = centres(cells)
    for number, side in enumerate(sides):
        axis, high = divmod(number, 2)
        got = {}
        if found[side] is not None:
            flux = flux_into(found[side], 2.0, temperature, conductivity)
            got = dict(zip(grid.ids[found[side].cells].tolist(), flux, strict=True))
        expected = {}
        for cell, position in zip(grid.ids.tolist(), range(grid.ncells), strict=True):
            index, here = every[cell]
            if index[axis] == (cells[axis] - 1 if high else 0):
                here = {**here, "xyz"[axis]: SIZE[axis] if high else 0.0}
                half = conductivity[axis, position] / (SIZE[axis] / cells[axis] / 2)
                expected[cell] = by_hand(kind, half, temperature[position], here, 2.0)
        agree(comm, got.keys() == expected.keys(), f"{side}: cells {sorted(got)}, not {sorted(expected)}")
        values = [np.array([table[cell] for cell in sorted(table)]) for table in (got, expected)]
        agree(comm, np.allclose(*values, rtol=1e-12), f"{side}: {values}")
    agree(comm, set(found) == set(sides), f"{list(found)}")


def test_every_boundary_face_belongs_to_one_rank(comm, agree):
    for cells in (FLAT, DEEP):
        _, found = setup(comm, cells, {})
        count = comm.allreduce(sum(faces.cells.size for faces in found.values() if faces is not None))
        total = 2 * sum(int(np.prod(cells)) // n for n in cells)
        agree(comm, count == total, f"{count} faces of {total}")


def test_a_side_that_is_not_given_is_insulated(comm, agree):
    grid, found = setup(comm, FLAT, {"x_low": GIVEN["flux"]})
    temperature, conductivity = fields(grid)
    for side in SIDES[1:4]:
        if found[side] is not None:
            flux = flux_into(found[side], 0.0, temperature, conductivity)
            agree(comm, (flux == 0.0).all(), f"{side}: {flux}")
        else:
            agree(comm, True)


def test_limits_of_convection(comm, agree):
    """A huge film is a given temperature, none insulates; heat on a surface without film enters whole."""
    kinds = {
        "x_low": dict(kind="convection", coefficient=1e12, ambient=350.0),
        "x_high": dict(kind="temperature", temperature=350.0),
        "y_low": dict(kind="convection", coefficient=0.0, ambient=350.0, flux=25.0),
    }
    grid, found = setup(comm, FLAT, kinds)
    temperature, conductivity = np.full(grid.ncells, 320.0), np.full((3, grid.ncells), 2.0)
    half = 2.0 / (SIZE[0] / 7 / 2)
    for side, expected in (("x_low", 30.0 * half), ("x_high", 30.0 * half), ("y_low", 25.0)):
        flux = flux_into(found[side], 0.0, temperature, conductivity) if found[side] else np.array([expected])
        agree(comm, np.allclose(flux, expected, rtol=1e-8), f"{side}: {flux}, not {expected}")


def test_periodic_sides_have_no_faces(comm, agree):
    sides = {side: dict(kind="periodic") for side in ("y_low", "y_high")}
    grid, found = setup(comm, FLAT, sides)
    agree(comm, grid.periodic == (False, True), f"{grid.periodic}")
    agree(comm, found["y_low"] is None and found["y_high"] is None, f"{found}")
    count = comm.allreduce(sum(found[side].cells.size for side in ("x_low", "x_high") if found[side]))
    agree(comm, count == 10, f"{count} faces")


# -- slopes of what depends on the temperature ----------------------------------------------------

SIGMA = 5.67e-8
SLOPES = {
    # W/m2 of T inside, and its derivative where only the formula's own T moves.
    "radiation": (
        dict(kind="flux", flux=f"{SIGMA} * (300**4 - temperature**4)"),
        lambda t, half: -4 * SIGMA * t**3,
    ),
    "film": (
        dict(kind="convection", coefficient="temperature / 10", ambient=300.0),
        # h k / (h + k) (300 - T), h = T/10: d/dh = k^2 / (h + k)^2
        lambda t, half: (half / (t / 10 + half)) ** 2 / 10 * (300.0 - t),
    ),
    "ambient": (
        dict(kind="convection", coefficient=20.0, ambient="temperature**2 / 300"),
        lambda t, half: 20.0 * half / (20.0 + half) * 2 * t / 300,
    ),
    "heated": (
        dict(kind="convection", coefficient=20.0, ambient=300.0, flux="1e-3 * temperature**2"),
        lambda t, half: half / (20.0 + half) * 2e-3 * t,
    ),
    "temperature": (
        dict(kind="temperature", temperature="300 + (temperature - 350)**2 / 100"),
        lambda t, half: half * (t - 350.0) / 50,
    ),
    "constant": (GIVEN["flux"], lambda t, half: 0.0 * t),
}


@pytest.mark.parametrize("name", SLOPES)
def test_slope_is_the_derivative_of_the_formula(comm, agree, name):
    given, slope = SLOPES[name]
    grid, found = setup(comm, FLAT, {"x_high": given})
    temperature, conductivity = fields(grid)
    faces = found["x_high"]
    got = expected = np.zeros(0)
    if faces is not None:
        got = flux_slope(faces, 1.5, temperature, conductivity)
        half = conductivity[0, faces.cells] / (SIZE[0] / 7 / 2)
        expected = slope(temperature[faces.cells], half)
    agree(comm, got.shape == expected.shape, f"{got.shape}")
    # A one-sided difference with a step of 1e-7: half the digits of the largest value.
    agree(comm, np.allclose(got, expected, rtol=3e-5, atol=1e-5), f"{got}, not {expected}")


# -- what is refused ------------------------------------------------------------------------------


def test_periodic_axes(comm, agree):
    periodic = Boundary(kind="periodic")
    both = {"y_low": periodic, "y_high": periodic}
    agree(comm, periodic_axes({}, 2) == (False, False), "nothing is periodic by itself")
    agree(comm, periodic_axes(both, 2) == (False, True), f"{periodic_axes(both, 2)}")
    agree(comm, periodic_axes(both, 3) == (False, True, False), f"{periodic_axes(both, 3)}")


PERIODIC, FLUX = dict(kind="periodic"), dict(kind="flux", flux=1.0)


@pytest.mark.parametrize(
    "boundaries, words",
    [
        ({"x_low": PERIODIC}, "macro.boundary.x_low must be periodic on both sides of x or on neither"),
        ({"y_high": PERIODIC, "y_low": FLUX}, "macro.boundary.y_high must be periodic on both sides of y"),
        ({"z_low": FLUX}, "macro.boundary must name sides of a 2D grid, got 'z_low'"),
        ({"x_low": dict(kind="flux", flux="2 * tt")}, "macro.boundary.x_low.flux must use known variables"),
        (
            {"x_low": dict(kind="flux", flux="z")},
            "macro.boundary.x_low.flux must use known variables, not 'z'",
        ),
        (
            {"y_high": dict(kind="convection", coefficient=1, ambient="sine(x)")},
            "macro.boundary.y_high.ambient must use known functions",
        ),
        (
            {"y_high": dict(kind="convection", coefficient="1 - 6", ambient=300)},
            "macro.boundary.y_high.coefficient must be 0 or more, got '1 - 6'",
        ),
    ],
)
def test_refused(comm, agree, boundaries, words):
    text = None
    try:
        setup(comm, FLAT, boundaries)
    except ConfigError as error:
        text = str(error)
    agree(comm, text is not None and text.startswith(words), f"{text}")
