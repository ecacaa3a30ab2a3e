"""Diffusion of a dissolved substance: C du/dt = div(D grad u) + Q, with C and D from the closure."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from hpcmsm.config import Case, Formula, Section, validate
from hpcmsm.errors import ConfigError
from hpcmsm.expressions import Expression
from hpcmsm.fields import Field
from hpcmsm.grid import Grid
from hpcmsm.macro.heat import Heat

CONCENTRATION = Field("concentration", unit="1", about="macro concentration")


class Diffusion(Heat):
    """As heat conduction, for a concentration u without unit and a diffusivity D in m2/s.

    Args:
        grid: where the cells live.
        section: the table [macro] of the case.
        capacity: function concentration (ncells,), outputs by name (size, ncells) -> C (ncells,).
        uses: outputs of the closure that the capacity needs beside D.
        size: components of the closure's diffusivity, see `Heat`.
    """

    unknowns = (CONCENTRATION,)
    sends = (CONCENTRATION,)
    coefficient = ("diffusivity", "m2/s", "effective diffusivity")
    capacity_advice = ("macro.capacity", "correct the formula")

    def __init__(self, grid: Grid, section, capacity: Callable, uses: tuple[Field, ...], size: int | None):
        super().__init__(grid, section, capacity, size)
        self.wants = (*self.wants, *uses)

    def renewed_capacity(self, concentration: np.ndarray, outputs: dict[str, np.ndarray]) -> np.ndarray:
        """C of the owned cells, shape (ncells,)."""
        return self.heat_capacity(concentration, outputs)


class Options(Section):
    """Keys of [macro] beside the common ones.

    capacity: C as a formula of the concentration, the coordinates, the fields of the cells and the
        outputs of the micro model that have one component, for example its porosity.
    """

    capacity: Formula = 1.0


def from_case(case: Case, grid: Grid, micro, cell_fields) -> Diffusion:
    """Build the model from the table [macro].

    Raises:
        ConfigError: an option is wrong or missing.
    """
    options = validate(Options, case.macro.options, "case file", "macro.")
    if "initial" not in case.macro.model_fields_set:
        raise ConfigError("macro.initial must be given for macro.model 'diffusion', got nothing; add it")
    if case.macro.heat_capacity is not None:
        raise ConfigError(
            f"macro.heat_capacity must be left out for macro.model 'diffusion', got "
            f"{case.macro.heat_capacity!r}; give macro.capacity"
        )
    constant = {name: values for name, (_, values) in cell_fields.items()} | grid.coordinates()
    single = {field.name: field for field in micro.outputs if field.size == 1}
    formula = Expression(options.capacity, (*constant, CONCENTRATION.name, *single), "macro.capacity")
    uses = tuple(field for name, field in single.items() if name in formula.used)

    def capacity(concentration, outputs):
        answered = {field.name: outputs[field.name][0] for field in uses}
        return formula(**{**constant, **answered, CONCENTRATION.name: concentration})

    capacity.varies = CONCENTRATION.name in formula.used
    sizes = [field.size for field in micro.outputs if field.name == Diffusion.coefficient[0]]
    return Diffusion(grid, case.macro, capacity, uses, sizes[0] if sizes else None)
