"""Twin of kernels/unit_cell_tensor.c: cell problems with full tensors by a direct solve.

Nothing is eliminated: values at the middles of pixels and at the joints are unknowns of one sparse matrix.
"""

import itertools

import numpy as np
import scipy.sparse
import scipy.sparse.linalg
from oracles import pairs


def matrices(components):
    """Tensors (..., ndim, ndim) from components (..., ncomponent)."""
    ndim = {3: 2, 6: 3}[components.shape[-1]]
    full = np.empty((*components.shape[:-1], ndim, ndim))
    for number, (i, j) in enumerate(pairs(ndim)):
        full[..., i, j] = full[..., j, i] = components[..., number]
    return full


def components(full):
    """The inverse of `matrices`."""
    return np.stack([full[..., i, j] for i, j in pairs(full.shape[-1])], axis=-1)


def tensor_solution(labels, phases):
    """K by component, and chi (ndim, *points), of one cell.

    Args:
        labels: phase of each point [y, x] or [z, y, x], n a side.
        phases: components of the tensor of each phase, shape (nphase, ncomponent).
    """
    n, ndim = labels.shape[0], labels.ndim
    points = np.arange(labels.size).reshape(labels.shape)
    k = matrices(np.asarray(phases, float))[labels.ravel()]
    # A gradient operator for every corner of a pixel: rows are axes, G u + e_j.
    energy, operators = 0, []
    for corner in itertools.product((0, 1), repeat=ndim):  # whether on the far side, along x, y[, z]
        rows = []
        for axis, far in enumerate(corner):
            joint = _joint(points, corner, axis, n, ndim)
            middle = scipy.sparse.identity(labels.size, format="csr")
            unknowns = 2 * (1 if far else -1)
            rows.append((unknowns, middle, joint))
        operators.append(rows)
    nunknown = labels.size * (1 + ndim * 2 ** (ndim - 1))
    gradients = []
    for rows in operators:
        gradients.append([_operator(sign, joint, labels.size, nunknown) for sign, _, joint in rows])
    load = np.zeros((nunknown, ndim))
    for g in gradients:
        for a, b in itertools.product(range(ndim), repeat=2):
            weight = scipy.sparse.diags(k[:, a, b] / 2**ndim)
            energy = energy + g[a].T @ weight @ g[b]
            load[:, b] -= g[a].T @ (k[:, a, b] / 2**ndim)
    u = np.zeros((nunknown, ndim))
    u[1:] = scipy.sparse.linalg.spsolve(energy.tocsc()[1:, 1:], load[1:])
    result = np.zeros((ndim, ndim))
    for g in gradients:
        total = np.stack([np.stack([g[a] @ u[:, j] + (a == j) for a in range(ndim)]) for j in range(ndim)])
        result += np.einsum("pab,jbp->aj", k, total) / 2**ndim / labels.size
    return components(result), u[: labels.size].T.reshape(ndim, *labels.shape)


def _joint(points, corner, axis, n, ndim):
    """Number of the joint of each pixel's part at a corner, along an axis.

    A face has 2^(ndim - 1) joints; it belongs to the pixel before it.
    """
    owner = points if corner[axis] else np.roll(points, 1, ndim - 1 - axis)
    rest = [side for other, side in enumerate(corner) if other != axis]
    which = sum(side << place for place, side in enumerate(rest))
    per_axis = points.size * 2 ** (ndim - 1)
    return points.size + axis * per_axis + which * points.size + owner.ravel()


def _operator(sign, joint, npoint, nunknown):
    rows = np.arange(npoint)
    return scipy.sparse.csr_matrix((np.full(npoint, 1.0 * sign), (rows, joint)), (npoint, nunknown)) - (
        scipy.sparse.csr_matrix((np.full(npoint, 1.0 * sign), (rows, rows)), (npoint, nunknown))
    )
