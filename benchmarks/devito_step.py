"""The explicit macro step as Devito compiles it, for benchmarks/macro_step.py.

    PYTHON benchmarks/devito_step.py OUT.json [--small]

It runs by a Python that has Devito (`pip install devito`, in an environment of its own), on one core and
in float64, and knows nothing of this package. The step is `t + dt div(k grad t)` on a box: with stored
face conductances, as the program does it for a conductivity that differs from axis to axis ("faces"), the
same over a heat capacity that differs from cell to cell ("faces_rho_c"), and with the arithmetic mean of
one conductivity on the fly ("mean"), which moves one (two) arrays fewer.
"""

from __future__ import annotations

import json
import os
import sys
from statistics import median
from time import perf_counter

os.environ.setdefault("DEVITO_LANGUAGE", "C")
os.environ.setdefault("DEVITO_ARCH", "gcc")
os.environ.setdefault("DEVITO_LOGGING", "ERROR")
os.environ["OMP_NUM_THREADS"] = "1"

import devito
import numpy as np

CASES = {"2D 2048^2": (2048, 2048), "3D 128^3": (128, 128, 128)}
SMALL = {"2D 48x32": (32, 48), "3D 12^3": (12, 12, 12)}
FORMS = ("faces", "faces_rho_c", "mean")
STEPS, REPEATS, DT = 10, 12, 0.01


def problem(shape: tuple[int, ...], form: str):
    """(operator, unknown, conductivities, heat capacity) of a box with the array shape (z, y, x)."""
    grid = devito.Grid(shape=shape, dtype=np.float64)
    t = devito.TimeFunction(name="t", grid=grid, space_order=2, time_order=1)
    stored = form != "mean"
    count = len(shape) if stored else 1
    k = [devito.Function(name=f"k{axis}", grid=grid, space_order=2) for axis in range(count)]
    time, divergence = grid.stepping_dim, 0
    here = tuple(grid.dimensions)
    for axis, dimension in enumerate(grid.dimensions):
        ahead, back = (
            tuple(d + shift if d is dimension else d for d in grid.dimensions) for shift in (1, -1)
        )
        if stored:
            out, into = k[axis][here], k[axis][back]
        else:
            out, into = 0.5 * (k[0][here] + k[0][ahead]), 0.5 * (k[0][back] + k[0][here])
        now = [t[(time, *place)] for place in (back, here, ahead)]
        divergence += out * (now[2] - now[1]) - into * (now[1] - now[0])
    capacity = devito.Function(name="c", grid=grid, space_order=0) if form == "faces_rho_c" else None
    change = DT * divergence if capacity is None else DT * divergence / capacity[here]
    step = devito.Eq(t[(time + 1, *here)], t[(time, *here)] + change)
    return devito.Operator([step]), t, k, capacity


def by_numpy(t: np.ndarray, k: list[np.ndarray], form: str, capacity=1.0) -> np.ndarray:
    """One step from arrays with one cell more on every side (the heat capacity without)."""
    inner, result = (slice(1, -1),) * t.ndim, t[(slice(1, -1),) * t.ndim].copy()
    for axis in range(t.ndim):
        along = [slice(1, -1)] * t.ndim
        along[axis] = slice(None)
        u = np.moveaxis(t[tuple(along)], axis, 0)
        c = np.moveaxis((k[0] if form == "mean" else k[axis])[tuple(along)], axis, 0)
        face = 0.5 * (c[:-1] + c[1:]) if form == "mean" else c[:-1]
        result += DT * np.moveaxis(np.diff(face * np.diff(u, axis=0), axis=0), 0, axis) / capacity
    assert result.shape == t[inner].shape
    return result


def rate(shape: tuple[int, ...], form: str) -> dict[str, float]:
    """Mcells/s, after the first step has been found to be right."""
    operator, t, k, capacity = problem(shape, form)
    draw = np.random.default_rng(1)
    width = t.data_with_halo.shape[1] - shape[0]
    assert width % 2 == 0
    window = tuple(slice(width // 2 - 1, width // 2 + n + 1) for n in shape)
    start = draw.random(tuple(n + 2 for n in shape))
    given = [draw.random(start.shape) for _ in k]
    for target, values in zip(k, given, strict=True):
        target.data_with_halo[window] = values
    t.data_with_halo[0][window] = start
    if capacity is not None:
        capacity.data[:] = 1.0 + draw.random(shape)
    operator.apply(time_m=0, time_M=0)
    found = t.data[1]
    wanted = by_numpy(start, given, form, 1.0 if capacity is None else np.asarray(capacity.data))
    assert np.abs(found - wanted).max() < 1e-13, f"{form} {shape}: Devito's step is not ours"
    seconds = []
    for _ in range(REPEATS):
        began = perf_counter()
        operator.apply(time_m=0, time_M=STEPS - 1)
        seconds.append(perf_counter() - began)
    cells = STEPS * np.prod(shape, dtype=float) / 1e6
    return {"best": cells / min(seconds), "median": cells / median(seconds)}


def main() -> None:
    """Write {case: {form: Mcells/s}}."""
    cases = SMALL if "--small" in sys.argv else CASES
    result = {"devito": devito.__version__, "compiler": str(devito.configuration["compiler"])}
    result["mcells_per_s"] = {
        name: {form: rate(shape, form) for form in FORMS} for name, shape in cases.items()
    }
    with open(sys.argv[1], "w") as file:
        json.dump(result, file, indent=2)


if __name__ == "__main__":
    main()
