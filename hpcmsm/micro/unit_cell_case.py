"""The table [micro] of a case with model = "unit_cell"."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import Annotated, Literal

import numpy as np
from pydantic import Field as Key

from hpcmsm.config import Angles, CellField, Count, Material, MicroSection, Real, Section, validate
from hpcmsm.errors import ConfigError
from hpcmsm.fields import Field
from hpcmsm.micro.generators import KINDS, Recipe
from hpcmsm.micro.microstructure import DEFAULT_RESOLUTION, LARGEST, NAMED, NAMED_IN_3D, check_grid
from hpcmsm.micro.nested import given_field
from hpcmsm.micro.nested_case import material_conductivities
from hpcmsm.micro.subsamples import check_size, checked_subsamples
from hpcmsm.micro.tensors import IN_PLANE, check_definite, drawn_angles, rotation, turned
from hpcmsm.micro.unit_cell import UnitCell
from hpcmsm.micro.varied import VariedUnitCell

IMAGE, OWN = "image:", "own"
MOST_ORIENTATIONS = 1000


class Options(Section):
    """Keys of [micro].

    microstructure: "laminate", "cylinders", "spheres", "checkerboard"; one that is drawn by lot
    ("random_discs", "random_fibres", "random_spheres", "voronoi", "level_set"); or "image:FILE" (.npy,
    .tif, or .h5:/dataset), relative to the case file. resolution: points a side, 32 or one per pixel of
    an image if left out. fraction: of the second phase; without it, a field
    `fraction` of the cells (laminate, cylinders, spheres).
    realisations: how many microstructures there are: 1, shared by all cells; a library of some, of which
    the field `realisation` names the cell's (without it, one is drawn for every cell); or "own", one for
    every cell, drawn from the seed and its id. Images of a library stand one after the other in a stack.
    orientations: makes a polycrystal of the one material named in phases: how many phases there are, each
    of them this material turned by lot; or a list of the angles of each, as materials.NAME.angle.
    ndim: 3 for a tensor in 3D; of the drawn ones, grains and level sets are then drawn in 3D, and fibres
    and named sections go on along z. seed, count (of inclusions or grains) and correlation_length (a part
    of the cell's side) are of those that are drawn. warm_start: begin with the cell's last solution,
    which is then part of its state. grid: "even", or "fitted" for cylinders and spheres: the lines of
    points follow the inclusion, so that K is a smooth function of the fraction. subsamples: of what is drawn
    and of images, how many pixels (a side) make up a point; what they conduct together is found from how
    the phases lie in them.
    """

    microstructure: str
    phases: list[str] = Key(min_length=1)
    ndim: Literal[2, 3] | None = None
    resolution: Annotated[int, Key(ge=4, le=1024, strict=True)] | None = None
    realisations: Annotated[int, Key(ge=1, strict=True)] | Literal["own"] = 1
    orientations: Annotated[int, Key(ge=1, le=MOST_ORIENTATIONS, strict=True)] | list[Angles] | None = None
    seed: Annotated[int, Key(ge=0, lt=2**63, strict=True)] = 1
    count: Count | None = None
    correlation_length: Real | None = None
    tolerance: Annotated[float, Key(gt=0, lt=1)] = 1e-6
    max_iterations: Count = 200
    fraction: Real | None = None
    warm_start: bool = False
    grid: str = "even"
    subsamples: Count = 1


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
    if options.orientations is not None:
        options = options.model_copy(update={"phases": options.phases * _number_of_orientations(options)})
    labels = None
    if options.realisations == 1:
        shape = _one(options, read_image)
    else:
        labels = _library(options, read_image)
        shape = labels(0)
    check_grid(options.grid, options.microstructure, "micro.grid")
    ndim = options.ndim or (shape.ndim if isinstance(shape, np.ndarray) else 3 if shape in NAMED_IN_3D else 2)
    known = {
        "conductivities": _conductivities(materials, options, ndim),
        "resolution": options.resolution,
        "tolerance": options.tolerance,
        "max_iterations": options.max_iterations,
        "backend": section.backend,
        "phases": options.phases,
        "ndim": ndim,
        "warm_start": options.warm_start,
        "grid": options.grid,
        "subsamples": options.subsamples,
    }
    drawn = options.microstructure in KINDS  # then the labels say the fraction
    known["inclusions"] = KINDS[options.microstructure].inclusions if drawn else None
    if labels is None:
        return UnitCell(shape, fraction=None if drawn else options.fraction, **known)
    fractions = None
    if drawn and options.fraction is not None:
        fractions = np.bincount(shape.ravel(), minlength=2) / shape.size
    number = None if options.realisations == OWN else options.realisations
    return VariedUnitCell(labels, number=number, seed=options.seed, fractions=fractions, **known)


def _one(options: Options, read_image: Callable[[str], np.ndarray]) -> np.ndarray | str:
    """What all cells share: a name, or the labels of an image or of a microstructure that is drawn."""
    name = options.microstructure
    if name in NAMED:
        return name
    return _image(options, read_image) if name.startswith(IMAGE) else recipe_of(options).labels()


def _library(options: Options, read_image: Callable[[str], np.ndarray]) -> Callable[[int], np.ndarray]:
    """A function realisation -> labels: of what is drawn, or of the images in a stack."""
    if options.microstructure in NAMED:
        raise ConfigError(
            f"micro.realisations must be left out for '{options.microstructure}', got "
            f"{options.realisations}; those that differ are {', '.join(KINDS)}"
        )
    if not options.microstructure.startswith(IMAGE):
        return recipe_of(options).labels
    stack = _image(options, read_image)
    if options.realisations == OWN or len(stack) != options.realisations:
        raise ConfigError(
            f"micro.realisations must be {len(stack)}, the number of images in the stack "
            f"'{options.microstructure.removeprefix(IMAGE)}' (its first axis), got {options.realisations}; "
            "correct it"
        )
    return lambda realisation: stack[realisation]


def _image(options: Options, read_image: Callable[[str], np.ndarray]) -> np.ndarray:
    name = options.microstructure.removeprefix(IMAGE)
    labels = read_image(name)
    _check_phases(labels, name, options.phases)
    return labels


def recipe_of(options: Options) -> Recipe:
    """How the microstructure that these options name is drawn.

    Raises:
        ConfigError: the name is not known, or an option does not belong to it.
    """
    name = options.microstructure
    if name not in KINDS:
        close = difflib.get_close_matches(name, [*NAMED, *KINDS, IMAGE], 1)
        advice = f"did you mean '{close[0]}'?" if close else "choose one of them"
        known = ", ".join([*NAMED, *KINDS, f"{IMAGE}FILE"])
        raise ConfigError(f"micro.microstructure must be one of {known}, got '{name}'; {advice}")
    # A section is all that is needed of fibres.
    ndim = 2 if name == "random_fibres" else options.ndim or KINDS[name].ndims[0]
    resolution, subsamples = options.resolution or DEFAULT_RESOLUTION, options.subsamples
    if checked_subsamples(subsamples, len(options.phases)) > 1:
        check_size(resolution, subsamples, LARGEST[ndim])
    return Recipe(
        name,
        ndim,
        resolution * subsamples,
        nphase=len(options.phases),
        seed=options.seed,
        fraction=options.fraction,
        count=options.count,
        correlation_length=options.correlation_length,
    )


def _check_phases(labels: np.ndarray, name: str, phases: list[str]) -> None:
    if not labels.size:
        raise ConfigError(f"image '{name}' must hold some points, got shape {labels.shape}; save it again")
    nphase = int(labels.max()) + 1
    if nphase != len(phases):
        raise ConfigError(
            f"micro.phases must name every phase of the image '{name}', got {len(phases)} names for {nphase} "
            "phases; name as many materials as the image has labels"
        )


def _number_of_orientations(options: Options) -> int:
    if len(options.phases) != 1:
        raise ConfigError(
            f"micro.phases must name one material where there are micro.orientations, got "
            f"{len(options.phases)}; turn the others by materials.NAME.angle"
        )
    given = options.orientations
    number = given if isinstance(given, int) else len(given)
    if number < 1:
        raise ConfigError("micro.orientations must be at least one, got none; leave it out or add some")
    return number


def _conductivities(materials: dict[str, Material], options: Options, ndim: int) -> list:
    """What each phase conducts, see `_conductivity`."""
    if options.orientations is None:
        return [_conductivity(materials, name, ndim) for name in options.phases]
    name, given = options.phases[0], options.orientations
    crystal = _conductivity(materials, name, ndim)
    if isinstance(crystal, Field):
        raise ConfigError(
            f"micro.orientations must turn a material with a conductivity, got the composite '{name}'; name "
            "one material for each orientation, with an angle of its own"
        )
    if callable(crystal):
        raise ConfigError(
            f"materials.{name}.conductivity must be different along its axes to be turned, got one for all; "
            "list one for each, or leave out micro.orientations"
        )
    crystal = material_conductivities(materials, name)
    crystal = [*crystal, *[None] * (6 - len(crystal))]
    if isinstance(given, int):
        given = [drawn_angles(options.seed, number, given, ndim) for number in range(given)]
    who = f"materials.{name}.conductivity"
    grains = [turned(crystal, rotation(angles), who) for angles in given]
    check_definite(grains[0], ndim, who)
    return [grain if ndim == 3 else [grain[row] for row in IN_PLANE] for grain in grains]


def _conductivity(materials: dict[str, Material], name: str, ndim: int):
    """Functions temperature (n,) K -> conductivity (n,) W/(m K) of a material: one, one for each axis, or one
    for each component of a tensor.

    A Field for a composite. Where a material has more axes than the cell, the cell is a section.
    """
    if name not in materials:
        close = difflib.get_close_matches(name, materials, 1)
        advice = f"did you mean '{close[0]}'?" if close else f"add a table [materials.{name}]"
        raise ConfigError(f"micro.phases must name materials of the case, got '{name}'; {advice}")
    if materials[name].micro is not None:
        return given_field(name, ndim, turned=materials[name].angle is not None)
    functions = material_conductivities(materials, name)
    if len(functions) == 6:
        if ndim == 3 and functions[2] is None:
            raise ConfigError(f"materials.{name}.conductivity must have a component zz in 3D; add it")
        check_definite(functions, ndim, f"materials.{name}.conductivity")
        return functions if ndim == 3 else [functions[row] for row in IN_PLANE]
    if 1 < len(functions) < ndim:
        raise ConfigError(
            f"materials.{name}.conductivity must have one formula, or one for each of {ndim} axes, got "
            f"{len(functions)}; add the missing one"
        )
    return functions[0] if len(functions) == 1 else functions[:ndim]
