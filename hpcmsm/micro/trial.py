"""One trial call before the first step: does a micro model keep what it declares?"""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import numpy as np

from hpcmsm.batch import Answer, Batch
from hpcmsm.errors import MicroError
from hpcmsm.fields import check_array, rows_of, within_bounds
from hpcmsm.micro.base import History, MicroModel

MOST_CELLS = 5
# Relative change that tells cells apart whose inputs are all the same, as they are in a uniform start.
NUDGE = 1e-6
# Relative error that a solver may leave in a sum which its model says it keeps.
CONSERVED_TO, ROUNDED_TO = 1e-6, 1e-12


def try_out(micro: MicroModel, batch: Batch) -> None:
    """Ask a few cells of a batch, alone and together, twice, and from a state saved and restored.

    Args:
        micro: the model.
        batch: the cells of this rank at the start, of which a few are taken; it may be empty.
    Raises:
        MicroError: what the model declares is not what it does; the text names it.
        ShapeError: an array has the wrong shape or type.
    """
    micro = micro.alone()
    name = type(micro).__name__
    _check_declaration(micro, name)
    if batch.ncells == 0:
        return
    some = batch.take(np.unique(np.linspace(0, batch.ncells - 1, MOST_CELLS).astype(np.int64)))
    given = some.inputs.copy(), some.state.copy()
    first = _ask(micro, some, name)
    _check_solved(some, first, name)
    _check_ranges(micro.outputs, some, first, name)
    _check_conserved(micro, some.inputs, first.outputs, name)
    if not (_same(some.inputs, given[0]) and _same(some.state, given[1])):
        raise MicroError(
            f"{name}.evaluate must not change its arguments, but batch.inputs or batch.state was changed; "
            "copy them before writing"
        )
    again = _ask(micro, _restored(some), name)
    _compare(first, again, f"{name} must give the same answer twice for the same inputs and a restored state")
    _check_alone(micro, _told_apart(micro, some), name)


def _told_apart(micro: MicroModel, batch: Batch) -> Batch:
    """The same cells with inputs that differ a little, within their ranges: equal cells hide a lot."""
    inputs = batch.inputs * (1.0 + NUDGE * np.arange(batch.ncells))
    for field, row in rows_of(micro.inputs).items():
        declared = next(f for f in micro.inputs if f.name == field)
        inputs[row] = np.clip(inputs[row], declared.lower, declared.upper)
    return replace(batch, inputs=inputs)


def _check_alone(micro: MicroModel, batch: Batch, name: str) -> None:
    """A cell alone gets bit by bit what it gets inside a batch, its status included."""
    together = _ask(micro, batch, name)
    for cell in range(batch.ncells):
        alone = _ask(micro, batch.take(np.array([cell])), name)
        part = Answer(together.outputs[:, [cell]], together.state[:, [cell]], together.status[[cell]])
        _compare(part, alone, f"{name} must answer a cell alone as inside a batch (cell {batch.ids[cell]})")


def _check_declaration(micro: MicroModel, name: str) -> None:
    for what in ("inputs", "outputs"):
        if not getattr(micro, what, ()):
            raise MicroError(f"{name}.{what} must declare at least one Field, got none; add it to the class")
    if micro.history not in get_args(History):
        raise MicroError(
            f"{name}.history must be one of {', '.join(get_args(History))}, got {micro.history!r}; correct it"
        )
    if micro.state and micro.history == "none":
        raise MicroError(
            f"{name}.history must be 'liftable' or 'full' for a model with state, got 'none'; declare it"
        )


def _ask(micro: MicroModel, batch: Batch, name: str) -> Answer:
    answer = micro.evaluate(batch)
    if not isinstance(answer, Answer):
        raise MicroError(f"{name}.evaluate must return an Answer, got {type(answer).__name__}; return one")
    check_array(micro.outputs, answer.outputs, batch.ncells, f"outputs of {name}")
    check_array(micro.state, answer.state, batch.ncells, f"state of {name}")
    _check_per_cell(answer.status, "iu", batch.ncells, f"status of {name} must be whole numbers")
    for what in ("cost", "residual"):
        _check_per_cell(getattr(answer, what), "f", batch.ncells, f"{what} of {name} must be real numbers")
    return answer


def _check_per_cell(values: object, kinds: str, ncells: int, rule: str) -> None:
    if not isinstance(values, np.ndarray) or values.shape != (ncells,) or values.dtype.kind not in kinds:
        shown = f"{values.dtype} {values.shape}" if isinstance(values, np.ndarray) else type(values).__name__
        raise MicroError(
            f"{rule} in an array of shape ({ncells},), got {shown}; return one per cell (status 0 if good)"
        )


def _check_solved(batch: Batch, answer: Answer, name: str) -> None:
    if answer.status.any():
        cell = int(np.flatnonzero(answer.status)[0])
        raise MicroError(
            f"{name} must solve some cells before a run starts, got status {answer.status[cell]} for "
            f"cell {batch.ids[cell]} (inputs {_shown(batch.inputs[:, cell])}); check inputs and parameters"
        )
    for what in ("outputs", "state"):
        bad = np.flatnonzero(~np.isfinite(getattr(answer, what)).all(axis=0))
        if bad.size:
            raise MicroError(
                f"{what} of {name} must be finite where the status is 0, got "
                f"{_shown(getattr(answer, what)[:, bad[0]])} for cell {batch.ids[bad[0]]} (inputs "
                f"{_shown(batch.inputs[:, bad[0]])}); check inputs and parameters"
            )


def _check_ranges(outputs, batch: Batch, answer: Answer, name: str) -> None:
    """A wrong sign or unit of a user's model would only show as a macro field that grows without end."""
    wrong = np.flatnonzero(~within_bounds(outputs, answer.outputs))
    if wrong.size:
        cell = wrong[0]
        ranges = ", ".join(f"{f.name} from {f.lower:g} to {f.upper:g}" for f in outputs)
        raise MicroError(
            f"outputs of {name} must lie within the ranges that it declares ({ranges}), got "
            f"{_shown(answer.outputs[:, cell])} for cell {batch.ids[cell]} (inputs "
            f"{_shown(batch.inputs[:, cell])}); correct the model, its parameters or the ranges"
        )


def _check_conserved(micro: MicroModel, inputs: np.ndarray, outputs: np.ndarray, name: str) -> None:
    """Whether the sums that the model declares have the right shapes, and its own answers keep them."""
    declared = micro.conserved(inputs)
    if declared is None:
        return
    sums, totals = (np.asarray(part, dtype=float) for part in declared)
    noutput, ncells = outputs.shape
    if sums.ndim != 2 or sums.shape[1] != noutput or totals.shape != (sums.shape[0], ncells):
        raise MicroError(
            f"{name}.conserved must return A of shape (nsum, {noutput}) and b of shape (nsum, {ncells}), got "
            f"{sums.shape} and {totals.shape}; give one column per output, and one total per sum and cell"
        )
    apart = np.abs(sums @ outputs - totals)
    allowed = CONSERVED_TO * (np.abs(sums) @ np.abs(outputs) + np.abs(totals))
    # Differences of numbers around 1 are rounded like those, however small they are.
    allowed += ROUNDED_TO * np.abs(sums).sum(axis=1)[:, None]
    if (apart > allowed).any():
        row, cell = np.argwhere(apart > allowed)[0]
        raise MicroError(
            f"{name} must keep the sums that its 'conserved' declares, got {(sums @ outputs)[row, cell]:.9g} "
            f"instead of {totals[row, cell]:.9g} in sum {row} (inputs {_shown(inputs[:, cell])}); correct it"
        )


def _restored(batch: Batch) -> Batch:
    """The batch after a trip through bytes, as a checkpoint makes it."""
    state = np.frombuffer(batch.state.tobytes()).reshape(batch.state.shape).copy()
    inputs = np.frombuffer(batch.inputs.tobytes()).reshape(batch.inputs.shape).copy()
    return Batch(batch.ids.copy(), inputs, state, batch.time, batch.dt, batch.step, batch.iteration)


def _same(a: np.ndarray, b: np.ndarray) -> bool:
    return a.shape == b.shape and a.tobytes() == b.tobytes()


def _compare(first: Answer, second: Answer, rule: str) -> None:
    for what in ("outputs", "state", "status"):
        a, b = np.asarray(getattr(first, what)), np.asarray(getattr(second, what))
        if not _same(np.ascontiguousarray(a), np.ascontiguousarray(b)):
            largest = np.max(np.abs(a - b)) if a.shape == b.shape and a.size else np.nan
            raise MicroError(
                f"{rule}, but its {what} differ by up to {largest:.1e}; keep everything a cell remembers in "
                "its state, and sum in an order that does not depend on the batch"
            )


def _shown(values: np.ndarray) -> str:
    return ", ".join(f"{value:.6g}" for value in values)
