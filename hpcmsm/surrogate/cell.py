"""The cell problem of heat conduction in torch: energy, residual and projections on periodic square grids.

Finite volumes as in kernels/unit_cell.c for images: conductivities of points, harmonic means on the faces
between them, correctors chi_j with div k (e_j + grad chi_j) = 0. Batches are (n, ...), lengths are those of
a point: grad is a difference.
"""

from __future__ import annotations

from typing import NamedTuple

import torch


class Faces(NamedTuple):
    """Conductivities (n, ny, nx) of the faces to the right of and above each point."""

    x: torch.Tensor
    y: torch.Tensor


def faces(k: torch.Tensor) -> Faces:
    """Harmonic means of the conductivities k (n, ny, nx) of points."""
    resistance = 1.0 / k
    return Faces(*(2.0 / (resistance + torch.roll(resistance, -1, axis)) for axis in (-1, -2)))


def gradient(u: torch.Tensor) -> torch.Tensor:
    """Differences (..., 2, ny, nx) across the faces right of and above each point of u (..., ny, nx)."""
    return torch.stack([torch.roll(u, -1, axis) - u for axis in (-1, -2)], dim=-3)


def adjoint(q: torch.Tensor) -> torch.Tensor:
    """The adjoint of `gradient`, minus the divergence: (..., 2, ny, nx) to (..., ny, nx)."""
    x, y = q.unbind(-3)
    return torch.roll(x, 1, -1) - x + torch.roll(y, 1, -2) - y


def inverse_laplacian(r: torch.Tensor) -> torch.Tensor:
    """u of mean zero with adjoint(gradient(u)) = r, for r (..., ny, nx) of mean zero."""
    ny, nx = r.shape[-2:]
    wave = [2.0 - 2.0 * torch.cos(2.0 * torch.pi * torch.arange(n, dtype=r.dtype) / n) for n in (ny, nx)]
    symbol = wave[0][:, None] + wave[1][None, : nx // 2 + 1]
    symbol[0, 0] = torch.inf
    return torch.fft.irfft2(torch.fft.rfft2(r) / symbol, s=(ny, nx))


def flux(k: Faces, chi: torch.Tensor) -> torch.Tensor:
    """k (e_j + grad chi_j) for correctors (n, 2, ny, nx): (n, load, 2, ny, nx)."""
    eye = torch.eye(2, dtype=chi.dtype)[:, :, None, None]
    return torch.stack(k, dim=1)[:, None] * (gradient(chi) + eye)


def energy(k: Faces, chi: torch.Tensor) -> torch.Tensor:
    """K (n, 2, 2) from correctors, right or not: a quadratic upper bound of the true tensor."""
    strain = gradient(chi) + torch.eye(2, dtype=chi.dtype)[:, :, None, None]
    q = torch.stack(k, dim=1)[:, None] * strain
    return torch.einsum("niayx,njayx->nij", strain, q) / (chi.shape[-1] * chi.shape[-2])


def residual(k: Faces, chi: torch.Tensor) -> torch.Tensor:
    """What the correctors leave of their equations, (n, 2, ny, nx)."""
    return adjoint(flux(k, chi))


def excess(k: Faces, chi: torch.Tensor) -> torch.Tensor:
    """eta (n, 2, 2) = <r_i, laplacian^-1 r_j>: K of `energy` exceeds the truth by eta/k of some k.

    As quadratic forms eta / k_max <= K - K_true <= eta / k_min with the extreme conductivities of the cell:
    the error's energy is <r, A^-1 r>, and k_min laplacian <= A <= k_max laplacian.
    """
    r = residual(k, chi)
    return torch.einsum("niyx,njyx->nij", r, inverse_laplacian(r)) / (chi.shape[-1] * chi.shape[-2])
