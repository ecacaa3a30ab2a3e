"""What a user may give a `UnitCell`: checks of its arguments."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hpcmsm.errors import ConfigError
from hpcmsm.fields import Field

# Below this the rounding of the sums is larger than what more iterations gain.
SMALLEST_TOLERANCE = 1e-14


def by_axis(
    conductivities: Sequence, ndim: int, rows: dict[str, slice]
) -> tuple[tuple[Callable | int, ...], ...]:
    """The functions of all phases for each axis; for one that stands for all if no phase has several.

    For a phase that is an input: the row of the inputs that holds what it conducts along the axis.
    """
    conductivities = [
        list(range(rows[given.name].start, rows[given.name].stop)) if isinstance(given, Field) else given
        for given in conductivities
    ]
    several = [not callable(given) for given in conductivities]
    for given, listed in zip(conductivities, several, strict=True):
        if listed and len(given) != ndim:
            raise ConfigError(
                f"conductivities of a phase must be one function or {ndim}, one per axis, got {len(given)}; "
                "give as many as the cell has dimensions"
            )
    naxis = ndim if any(several) else 1
    return tuple(
        tuple(given[axis] if listed else given for given, listed in zip(conductivities, several, strict=True))
        for axis in range(naxis)
    )


def checked_dimension(ndim: int | None, least: int) -> int:
    if ndim is None:
        return least
    if ndim not in (2, 3) or ndim < least:
        raise ConfigError(
            f"ndim must be {least}{' or 3' if least == 2 else ''} for this microstructure, got {ndim}; "
            "a cell in 3D has no tensor in 2D"
        )
    return int(ndim)


def checked_limits(tolerance: float, max_iterations: int) -> tuple[float, int]:
    if not SMALLEST_TOLERANCE <= tolerance < 1.0:
        raise ConfigError(
            f"tolerance must be from {SMALLEST_TOLERANCE:g} to below 1, got {tolerance}; "
            "it is the relative error of the conductivity"
        )
    if isinstance(max_iterations, bool) or max_iterations != int(max_iterations) or max_iterations < 1:
        raise ConfigError(
            f"max_iterations must be a number from 1 on, got {max_iterations}; correct the value"
        )
    return float(tolerance), int(max_iterations)


def checked_names(phases: Sequence[str], nphase: int) -> tuple[str, ...]:
    if len(phases) not in (0, nphase):
        raise ConfigError(f"phases must name {nphase} phases, got {len(phases)}; one per conductivity")
    return tuple(phases)
