"""Ask the micro model of a case alone, at chosen inputs."""

from __future__ import annotations

import difflib
import itertools
from functools import partial
from pathlib import Path

import numpy as np

from hpcmsm.batch import Batch
from hpcmsm.config import Case
from hpcmsm.errors import ConfigError
from hpcmsm.fields import Field
from hpcmsm.io.images import read_labels
from hpcmsm.micro.base import MicroModel
from hpcmsm.micro.registry import make_micro

MOST_CELLS = 1_000_000


def evaluate_case(case: Case, folder: Path, given: list[str]) -> list[dict[str, float]]:
    """One row per combination of the given inputs: inputs, outputs, status, residual.

    Args:
        given: texts "name=value" or "name=first:last:count".
    Raises:
        ConfigError: an input is unknown, missing, or out of its range.
    """
    micro, inputs = _asked(case, folder, given)
    names = [name for field in micro.inputs for name in field.component_names]
    ids = np.arange(inputs.shape[1], dtype=np.int64)
    answer = micro.evaluate(Batch(ids, inputs, micro.initial_state(inputs), 0.0, case.time.step, 1))
    outputs = [name for field in micro.outputs for name in field.component_names]
    rows = []
    for cell in ids:
        row = dict(zip(names, inputs[:, cell].tolist(), strict=True))
        row.update(zip(outputs, answer.outputs[:, cell].tolist(), strict=True))
        row.update(status=int(answer.status[cell]), residual=float(answer.residual[cell]))
        rows.append(row)
    return rows


def inside_case(case: Case, folder: Path, given: list[str]) -> list[tuple[Field, np.ndarray]]:
    """Fields inside one cell at the given inputs: pairs of a Field and its values (size, [nz,] ny, nx).

    Raises:
        ConfigError: inputs are wrong or not for one cell, or there is nothing to see in its model's cells.
    """
    micro, inputs = _asked(case, folder, given)
    if inputs.shape[1] != 1:
        raise ConfigError(
            f"--input must name one cell for --fields, got {inputs.shape[1]} combinations; "
            "give one value each"
        )
    found = micro.inside(inputs)
    if not found:
        raise ConfigError(
            f"--fields must be left out for micro.model '{case.micro.model}', whose cells have no points"
        )
    return found


def micro_of(case: Case, folder: Path) -> MicroModel:
    """The micro model of a case, its composite phases asked directly."""
    return make_micro(case.micro, case.materials, case.fields, folder, partial(read_labels, folder))


def describe_micro(micro: MicroModel) -> str:
    """What a micro model is asked, what it answers, what it remembers, and what it is made of."""
    lines = []
    for what in ("inputs", "outputs", "state"):
        for number, field in enumerate(getattr(micro, what)):
            size = f"[{field.size}]" if field.size > 1 else ""
            bounds = f"{field.lower:g} to {field.upper:g} " if field.upper < np.inf else ""
            name, unit = f"{field.name}{size}", "" if field.unit == "1" else field.unit
            lines.append(f"{'' if number else what:<10}{name:<28}{bounds}{unit:<12}{field.about}".rstrip())
    for number, (name, value) in enumerate(_flat(micro.facts())):
        lines.append(f"{'' if number else 'facts':<10}{name:<28}{value}")
    return "\n".join(lines)


def _flat(tree: dict, prefix: str = ""):
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", ", ".join(map(str, value)) if isinstance(value, list) else value


def _asked(case: Case, folder: Path, given: list[str]) -> tuple[MicroModel, np.ndarray]:
    """The micro model of a case, and all combinations of the given inputs, shape (ninput, n)."""
    micro = micro_of(case, folder)
    names = [name for field in micro.inputs for name in field.component_names]
    values = _parse(given, names)
    limits = {name: field for field in micro.inputs for name in field.component_names}
    for name in names:
        _check_range(limits[name], name, values[name])
    table = np.array(list(itertools.product(*(values[name] for name in names))))
    return micro, np.ascontiguousarray(table.T)


def _parse(given: list[str], names: list[str]) -> dict[str, np.ndarray]:
    values = {}
    for text in given:
        name, equals, value = text.partition("=")
        name = name.strip()
        if not equals or name not in names:
            close = difflib.get_close_matches(name, names, 1)
            advice = f"did you mean '{close[0]}'?" if close else f"inputs are {', '.join(names)}"
            raise ConfigError(f"--input must be NAME=VALUE with a known input, got '{text}'; {advice}")
        values[name] = _numbers(value, text)
    missing = [name for name in names if name not in values]
    if missing:
        raise ConfigError(f"--input must be given for every input, got none for {', '.join(missing)}; add it")
    if np.prod([v.size for v in values.values()], dtype=float) > MOST_CELLS:
        raise ConfigError(f"--input must give at most {MOST_CELLS} combinations; lower the counts")
    return values


def _numbers(value: str, text: str) -> np.ndarray:
    parts = value.split(":")
    try:
        if len(parts) == 1:
            return np.array([float(value)])
        first, last, count = float(parts[0]), float(parts[1]), int(":".join(parts[2:]))
    except (ValueError, IndexError):
        raise ConfigError(f"--input must be a number or first:last:count, got '{text}'; correct it") from None
    if not 1 <= count <= MOST_CELLS:
        raise ConfigError(f"--input must have a count from 1 to {MOST_CELLS}, got '{text}'; change the count")
    return np.linspace(first, last, count)


def _check_range(field: Field, name: str, values: np.ndarray) -> None:
    if field.whole and not np.array_equal(values, np.rint(values)):
        raise ConfigError(f"--input {name} must be whole numbers, got {values}; choose first, last and count")
    bad = values[~(np.isfinite(values) & (values >= field.lower) & (values <= field.upper))]
    if bad.size:
        unit = "" if field.unit == "1" else f" {field.unit}"
        raise ConfigError(
            f"--input {name} must lie between {field.lower:g} and {field.upper:g}{unit}, got {bad[0]:g}; "
            "choose another value"
        )
