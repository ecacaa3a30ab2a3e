"""The table [micro] of a case with model = "kernel:FILE.c:FUNCTION"."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field as Key

from hpcmsm.config import Count, Formula, MicroSection, Real, Section, validate
from hpcmsm.errors import ConfigError
from hpcmsm.expressions import Expression
from hpcmsm.fields import Field, rows_of
from hpcmsm.micro.base import History
from hpcmsm.micro.kernel_model import KernelModel

PREFIX = "kernel:"
COMPONENT = "component"  # number of a component in the formulas of a field that has several
Numbers = int | Real | list[int | Real] | list[list[int | Real]]


class FieldTable(Section):
    """An input: [micro.inputs.NAME]."""

    unit: str = "1"
    size: Count = 1
    about: str = ""
    lower: Real | None = None
    upper: Real | None = None
    scale: Real | None = None
    spd: bool = False


class StateTable(FieldTable):
    """A state: [micro.state.NAME]. Formulas are of the inputs (lift: and the outputs) of the cell, by name
    and component, and of `component`; one for all components, or a list."""

    initial: Formula | list[Formula] = 0.0
    lift: Formula | list[Formula] | None = None


class ParameterTable(Section):
    """A number with its unit: { value = 2.0, unit = "W/(m K)" }."""

    value: Numbers
    unit: str


class Options(Section):
    """Keys of [micro] beside model and backend; each field is a table, or its unit alone.

    history: "none" without state, "liftable" if every state has a lift, else "full"; may be left out.
    """

    inputs: dict[str, FieldTable] = Key(min_length=1)
    outputs: dict[str, FieldTable] = Key(min_length=1)
    state: dict[str, StateTable] = Key(default_factory=dict)
    parameters: dict[str, ParameterTable | Numbers] = Key(default_factory=dict)
    dtype: Literal["float64", "float32"] = "float64"
    history: History | None = None


def is_kernel(model: str) -> bool:
    """Whether micro.model names a kernel file, not a Python module that is called kernel."""
    return model.startswith(PREFIX) and (model.count(":") > 1 or model.endswith(".c"))


def from_kernel(section: MicroSection, folder: Path) -> KernelModel:
    """Build the model from the table [micro]; the file lies beside the case file or in a folder below.

    Raises:
        ConfigError: a key is wrong, the file is missing, or the kernel does not fit its fields.
    """
    file, _, function = section.model.removeprefix(PREFIX).partition(":")
    if not file.endswith(".c") or not function.isidentifier():
        raise ConfigError(
            f"micro.model must be written as 'kernel:FILE.c:FUNCTION', got '{section.model}'; correct it"
        )
    options = validate(Options, _expanded(section.options), "case file", "micro.")
    inputs, outputs, state = (_fields(getattr(options, kind)) for kind in ("inputs", "outputs", "state"))
    parameters = {name: getattr(given, "value", given) for name, given in options.parameters.items()}
    units = {n: given.unit for n, given in options.parameters.items() if isinstance(given, ParameterTable)}
    lift = _lift(options.state, inputs, outputs, state)
    _check_history(options.history, bool(state), lift is not None)
    return KernelModel(
        folder / file,
        function,
        inputs,
        outputs,
        state,
        parameters,
        units,
        _initial(options.state, inputs, state),
        lift if options.history != "full" else None,
        section.backend,
        options.dtype,
    )


def _check_history(declared: str | None, has_state: bool, has_lift: bool) -> None:
    possible = ("liftable", "full") if has_lift else ("full",) if has_state else ("none",)
    if declared not in (None, *possible):
        what = "a lift of every state" if has_lift else "states without a lift" if has_state else "no state"
        raise ConfigError(
            f"micro.history must be {' or '.join(possible)} with {what}, got '{declared}'; correct it, or "
            "leave it out"
        )


def _expanded(options: dict) -> dict:
    """Fields given as a unit alone written out as tables."""
    options = dict(options)
    for kind in ("inputs", "outputs", "state"):
        if isinstance(options.get(kind), dict):
            options[kind] = {
                name: {"unit": given} if isinstance(given, str) else given
                for name, given in options[kind].items()
            }
    return options


def _fields(tables: dict[str, FieldTable]) -> tuple[Field, ...]:
    """In the order of their names: the case file of a resumed run may list them in another one."""
    return tuple(
        Field(
            name,
            **table.model_dump(include={"unit", "size", "about", "scale", "spd"}),
            lower=-np.inf if table.lower is None else table.lower,
            upper=np.inf if table.upper is None else table.upper,
        )
        for name, table in sorted(tables.items())
    )


def _initial(tables: dict[str, StateTable], inputs: tuple[Field, ...], state) -> Callable:
    formulas = [
        _formulas(field, tables[field.name].initial, inputs, f"micro.state.{field.name}.initial")
        for field in state
    ]
    return lambda given: _evaluated(state, formulas, inputs, given)


def _lift(tables: dict[str, StateTable], inputs, outputs, state) -> Callable | None:
    """A function for the history "liftable", if every state says how it is lifted."""
    missing = [name for name, table in tables.items() if table.lift is None]
    if len(missing) == len(tables):
        return None
    if missing:
        raise ConfigError(
            f"micro.state.{missing[0]}.lift must be given when other states have one, got nothing; "
            "lift all of them or none"
        )
    known = (*inputs, *outputs)
    formulas = [
        _formulas(field, tables[field.name].lift, known, f"micro.state.{field.name}.lift") for field in state
    ]
    return lambda given, answered: _evaluated(state, formulas, known, np.concatenate([given, answered]))


def _formulas(field: Field, given, known: tuple[Field, ...], where: str) -> list[Expression]:
    """One for each component."""
    if isinstance(given, list) and len(given) != field.size:
        raise ConfigError(
            f"{where} must have {field.size} formulas, one per component, got {len(given)}; correct the list"
        )
    names = (*(name for other in known for name in other.component_names), COMPONENT)
    if isinstance(given, list):
        return [Expression(one, names, where) for one in given]
    return [Expression(given, names, where)] * field.size


def _evaluated(state, formulas: list[list[Expression]], known, values: np.ndarray) -> np.ndarray:
    """The formulas of all states, shape (nstate, n), for the values of the known fields."""
    named = dict(zip((name for field in known for name in field.component_names), values, strict=True))
    result = np.empty((sum(field.size for field in state), values.shape[1]))
    for field, own in zip(state, formulas, strict=True):
        for component, formula in enumerate(own):
            number = np.full(values.shape[1], float(component))
            result[rows_of(state)[field.name].start + component] = formula(**named, **{COMPONENT: number})
    return result
