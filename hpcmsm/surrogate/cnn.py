"""`Cnn`: a convolutional network from the image of a cell to its conductivity."""

from __future__ import annotations

from itertools import pairwise
from typing import ClassVar

import numpy as np
import torch

from hpcmsm.surrogate.image import ImageSurrogate, outside
from hpcmsm.surrogate.laplace import posterior_factor

CHANNELS = (12, 24, 24)


class Convolutions(torch.nn.Module):
    """Periodic convolutions and two halvings of the image, then means over it and one linear layer."""

    def __init__(self):
        super().__init__()
        widths = (1, *CHANNELS)
        self.layers = torch.nn.ModuleList(
            torch.nn.Conv2d(below, above, 3, padding=1, padding_mode="circular")
            for below, above in pairwise(widths)
        )
        self.last = torch.nn.Linear(2 * CHANNELS[-1], 3)

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """What the last layer sees of images (n, 1, ny, nx): means and root mean squares, (n, 2 width)."""
        x = images
        for number, layer in enumerate(self.layers):
            x = torch.nn.functional.gelu(layer(x))
            if number < 2 and min(x.shape[-2:]) % 2 == 0:
                x = torch.nn.functional.avg_pool2d(x, 2)
        return torch.cat([x.mean(dim=(2, 3)), torch.sqrt((x * x).mean(dim=(2, 3)) + 1e-6)], dim=1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """ln d1, ln d2, l21 of K / k0, (n, 3)."""
        return self.last(self.features(images))


class Cnn(ImageSurrogate):
    """K as k0 L D L', with ln D and L of a convolutional network: positive definite whatever it says.

    The score is the hypotenuse of two: the deviation that the last layer's weights still have after all
    samples, see `Laplace`, and what errors are left on the samples themselves.
    """

    EXTRA: ClassVar = {"factor": (2 * CHANNELS[-1] + 1,) * 2, "noise": (1,)}

    def _network(self) -> torch.nn.Module:
        return Convolutions()

    def _tell(self, k):
        images, reference = self.look(k)
        features = self.network.features(images.float()).double()
        features = torch.cat([features, torch.ones(len(features), 1, dtype=torch.float64)], dim=1)
        last = torch.cat([self.network.last.weight, self.network.last.bias[:, None]], dim=1).double()
        told = compose(by_row(last, features)) * reference[:, None]
        spread = by_row(torch.from_numpy(self.arrays["factor"]), features)
        square = (spread * spread).sum(dim=1) + float(self.arrays["noise"][0]) ** 2
        return told, torch.sqrt(square)

    def _loss(self, k, truth):
        images, reference = self.look(k)
        z = self.network(images)
        loss = ((z - decompose(truth)) ** 2).sum(dim=1)
        if self.bounds:
            loss = loss + self.bounds * outside(compose(z), k, reference)
        return loss

    def _after(self, k, truth):
        """The posterior of the last layer, of all samples."""
        with torch.no_grad():
            parts = [self.network.features(self.look(part)[0].float()) for part in k.split(64)]
        features = torch.cat(parts).double().numpy()
        features = np.concatenate([features, np.ones((len(features), 1))], axis=1).T
        last = tuple(p.detach().double().numpy() for p in (self.network.last.weight, self.network.last.bias))
        z = decompose(truth).numpy()
        left = np.concatenate([last[0], last[1][:, None]], axis=1) @ features - z.T
        noise = np.array([np.sqrt((left**2).mean())])
        return {"factor": posterior_factor(features, last, z), "noise": noise}


def by_row(matrix: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """matrix (m, p) times each of the rows (n, p), (n, m); each sum by itself, as no fast product does it."""
    return (rows[:, None, :] * matrix).sum(dim=-1)


def decompose(k: torch.Tensor) -> torch.Tensor:
    """ln d1, ln d2, l21 (n, 3) of tensors xx, yy, xy (n, 3)."""
    xx, yy, xy = k.unbind(-1)
    l21 = xy / xx
    return torch.stack([torch.log(xx), torch.log(yy - l21 * xy), l21], dim=-1)


def compose(z: torch.Tensor) -> torch.Tensor:
    """The inverse of `decompose`."""
    first, second, l21 = z.unbind(-1)
    d1 = torch.exp(first)
    return torch.stack([d1, torch.exp(second) + l21 * l21 * d1, l21 * d1], dim=-1)
