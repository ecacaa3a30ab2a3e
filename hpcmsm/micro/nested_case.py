"""Materials of a case that are composites: their micro models, put below the model that names them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from hpcmsm.config import Material
from hpcmsm.errors import ConfigError
from hpcmsm.expressions import Expression
from hpcmsm.micro.base import MicroModel
from hpcmsm.micro.nested import NDIM, NestedCell, make_below
from hpcmsm.micro.tensors import COMPONENTS, IN_PLANE, matrices, rotation, turned


def material_conductivities(materials: dict[str, Material], name: str) -> list[Callable | None]:
    """What a material that is no composite conducts: one function for all axes, one for each, or six of the
    components xx, yy, zz, yz, xz, xy, of which those that are zero or not known are None.

    Each takes the temperature (n,) in K and gives W/(m K), shape (n,).
    """
    given, angle = materials[name].conductivity, materials[name].angle
    who = f"materials.{name}.conductivity"

    def function(text) -> Callable:
        formula = Expression(text, ("temperature",), who)
        return lambda temperature: formula(temperature=temperature)

    if isinstance(given, dict):
        found = [function(given[part]) if part in given else None for part in COMPONENTS[3]]
    else:
        along = [function(text) for text in (given if isinstance(given, list) else [given])]
        if angle is None:
            return along
        found = [*along, *[None] * (6 - len(along))]
    return found if angle is None else turned(found, rotation(angle), who)


def extreme_conductivities(functions: list[Callable | None]) -> list[Callable]:
    """Functions of temperature (n,) among whose values are the least and the largest of all directions."""
    if len(functions) < len(COMPONENTS[3]):
        return functions

    def principal(temperature: np.ndarray, which: int) -> np.ndarray:
        plane = functions[2] is None  # then nothing is known of z
        given = [functions[row] for row in IN_PLANE] if plane else functions
        nothing = np.zeros_like(temperature)
        values = np.stack([nothing if f is None else f(temperature) + nothing for f in given])
        known = np.isfinite(values).all(axis=0)
        lengths = np.linalg.eigvalsh(matrices(np.where(known, values, 0.0)))[..., which]
        return np.where(known, lengths, np.nan)

    return [lambda temperature: principal(temperature, 0), lambda temperature: principal(temperature, -1)]


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
    (ndim,) = (NDIM[field.size] for field in model.outputs if field.name == "conductivity")
    below = {}
    for name in composites:
        if name in inside:
            raise ConfigError(
                f"materials.{name}.micro must not contain {name} itself, got {' > '.join((*inside, name))}; "
                "name another material in its phases"
            )
        try:
            lower = make(name)
        except ConfigError as error:
            raise ConfigError(f"{error} (in [materials.{name}.micro])") from None
        below[name] = make_below(name, lower, materials[name].axes, ndim, materials[name].angle)
    plain = [name for name, material in materials.items() if material.micro is None]
    functions = {name: material_conductivities(materials, name) for name in plain}
    extremes = {name: extreme_conductivities(given) for name, given in functions.items()}
    return NestedCell(model, below, extremes)
