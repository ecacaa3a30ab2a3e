"""The diffusion stencil against a plain NumPy twin, in every dimension, whole and in parts."""

import numpy as np
import pytest

from hpcmsm.kernels import Kernel

RATES = (0.11, 0.07, 0.05)
SHAPES = {1: (1, 1, 37), 2: (1, 6, 19), 3: (5, 4, 11)}  # nz, ny, nx


def stepped(padded, ndim, physical, mirror, start=None, dtype="float64", rates=RATES):
    """The kernel on an array with one layer of ghosts along each of its ndim axes."""
    shape = [n - 2 for n in padded.shape]
    nx, ny, nz = (*shape[::-1], *[1] * (3 - ndim))
    after = np.empty((nz, ny, nx), dtype)
    Kernel.load("diffusion", "diffusion_step", dtype=dtype)(
        nx=nx,
        ny=ny,
        nz=nz,
        gy=int(ndim > 1),
        gz=int(ndim > 2),
        **dict(zip(("rx", "ry", "rz"), (*rates[:ndim], *[0.0] * (3 - ndim)), strict=True)),
        mirror=int(mirror),
        physical=np.array([*physical, *[True] * (6 - 2 * ndim)], np.int32),
        v=np.ascontiguousarray(padded, dtype).reshape(*[1] * (3 - ndim), *padded.shape),
        start=None if start is None else np.ascontiguousarray(start, dtype).reshape(nz, ny, nx),
        after=after,
    )
    return after.reshape(shape)


def twin(padded, ndim, physical, mirror, start=None):
    """The same with ghosts beyond sides filled in by hand, and slices."""
    filled = padded.copy()
    for axis in range(ndim):
        along = np.moveaxis(filled, ndim - 1 - axis, 0)
        if physical[2 * axis]:
            along[0] = along[2] if mirror else along[1]
        if physical[2 * axis + 1]:
            along[-1] = along[-3] if mirror else along[-2]
    inside = (slice(1, -1),) * ndim
    result = filled[inside].copy()
    for axis in range(ndim):
        around = np.moveaxis(filled, ndim - 1 - axis, 0)
        second = around[2:] - 2 * around[1:-1] + around[:-2]
        rest = (slice(None), *[slice(1, -1)] * (ndim - 1))
        result += RATES[axis] * np.moveaxis(second[rest], 0, ndim - 1 - axis)
    return result if start is None else 0.5 * (start + result)


def with_ghosts(ndim, seed=1):
    shape = tuple(n + 2 for n in SHAPES[ndim][3 - ndim :])
    return np.random.default_rng(seed).uniform(-85.0, 40.0, shape)


@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("ndim", [1, 2, 3])
@pytest.mark.parametrize("sides", ["none", "all", "some"])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-13), ("float32", 1e-4)])
def test_a_step_is_that_of_the_twin(ndim, mirror, sides, dtype, tolerance):
    physical = {"none": [0] * 6, "all": [1] * 6, "some": [1, 0, 0, 1, 1, 0]}[sides][: 2 * ndim]
    padded = with_ghosts(ndim)
    start = with_ghosts(ndim, seed=2)[(slice(1, -1),) * ndim]
    for first in (None, start):
        got = stepped(padded, ndim, physical, mirror, first, dtype)
        wanted = twin(padded, ndim, physical, mirror, first)
        assert np.abs(got - wanted).max() <= tolerance * 100.0
        assert np.abs(wanted - padded[(slice(1, -1),) * ndim]).max() > 5.0


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("cut", [1, 3, 8, 10])
def test_parts_give_the_same_bits(cut, dtype):
    """A block cut across x or z, ghosts from the other part, as ranks have it."""
    padded = with_ghosts(3)
    whole = stepped(padded, 3, [1] * 6, True, dtype=dtype)
    low = stepped(padded[:, :, : cut + 2], 3, [1, 0, 1, 1, 1, 1], True, dtype=dtype)
    high = stepped(padded[:, :, cut:], 3, [0, 1, 1, 1, 1, 1], True, dtype=dtype)
    assert np.array_equal(np.concatenate([low, high], axis=2), whole)
    under = stepped(padded[:4], 3, [1, 1, 1, 1, 1, 0], True, dtype=dtype)
    assert np.array_equal(under, whole[:2])


def test_the_second_stage_may_overwrite_what_it_began_with():
    padded = with_ghosts(2)
    start = np.ascontiguousarray(with_ghosts(2, seed=2)[1:-1, 1:-1])
    wanted = stepped(padded, 2, [1] * 4, True, start)
    ny, nx = start.shape
    place, fixed = start.reshape(1, ny, nx), (nx, ny, 1, 1, 0, *RATES[:2], 0.0, 1)
    kernel = Kernel.load("diffusion", "diffusion_step")
    kernel(*fixed, np.ones(6, np.int32), padded[None], place, place)
    assert np.array_equal(start, wanted)


@pytest.mark.parametrize("nx", [1, 2, 3])
def test_the_second_stage_may_be_written_over_the_start(nx):
    """Rows so short that both of their cells, or the one, stand at a side."""
    padded = with_ghosts(1)[: nx + 2]
    values = with_ghosts(1, seed=2)[:nx].copy()
    wanted = twin(padded, 1, [1, 1], False, values)
    physical = np.array([1] * 6, np.int32)
    Kernel.load("diffusion", "diffusion_step")(
        nx, 1, 1, 0, 0, RATES[0], 0.0, 0.0, 0, physical, padded.reshape(1, 1, nx + 2),
        values.reshape(1, 1, nx), values.reshape(1, 1, nx),
    )  # fmt: skip
    assert np.allclose(values, wanted, rtol=1e-14)
