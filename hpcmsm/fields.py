"""`Field`: the one declaration from which allocation, checks, checkpoint, plots and help derive."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from hpcmsm.errors import ConfigError, ShapeError

# Components of a symmetric tensor, in the order in which it is stored.
SPD_COMPONENTS = {3: ("xx", "yy", "xy"), 6: ("xx", "yy", "zz", "yz", "xz", "xy")}


@dataclass(frozen=True)
class Field:
    """A named quantity of every cell.

    Args:
        name: lower case, words joined by underscores.
        size: number of components per cell.
        unit: unit in SI notation, "1" if dimensionless.
        about: one sentence for help texts and file headers.
        lower, upper: physical range; a value outside is inadmissible.
        spd: the components are those of a symmetric positive definite tensor,
            stored as xx yy xy (2D) or xx yy zz yz xz xy (3D).
        scale: a change that matters, for distances between inputs; where None, the range from lower to
            upper if that is finite.
        start: value before the first step, where nothing else defines it.
        whole: it takes whole numbers only.
    """

    name: str
    size: int = 1
    unit: str = "1"
    about: str = ""
    lower: float = -math.inf
    upper: float = math.inf
    spd: bool = False
    start: float = 0.0
    scale: float | None = None
    whole: bool = False

    def __post_init__(self):
        if self.size < 1:
            raise ConfigError(
                f"size of field '{self.name}' must be at least 1, got {self.size}; correct its declaration"
            )
        if self.spd and self.size not in SPD_COMPONENTS:
            raise ConfigError(
                f"size of tensor field '{self.name}' must be 3 (2D) or 6 (3D), got {self.size}; "
                "correct its declaration"
            )

    @property
    def component_names(self) -> tuple[str, ...]:
        """Names of the rows of this field: conductivity_xx, conductivity_yy, ..."""
        if self.size == 1:
            return (self.name,)
        endings = SPD_COMPONENTS[self.size] if self.spd else range(self.size)
        return tuple(f"{self.name}_{ending}" for ending in endings)


def ncomponent(fields: Iterable[Field]) -> int:
    """Number of rows of an array that holds these fields one below the other."""
    return sum(field.size for field in fields)


def rows_of(fields: Iterable[Field]) -> dict[str, slice]:
    """Rows that each field takes in an array of shape (ncomponent(fields), ncells)."""
    rows, first = {}, 0
    for field in fields:
        rows[field.name] = slice(first, first + field.size)
        first += field.size
    return rows


def allocate(fields: Iterable[Field], ncells: int) -> np.ndarray:
    """An array (ncomponent, ncells) of the fields' start values, float64."""
    fields = tuple(fields)
    array = np.empty((ncomponent(fields), ncells))
    for field, row in zip(fields, rows_of(fields).values(), strict=True):
        array[row] = field.start
    return array


def check_array(fields: Iterable[Field], array: np.ndarray, ncells: int, what: str) -> None:
    """Raise a ShapeError unless array is a finite-typed float64 (ncomponent, ncells) array."""
    wanted = (ncomponent(fields), ncells)
    if not isinstance(array, np.ndarray) or array.shape != wanted or array.dtype != np.float64:
        got = f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else type(array).__name__
        names = ", ".join(f"{field.name}[{field.size}]" for field in fields) or "no fields"
        raise ShapeError(
            f"{what} must be a float64 array of shape {wanted} ({names}), got {got}; "
            "return one row per component and one column per cell"
        )


def within_bounds(fields: Iterable[Field], array: np.ndarray) -> np.ndarray:
    """Which cells have only finite values inside the declared ranges, shape (ncells,) bool."""
    fine = np.isfinite(array).all(axis=0)
    for field, row in rows_of(fields).items():
        declared = next(f for f in fields if f.name == field)
        if declared.lower > -math.inf or (declared.upper < math.inf):
            # A tensor's bounds hold for its diagonal; its off-diagonal entries may be negative.
            ndiagonal = {3: 2, 6: 3}[declared.size] if declared.spd else declared.size
            part = array[row][:ndiagonal]
            fine &= ((part >= declared.lower) & (part <= declared.upper)).all(axis=0)
    return fine


def connect(wanted: Iterable[Field], offered: Iterable[Field], who: str, by: str) -> None:
    """Raise a ConfigError unless every wanted field is offered with the same size and unit."""
    offered = {field.name: field for field in offered}
    for field in wanted:
        if field.name not in offered:
            raise ConfigError(
                f"{who} needs the field '{field.name}' [{field.unit}], which {by} does not provide "
                f"(it provides {', '.join(offered) or 'nothing'}); rename it or add it"
            )
        other = offered[field.name]
        if other.size != field.size:
            raise ConfigError(
                f"field '{field.name}' must have {field.size} components for {who}, got {other.size} "
                f"from {by}; use models of the same dimension"
            )
        if other.unit != field.unit:
            raise ConfigError(
                f"field '{field.name}' must be in {field.unit} for {who}, got {other.unit} from {by}; "
                "convert it in the model that provides it"
            )
