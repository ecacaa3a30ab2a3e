"""What a user may give a `UnitCell`: checks of its arguments."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hpcmsm.errors import ConfigError
from hpcmsm.fields import Field
from hpcmsm.micro.microstructure import LAMINATE, Microstructure
from hpcmsm.micro.tensors import COMPONENTS

# Below this the rounding of the sums is larger than what more iterations gain.
SMALLEST_TOLERANCE = 1e-14


def by_axis(
    conductivities: Sequence, ndim: int, rows: dict[str, slice]
) -> tuple[tuple[Callable | int | None, ...], ...]:
    """The functions of all phases for each axis; for one that stands for all if no phase has several; for
    each component of a tensor, where a phase has cross terms. None: zero.

    For a phase that is an input: the row of the inputs that holds what it conducts along the axis.
    """
    conductivities = [
        list(range(rows[given.name].start, rows[given.name].stop)) if isinstance(given, Field) else given
        for given in conductivities
    ]
    ncomponent = len(COMPONENTS[ndim])
    lengths = {len(given) for given in conductivities if not callable(given)}
    for length in lengths - {ndim, ncomponent}:
        raise ConfigError(
            f"conductivities of a phase must be one function, {ndim}, one per axis, or {ncomponent}, one per "
            f"component, got {length}; give as many as the cell has dimensions"
        )
    phases = [_components(given, ndim) for given in conductivities]
    crossing = any(any(part is not None for part in phase[ndim:]) for phase in phases)
    nrow = ncomponent if crossing else ndim if lengths else 1
    return tuple(tuple(phase[row] for phase in phases) for row in range(nrow))


def _components(given, ndim: int) -> list:
    """All components of what a phase conducts."""
    along = [given] * ndim if callable(given) else list(given)
    if any(part is None for part in along[:ndim]):
        missing = COMPONENTS[ndim][along.index(None)]
        raise ConfigError(f"conductivities of a phase must have the component {missing}, got none; add it")
    return along + [None] * (len(COMPONENTS[ndim]) - len(along))


def check_tensors(microstructure: Microstructure, conductivities: tuple, section: bool) -> None:
    """Refuse what the cell problem of full tensors does not know.

    Raises:
        ConfigError: a named microstructure with a fraction, sub-samples, or tensors that a section does
            not show.
    """
    if microstructure.labels is None and microstructure.name != LAMINATE:
        raise ConfigError(
            f"conductivities of '{microstructure.name}' must have no cross terms, got a full tensor; draw "
            "the microstructure, such as 'random_discs', or give it as an image"
        )
    if microstructure.subsamples > 1:
        raise ConfigError(
            f"subsamples must be 1 where conductivities have cross terms, got {microstructure.subsamples}; "
            "raise the resolution instead"
        )
    if section and any(part is not None for row in (3, 4) for part in conductivities[row]):
        raise ConfigError(
            "conductivities in a section must have no components yz and xz for a tensor in 3D, got some; "
            "give the microstructure in 3D"
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
