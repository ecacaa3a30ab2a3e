"""The table [macro] of a case with model = "reacting_flow"."""

from __future__ import annotations

import difflib
from collections.abc import Callable

import numpy as np
from pydantic import Field as Key

from hpcmsm.config import Case, Formula, Section, validate
from hpcmsm.errors import ConfigError
from hpcmsm.expressions import Expression
from hpcmsm.grid import AXES, Grid
from hpcmsm.macro.boundary import boundary_faces
from hpcmsm.macro.gas_sides import GasSides
from hpcmsm.macro.reacting_flow import ReactingFlow
from hpcmsm.mixture import Mixture
from hpcmsm.parallel import together


class Options(Section):
    """Keys of [macro] beside the common ones.

    velocity: in m/s along x[, y[, z]], formulas of x, y, z and t; or mass_flux, in kg/(m2 s), which is
    divided by the density. diffusion: density times diffusivity in kg/(m s), a formula of temperature;
    where it is left out, the conductivity of the mixture over its heat capacity.
    """

    velocity: list[Formula] | None = Key(default=None, min_length=1, max_length=3)
    mass_flux: list[Formula] | None = Key(default=None, min_length=1, max_length=3)
    diffusion: Formula | None = None


def from_case(case: Case, grid: Grid, micro, cell_fields) -> ReactingFlow:
    """Collective. Build the model from the table [macro].

    Raises:
        ConfigError: an option is wrong, or the micro model has no mixture.
    """
    options = validate(Options, case.macro.options, "case file", "macro.")
    mixture = getattr(micro, "mixture", None)
    if not isinstance(mixture, Mixture):
        raise ConfigError(
            f"micro.model must have a mixture for macro.model 'reacting_flow', got '{case.micro.model}'; "
            "use micro.model = 'cantera'"
        )
    start = Start(case.macro.initial, grid.ndim, mixture)
    diffusion = _diffusion(options, mixture)
    # What is wrong in the cells or sides of one rank is agreed on before all go on together.
    with together(grid.comm):
        values = start(grid.coordinates())
        faces = boundary_faces(case.macro.boundary, grid)
        sides = GasSides(grid, mixture, faces, lambda places: start(places)[1:], diffusion)
        velocity, by_mass = _velocity(options, grid)
    return ReactingFlow(grid, mixture, values, sides, velocity, by_mass, diffusion)


class Start:
    """The gas at t = 0: temperature, and amounts of the species in moles, which need not add up to 1.

    Args:
        given: formulas of x, y, z by name.
    Raises:
        ConfigError: it is no table, or has a name that is no species.
    """

    def __init__(self, given, ndim: int, mixture: Mixture):
        known = ("temperature", *mixture.species)
        if not isinstance(given, dict) or "temperature" not in given or len(given) < 2:
            raise ConfigError(
                "macro.initial must be a table of the temperature and the moles of species, got "
                f"{given!r}; write initial = {{temperature = 300, H2 = 2, O2 = 1, N2 = 3.76}}"
            )
        for name in given:
            if name not in known:
                close = difflib.get_close_matches(name, known, 1)
                advice = f"did you mean '{close[0]}'?" if close else f"there are {', '.join(known)}"
                raise ConfigError(f"macro.initial must name species of the mechanism, got '{name}'; {advice}")
        self.mixture = mixture
        self.formulas = {
            name: Expression(text, AXES[:ndim], f"macro.initial.{name}") for name, text in given.items()
        }

    def __call__(self, coordinates: dict[str, np.ndarray]) -> np.ndarray:
        """Temperature in K and mass fractions (1 + nspecies, n) at coordinates (n,) each."""
        n = next(iter(coordinates.values())).size
        values = np.zeros((1 + self.mixture.nspecies, n))
        for name, formula in self.formulas.items():
            row = 1 + self.mixture.species.index(name) if name != "temperature" else 0
            values[row] = formula(**coordinates)
        masses, total = values[1:] * self.mixture.weights[:, None], np.zeros(n)
        for row in masses:  # one after another, so that a cell's sum does not depend on the others
            total += row
        fine = np.isfinite(values).all(axis=0) & (values >= 0.0).all(axis=0)
        fine &= (values[0] > 0.0) & (total > 0.0)
        if not fine.all():
            where = ", ".join(f"{axis} = {x[np.argmin(fine)]:.4g} m" for axis, x in coordinates.items())
            raise ConfigError(
                f"macro.initial must give a positive temperature and amounts from 0 on, got others at "
                f"{where}; correct the formulas"
            )
        values[1:] = masses / total
        return values


def _diffusion(options: Options, mixture: Mixture) -> Callable | None:
    if options.diffusion is not None:
        formula = Expression(options.diffusion, ("temperature",), "macro.diffusion")
        return lambda temperature: formula(temperature=temperature)
    if mixture.conduction is None:
        raise ConfigError(
            "macro.diffusion must be given where the mechanism has no transport data, got nothing; "
            "write a formula of temperature in kg/(m s)"
        )
    return None


def _velocity(options: Options, grid: Grid) -> tuple[Callable, bool]:
    """A function time -> (ndim, ncells), and whether it is the flux of mass."""
    if options.velocity is not None and options.mass_flux is not None:
        raise ConfigError("macro.velocity must be left out beside macro.mass_flux, got both; choose one")
    by_mass = options.mass_flux is not None
    name = "mass_flux" if by_mass else "velocity"
    given = options.mass_flux if by_mass else options.velocity or [0.0] * grid.ndim
    if len(given) != grid.ndim:
        raise ConfigError(
            f"macro.{name} must have one formula per axis of the grid, got {len(given)} for {grid.ndim}; "
            "correct it"
        )
    names = (*AXES[: grid.ndim], "t")
    formulas = [Expression(text, names, f"macro.{name}") for text in given]
    places = grid.coordinates()

    def at(time: float) -> np.ndarray:
        return np.stack([formula(**places, t=np.full(grid.ncells, time)) for formula in formulas])

    if any("t" in formula.used for formula in formulas):
        return at, by_mass
    steady = at(0.0)
    return lambda time: steady, by_mass
