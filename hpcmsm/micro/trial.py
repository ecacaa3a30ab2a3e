"""One trial call before the first step: does a micro model keep what it declares?"""

from __future__ import annotations

import numpy as np

from hpcmsm.batch import Answer, Batch
from hpcmsm.errors import MicroError
from hpcmsm.fields import check_array
from hpcmsm.micro.base import MicroModel

MOST_CELLS = 5


def try_out(micro: MicroModel, batch: Batch) -> None:
    """Ask a few cells of a batch, alone and together, twice, and from a state saved and restored.

    Raises:
        MicroError: what the model declares is not what it does; the text names it.
        ShapeError: an array has the wrong shape or type.
    """
    name = type(micro).__name__
    _check_declaration(micro, name)
    some = batch.take(np.arange(min(MOST_CELLS, batch.ncells)))
    given = some.inputs.copy(), some.state.copy()
    first = _ask(micro, some, name)
    if not (_same(some.inputs, given[0]) and _same(some.state, given[1])):
        raise MicroError(
            f"{name}.evaluate must not change its arguments, but batch.inputs or batch.state was changed; "
            "copy them before writing"
        )
    again = _ask(micro, _restored(some), name)
    _compare(first, again, f"{name} must give the same answer twice for the same inputs and a restored state")
    for cell in range(some.ncells):
        alone = _ask(micro, some.take(np.array([cell])), name)
        part = Answer(first.outputs[:, [cell]], first.state[:, [cell]], first.status[[cell]])
        _compare(part, alone, f"{name} must answer a cell alone as inside a batch (cell {some.ids[cell]})")


def _check_declaration(micro: MicroModel, name: str) -> None:
    for what in ("inputs", "outputs"):
        if not getattr(micro, what, ()):
            raise MicroError(f"{name}.{what} must declare at least one Field, got none; add it to the class")
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
    status = np.asarray(answer.status)
    if status.shape != (batch.ncells,) or status.dtype.kind not in "iu":
        raise MicroError(
            f"status of {name} must be whole numbers of shape ({batch.ncells},), got {status.dtype} "
            f"{status.shape}; return 0 for every good cell"
        )
    if status.any():
        cell = int(np.flatnonzero(status)[0])
        raise MicroError(
            f"{name} must solve the first cells before a run starts, got status {status[cell]} for cell "
            f"{batch.ids[cell]} (inputs {_shown(batch.inputs[:, cell])}); check inputs and parameters"
        )
    return answer


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

