"""What is given along the sides of the box, evaluated face by face."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hpcmsm.config import Boundary
from hpcmsm.errors import ConfigError
from hpcmsm.expressions import Expression
from hpcmsm.grid import AXES, Grid

SIDES = tuple(f"{axis}_{end}" for axis in AXES for end in ("low", "high"))
# Relative step of a one-sided difference: the root of the rounding error.
DIFFERENCE = 1e-7
INSULATED = Boundary(kind="flux", flux=0.0)


def check_kinds(boundaries: dict[str, Boundary], kinds: tuple[str, ...]) -> None:
    """Refuse what is given at a side for another equation.

    Raises:
        ConfigError: the kind of a side is not among `kinds`.
    """
    for side, boundary in boundaries.items():
        if boundary.kind not in kinds:
            raise ConfigError(
                f"macro.boundary.{side}.kind must be one of {', '.join(kinds)} for this equation, got "
                f"'{boundary.kind}'; correct it"
            )


def periodic_axes(boundaries: dict[str, Boundary], ndim: int) -> tuple[bool, ...]:
    """Which axes are periodic; both of their sides must say so.

    Raises:
        ConfigError: one side of an axis is periodic and the other is not, or the side does not exist.
    """
    for side in boundaries:
        if SIDES.index(side) >= 2 * ndim:
            raise ConfigError(f"macro.boundary must name sides of a {ndim}D grid, got '{side}'; remove it")
    wraps = []
    for axis in AXES[:ndim]:
        ends = [boundaries.get(f"{axis}_{end}", INSULATED).kind == "periodic" for end in ("low", "high")]
        if ends[0] != ends[1]:
            lone = f"{axis}_{'low' if ends[0] else 'high'}"
            raise ConfigError(
                f"macro.boundary.{lone} must be periodic on both sides of {axis} or on neither, "
                "got one; correct the other side"
            )
        wraps.append(ends[0])
    return tuple(wraps)


@dataclass
class Faces:
    """The boundary faces of one side that belong to this rank.

    The flux into the domain is `coefficient * (value - T_cell) + flux`, with the resistance of half
    a cell included in the coefficient.

    Args:
        cells: indices of the adjoining owned cells, shape (nface,).
        normal: row of the conductivity component normal to the side.
        half_width: from the cell's centre to the face in m.
        given: the formulas, by name.
        coordinates: x, y, z of the faces in m, shape (nface,) each.
        unknown: name of what the equation advances; formulas and `kind` use it.
    """

    side: str
    kind: str
    cells: np.ndarray
    normal: int
    half_width: float
    given: dict[str, Expression]
    coordinates: dict[str, np.ndarray]
    unknown: str = "temperature"

    @property
    def insulated(self) -> bool:
        """Whether nothing ever enters here, by what the case says: the same on every rank."""
        flux = self.given.get("flux")
        return self.kind == "flux" and flux is not None and flux.is_constant and float(flux()) == 0.0

    def evaluate(self, time: float, temperature: np.ndarray, conductivity: np.ndarray):
        """(coefficient W/(m2 K), value K, flux W/m2) of each face, shape (nface,) each.

        Args:
            temperature: of the owned cells in K, shape (ncells,).
            conductivity: of the owned cells in W/(m K), shape (size, ncells).
        """
        inside = temperature[self.cells]
        known = {**self.coordinates, "t": np.full(inside.shape, time), self.unknown: inside}
        got = {name: formula(**known) for name, formula in self.given.items()}
        zero = np.zeros(inside.shape)
        half = conductivity[self.normal, self.cells] / self.half_width
        if self.kind == self.unknown:
            return half, got[self.unknown], zero
        flux = got.get("flux", zero)
        if self.kind == "flux":
            return zero, zero, flux
        # Convection in series with half a cell; a flux given on top of it enters at the surface,
        # from where a part of it goes back into the surroundings.
        film = got["coefficient"]
        return film * half / (film + half), got["ambient"], flux * half / (film + half)


def flux_slope(faces: Faces, time: float, temperature: np.ndarray, conductivity: np.ndarray) -> np.ndarray:
    """d(flux)/dT of formulas that use the temperature themselves, shape (nface,), W/(m2 K)."""
    if not any(faces.unknown in formula.used for formula in faces.given.values()):
        return np.zeros(faces.cells.shape)
    inside = temperature[faces.cells]
    change = DIFFERENCE * (1.0 + np.abs(temperature))
    fluxes = []
    for shifted in (temperature, temperature + change):
        coefficient, value, flux = faces.evaluate(time, shifted, conductivity)
        fluxes.append(coefficient * (value - inside) + flux)
    return (fluxes[1] - fluxes[0]) / change[faces.cells]


def boundary_faces(
    boundaries: dict[str, Boundary], grid: Grid, unknown: str = "temperature"
) -> dict[str, Faces | None]:
    """Faces of every side, None where this rank does not touch it or the side is periodic.

    Args:
        unknown: name of what the equation advances.
    Raises:
        ConfigError: a formula or a coefficient is wrong, or the value of another unknown is given.
    """
    names = (*AXES[: grid.ndim], "t", unknown)
    check_kinds(boundaries, (unknown, "flux", "convection", "periodic"))
    position = np.arange(grid.ncells).reshape(grid.rank_shape)
    found = {}
    for number, side in enumerate(SIDES[: 2 * grid.ndim]):
        boundary = boundaries.get(side, INSULATED)
        given = _formulas(boundary, side, (unknown, "flux", "coefficient", "ambient"), names)
        axis, high = divmod(number, 2)
        dimension = grid.ndim - 1 - axis
        edge = grid.grid_shape[dimension] if high else 0
        owned = grid.owned[dimension]
        touches = (owned.stop if high else owned.start) == edge
        if not touches or boundary.kind == "periodic":
            found[side] = None
            continue
        cells = np.take(position, -1 if high else 0, axis=dimension).ravel()
        coordinates = {name: values[cells] for name, values in grid.coordinates().items()}
        coordinates[AXES[axis]] = np.full(cells.shape, grid.size[axis] if high else 0.0)
        width = grid.spacing[axis] / 2
        found[side] = Faces(side, boundary.kind, cells, axis, width, given, coordinates, unknown)
    return found


def _formulas(boundary: Boundary, side: str, keys: tuple[str, ...], names: tuple[str, ...]) -> dict:
    """What is given at a side, by key; `names` may be used in it."""
    given = {
        key: Expression(getattr(boundary, key), names, f"macro.boundary.{side}.{key}")
        for key in keys
        if getattr(boundary, key) is not None
    }
    film = given.get("coefficient")
    if film is not None and film.is_constant and not film() >= 0.0:
        raise ConfigError(
            f"macro.boundary.{side}.coefficient must be 0 or more, got {boundary.coefficient!r}; correct "
            "its sign, with which heat would flow from cold to hot"
        )
    return given
