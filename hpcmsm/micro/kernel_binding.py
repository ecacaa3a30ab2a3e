"""Which argument of a kernel gets which field or parameter of a micro model, checked against its comments."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from hpcmsm.errors import ConfigError
from hpcmsm.fields import Field, rows_of
from hpcmsm.kernels import Kernel
from hpcmsm.kernels.build import suggestion
from hpcmsm.kernels.signature import INTEGER_TYPES, Argument

AFTER = "_after"  # the array "x_after" takes the new values of the state "x"
NCELLS = "ncells"
# Arguments that every kernel may have. Numbers, attributes of the batch: name -> (type, unit).
NUMBERS = {"dt": ("real", "s"), "time": ("real", "s"), "step": ("long", "1")}
# Arrays of one number per cell: name -> type that the kernel must declare.
PER_CELL = {"ids": "long", "status": "int", "iterations": "int", "residual": "real"}

Number = float | int
Parameters = Mapping[str, Number | list]


@dataclass(frozen=True)
class Slot:
    """Where an argument of the kernel gets its values from.

    Args:
        role: "number", "per cell", "fixed" (a parameter), "absent", "input", "output", "before", "after"
            or "in place".
        name: of the argument.
        rows: rows of the batch's (or answer's) array, for fields.
        lead: leading sizes of the array, before the cells.
        value: of a parameter.
    """

    role: str
    name: str
    rows: slice | None = None
    lead: tuple[int, ...] = ()
    value: object = None


def bind(
    kernel: Kernel,
    inputs: tuple[Field, ...],
    outputs: tuple[Field, ...],
    state: tuple[Field, ...],
    parameters: Parameters,
    units: Mapping[str, str],
) -> list[Slot]:
    """A slot for each argument but the number of cells; see `KernelModel` for the rules.

    Args:
        units: of parameters, by name; may lack some.
    Raises:
        ConfigError: an argument without a value, a field or parameter without an argument, ...
    """
    arguments = {argument.name: argument for argument in kernel.arguments}
    fields = _fields_by_argument(inputs, outputs, state, arguments)
    _check_names(kernel, arguments, fields, parameters)
    integers = {name: value for name, value in parameters.items() if name in kernel.integers}
    slots = []
    for argument in kernel.arguments:
        name = argument.name
        if name == NCELLS:
            continue
        if name in fields:
            role, field, rows = fields[name]
            slots.append(_field_slot(kernel, argument, role, field, rows, integers))
        elif name in parameters:
            value = _fixed_value(kernel, argument, parameters[name], units.get(name), integers)
            slots.append(Slot("fixed", name, value=value))
        elif name in NUMBERS:
            _check_number(kernel, argument)
            slots.append(Slot("number", name, value=name))
        elif name in PER_CELL:
            _check_per_cell(kernel, argument)
            slots.append(Slot("per cell", name))
        else:
            slots.append(Slot("absent", name))
    return slots


def _fields_by_argument(inputs, outputs, state, arguments: dict) -> dict[str, tuple[str, Field, slice]]:
    """(role, field, its rows) by the name of the argument that each field is bound to."""
    found: dict[str, tuple[str, Field, slice]] = {}
    for role, fields in (("input", inputs), ("output", outputs), ("before", state)):
        rows = rows_of(fields)
        for field in fields:
            if field.name in found:
                raise ConfigError(
                    f"fields of [micro] must have different names, got '{field.name}' twice; rename one"
                )
            in_place = role == "before" and field.name in arguments and not arguments[field.name].const
            found[field.name] = ("in place" if in_place else role, field, rows[field.name])
            if role == "before" and not in_place:
                found[field.name + AFTER] = ("after", field, rows[field.name])
    return found


def _check_names(kernel: Kernel, arguments: dict, fields: dict, parameters: Parameters) -> None:
    for factors in kernel.signature.ncells:
        if factors != (NCELLS,) or NCELLS not in kernel.integers:
            raise ConfigError(
                f"the kernel must loop over its integer argument '{NCELLS}', got a loop over "
                f"'{' x '.join(factors)}'{kernel.where}; rename it"
            )
    own, known = {NCELLS, *NUMBERS, *PER_CELL}, {*fields, *parameters}
    for name in known & own | set(fields) & set(parameters):
        raise ConfigError(
            f"fields and parameters of [micro] must not be called '{name}', which has another meaning"
            f"{kernel.where}; rename it"
        )
    for name in sorted(known - set(arguments)):
        free = [other for other in arguments if other not in known | own]
        kind = f"the state '{name.removesuffix(AFTER)}'" if name.endswith(AFTER) else f"'{name}' of [micro]"
        raise ConfigError(
            f"{kind} must have an argument '{name}', got none{kernel.where}; {suggestion(name, free)}"
        )
    for name, argument in arguments.items():
        if name not in known | own and argument.role != "optional":
            raise ConfigError(
                f"argument '{name}' must be an input, output, state or parameter of [micro], got none of "
                f"that name{kernel.where}; {_closest(name, known)}"
            )


def _closest(name: str, known) -> str:
    advice = suggestion(name, sorted(known))
    return advice if advice.startswith("did") else f"add it, for example as micro.parameters.{name}"


def _field_slot(kernel, argument: Argument, role: str, field: Field, rows: slice, integers: dict) -> Slot:
    _check_array_of(kernel, argument, "real")
    reads = role in ("input", "before")
    if reads != argument.const:
        wanted = "const, as the kernel may only read it" if reads else "writable (not const)"
        raise _wrong(kernel, argument, wanted, "const" if argument.const else "no const")
    _check_unit(kernel, argument, field.unit)
    lead = _leading_sizes(kernel, argument, integers)
    if math.prod(lead) != field.size:
        raise _wrong(
            kernel,
            argument,
            f"of shape ({field.size}, ncells), as the field has {field.size} components",
            f"({', '.join(argument.shape)}) = ({', '.join(map(str, (*lead, 'ncells')))})",
        )
    return Slot(role, argument.name, rows, lead)


def _leading_sizes(kernel: Kernel, argument: Argument, integers: dict) -> tuple[int, ...]:
    """Sizes before the last, which must be the cells and nothing else."""
    if argument.shape[-1] != NCELLS:
        raise _wrong(
            kernel, argument, f"of a shape that ends with {NCELLS}", f"({', '.join(argument.shape)})"
        )
    return tuple(_size(kernel, argument, size, integers) for size in kernel.shapes[argument.name][:-1])


def _size(kernel: Kernel, argument: Argument, size: Callable, integers: dict) -> int:
    try:
        return size(integers)
    except KeyError as error:
        raise _wrong(
            kernel, argument, "of sizes made of micro.parameters", f"'{error.args[0]}' in its shape"
        ) from None


def _fixed_value(kernel, argument: Argument, value, unit: str | None, integers: dict):
    """A parameter as the kernel takes it."""
    if unit is not None:
        _check_unit(kernel, argument, unit)
    whole = argument.type in INTEGER_TYPES
    try:
        array = np.asarray(value)
    except ValueError:
        raise _wrong(kernel, argument, "numbers in rows of one length", f"{value!r}") from None
    if array.dtype.kind not in ("iu" if whole else "iuf"):
        raise _wrong(kernel, argument, "whole numbers" if whole else "numbers", f"{value!r} as parameter")
    if not argument.array:
        if array.ndim:
            raise _wrong(kernel, argument, "a number, as the kernel takes no array", f"{value!r}")
        return value
    if not argument.const:
        raise _wrong(kernel, argument, "const, as the kernel may only read it", "no const")
    shape = tuple(_size(kernel, argument, size, integers) for size in kernel.shapes[argument.name])
    if array.shape != shape:
        raise _wrong(kernel, argument, f"of shape ({', '.join(argument.shape)}) = {shape}", f"{array.shape}")
    return kernel.on_device(np.ascontiguousarray(array, argument.numpy_type(kernel.dtype)))


def _check_number(kernel: Kernel, argument: Argument) -> None:
    kind, unit = NUMBERS[argument.name]
    if argument.array or argument.type != kind:
        raise _wrong(kernel, argument, f"one number ('{kind}')", _declared(argument))
    _check_unit(kernel, argument, unit)


def _check_per_cell(kernel: Kernel, argument: Argument) -> None:
    _check_array_of(kernel, argument, PER_CELL[argument.name])
    if argument.const != (argument.name == "ids"):
        wanted = "const" if argument.name == "ids" else "writable (not const)"
        raise _wrong(kernel, argument, wanted, "const" if argument.const else "no const")
    if argument.shape != (NCELLS,):
        raise _wrong(kernel, argument, f"of shape ({NCELLS})", f"({', '.join(argument.shape)})")


def _check_array_of(kernel: Kernel, argument: Argument, wanted: str) -> None:
    if argument.type != wanted or not argument.array:
        raise _wrong(kernel, argument, f"an array ('{wanted} *')", _declared(argument))


def _declared(argument: Argument) -> str:
    return f"'{argument.type}{' *' if argument.array else ''}'"


def _check_unit(kernel: Kernel, argument: Argument, unit: str) -> None:
    if argument.unit != unit:
        raise _wrong(kernel, argument, f"in {unit}", f"[{argument.unit}] in its comment")


def _wrong(kernel: Kernel, argument: Argument, wanted: str, got: str) -> ConfigError:
    return ConfigError(
        f"argument '{argument.name}' must be {wanted}, got {got}{kernel.where}; correct the kernel or [micro]"
    )
