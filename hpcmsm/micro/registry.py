"""Finds the micro model that a case file names: one of ours, or a user's own class or kernel."""

from __future__ import annotations

import difflib
import importlib
import inspect
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from hpcmsm.config import CellField, Material, MicroSection
from hpcmsm.errors import ConfigError
from hpcmsm.micro.base import MicroModel
from hpcmsm.micro.kernel_case import from_kernel, is_kernel
from hpcmsm.micro.nested_case import with_composites

# name -> module whose `from_case(section, materials, fields, read_image)` builds the model; one that reads
# files of its own also takes `folder`.
MODELS = {
    "unit_cell": "hpcmsm.micro.unit_cell_case",
    "constant": "hpcmsm.micro.constant",
    "tt06": "hpcmsm.micro.tt06",
    "grain": "hpcmsm.micro.grain",
    "cantera": "hpcmsm.micro.chemistry",
    "cauchy_born": "hpcmsm.micro.cauchy_born",
    "lennard_jones": "hpcmsm.micro.lennard_jones",
}


def make_micro(
    section: MicroSection,
    materials: dict[str, Material],
    fields: dict[str, CellField],
    folder: Path,
    read_image: Callable[[str], np.ndarray],
    inside: tuple[str, ...] = (),
) -> MicroModel:
    """The micro model of a case, with those of its composite materials below it.

    Args:
        section: the table [micro].
        materials, fields: those of the case.
        folder: folder of the case file, where user modules are looked for.
        read_image: gives the labels of an image file that the case names.
        inside: the composite materials that it is the model of, from the outermost.
    Raises:
        ConfigError: no such model, or its options are wrong.
    """
    model = _make_one(section, materials, fields, folder, read_image)
    if not any(material.micro for material in materials.values()):
        return model

    def below(name: str) -> MicroModel:
        return make_micro(materials[name].micro, materials, fields, folder, read_image, (*inside, name))

    return with_composites(model, materials, below, inside)


def _make_one(section, materials, fields, folder, read_image) -> MicroModel:
    """The model that a table names, whatever its phases are."""
    if is_kernel(section.model):
        return from_kernel(section, folder)
    if ":" in section.model:
        return _user_model(section, folder)
    if section.model not in MODELS:
        close = difflib.get_close_matches(section.model, MODELS, 1)
        advice = (
            f"did you mean '{close[0]}'?"
            if close
            else f"known are {', '.join(MODELS)}, 'module:Class' or 'kernel:FILE.c:NAME'"
        )
        raise ConfigError(f"micro.model must be a known model, got '{section.model}'; {advice}")
    builder = importlib.import_module(MODELS[section.model]).from_case
    also = {"folder": folder} if "folder" in inspect.signature(builder).parameters else {}
    return builder(section, materials, fields, read_image, **also)


def _user_model(section: MicroSection, folder: Path) -> MicroModel:
    """Import "module:Class" from the case file's folder or the Python path, and construct it."""
    module_name, _, class_name = section.model.partition(":")
    if not all(part.isidentifier() for part in (*module_name.split("."), class_name)):
        raise ConfigError(f"micro.model must be written as 'module:Class', got '{section.model}'; correct it")
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if not f"{module_name}.".startswith(f"{error.name}."):
            raise  # the module is there, and imports something that is not
        raise ConfigError(
            f"micro.model must name a module that can be imported, got '{section.model}'; "
            f"put {module_name}.py beside the case file ({folder}) or on PYTHONPATH"
        ) from None
    kind = getattr(module, class_name, None)
    if not (isinstance(kind, type) and issubclass(kind, MicroModel)) or inspect.isabstract(kind):
        raise ConfigError(
            f"micro.model must name a subclass of hpcmsm.micro.base.MicroModel, got '{section.model}'; "
            f"{class_name!r} in {module_name} is {_what_else(kind)}"
        )
    try:
        # Options are compared with the arguments first: an error inside the constructor is another matter.
        inspect.signature(kind).bind(**section.options)
    except TypeError as error:
        raise ConfigError(
            f"[micro] must hold the options of {class_name}, got {section.options} ({error}); correct them"
        ) from None
    return kind(**section.options)


def _what_else(kind: object) -> str:
    if kind is None:
        return "missing"
    abstract = sorted(getattr(kind, "__abstractmethods__", ()))
    return f"without {', '.join(abstract)}" if abstract else "something else"
