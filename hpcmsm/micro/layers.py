"""Layers normal to x of two phases with full tensors: their cell problem has a solution on paper."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hpcmsm.micro.cell_problem import Solution
from hpcmsm.micro.tensors import PAIRS, components_of, matrices


class LayerProblem:
    """In place of a `CellProblem` where a laminate's phases are turned: exact for any fraction.

    In each layer the gradient is constant, e_j plus a part along x that makes the flux through all layers
    the same.

    Args:
        ndim: dimensions of the tensors.
    Attributes:
        nstate: numbers of a cell's state; there is no start to be found.
    """

    nstate = 1

    def __init__(self, ndim: int):
        self.ndim = ndim

    def solve(
        self,
        phases: np.ndarray,
        fraction: np.ndarray,
        before: np.ndarray | None = None,
        also: Sequence[str] = (),
    ) -> Solution:
        """K of cells, see `CellProblem.solve`; phases (ncomponent, 2, n), fraction (n,) of the second."""
        full, ncells = matrices(phases), phases.shape[-1]
        good = np.isfinite(full).all(axis=(0, 2, 3)) & (fraction >= 0) & (fraction <= 1)
        full = np.where(good[:, None, None], full, np.eye(self.ndim))
        good &= (np.linalg.eigvalsh(full) > 0).all(axis=(0, 2))
        full = np.where(good[:, None, None], full, np.eye(self.ndim))
        share = np.where(good, fraction, 0.0)
        shares = np.stack([1.0 - share, share])
        gradient = self._gradients(full, shares)
        k = np.einsum("pn,pnai,pnab,pnbj->nij", shares, gradient, full, gradient)
        found = {"tangent": self._tangent(gradient, shares), "state": np.zeros((self.nstate, ncells))}
        return Solution(
            np.where(good, components_of(k), np.nan),
            np.zeros(ncells),
            np.zeros(ncells, np.int32),
            np.where(good, 0, 2).astype(np.int32),
            **{name: np.where(good | (name == "state"), found[name], np.nan) for name in also},
        )

    def _gradients(self, full: np.ndarray, shares: np.ndarray) -> np.ndarray:
        """Of each load j in each phase, shape (nphase, n, axis, j)."""
        normal, mixed = full[:, :, 0, 0], full[:, :, 0, :]
        resistance = (shares / normal).sum(axis=0)
        flux = (shares[..., None] * mixed / normal[..., None]).sum(axis=0) / resistance[:, None]
        gradient = np.tile(np.eye(self.ndim), (*normal.shape, 1, 1))
        gradient[:, :, 0, :] += (flux - mixed) / normal[..., None]
        return gradient

    def _tangent(self, gradient: np.ndarray, shares: np.ndarray) -> np.ndarray:
        """dK by the components of each phase, shape (ncomponent, nphase, ncomponent, n)."""
        slopes = []
        for a, b in PAIRS[self.ndim]:
            product = gradient[:, :, a, :, None] * gradient[:, :, b, None, :]
            if a != b:
                product = product + np.swapaxes(product, 2, 3)
            slopes.append(np.moveaxis(components_of(shares[:, :, None, None] * product), 0, 1))
        return np.stack(slopes)
