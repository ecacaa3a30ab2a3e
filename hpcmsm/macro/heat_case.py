"""The table [macro] of a case with model = "heat"."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from hpcmsm.config import Case, Section, validate
from hpcmsm.errors import ConfigError
from hpcmsm.expressions import Expression
from hpcmsm.grid import Grid
from hpcmsm.macro.heat import Heat


class Options(Section):
    """Keys of [macro] beside the common ones: none."""


def from_case(case: Case, grid: Grid, micro, cell_fields) -> Heat:
    """Build the model from the table [macro].

    Raises:
        ConfigError: an option is wrong, or nothing tells the heat capacity.
    """
    validate(Options, case.macro.options, "case file", "macro.")
    sizes = [field.size for field in micro.outputs if field.name == "conductivity"]
    capacity = heat_capacity(case, grid, micro, cell_fields)
    return Heat(grid, case.macro, capacity, sizes[0] if sizes else None)


def heat_capacity(case: Case, grid: Grid, micro, cell_fields) -> Callable:
    """A function temperature (ncells,) K -> volumetric heat capacity (ncells,) J/(m3 K).

    The case file gives it as a formula, or it is the mean over the phases of the micro model.
    """
    constant = {name: values for name, (_, values) in cell_fields.items()}
    if case.macro.heat_capacity is not None:
        constant.update(grid.coordinates())
        formula = Expression(case.macro.heat_capacity, (*constant, "temperature"), "macro.heat_capacity")

        def given(temperature):
            return formula(**constant, temperature=temperature)

        given.varies = "temperature" in formula.used
        return given
    if not micro.phases:
        raise ConfigError(
            "macro.heat_capacity must be given when the micro model has no phases, got nothing; "
            "write a formula of temperature in J/(m3 K)"
        )
    formulas = [_phase_capacity(case, name) for name in micro.phases]

    def mean_over_phases(temperature):
        inputs = np.stack([{**constant, "temperature": temperature}[f.name] for f in micro.inputs])
        fractions = micro.phase_fractions(inputs)
        return sum(
            part * formula(temperature=temperature) for part, formula in zip(fractions, formulas, strict=True)
        )

    mean_over_phases.varies = any("temperature" in formula.used for formula in formulas)
    return mean_over_phases


def _phase_capacity(case: Case, name: str) -> Expression:
    material = case.materials[name]
    if material.heat_capacity is None:
        raise ConfigError(
            f"materials.{name}.heat_capacity must be given unless macro.heat_capacity is, got nothing; add it"
        )
    return Expression(material.heat_capacity, ("temperature",), f"materials.{name}.heat_capacity")
