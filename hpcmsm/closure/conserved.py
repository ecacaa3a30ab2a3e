"""Projection of a surrogate's answers onto the sums that the micro model keeps exactly.

The nearest point of A y = b, where each output is weighed by the inverse of its own size: what is
large takes the large part of the correction, and a trace stays a trace. For a single sum of positive
fractions this is the division by their sum.
"""

from __future__ import annotations

import numpy as np
from scipy.linalg import qr

# Smallest weight of an output in a cell, as a part of that cell's largest: nothing may become rigid.
LEAST_SHARE = 1e-9
# A row of A that is this near to the others adds nothing to them.
DEPENDENT = 1e-10


def project(outputs: np.ndarray, sums: np.ndarray, totals: np.ndarray) -> np.ndarray:
    """The answers nearest to `outputs` with sums @ answers = totals, shape (noutput, n).

    Cells with values that are not finite stay as they are. A column of the result depends on that
    column alone, to the bit.

    Args:
        outputs: shape (noutput, n).
        sums: shape (nsum, noutput); a row that follows from the others is left aside.
        totals: shape (nsum, n).
    """
    sums, totals = _independent(sums, totals)
    fine = np.isfinite(outputs).all(axis=0) & np.isfinite(totals).all(axis=0)
    if not sums.size or not fine.any():
        return outputs
    answers = outputs.copy()
    share = np.abs(outputs[:, fine])
    share = np.maximum(share, LEAST_SHARE * np.maximum(share.max(axis=0), np.finfo(float).tiny ** 0.5))
    matrix = _normal_matrix(sums, share)
    wanted = np.ascontiguousarray(totals[:, fine])
    part = np.ascontiguousarray(outputs[:, fine])
    for _ in range(2):  # the second time for what was rounded in the first
        multipliers = np.linalg.solve(matrix, (wanted - _times(sums, part)).T[:, :, None])[:, :, 0].T
        part += share * _times(sums.T, np.ascontiguousarray(multipliers))
    answers[:, fine] = part
    return answers


def _independent(sums: np.ndarray, totals: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows that do not follow from others, each scaled to a largest entry of 1."""
    size = np.abs(sums).max(axis=1, initial=0.0)
    sums, totals = sums[size > 0] / size[size > 0, None], totals[size > 0] / size[size > 0, None]
    if not sums.size:
        return sums, totals
    _, triangle, order = qr(sums.T, mode="economic", pivoting=True)
    diagonal = np.abs(np.diag(triangle))
    rows = np.sort(order[: int((diagonal > DEPENDENT * diagonal[0]).sum())])
    return sums[rows], totals[rows]


def _times(matrix: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """matrix @ columns (m, n), added up entry by entry so that no column knows of the others."""
    result = np.zeros((matrix.shape[0], columns.shape[1]))
    for row, entries in zip(result, matrix, strict=True):
        for number in np.flatnonzero(entries):
            row += entries[number] * columns[number]
    return result


def _normal_matrix(sums: np.ndarray, share: np.ndarray) -> np.ndarray:
    """sums @ diag(share) @ sums.T of every cell, shape (n, nsum, nsum)."""
    nsum = len(sums)
    matrix = np.empty((share.shape[1], nsum, nsum))
    for first in range(nsum):
        for second in range(first + 1):
            entries = _times((sums[first] * sums[second])[None], share)[0]
            matrix[:, first, second] = matrix[:, second, first] = entries
    return matrix
