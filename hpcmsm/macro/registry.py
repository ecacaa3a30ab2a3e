"""Finds the macro model that a case file names."""

from __future__ import annotations

import difflib
import importlib

from hpcmsm.config import Case
from hpcmsm.errors import ConfigError
from hpcmsm.macro.base import MacroModel

# name -> module whose `from_case(case, grid, micro, cell_fields)` builds the model.
MODELS = {
    "heat": "hpcmsm.macro.heat_case",
    "diffusion": "hpcmsm.macro.diffusion",
    "monodomain": "hpcmsm.macro.monodomain",
    "elastic_waves": "hpcmsm.macro.elastic_waves",
    "reacting_flow": "hpcmsm.macro.reacting_flow_case",
}


def module_of(case: Case):
    """The module of the case's macro model.

    Raises:
        ConfigError: there is no such model.
    """
    name = case.macro.model
    if name not in MODELS:
        close = difflib.get_close_matches(name, MODELS, 1)
        advice = f"did you mean '{close[0]}'?" if close else f"known are {', '.join(MODELS)}"
        raise ConfigError(f"macro.model must be a known model, got '{name}'; {advice}")
    return importlib.import_module(MODELS[name])


def make_macro(case: Case, grid, micro, cell_fields) -> MacroModel:
    """The macro model of a case.

    Args:
        micro: the micro model (its inputs, outputs, phases).
        cell_fields: constant fields of the cells, by name: (Field, values (ncells,)).
    Raises:
        ConfigError: no such model, its options are wrong, or it does not know time.scheme or grid.centring.
    """
    model = module_of(case).from_case(case, grid, micro, cell_fields)
    if case.time.scheme not in model.schemes:
        raise ConfigError(
            f"time.scheme must be one of {', '.join(model.schemes)} for macro.model '{case.macro.model}', "
            f"got '{case.time.scheme}'; choose one of them"
        )
    if grid.centring not in model.centrings:
        raise ConfigError(
            f"grid.centring must be {' or '.join(model.centrings)} for macro.model '{case.macro.model}', "
            f"got '{grid.centring}'; correct it"
        )
    return model
