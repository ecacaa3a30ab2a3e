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


def seen_along(axis, n, h):
    """How the kernels of one axis see a block: their arguments, and its cells slower, along, faster."""
    along, shape = len(n) - 1 - axis, tuple(reversed(n))
    outer, inner = int(np.prod(shape[:along])), int(np.prod(shape[along + 1 :]))
    return {"nouter": outer, "n": shape[along], "ninner": inner, "h": h[axis]}, (outer, shape[along], inner)


def planes_beyond(ghosted):
    """What lies beyond the low and high side of every axis; physical sides, NaN there, give any number."""
    planes = []
    for axis in range(ghosted.ndim):
        ends = [
            [end if a == axis else slice(1, -1) for a in reversed(range(ghosted.ndim))] for end in (0, -1)
        ]
        pair = np.stack([ghosted[tuple(end)] for end in ends])
        planes.append(np.nan_to_num(pair, nan=7.0))
    return planes


def inside(ghosted):
    return ghosted[(slice(1, -1),) * ghosted.ndim]


def guarded(array):
    """A copy that stands between NaN in memory, which reading beyond its ends would bring in."""
    memory = np.full(array.size + 64, np.nan, array.dtype)
    memory[32:-32] = array.ravel()
    return memory[32:-32].reshape(array.shape)


def faces_of(h, physical, conductivity, **options):
    """Conductances from heat_faces: (ndim, *shape) ahead of the cells, and behind the first ones."""
    ndim = len(h)
    kernel = Kernel.load("heat", "heat_faces", **{"debug": True, **options})
    n = tuple(size - 2 for size in reversed(conductivity.shape[1:]))
    faces = guarded(np.full((ndim, *reversed(n)), np.nan, conductivity.dtype))
    behind = []
    for axis in range(ndim):
        sizes, (outer, count, inner) = seen_along(axis, n, h)
        plane = planes_beyond(conductivity[axis])[axis]
        behind.append(np.full(plane.shape[1:] or 1, np.nan, conductivity.dtype))
        kernel(
            **sizes,
            physical=np.array(physical[2 * axis : 2 * axis + 2], np.int32),
            conductivity=guarded(inside(conductivity[axis])).reshape(outer, count, inner),
            ghost=plane.reshape(2, outer, inner),
            faces=faces[axis].reshape(outer, count, inner),
            behind=behind[axis].reshape(outer, inner),
        )
    return faces, behind


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


def stencil_arguments(n, h, conductivity, sides):
    """What both stencils need, from the conductivity at the cells."""
    arguments = dict(zip(("nx", "ny", "nz"), n, strict=False))
    arguments |= dict(zip(("hx", "hy", "hz"), h, strict=False))
    sides = [side.reshape(2, 4, -1) if len(n) == 1 else side for side in with_shares(h, conductivity, sides)]
    return arguments | {f"side_{axis}": side for axis, side in zip("xyz", sides, strict=False)}


def divergence(
    n, h, physical, conductivity, sides, temperature, cross=1, dt=0.0, capacity=None, out=None, **options
):
    """heat_diagonal, and heat_cross where asked; n and h in the order x, y(, z).

    Other sides than the physical ones may be given as `open_sides`.
    """
    ndim, step = len(n), {"dt": dt, "capacity": capacity}
    open_sides = np.array(options.pop("open_sides", physical), np.int32)
    options = {"debug": True, **options}
    out = np.full(tuple(reversed(n)), np.nan, temperature.dtype) if out is None else out
    arguments = stencil_arguments(n, h, conductivity, sides)
    faces, behind = faces_of(h, physical, conductivity, **options)
    kernel = Kernel.load("heat_diagonal", f"heat_diagonal_{ndim}d", **options)
    physical = np.array(physical, np.int32)
    kernel(
        **arguments,
        **{f"behind_{axis}": face for axis, face in zip("xyz", behind, strict=False)},
        **{f"ghost_{axis}": plane for axis, plane in zip("xyz", planes_beyond(temperature), strict=False)},
        **({"dt": 0.0, "capacity": None} if cross else step),
        open_sides=open_sides,
        faces=faces,
        temperature=guarded(inside(temperature)),
        divergence=out,
    )
    if cross:
        terms = conductivity[2] if ndim == 2 else conductivity[3:]
        kernel = Kernel.load("heat_cross", f"heat_cross_{ndim}d", **options)
        kernel(**arguments, **step, physical=physical, cross=terms, temperature=temperature, divergence=out)
    return out


def coefficients(n, h, physical, conductivity, sides):
    """heat_coefficients over all axes, (1 + 2 ndim, *shape)."""
    kernel = Kernel.load("heat", "heat_coefficients", debug=True)
    faces, behind = faces_of(h, physical, conductivity)
    found = np.full((1 + 2 * len(n), *reversed(n)), np.nan)
    found[0] = 0.0
    for axis, side in enumerate(with_shares(h, conductivity, sides)):
        sizes, (outer, count, inner) = seen_along(axis, n, h)
        block = (outer, count, inner)
        kernel(
            **sizes,
            physical=np.array(physical[2 * axis : 2 * axis + 2], np.int32),
            faces=faces[axis].reshape(block),
            behind=behind[axis].reshape(outer, inner),
            side=side.reshape(2, 4, outer, inner),
            back=found[1 + 2 * axis].reshape(block),
            ahead=found[2 + 2 * axis].reshape(block),
            centre=found[0].reshape(block),
        )
    return found


def random_case(ndim, physical, seed=0, n=None):
    """Sizes, widths, K, T and sides; NaN beyond physical sides, where nothing may be read."""
    random = np.random.default_rng(seed)
    n, h = n or SIZES[ndim], (0.1, 0.13, 0.07)[:ndim]
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
    stepped = divergence(*given, dt=0.01, capacity=capacity)
    wanted = block + 0.01 * divergence(*given) / (capacity if varied else 1.0)
    assert np.abs(stepped - wanted).max() < 1e-12 * np.abs(wanted).max()
    assert np.abs(stepped - block).max() > 1.0


@pytest.mark.parametrize("cross", [0, 1])
@pytest.mark.parametrize(("ndim", "physical"), CASES, ids=IDS)
def test_divergence_equals_numpy(ndim, physical, cross):
    n, h, conductivity, temperature, sides = random_case(ndim, physical)
    found = divergence(n, h, physical, conductivity, sides, temperature, cross)
    fluxes = twin_fluxes(n, h, physical, conductivity, temperature, sides, bool(cross))
    wanted = twin_divergence(n, h, fluxes)
    assert np.abs(found - wanted).max() <= 1e-11 * np.abs(wanted).max()


@pytest.mark.parametrize(("ndim", "physical"), CASES, ids=IDS)
def test_faces_are_harmonic_means(ndim, physical):
    _, h, conductivity, _, _ = random_case(ndim, physical, seed=7)
    faces, behind = faces_of(h, physical, conductivity)
    for axis in range(ndim):
        normal = np.moveaxis(conductivity[axis], ndim - 1 - axis, 0)
        normal = normal[(slice(None), *[slice(1, -1)] * (ndim - 1))]
        wanted = 2 / (1 / normal[:-1] + 1 / normal[1:]) / h[axis] ** 2
        got = np.concatenate([behind[axis][None], np.moveaxis(faces[axis], ndim - 1 - axis, 0)])
        for end in (0, -1):
            if physical[2 * axis - end]:
                wanted[end] = 0.0
        np.testing.assert_allclose(got, wanted, rtol=1e-14)


@pytest.mark.parametrize("ndim", [2, 3])
def test_heat_is_conserved(ndim):
    """What the cells gain is what the sides give, to round-off."""
    physical = [1] * (2 * ndim)
    n, h, conductivity, temperature, sides = random_case(ndim, physical, seed=3)
    gained = divergence(n, h, physical, conductivity, sides, temperature).sum() * np.prod(h)
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
    out = divergence(n, h, physical, conductivity, [0 * side for side in sides], temperature)
    assert abs(out.sum()) <= 1e-13 * np.abs(out).sum()


@pytest.mark.parametrize("cross", [0, 1])
@pytest.mark.parametrize(
    ("ndim", "axis", "first"), [(2, 0, 1), (2, 0, 5), (2, 1, 2), (3, 0, 4), (3, 1, 1), (3, 2, 4)]
)
def test_split_block_gives_the_same_bits(ndim, axis, first, cross):  # fmt: skip
    """Two ranks, split unevenly, compute what one rank computes, bit by bit."""
    physical = [1] * (2 * ndim)
    n, h, conductivity, temperature, sides = random_case(ndim, physical, seed=5)
    whole = divergence(n, h, physical, conductivity, sides, temperature, cross)
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
        found = divergence(
            part,
            h,
            inner,
            np.ascontiguousarray(conductivity[(slice(None), *ghosted)]),
            cut,
            np.ascontiguousarray(temperature[ghosted]),
            cross,
        )
        assert np.array_equal(found, whole[owned])


ONE_CELL = [(2, [1] * 4, (1, 5)), (2, [1] * 4, (7, 1)), (2, [1, 0, 0, 1], (1, 1)), (3, [0, 1] * 3, (5, 1, 6))]


@pytest.mark.parametrize(
    ("ndim", "physical", "n"),
    [(*case, None) for case in CASES] + ONE_CELL,
    ids=[*IDS, *(f"one cell along an axis {n}" for *_, n in ONE_CELL)],
)
def test_coefficients_are_those_of_the_divergence(ndim, physical, n):
    n, h, conductivity, temperature, sides = random_case(ndim, physical, seed=6, n=n)
    for side in sides:
        side[:, 1:] = 0.0  # nothing but a coefficient, as for a derivative
    wanted = divergence(n, h, physical, conductivity, sides, temperature, cross=0)
    found = coefficients(n, h, physical, conductivity, sides)
    block = tuple(slice(1, -1) for _ in n)
    filled = np.nan_to_num(temperature)  # beyond physical sides the coefficient is 0
    total = found[0] * filled[block]
    for axis in range(ndim):
        for end in (0, 1):
            coefficient = found[1 + 2 * axis + end]
            shifted = np.roll(filled, -1 if end else 1, axis=ndim - 1 - axis)[block]
            total += coefficient * shifted
            if physical[2 * axis + end]:
                edge = np.moveaxis(coefficient, ndim - 1 - axis, 0)[-1 if end else 0]
                assert not edge.any()
    scale = np.abs(found[0] * filled[block]).max()
    assert np.abs(total - wanted).max() <= 1e-13 * scale


# Shorter than a strip of 16 cells, one strip, several, and with a rest; many physical sides and none.
@pytest.mark.parametrize("nx", [1, 2, 15, 16, 17, 32, 47])
@pytest.mark.parametrize("physical", [[1] * 4, [0] * 4, [1, 0, 0, 1], [0, 1, 1, 0]])
@pytest.mark.parametrize("insulated", [[0] * 4, [1] * 4, [1, 0, 0, 0], [0, 1, 1, 0], [0, 0, 1, 1]])
def test_rows_of_any_length(nx, physical, insulated):
    """At insulated sides nothing is looked up; they are physical ones at which the flux is 0."""
    n, h, conductivity, temperature, sides = random_case(2, physical, nx, n=(nx, 3))
    open_sides = [int(physical[side] and not insulated[side]) for side in range(4)]
    for side, given in enumerate(open_sides):
        sides[side // 2][side % 2] *= given
    fluxes = twin_fluxes(n, h, physical, conductivity, temperature, sides, cross=False)
    wanted = twin_divergence(n, h, fluxes)
    for side, given in enumerate(open_sides):
        sides[side // 2][side % 2] += 5.0 * (1 - given)  # which is not looked up
    found = divergence(n, h, physical, conductivity, sides, temperature, cross=0, open_sides=open_sides)
    assert np.abs(found - wanted).max() <= 1e-11 * np.abs(wanted).max()


@pytest.mark.parametrize("nx", [1, 2, 16, 47])
@pytest.mark.parametrize("ends", [[1, 1], [0, 0], [1, 0], [0, 1]])
def test_one_dimension_is_a_row_between_insulated_sides(nx, ends):
    n, h, conductivity, temperature, sides = random_case(2, [*ends, 1, 1], nx, n=(nx, 1))
    sides[1][...] = 0.0
    wanted = divergence(n, h, [*ends, 1, 1], conductivity, sides, temperature, cross=0)
    found = divergence(n[:1], h[:1], ends, conductivity[:1, 1], [sides[0][:, :, 0]], temperature[1], cross=0)
    assert np.array_equal(found, wanted[0])


@pytest.mark.parametrize("capacity", [True, False], ids=["rho c of each cell", "rho c of 1"])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("n", [(300, 451), (68, 41, 50)], ids=["2d", "3d"])
def test_a_block_written_past_the_caches_has_the_bits_of_its_parts(n, dtype, capacity):
    """Parts are so small that they pass through them; the result may begin at any number."""
    ndim, name = len(n), np.dtype(dtype).name
    physical = [1] * (2 * ndim)
    _, h, conductivity, temperature, sides = random_case(ndim, physical, seed=8, n=n)
    conductivity, temperature = conductivity.astype(dtype), temperature.astype(dtype)
    sides = [side.astype(dtype) for side in sides]
    heat_capacity = 1 + np.random.default_rng(4).random(tuple(reversed(n))).astype(dtype)
    memory = np.full(np.prod(n) + 17, np.nan, dtype)
    assert memory.nbytes > 512 * 1024
    step = {"cross": 0, "dt": 0.01, "dtype": name}

    def part_of(array, parts, axis=0):
        return np.ascontiguousarray(array[(..., parts, *[slice(None)] * (ndim - 1 - axis))])

    wanted = []
    for low in range(0, n[-1], 17):
        high = min(low + 17, n[-1])
        ends = [*physical[:-2], int(low == 0), int(high == n[-1])]
        owned, ghosted = slice(low, high), slice(low, high + 2)
        cut = [part_of(side, owned, 1) for side in sides[:-1]] + [sides[-1]]
        wanted.append(
            divergence(
                (*n[:-1], high - low), h, ends, part_of(conductivity, ghosted), cut,
                part_of(temperature, ghosted), capacity=heat_capacity[owned] if capacity else None, **step,
            )
        )  # fmt: skip
    assert len(wanted) > 2
    for first, threads in ((0, 1), (1, 1), (2, 1), (5, 1), (0, 2)):
        out = memory[first : first + np.prod(n)].reshape(tuple(reversed(n)))
        given = {"capacity": heat_capacity if capacity else None, "out": out, "threads": threads}
        divergence(n, h, physical, conductivity, sides, temperature, **step, **given)
        assert np.array_equal(out, np.concatenate(wanted))


@pytest.mark.parametrize("cross", [0, 1])
def test_threads_do_not_change_the_answer(cross):
    physical = [1, 0, 1, 0]
    n, h, conductivity, temperature, sides = random_case(2, physical)
    one, two, three = (
        divergence(n, h, physical, conductivity, sides, temperature, cross, threads=threads, debug=False)
        for threads in (1, 2, 3)
    )
    assert np.array_equal(one, two)
    assert np.array_equal(one, three)


def test_float32_agrees_with_float64():
    physical = [1, 1, 1, 1]
    n, h, conductivity, temperature, sides = random_case(2, physical)
    wanted = divergence(n, h, physical, conductivity, sides, temperature)
    single = [side.astype(np.float32) for side in sides]
    out = divergence(
        n,
        h,
        physical,
        conductivity.astype(np.float32),
        single,
        temperature.astype(np.float32),
        dtype="float32",
    )
    # One rounding of T = 300 K, through k / h^2.
    largest = conductivity[np.isfinite(conductivity)].max()
    assert np.abs(out - wanted).max() <= 20 * 2**-24 * 300 * largest / 0.1**2


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
        found = divergence((n, n), (1 / n, 1 / n), [0] * 4, np.array(k), sides, t)
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
        return divergence((n, n), (h, h), [1] * 4, padded, [side_x, side_y], ghosted).ravel()

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
