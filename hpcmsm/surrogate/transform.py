"""How outputs are written down for learning: tensors as Cholesky factors, everything centred and scaled.

A symmetric positive definite K is learnt as K = L D L' with ln D and the entries of L below its unit
diagonal. They are dimensionless or logarithms, so one scale suits all of them, and whatever a network
says, K is symmetric positive definite. Other fields are learnt as they are.
"""

from __future__ import annotations

import numpy as np

from hpcmsm.errors import SurrogateError
from hpcmsm.fields import Field, rows_of

# Kinds of output fields; the kernel knows the same numbers.
LINEAR, TENSOR_2D, TENSOR_3D = 0, 1, 2

# What varies by less than this part of itself is not blown up to full scale: it may be only noise.
SMALLEST_VARIATION = 1e-3

# Entries off a tensor's diagonal below this part of the error that is small enough are rounding of a zero.
NEGLIGIBLE = 1e-2


def kind_of(field: Field) -> int:
    """LINEAR, TENSOR_2D or TENSOR_3D."""
    if not field.spd:
        return LINEAR
    return TENSOR_2D if field.size == 3 else TENSOR_3D


def encode(fields: tuple[Field, ...], outputs: np.ndarray, checked: bool = True) -> np.ndarray:
    """Outputs (noutput, n) in the form in which they are learnt, same shape.

    Raises:
        SurrogateError: where checked: a value is not finite, or a tensor is not positive definite.
    """
    if checked:
        _require(np.isfinite(outputs).all(axis=0), "outputs to learn from must be finite", outputs)
    learnt = np.array(outputs)
    for field, row in zip(fields, rows_of(fields).values(), strict=True):
        if field.spd:
            learnt[row] = _factor_2d(outputs[row]) if field.size == 3 else _factor_3d(outputs[row])
            if checked:
                text = f"field '{field.name}' to learn from must be positive definite"
                _require(np.isfinite(learnt[row]).all(axis=0), text, outputs[row])
    return learnt


def decode(fields: tuple[Field, ...], learnt: np.ndarray) -> np.ndarray:
    """The inverse of `encode`. The kernel does the same; this is for looking at single members."""
    outputs = np.array(learnt)
    for field, row in zip(fields, rows_of(fields).values(), strict=True):
        if field.spd:
            outputs[row] = _compose_2d(learnt[row]) if field.size == 3 else _compose_3d(learnt[row])
    return outputs


def _factor_2d(k: np.ndarray) -> np.ndarray:
    xx, yy, xy = k
    with np.errstate(divide="ignore", invalid="ignore"):
        l21 = xy / xx
        return np.array([np.log(xx), np.log(yy - l21 * xy), l21])


def _factor_3d(k: np.ndarray) -> np.ndarray:
    xx, yy, zz, yz, xz, xy = k
    with np.errstate(divide="ignore", invalid="ignore"):
        l21, l31 = xy / xx, xz / xx
        d2 = yy - l21 * xy
        rest = yz - l31 * xy
        l32 = rest / d2
        d3 = zz - l31 * xz - l32 * rest
        return np.array([np.log(xx), np.log(d2), np.log(d3), l32, l31, l21])


def _compose_2d(z: np.ndarray) -> np.ndarray:
    d1, d2, l21 = np.exp(z[0]), np.exp(z[1]), z[2]
    return np.array([d1, d2 + l21**2 * d1, l21 * d1])


def _compose_3d(z: np.ndarray) -> np.ndarray:
    d1, d2, d3 = np.exp(z[:3])
    l32, l31, l21 = z[3:]
    xy, xz = l21 * d1, l31 * d1
    return np.array([d1, d2 + l21 * xy, d3 + l31 * xz + l32**2 * d2, l31 * xy + l32 * d2, xz, xy])


def _require(good: np.ndarray, rule: str, values: np.ndarray) -> None:
    if not good.all():
        first = int(np.argmin(good))
        got = ", ".join(f"{value:g}" for value in values[:, first])
        raise SurrogateError(
            f"{rule}, got ({got}) in sample {first}; keep answers of cells that failed out of the samples"
        )


def silenced(fields: tuple[Field, ...], learnt: np.ndarray, goal: float) -> tuple[np.ndarray, np.ndarray]:
    """Encoded outputs with zeros for what is only rounding of them, and which rows never change, (noutput,).

    A surrogate answers such a row with its exact value: solvers of the macro equation are simpler where
    tensors are diagonal. Where no row changes, none counts as such: something must be learnt.
    """
    learnt = np.array(learnt)
    for field, row in zip(fields, rows_of(fields).values(), strict=True):
        if field.spd:
            off_diagonal = learnt[row][2 if field.size == 3 else 3 :]
            off_diagonal[np.abs(off_diagonal).max(axis=1) <= NEGLIGIBLE * goal] = 0.0
    silent = (learnt == learnt[:, :1]).all(axis=1)
    return learnt, silent & ~silent.all()


def input_scaling(fields: tuple[Field, ...], inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of inputs (ninput, n); what hardly varies gets a scale of its size."""
    size = np.abs(inputs).max(axis=1)
    least = np.where(size > 0.0, size, 1.0) * SMALLEST_VARIATION  # what is always 0 may have any scale
    for field, row in zip(fields, rows_of(fields).values(), strict=True):
        if np.isfinite(field.upper - field.lower):
            least[row] = (field.upper - field.lower) * SMALLEST_VARIATION
    return inputs.mean(axis=1), np.maximum(inputs.std(axis=1), least)


def output_scaling(fields: tuple[Field, ...], learnt: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean of each row of encoded outputs (noutput, n), and one scale for all rows of a field.

    With one scale, the mean square of all rows is close to the square of the field's misfit.
    """
    # The mean of equal numbers may differ from them by rounding.
    constant = (learnt == learnt[:, :1]).all(axis=1)
    mean, scale = np.where(constant, learnt[:, 0], learnt.mean(axis=1)), np.empty(learnt.shape[0])
    for field, row in zip(fields, rows_of(fields).values(), strict=True):
        size = 1.0 if field.spd else max(root_mean_square(learnt[row]), np.finfo(float).tiny)
        scale[row] = max(learnt[row].std(axis=1).max(), size * SMALLEST_VARIATION)
    return mean, scale


def root_mean_square(rows: np.ndarray) -> float:
    """Of the length of a field's vector in each cell, over the cells."""
    return float(np.sqrt((rows * rows).sum(axis=0).mean()))


def field_scales(fields: tuple[Field, ...], outputs: np.ndarray) -> np.ndarray:
    """Size of every field (nfield,) in which misfits are measured: its root mean square, 1 for a tensor."""
    scales = np.ones(len(fields))
    for number, (field, row) in enumerate(zip(fields, rows_of(fields).values(), strict=True)):
        if not field.spd:
            scales[number] = root_mean_square(outputs[row]) or 1.0
    return scales


def misfit(
    fields: tuple[Field, ...], scales: np.ndarray, predicted: np.ndarray, truth: np.ndarray
) -> np.ndarray:
    """Relative error of each cell (n,): the largest over the fields, see `Surrogate`."""
    worst = np.zeros(predicted.shape[1])
    for number, (field, row) in enumerate(zip(fields, rows_of(fields).values(), strict=True)):
        apart = _length(field, predicted[row] - truth[row])
        whole = size(field, scales[number], predicted[row])
        with np.errstate(divide="ignore", invalid="ignore"):
            worst = np.maximum(worst, apart / whole)  # a NaN wins
    return worst


def size(field: Field, scale: float, predicted: np.ndarray) -> np.ndarray:
    """What errors of a field (size, n) are relative to (n,): a tensor's own size, any other's scale."""
    return _length(field, predicted) if field.spd else np.full(predicted.shape[1], scale)


def _length(field: Field, rows: np.ndarray) -> np.ndarray:
    """Frobenius norm of a tensor, Euclidean norm of any other field; added up row by row."""
    ndiagonal = {LINEAR: field.size, TENSOR_2D: 2, TENSOR_3D: 3}[kind_of(field)]
    total = np.zeros(rows.shape[1])
    for number, row in enumerate(rows):
        total += (1.0 if number < ndiagonal else 2.0) * row * row
    return np.sqrt(total)


def deviation(
    fields: tuple[Field, ...], scales: np.ndarray, learnt: np.ndarray, deviations: np.ndarray
) -> np.ndarray:
    """Size in the norm of `misfit` (n,) of independent deviations (noutput or 1, n) of encoded outputs.

    The root of the summed squares of what each deviation alone moves; infinite where one is not finite.
    """
    known = np.isfinite(deviations).all(axis=0)
    steps = np.where(known, deviations, 0.0)
    middle, total = decode(fields, learnt), np.zeros(learnt.shape[1])
    for row in range(learnt.shape[0]):
        moved = learnt.copy()
        moved[row] += steps[min(row, len(steps) - 1)]
        moved = misfit(fields, scales, middle, decode(fields, moved))
        total += moved * moved
    return np.where(known, np.sqrt(total), np.inf)
