"""Materials of a case that are composites: their micro models, put below the model that names them."""

from __future__ import annotations

from collections.abc import Callable

from hpcmsm.config import Material
from hpcmsm.errors import ConfigError
from hpcmsm.expressions import Expression
from hpcmsm.fields import rows_of
from hpcmsm.micro.base import MicroModel
from hpcmsm.micro.nested import NestedCell, given_field, make_below


def material_conductivities(materials: dict[str, Material], name: str) -> list[Callable]:
    """What a material that is no composite conducts: one function for all axes, or one for each.

    Each takes the temperature (n,) in K and gives W/(m K), shape (n,).
    """
    given = materials[name].conductivity
    formulas = [
        Expression(text, ("temperature",), f"materials.{name}.conductivity")
        for text in (given if isinstance(given, list) else [given])
    ]
    return [lambda temperature, formula=formula: formula(temperature=temperature) for formula in formulas]


def with_composites(
    model: MicroModel,
    materials: dict[str, Material],
    make: Callable[[str], MicroModel],
    inside: tuple[str, ...],
) -> MicroModel:
    """The model itself, or with the models of those of its phases that are composites below it.

    Args:
        make: makes the micro model of a material.
        inside: the materials that this model is part of.
    Raises:
        ConfigError: a material is made of itself, or models do not fit.
    """
    composites = [name for name in dict.fromkeys(model.phases) if materials[name].micro is not None]
    if not composites:
        return model
    rows = rows_of(model.inputs)
    below = {}
    for name in composites:
        if name in inside:
            raise ConfigError(
                f"materials.{name}.micro must not contain {name} itself, got {' > '.join((*inside, name))}; "
                "name another material in its phases"
            )
        row = rows[given_field(name, 2).name]
        try:
            lower = make(name)
        except ConfigError as error:
            raise ConfigError(f"{error} (in [materials.{name}.micro])") from None
        below[name] = make_below(name, lower, materials[name].axes, row.stop - row.start)
    plain = [name for name, material in materials.items() if material.micro is None]
    return NestedCell(model, below, {name: material_conductivities(materials, name) for name in plain})
