"""`Fno`: a Fourier neural operator from the image of a cell to its correctors, and K from their energy."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch

from hpcmsm.surrogate.cell import adjoint, energy, excess, faces, inverse_laplacian
from hpcmsm.surrogate.image import ImageSurrogate, outside

WIDTH, MODES, LAYERS = 12, 6, 3


class Spectral(torch.nn.Module):
    """Weights for the lowest waves of every channel."""

    def __init__(self):
        super().__init__()
        shape = (WIDTH, WIDTH, 2 * MODES, MODES, 2)
        self.weights = torch.nn.Parameter(torch.zeros(shape))
        self.weights.spectral = True

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Channels (n, width, ny, nx) to the same shape."""
        waves = torch.fft.rfft2(x, norm="forward")
        rows, columns = min(MODES, x.shape[-2] // 2), min(MODES, x.shape[-1] // 2)
        lowest = torch.cat([waves[:, :, :rows, :columns], waves[:, :, -rows:, :columns]], dim=2)
        weights = torch.view_as_complex(self.weights)
        weights = torch.cat([weights[:, :, :rows, :columns], weights[:, :, -rows:, :columns]], dim=2)
        changed = torch.einsum("ncyx,cdyx->ndyx", lowest, weights)
        full = torch.zeros_like(waves)
        full[:, :, :rows, :columns], full[:, :, -rows:, :columns] = changed[:, :, :rows], changed[:, :, rows:]
        return torch.fft.irfft2(full, s=x.shape[-2:], norm="forward")


class Operator(torch.nn.Module):
    """Fourier layers, then a pointwise network that also sees the image: a field q for each load.

    Source: Li and others 2021, arXiv 2010.08895.
    """

    def __init__(self):
        super().__init__()
        self.lift = torch.nn.Conv2d(3, WIDTH, 1)
        self.spectral = torch.nn.ModuleList(Spectral() for _ in range(LAYERS))
        self.local = torch.nn.ModuleList(torch.nn.Conv2d(WIDTH, WIDTH, 1) for _ in range(LAYERS))
        self.mix = torch.nn.Conv2d(WIDTH + 3, 2 * WIDTH, 1)
        self.last = torch.nn.Conv2d(2 * WIDTH, 4, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """q (n, load, 2, ny, nx) for images (n, 1, ny, nx) of ln(k / k0)."""
        # The faces of a point look to its neighbours, too.
        seen = torch.cat([images, torch.roll(images, -1, -1), torch.roll(images, -1, -2)], dim=1)
        x = self.lift(seen)
        for spectral, local in zip(self.spectral, self.local, strict=True):
            x = torch.nn.functional.gelu(spectral(x) + local(x))
        q = self.last(torch.nn.functional.gelu(self.mix(torch.cat([x, seen], dim=1))))
        return q.reshape(len(q), 2, 2, *q.shape[-2:])


class Fno(ImageSurrogate):
    """Correctors chi_j = laplacian^-1 div q_j of a Fourier neural operator's fields q_j.

    The field is compatible by construction, and its energy an upper bound of K, whose error is quadratic in
    that of the field. Training minimises this energy and needs no true answers for that. What the field
    leaves of its equations bounds the error of the energy from both sides (`cell.excess`); the score is the
    geometric mean of these bounds, relative to K. True answers say what part of it the error is on the
    average: that much is taken off the energy.
    """

    EXTRA: ClassVar = {"part": (1,)}

    def _network(self) -> torch.nn.Module:
        return Operator()

    def correctors(self, k: torch.Tensor) -> torch.Tensor:
        """chi (n, 2, ny, nx) of mean zero, in points, for conductivities k (n, ny, nx)."""
        images, _ = self.look(k)
        return inverse_laplacian(adjoint(self.network(images.float()))).to(k.dtype)

    def warm_start(self, inputs: np.ndarray) -> np.ndarray:
        """Correctors (n, 2, ny, nx) for a solver of div k (e_j + grad chi_j) = 0 to begin with; in points."""
        k = torch.from_numpy(self._images(np.ascontiguousarray(inputs, dtype=float)))
        size = 1 if self.alone else len(k)
        with torch.no_grad():
            return torch.cat([self.correctors(part) for part in k.split(max(1, size))]).numpy()

    def _tell(self, k):
        chi, between = self.correctors(k), faces(k)
        tensor, eta = energy(between, chi), excess(between, chi)
        lowest, highest = extremes(between)
        middle = torch.sqrt(lowest * highest)
        tensor = tensor - float(self.arrays["part"][0]) * eta / middle[:, None, None]
        told = torch.stack([tensor[:, 0, 0], tensor[:, 1, 1], tensor[:, 0, 1]], dim=1)
        trace = eta[:, 0, 0] + eta[:, 1, 1]
        return told, trace / (middle * (told[:, 0] + told[:, 1]))

    def _after(self, k, truth):
        """The part of the score by which energies are too large, by least squares."""
        self.arrays["part"] = np.zeros(1)
        with torch.no_grad():
            pairs = [self._tell(part) for part in k.split(64)]
        told, score = (torch.cat(parts) for parts in zip(*pairs, strict=True))
        truth = truth * self.look(k)[1][:, None]
        error = (told[:, :2].sum(dim=1) - truth[:, :2].sum(dim=1)) / told[:, :2].sum(dim=1)
        return {"part": np.array([float((score * error).sum() / (score * score).sum())])}

    def error_bounds(self, inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Between what the trace of the energy exceeds that of K, in W/(m K), (n,) each: exact bounds."""
        k = torch.from_numpy(self._images(np.ascontiguousarray(inputs, dtype=float)))
        with torch.no_grad():
            between = faces(k)
            eta = excess(between, self.correctors(k))
            lowest, highest = extremes(between)
            trace = eta[:, 0, 0] + eta[:, 1, 1]
            return (trace / highest).numpy(), (trace / lowest).numpy()

    def _loss(self, k, truth):
        _, reference = self.look(k)
        tensor = energy(faces(k / reference[:, None, None]), self.correctors(k))
        loss = tensor[:, 0, 0] + tensor[:, 1, 1]
        if self.bounds:
            told = torch.stack([tensor[:, 0, 0], tensor[:, 1, 1], tensor[:, 0, 1]], dim=1)
            loss = loss + self.bounds * outside(told, k, reference)
        return loss


def extremes(between) -> tuple[torch.Tensor, torch.Tensor]:
    """Smallest and largest conductivity (n,) of all faces."""
    both = torch.stack(between, dim=1).flatten(1)
    return both.amin(dim=1), both.amax(dim=1)
