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
from hpcmsm.micro.registry import make_micro

MOST_CELLS = 1_000_000


def evaluate_case(case: Case, folder: Path, given: list[str]) -> list[dict[str, float]]:
    """One row per combination of the given inputs: inputs, outputs, status, residual.

    Args:
        given: texts "name=value" or "name=first:last:count".
    Raises:
        ConfigError: an input is unknown, missing, or out of its range.
    """
    micro = make_micro(case.micro, case.materials, case.fields, folder, partial(read_labels, folder))
    names = [name for field in micro.inputs for name in field.component_names]
    values = _parse(given, names)
    limits = {name: field for field in micro.inputs for name in field.component_names}
    for name in names:
        _check_range(limits[name], name, values[name])
    table = np.array(list(itertools.product(*(values[name] for name in names))))
    inputs = np.ascontiguousarray(table.T)
    ids = np.arange(table.shape[0], dtype=np.int64)
    answer = micro.evaluate(Batch(ids, inputs, micro.initial_state(inputs), 0.0, case.time.step, 1))
    outputs = [name for field in micro.outputs for name in field.component_names]
    rows = []
    for cell in ids:
        row = dict(zip(names, inputs[:, cell].tolist(), strict=True))
        row.update(zip(outputs, answer.outputs[:, cell].tolist(), strict=True))
        row.update(status=int(answer.status[cell]), residual=float(answer.residual[cell]))
        rows.append(row)
    return rows


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
        raise ConfigError(
            f"--input {name} must lie between {field.lower:g} and {field.upper:g} {field.unit}, "
            f"got {bad[0]:g}; choose "
            " another value"
        )
