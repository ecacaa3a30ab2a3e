"""The transport stencil against a numpy twin, what it conserves, and blocks split anywhere."""

import numpy as np
import pytest

from hpcmsm.kernels import Kernel

SIZES = {1: (23,), 2: (13, 6), 3: (7, 5, 4)}  # nx, ny, nz
SPACING = (0.3, 0.2, 0.5)
NCOMPONENT = 3


def problem(ndim, dtype=np.float64, seed=0):
    """Fields with two periodic ghosts on every side, and what else the kernel needs; axes (z, y, x)."""
    rng = np.random.default_rng(seed)
    shape = tuple(reversed(SIZES[ndim]))
    values, diffusion = rng.random((NCOMPONENT, *shape)), 1.0 + rng.random(shape)
    return {
        "values": with_ghosts(values, ndim).astype(dtype),
        "diffusion": with_ghosts(diffusion, ndim).astype(dtype),
        "density": (0.5 + rng.random(shape)).astype(dtype),
        "velocity": rng.standard_normal((ndim, *shape)).astype(dtype),
    }


def with_ghosts(array, ndim):
    return np.pad(array, [(0, 0)] * (array.ndim - ndim) + [(2, 2)] * ndim, mode="wrap")


def rate_of(given, ndim, dtype="float64"):
    shape = given["density"].shape
    rate = np.empty((len(given["values"]), *shape), dtype)
    sizes = {f"n{axis}": n for axis, n in zip("xyz", reversed(shape), strict=False)}
    widths = {f"h{axis}": h for axis, h in zip("xyz"[:ndim], SPACING, strict=False)}
    kernel = Kernel.load("transport", f"transport_{ndim}d", dtype=dtype, debug=True)
    kernel(ncomponent=len(rate), **sizes, **widths, **given, rate=rate)
    return rate


def twin(given, ndim):
    """Upwind differences chosen by the sign of the velocity, fluxes as arrays of faces."""
    inner = tuple(slice(2, -2) for _ in range(ndim))
    rate = np.zeros((len(given["values"]), *given["density"].shape))
    for axis in range(ndim):
        along, h, u = ndim - axis, SPACING[axis], given["velocity"][axis]

        def shifted(array, by, along=along):
            return np.roll(array, -by, axis=along)[(slice(None), *inner)]

        v = {by: shifted(given["values"], by) for by in range(-2, 3)}
        g = {by: shifted(given["diffusion"][None], by) for by in (-1, 0, 1)}
        from_below = (2 * v[1] + 3 * v[0] - 6 * v[-1] + v[-2]) / (6 * h)
        from_above = -(2 * v[-1] + 3 * v[0] - 6 * v[1] + v[2]) / (6 * h)
        rate -= u * np.where(u > 0, from_below, from_above)
        ahead = (g[0] + g[1]) / 2 * (v[1] - v[0]) / h
        back = (g[-1] + g[0]) / 2 * (v[0] - v[-1]) / h
        rate += (ahead - back) / h / given["density"]
    return rate


@pytest.mark.parametrize("ndim", [1, 2, 3])
@pytest.mark.parametrize(("dtype", "rtol"), [("float64", 1e-12), ("float32", 2e-5)])
def test_rates_are_those_of_the_twin(ndim, dtype, rtol):
    given = problem(ndim, np.dtype(dtype))
    expected = twin({name: array.astype(float) for name, array in given.items()}, ndim)
    atol = rtol * np.abs(expected).max()
    np.testing.assert_allclose(rate_of(given, ndim, dtype), expected, rtol=rtol, atol=atol)


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_what_is_uniform_stays_so_and_sums_are_kept(ndim):
    given = problem(ndim)
    given["values"][0] = 0.7
    given["values"][2] = 1.0 - given["values"][1]
    rate = rate_of(given, ndim)
    assert not rate[0].any()
    np.testing.assert_allclose(rate[1] + rate[2], 0.0, atol=1e-12 * np.abs(rate).max())


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_diffusion_conserves_mass(ndim):
    given = problem(ndim)
    given["velocity"][:] = 0.0
    gain = rate_of(given, ndim) * given["density"]
    total = gain.reshape(NCOMPONENT, -1).sum(axis=1)
    np.testing.assert_allclose(total, 0.0, atol=1e-13 * np.abs(gain).sum())


@pytest.mark.parametrize("ndim", [1, 2, 3])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_split_block_gives_the_same_bits(ndim, dtype):
    given = problem(ndim, np.dtype(dtype))
    whole = rate_of(given, ndim, dtype)
    nx = SIZES[ndim][0]
    for cut in range(1, nx):
        ghosted, owned = np.s_[..., : cut + 4], np.s_[..., :cut]
        part = {
            name: array[ghosted if name in ("values", "diffusion") else owned]
            for name, array in given.items()
        }
        part = {name: np.ascontiguousarray(array) for name, array in part.items()}
        assert rate_of(part, ndim, dtype).tobytes() == np.ascontiguousarray(whole[owned]).tobytes()
