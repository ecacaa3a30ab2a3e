"""The table [micro] of a case with model = "unit_cell"."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import Annotated

import numpy as np
from pydantic import Field as Key

from hpcmsm.config import CellField, Count, Material, MicroSection, Real, Section, validate
from hpcmsm.errors import ConfigError
from hpcmsm.expressions import Expression
from hpcmsm.micro.unit_cell import UnitCell

IMAGE = "image:"


class Options(Section):
    """Keys of [micro].

    microstructure: "laminate", "cylinders", "checkerboard", or "image:FILE" (.npy, .tif, or
    .h5:/dataset), relative to the case file. resolution: points a side, 32 or one per pixel of
    an image if left out. fraction: of the second phase; without it, a field
    `fraction` of the cells.
    """

    microstructure: str
    phases: list[str] = Key(min_length=1)
    resolution: Annotated[int, Key(ge=4, le=1024, strict=True)] | None = None
    tolerance: Annotated[float, Key(gt=0, lt=1)] = 1e-6
    max_iterations: Count = 200
    fraction: Real | None = None


def from_case(
    section: MicroSection,
    materials: dict[str, Material],
    fields: dict[str, CellField],
    read_image: Callable[[str], np.ndarray],
) -> UnitCell:
    """Build the model from the table [micro].

    Raises:
        ConfigError: an option is wrong, a material or an image is missing.
    """
    options = validate(Options, section.options, "case file", "micro.")
    microstructure = options.microstructure
    if microstructure.startswith(IMAGE):
        name = microstructure.removeprefix(IMAGE)
        microstructure = read_image(name)
        _check_phases(microstructure, name, options.phases)
    model = UnitCell(
        microstructure=microstructure,
        conductivities=[_conductivity(materials, name) for name in options.phases],
        resolution=options.resolution,
        tolerance=options.tolerance,
        max_iterations=options.max_iterations,
        fraction=options.fraction,
        backend=section.backend,
    )
    model.phases = tuple(options.phases)
    return model


def _check_phases(labels: np.ndarray, name: str, phases: list[str]) -> None:
    nphase = int(labels.max()) + 1
    if nphase != len(phases):
        raise ConfigError(
            f"micro.phases must name every phase of the image '{name}', got {len(phases)} names for {nphase} "
            "phases; name as many materials as the image has labels"
        )


def _conductivity(materials: dict[str, Material], name: str):
    """A function temperature (n,) K -> conductivity (n,) W/(m K) of a material."""
    if name not in materials:
        close = difflib.get_close_matches(name, materials, 1)
        advice = f"did you mean '{close[0]}'?" if close else f"add a table [materials.{name}]"
        raise ConfigError(f"micro.phases must name materials of the case, got '{name}'; {advice}")
    formula = Expression(materials[name].conductivity, ("temperature",), f"materials.{name}.conductivity")
    return lambda temperature: formula(temperature=temperature)
