"""The functions of hpcmsm.h: accuracy, limits, the same bits in any batch; and loops that vectorise."""

from __future__ import annotations

import re

import numpy as np
import pytest
from kernel_harness import compiler_report

from hpcmsm.kernels import Kernel


def elementary(example, x):
    answers = np.empty((3, x.size), x.dtype)
    Kernel.load(example, "elementary", dtype=x.dtype.name, debug=True)(x.size, x, *answers)
    return answers


ARGUMENTS = {
    "float64": {"exp": (-745.0, 709.7), "tanh": (-25.0, 25.0), "log": (1e-320, 1e308)},
    "float32": {"exp": (-103.0, 88.7), "tanh": (-12.0, 12.0), "log": (1e-44, 3e38)},
}


def spread_arguments(name, dtype):
    """Many values in the range of a function, some of them small, some near where it bends."""
    low, high = ARGUMENTS[dtype][name]
    random = np.random.default_rng(3)
    if name == "log":
        x = np.exp(random.uniform(np.log(low), np.log(high), 40000))
        return np.concatenate([x, random.uniform(0.5, 2.0, 40000)]).astype(dtype)
    small = np.exp(random.uniform(-60, 0, 20000)) * random.choice([-1, 1], 20000)
    return np.concatenate([random.uniform(low, high, 40000), random.uniform(-2, 2, 20000), small]).astype(
        dtype
    )


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(("place", "name", "ulps"), [(0, "exp", 2.0), (1, "tanh", 3.0), (2, "log", 2.0)])
def test_functions_are_accurate(example, dtype, place, name, ulps):
    x = spread_arguments(name, dtype)
    found = elementary(example, x)[place]
    with np.errstate(under="ignore"):
        wanted = getattr(np, name)(x.astype(np.longdouble))  # at least 11 bits more than found
    error = np.abs(found - wanted) / np.spacing(np.abs(wanted.astype(dtype)))
    assert error.max() <= ulps, x[error.argmax()]


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_functions_at_their_limits(example, dtype):
    huge, tiny = np.finfo(dtype).max, np.finfo(dtype).smallest_subnormal
    top = 710.0 if dtype == "float64" else 89.0
    x = np.array(
        [0.0, -0.0, np.inf, -np.inf, np.nan, huge, -huge, tiny, -tiny, top, -1.1 * top, 1.0, -1.0], dtype
    )
    with np.errstate(all="ignore"):
        wanted = np.array([np.exp(x), np.tanh(x), np.log(x)])
    found = elementary(example, x)
    special = ~np.isfinite(wanted) | (wanted == 0) | (np.abs(wanted) == 1)
    assert np.array_equal(found[special], wanted[special], equal_nan=True)
    assert np.allclose(found[~special], wanted[~special], rtol=8 * np.finfo(dtype).eps, atol=0)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_vector_and_remainder_give_the_same_bits(example, dtype):
    x = np.random.default_rng(4).uniform(-30, 30, 103).astype(dtype)
    whole = elementary(example, x)
    for length in (1, 2, 3, 7, 15, 31):
        parts = [elementary(example, x[i : i + length].copy()) for i in range(0, x.size, length)]
        assert np.array_equal(np.concatenate(parts, axis=1), whole, equal_nan=True)


def lines_with(path, text):
    return [number for number, line in enumerate(path.read_text().splitlines(), 1) if text in line]


@pytest.mark.parametrize("flags", [(), ("-DHPCMSM_FLOAT32",)], ids=["float64", "float32"])
def test_the_compiler_tells_of_vector_loops(example, flags):
    failed, report = compiler_report(example, *flags)
    assert not failed, report
    vectorised = {int(n) for n in re.findall(rf"{example.name}:(\d+):\d+: .*vectorized", report)}
    for mark in ("hp_exp(x[c])", "hp_tanh(x[c])", "hp_log(x[c])", "sum[l] = MUL_ADD"):
        assert vectorised & set(lines_with(example, mark)), f"{mark} is not vectorised"
