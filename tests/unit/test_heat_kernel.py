"""The heat stencil against a numpy twin, conservation, split blocks, and second-order convergence."""

from __future__ import annotations

import numpy as np
import pytest

from hpcmsm.kernels import Kernel

# Component of the tensor that couples two axes (x, y, z = 0, 1, 2), in the order of Field.
COMPONENT = {
    2: {(0, 0): 0, (1, 1): 1, (0, 1): 2},
    3: {(0, 0): 0, (1, 1): 1, (2, 2): 2, (1, 2): 3, (0, 2): 4, (0, 1): 5},
}
SIZES = {2: (7, 5), 3: (5, 4, 6)}  # nx, ny(, nz)


def component(ndim, a, b):
    return COMPONENT[ndim][min(a, b), max(a, b)]


def faces_of(h, physical, conductivity, **options):
    """Conductances from the kernel heat_faces: all axes over the block with ghosts."""
    ndim = len(h)
    kernel = Kernel.load("heat", "heat_faces", debug=True, **options)
    found = np.zeros_like(conductivity[:ndim])
    for axis in range(ndim):
        along = ndim - 1 - axis
        shape = conductivity.shape[1:]
        block = (int(np.prod(shape[:along])), shape[along], int(np.prod(shape[along + 1 :])))
        kernel(
            nouter=block[0],
            n=block[1] - 2,
            ninner=block[2],
            h=h[axis],
            physical=np.array(physical[2 * axis : 2 * axis + 2], np.int32),
            conductivity=conductivity[axis].reshape(block),
            faces=found[axis].reshape(block),
        )
    return found


def with_shares(h, conductivity, sides):
    """Sides (2, 3, ...) with the share of the cross part that enters as a fourth row."""
    ndim = len(h)
    inner = (slice(1, -1),) * ndim
    found = []
    for axis, side in enumerate(sides):
        normal = np.moveaxis(conductivity[axis][inner], ndim - 1 - axis, 0)
        share = side[:, 0] * h[axis] / (2 * normal[[0, -1]])
        found.append(np.concatenate([side, share[:, None]], axis=1).astype(side.dtype))
    return found


def stencil_arguments(n, h, physical, conductivity, sides, cross, **options):
    """What both stencils need, from the conductivity at the cells."""
    ndim = len(n)
    arguments = dict(zip(("nx", "ny", "nz"), n, strict=False))
    arguments |= dict(zip(("hx", "hy", "hz"), h, strict=False))
    arguments |= {"physical": np.array(physical, np.int32)}
    arguments |= {"faces": faces_of(h, physical, conductivity, **options)}
    terms = conductivity[2] if ndim == 2 else conductivity[3:]
    sides = with_shares(h, conductivity, sides)
    arguments |= {f"side_{axis}": side for axis, side in zip("xyz", sides, strict=False)}
    return arguments, {"cross": terms if cross else None}


def run(name, n, h, physical, conductivity, sides, temperature=None, cross=1, dt=0.0, capacity=None):
    """Call a kernel of heat.c; n and h in the order x, y(, z)."""
    ndim = len(n)
    shape = tuple(reversed(n))
    arguments, terms = stencil_arguments(n, h, physical, conductivity, sides, cross)
    if name == "divergence":
        out = np.full(shape, np.nan)
        arguments |= {**terms, "temperature": temperature, "dt": dt, "capacity": capacity, "divergence": out}
    else:
        out = np.full((2 + 2 * ndim, *shape), np.nan)
        arguments |= {"coefficients": out}
    Kernel.load("heat", f"heat_{name}_{ndim}d", debug=True)(**arguments)
    return out


def random_case(ndim, physical, seed=0):
    """Sizes, widths, K, T and sides; NaN beyond physical sides, where nothing may be read."""
    random = np.random.default_rng(seed)
    n, h = SIZES[ndim], (0.1, 0.13, 0.07)[:ndim]
    ghosted = tuple(size + 2 for size in reversed(n))
    temperature = random.random(ghosted) * 10 + 300
    factor = random.random((ndim, ndim, *ghosted)) * 0.6 + np.eye(ndim).reshape(ndim, ndim, *[1] * ndim)
    full = np.einsum("ik...,jk...->ij...", factor, factor)
    conductivity = np.empty((3 if ndim == 2 else 6, *ghosted))
    for (a, b), place in COMPONENT[ndim].items():
        conductivity[place] = full[a, b]
    for side, is_physical in enumerate(physical):
        if is_physical:
            beyond = [slice(None)] * ndim
            beyond[ndim - 1 - side // 2] = -1 if side % 2 else 0
            temperature[tuple(beyond)] = np.nan
            conductivity[(slice(None), *beyond)] = np.nan
    sides = [random.random((2, 3, *[s for a, s in enumerate(reversed(n)) if a != ndim - 1 - axis])) * 5
             for axis in range(ndim)]  # fmt: skip
    return n, h, conductivity, temperature, sides


def twin_fluxes(n, h, physical, conductivity, temperature, sides, cross=True):
    """Conduction (towards lower indices) through all faces of every axis, shape n + 1 along that axis.

    Written with whole arrays that have ghosts beyond physical sides cut away.
    """
    ndim = len(n)
    keep = tuple(
        slice(1 if physical[2 * axis] else 0, -1 if physical[2 * axis + 1] else None)
        for axis in reversed(range(ndim))
    )
    k, t = conductivity[(slice(None), *keep)], temperature[keep]
    slopes = []
    for axis in range(ndim):
        along = ndim - 1 - axis
        # numpy's gradient: central inside, one-sided at the ends, which here are physical sides
        slopes.append(np.gradient(t, h[axis], axis=along, edge_order=1) if t.shape[along] > 1 else 0 * t)
    return [_axis_fluxes(axis, n, h, physical, k, t, slopes, sides[axis], cross) for axis in range(ndim)]


def _axis_fluxes(axis, n, h, physical, k, t, slopes, side, cross):
    ndim, along = len(n), len(n) - 1 - axis

    def low(array):
        return np.moveaxis(array, along, 0)[:-1]

    def high(array):
        return np.moveaxis(array, along, 0)[1:]

    normal = k[component(ndim, axis, axis)]
    flux = 2 / (1 / low(normal) + 1 / high(normal)) * (high(t) - low(t)) / h[axis]
    for other in set(range(ndim)) - {axis} if cross else ():
        coupling = k[component(ndim, axis, other)]
        mean_k = (low(coupling) + high(coupling)) / 2
        flux = flux + mean_k * (low(slopes[other]) + high(slopes[other])) / 2
    for end in (0, 1):
        if physical[2 * axis + end]:
            inward = _side_flux(axis, end, h, k, t, slopes, side[end], physical, cross)
            parts = [flux, inward[None]] if end else [-inward[None], flux]
            flux = np.concatenate(parts)
    # Of the other axes only owned cells: ghosts that were not cut are dropped.
    flux = np.moveaxis(flux, 0, along)
    owned = tuple(
        slice(None) if a == axis else slice(0 if physical[2 * a] else 1, None if physical[2 * a + 1] else -1)
        for a in reversed(range(ndim))
    )
    return flux[owned]


def _side_flux(axis, end, h, k, t, slopes, side, physical, cross):
    """Heat into the block through one physical side, with NaN in ghost columns that are dropped later."""
    ndim, along = t.ndim, t.ndim - 1 - axis
    edge = -1 if end else 0

    def at(array):
        return np.moveaxis(array, along, 0)[edge]

    shift = np.zeros_like(at(t))
    for other in set(range(ndim)) - {axis} if cross else ():
        ratio = at(k[component(ndim, axis, other)]) / at(k[component(ndim, axis, axis)])
        shift += (1 if end else -1) * ratio * at(slopes[other]) * h[axis] / 2
    rest = [a for a in reversed(range(ndim)) if a != axis]
    widths = [(0 if physical[2 * a] else 1, 0 if physical[2 * a + 1] else 1) for a in rest]
    coefficient, value, given = (np.pad(row, widths, constant_values=np.nan) for row in side)
    return coefficient * (value - at(t) + shift) + given


def twin_divergence(n, h, fluxes):
    ndim = len(n)
    return sum(np.diff(flux, axis=ndim - 1 - axis) / h[axis] for axis, flux in enumerate(fluxes))


def every_mixture(ndim):
    """Combinations of physical sides: none, all, each one alone, and some mixed."""
    nside = 2 * ndim
    alone = [[int(side == other) for other in range(nside)] for side in range(nside)]
    mixed = [[1, 0] * ndim, [0, 1] * ndim, [1, 1] + [0] * (nside - 2), [0] * (nside - 2) + [1, 1]]
    return [[0] * nside, [1] * nside, *alone, *mixed]


CASES = [(ndim, physical) for ndim in (2, 3) for physical in every_mixture(ndim)]
IDS = [f"{ndim}d-{''.join(map(str, physical))}" for ndim, physical in CASES]


@pytest.mark.parametrize("varied", [True, False], ids=["rho c of each cell", "rho c of 1"])
@pytest.mark.parametrize("ndim", [2, 3])
def test_with_a_length_it_is_a_step_of_forward_euler(ndim, varied):
    n, h, conductivity, temperature, sides = random_case(ndim, [1, 0] * ndim)
    block = temperature[(slice(1, -1),) * ndim]
    capacity = 1.0 + np.random.default_rng(4).random(block.shape) if varied else None
    given = (n, h, [1, 0] * ndim, conductivity, sides, temperature)
    stepped = run("divergence", *given, dt=0.01, capacity=capacity)
    wanted = block + 0.01 * run("divergence", *given) / (capacity if varied else 1.0)
    assert np.abs(stepped - wanted).max() < 1e-12 * np.abs(wanted).max()
    assert np.abs(stepped - block).max() > 1.0


def by_planes(n, h, physical, conductivity, sides, temperature, **step):
    """The kernel for K without cross terms, which reads what lies beyond the block from planes."""
    ndim, inner = len(n), (slice(1, -1),) * len(n)
    arguments, _ = stencil_arguments(n, h, physical, conductivity, sides, 0)
    for axis, name in enumerate("xyz"[:ndim]):
        along = ndim - 1 - axis
        ends = [[end if d == along else slice(1, -1) for d in range(ndim)] for end in (0, -1)]
        # Beyond physical sides any number may stand.
        planes = np.nan_to_num(np.stack([temperature[tuple(end)] for end in ends]), nan=7.0)
        arguments[f"ghost_{name}"] = np.ascontiguousarray(planes)
    block = np.ascontiguousarray(temperature[inner])
    out = np.full(block.shape, np.nan)
    step = {"dt": 0.0, "capacity": None, "open_sides": arguments.pop("physical"), **step}
    Kernel.load("heat_diagonal", f"heat_diagonal_{ndim}d", debug=True)(
        **arguments, **step, temperature=block, divergence=out
    )
    return out


@pytest.mark.parametrize(("ndim", "physical"), CASES, ids=IDS)
def test_without_cross_terms_ghost_planes_give_the_same_bits(ndim, physical):
    n, h, conductivity, temperature, sides = random_case(ndim, physical, seed=9)
    wanted = run("divergence", n, h, physical, conductivity, sides, temperature, cross=0)
    assert np.array_equal(by_planes(n, h, physical, conductivity, sides, temperature), wanted)
    for capacity in (None, 1.0 + np.random.default_rng(4).random(wanted.shape)):
        step = {"dt": 0.01, "capacity": capacity}
        wanted = run("divergence", n, h, physical, conductivity, sides, temperature, cross=0, **step)
        stepped = by_planes(n, h, physical, conductivity, sides, temperature, **step)
        assert np.abs(stepped - wanted).max() < 1e-14 * np.abs(wanted).max()


@pytest.mark.parametrize("cross", [0, 1])
@pytest.mark.parametrize(("ndim", "physical"), CASES, ids=IDS)
def test_divergence_equals_numpy(ndim, physical, cross):
    n, h, conductivity, temperature, sides = random_case(ndim, physical)
    found = run("divergence", n, h, physical, conductivity, sides, temperature, cross)
    fluxes = twin_fluxes(n, h, physical, conductivity, temperature, sides, bool(cross))
    wanted = twin_divergence(n, h, fluxes)
    assert np.abs(found - wanted).max() <= 1e-11 * np.abs(wanted).max()


@pytest.mark.parametrize(("ndim", "physical"), CASES, ids=IDS)
def test_faces_are_harmonic_means(ndim, physical):
    _, h, conductivity, _, _ = random_case(ndim, physical, seed=7)
    found = faces_of(h, physical, conductivity)
    for axis in range(ndim):
        normal = np.moveaxis(conductivity[axis], ndim - 1 - axis, 0)
        wanted = 2 / (1 / normal[:-1] + 1 / normal[1:]) / h[axis] ** 2
        got = np.moveaxis(found[axis], ndim - 1 - axis, 0)[:-1]
        for end in (0, -1):
            if physical[2 * axis - end]:
                wanted[end] = 0.0
        inside = np.isfinite(wanted)  # ghosts beyond the physical sides of other axes are NaN
        assert inside[(slice(None), *[slice(1, -1)] * (ndim - 1))].all()
        np.testing.assert_allclose(got[inside], wanted[inside], rtol=1e-14)


@pytest.mark.parametrize("ndim", [2, 3])
def test_heat_is_conserved(ndim):
    """What the cells gain is what the sides give, to round-off."""
    physical = [1] * (2 * ndim)
    n, h, conductivity, temperature, sides = random_case(ndim, physical, seed=3)
    gained = run("divergence", n, h, physical, conductivity, sides, temperature).sum() * np.prod(h)
    given = size = 0.0
    for axis, flux in enumerate(twin_fluxes(n, h, physical, conductivity, temperature, sides)):
        area = np.prod(h) / h[axis]
        ends = np.moveaxis(flux, ndim - 1 - axis, 0)
        given += (ends[-1].sum() - ends[0].sum()) * area
        size += np.abs(flux).sum() * area
    assert abs(gained - given) <= 1e-14 * size


@pytest.mark.parametrize("ndim", [2, 3])
def test_insulated_block_keeps_its_heat(ndim):
    physical = [1] * (2 * ndim)
    n, h, conductivity, temperature, sides = random_case(ndim, physical, seed=4)
    out = run("divergence", n, h, physical, conductivity, [0 * side for side in sides], temperature)
    assert abs(out.sum()) <= 1e-13 * np.abs(out).sum()


@pytest.mark.parametrize("cross", [0, 1])
@pytest.mark.parametrize(
    ("ndim", "axis", "first"), [(2, 0, 1), (2, 0, 5), (2, 1, 2), (3, 0, 4), (3, 1, 1), (3, 2, 4)]
)
def test_split_block_gives_the_same_bits(ndim, axis, first, cross):  # fmt: skip
    """Two ranks, split unevenly, compute what one rank computes, bit by bit."""
    physical = [1] * (2 * ndim)
    n, h, conductivity, temperature, sides = random_case(ndim, physical, seed=5)
    whole = run("divergence", n, h, physical, conductivity, sides, temperature, cross)
    along = ndim - 1 - axis
    for low, high in ((0, first), (first, n[axis])):
        part = list(n)
        part[axis] = high - low
        inner = list(physical)
        inner[2 * axis], inner[2 * axis + 1] = int(low == 0), int(high == n[axis])
        ghosted = (slice(None),) * along + (slice(low, high + 2),)
        owned = (slice(None),) * along + (slice(low, high),)
        cut = []
        for other, side in enumerate(sides):
            axes = [a for a in reversed(range(ndim)) if a != other]
            where = tuple(slice(low, high) if a == axis else slice(None) for a in axes)
            cut.append(np.ascontiguousarray(side[(slice(None), slice(None), *where)]))
        found = run(
            "divergence",
            part,
            h,
            inner,
            np.ascontiguousarray(conductivity[(slice(None), *ghosted)]),
            cut,
            np.ascontiguousarray(temperature[ghosted]),
            cross,
        )
        assert np.array_equal(found, whole[owned])


@pytest.mark.parametrize(("ndim", "physical"), CASES, ids=IDS)
def test_coefficients_are_those_of_the_divergence(ndim, physical):
    n, h, conductivity, temperature, sides = random_case(ndim, physical, seed=6)
    wanted = run("divergence", n, h, physical, conductivity, sides, temperature, cross=0)
    found = run("coefficients", n, h, physical, conductivity, sides)
    inside = tuple(slice(1, -1) for _ in n)
    filled = np.nan_to_num(temperature)  # beyond physical sides the coefficient is 0
    total = found[0] * filled[inside] + found[-1]
    for axis in range(ndim):
        for end in (0, 1):
            coefficient = found[1 + 2 * axis + end]
            shifted = np.roll(filled, -1 if end else 1, axis=ndim - 1 - axis)[inside]
            total += coefficient * shifted
            if physical[2 * axis + end]:
                edge = np.moveaxis(coefficient, ndim - 1 - axis, 0)[-1 if end else 0]
                assert not edge.any()
    scale = np.abs(found[0] * filled[inside]).max()
    assert np.abs(total - wanted).max() <= 1e-13 * scale


def test_threads_do_not_change_the_answer():
    physical = [1, 0, 1, 0]
    n, h, conductivity, temperature, sides = random_case(2, physical)
    answers = []
    for threads in (1, 2, 3):
        out = np.empty(tuple(reversed(n)))
        arguments, terms = stencil_arguments(n, h, physical, conductivity, sides, 1, threads=threads)
        kernel = Kernel.load("heat", "heat_divergence_2d", threads=threads)
        kernel(**arguments, **terms, temperature=temperature, dt=0.0, capacity=None, divergence=out)
        answers.append(out)
    assert np.array_equal(answers[0], answers[1])
    assert np.array_equal(answers[0], answers[2])


def test_float32_agrees_with_float64():
    physical = [1, 1, 1, 1]
    n, h, conductivity, temperature, sides = random_case(2, physical)
    wanted = run("divergence", n, h, physical, conductivity, sides, temperature)
    out = np.empty(tuple(reversed(n)), np.float32)
    single = conductivity.astype(np.float32)
    arguments, terms = stencil_arguments(
        n, h, physical, single, [side.astype(np.float32) for side in sides], 1, dtype="float32"
    )
    kernel = Kernel.load("heat", "heat_divergence_2d", dtype="float32", debug=True)
    kernel(
        **arguments,
        **terms,
        temperature=temperature.astype(np.float32),
        dt=0.0,
        capacity=None,
        divergence=out,
    )
    # One rounding of T = 300 K, through k / h^2.
    assert (
        np.abs(out - wanted).max()
        <= 20 * 2**-24 * 300 * conductivity[np.isfinite(conductivity)].max() / 0.1**2
    )


# Manufactured anisotropic field: T = 2 + sin(2x + y) + x y / 2, K varies in space with a strong cross term.


def exact(x, y):
    t = 2 + np.sin(2 * x + y) + x * y / 2
    tx, ty = 2 * np.cos(2 * x + y) + y / 2, np.cos(2 * x + y) + x / 2
    txx, tyy, txy = -4 * np.sin(2 * x + y), -np.sin(2 * x + y), 0.5 - 2 * np.sin(2 * x + y)
    kxx, kyy, kxy = 2 + np.sin(x + y), 1.5 + x * y, 0.4 + 0.3 * np.cos(x - y)
    qx, qy = kxx * tx + kxy * ty, kxy * tx + kyy * ty
    divergence = (
        np.cos(x + y) * tx + kxx * txx + 0.3 * np.sin(x - y) * tx + kxy * txy
        - 0.3 * np.sin(x - y) * ty + kxy * txy + x * ty + kyy * tyy
    )  # fmt: skip
    return t, (kxx, kyy, kxy), (qx, qy), divergence


def centres(n, ghosts=0):
    x = (np.arange(-ghosts, n + ghosts) + 0.5) / n
    return np.meshgrid(x, x, indexing="xy")


def test_stencil_is_second_order_inside():
    errors = []
    for n in (16, 32, 64):
        t, k, _, wanted = exact(*centres(n, ghosts=1))
        sides = [np.zeros((2, 3, n))] * 2
        found = run("divergence", (n, n), (1 / n, 1 / n), [0] * 4, np.array(k), sides, t)
        errors.append(np.abs(found - wanted[1:-1, 1:-1]).max())
    orders = np.log2(np.array(errors[:-1]) / errors[1:])
    assert orders.min() > 1.9, (errors, orders)


def given_temperature(x, y, normal_k, h, outward):
    return 2 * normal_k / h, exact(x, y)[0], 0 * x


def given_flux(x, y, normal_k, h, outward):
    qx, qy = exact(x, y)[2]
    return 0 * x, 0 * x, outward[0] * qx + outward[1] * qy


def convection(x, y, normal_k, h, outward):
    """Film coefficient 3 and the ambient temperature that fits the exact field."""
    film = 3.0
    ambient = exact(x, y)[0] + given_flux(x, y, normal_k, h, outward)[2] / film
    return 1 / (1 / film + h / (2 * normal_k)), ambient, 0 * x


KINDS = {
    "temperature": [given_temperature] * 4,
    "flux": [given_flux, given_temperature, given_flux, given_flux],
    "convection": [convection] * 4,
    "mixed": [given_temperature, convection, given_flux, convection],
}


def solve_steady(n, kinds):
    """Root mean square and largest error of the steady temperature, from the kernel's dense matrix."""
    x, y = centres(n)
    h, line, zero, one = 1 / n, (np.arange(n) + 0.5) / n, np.zeros(n), np.ones(n)
    t, k, _, source = exact(x, y)
    side_x = np.array(
        [kinds[0](zero, line, k[0][:, 0], h, (-1, 0)), kinds[1](one, line, k[0][:, -1], h, (1, 0))]
    )
    side_y = np.array([kinds[2](line, zero, k[1][0], h, (0, -1)), kinds[3](line, one, k[1][-1], h, (0, 1))])
    padded = np.pad(np.array(k), ((0, 0), (1, 1), (1, 1)), constant_values=np.nan)

    def operator(values):
        ghosted = np.pad(values.reshape(n, n), 1, constant_values=np.nan)
        return run("divergence", (n, n), (h, h), [1] * 4, padded, [side_x, side_y], ghosted).ravel()

    constant = operator(np.zeros(n * n))
    matrix = np.array([operator(unit) - constant for unit in np.eye(n * n)]).T
    solution = np.linalg.solve(matrix, source.ravel() - constant)
    error = solution - t.ravel()
    return np.sqrt(np.mean(error**2)), np.abs(error).max()


@pytest.mark.parametrize("kinds", KINDS.values(), ids=KINDS.keys())
def test_solution_is_second_order_with_boundaries(kinds):
    errors = np.array([solve_steady(n, kinds) for n in (8, 16, 32)])
    mean, largest = np.log2(errors[:-1] / errors[1:]).T
    assert mean.min() > 1.95, (errors, mean)
    # Where two physical sides meet, both slopes are one-sided: h^2 log(1/h) in those cells.
    assert largest.min() > 1.65, (errors, largest)
