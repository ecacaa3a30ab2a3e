"""`ImageSurrogate`: learns K from images of the conductivity of a cell's points, on all ranks together."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from time import perf_counter
from typing import ClassVar

import numpy as np
import torch

from hpcmsm.errors import SurrogateError
from hpcmsm.fields import Field, check_array
from hpcmsm.parallel import random_bits, random_uniform, together
from hpcmsm.surrogate import transform
from hpcmsm.surrogate.base import Lesson, Samples, Surrogate
from hpcmsm.surrogate.lbfgs import one_thread
from hpcmsm.surrogate.learner import check_samples

# Cells are answered in chunks of one size, the last filled up.
CHUNK = 16
# A batch of training is cut into blocks whose gradients are added in one order, on any number of ranks.
NBLOCK, BLOCK = 4, 8
HELD_OUT = 0.1
RATE = 4e-3


class ImageSurrogate(Surrogate):
    """A network that sees ln(k / k0) in every point, k0 being the geometric mean of Wiener's bounds of K.

    What it says is in units of k0. So an answer scales with the conductivities exactly, whatever was
    learnt. Training is by Adam, data-parallel: each batch is cut into NBLOCK blocks, the ranks compute the
    gradients of theirs, and every rank adds all of them in the same order. So weights are bitwise the same
    on any number of ranks; ranks beyond NBLOCK have nothing to do.

    Args:
        inputs, outputs: fields of the closure; the outputs must be one 2D conductivity.
        comm: MPI communicator of the ranks that train together.
        seed: of the random numbers.
        render: inputs (ninput, n) -> conductivities of the points (n, ny, nx), see `MicroModel.images`.
        goal: relative error that is good enough.
        epochs: passes over the samples.
        bounds: weight in the loss of what lies outside Wiener's bounds.
        weighted: samples count in the loss by their weight, such as V |grad u| of the macro field.
    Raises:
        SurrogateError: the outputs are no 2D conductivity.
    """

    def __init__(
        self,
        inputs: tuple[Field, ...],
        outputs: tuple[Field, ...],
        comm,
        seed: int = 0,
        *,
        render: Callable[[np.ndarray], np.ndarray],
        goal: float = 1e-3,
        epochs: int = 100,
        bounds: float = 0.0,
        weighted: bool = False,
    ):
        self.inputs, self.outputs = tuple(inputs), tuple(outputs)
        if [(field.size, field.spd) for field in self.outputs] != [(3, True)]:
            raise SurrogateError(
                "outputs of a surrogate for images must be one conductivity in 2D, got "
                f"{', '.join(f.name for f in self.outputs)}; choose another surrogate.kind"
            )
        self.comm, self.seed, self.render, self.goal = comm, seed, render, goal
        self.epochs, self.bounds, self.weighted = epochs, bounds, weighted
        self.version = 0
        self.network = self._network().float()
        for parameter in self.network.parameters():
            parameter.requires_grad_()
        self.nweight = sum(parameter.numel() for parameter in self.network.parameters())
        # Whether cells must be answered one by one, as the place in a chunk changes last bits here.
        self.alone = False
        self.arrays: dict[str, np.ndarray] = {"weights": np.zeros(self.nweight, np.float32)}
        self.arrays |= {name: np.zeros(shape) for name, shape in self.EXTRA.items()}

    EXTRA: ClassVar[dict[str, tuple[int, ...]]]  # shapes of what is kept beside the weights, see `_after`

    @abstractmethod
    def _network(self) -> torch.nn.Module:
        """The network with any weights."""

    @abstractmethod
    def _tell(self, k: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """K (n, 3) and score (n,) for conductivities k (n, ny, nx), float64."""

    @abstractmethod
    def _loss(self, k: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        """Loss (n,) for conductivities k (n, ny, nx) and the true K / k0 (n, 3), float32."""

    def _after(self, k: torch.Tensor, truth: torch.Tensor) -> dict[str, np.ndarray]:
        """What else is to be kept after training on all samples, see `_tell`; run on rank 0."""
        return {}

    def look(self, k: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """What the network sees of k (n, ny, nx): images (n, 1, ny, nx) of ln(k / k0), and k0 (n,)."""
        low, high = wiener(k)
        reference = torch.sqrt(low * high)
        return torch.log(k / reference[:, None, None])[:, None], reference

    # -- answers -------------------------------------------------------------------------------

    def predict(self, inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean (3, n) and score (n,); before the first training, and for bad inputs, NaN and infinity."""
        inputs = np.ascontiguousarray(inputs, dtype=float)
        ncells = inputs.shape[1]
        check_array(self.inputs, inputs, ncells, "inputs of the surrogate")
        mean, score = np.full((3, ncells), np.nan), np.full(ncells, np.inf)
        if self.version == 0 or ncells == 0:
            return mean, score
        images = self._images(inputs)
        good = np.isfinite(images).all(axis=(1, 2)) & (images > 0.0).all(axis=(1, 2))
        chosen = np.flatnonzero(good)
        size = 1 if self.alone else CHUNK
        with one_thread(), torch.no_grad():
            for first in range(0, chosen.size, size):
                part = chosen[first : first + size]
                told, doubt = self._chunk(images[part], size)
                mean[:, part], score[part] = told[: part.size].T, doubt[: part.size]
        return mean, score

    def _images(self, inputs: np.ndarray) -> np.ndarray:
        images = self.render(inputs)
        if images is None or images.ndim != 3:
            raise SurrogateError(
                "a surrogate for images needs a micro model that shows scalar phases in 2D, got one that "
                "does not (turned phases and cells in 3D have no such picture); choose another kind"
            )
        return np.asarray(images, dtype=float)

    def _chunk(self, images: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
        """K (size, 3) and score (size,) of at most `size` images; the last fills the empty places."""
        full = np.pad(images, ((0, size - len(images)), (0, 0), (0, 0)), mode="edge")
        told, score = self._tell(torch.from_numpy(full))
        return told.numpy().astype(float), score.numpy().astype(float)

    def _place_matters(self, images: np.ndarray) -> bool:
        """Whether an answer depends on the place in a chunk and on the others there."""
        images = images[np.arange(CHUNK) % len(images)]
        places = np.arange(CHUNK)
        orders = [np.roll(places[::-1], 5), *(np.roll(places, shift) for shift in (1, 3, 7)), places * 0]
        with one_thread(), torch.no_grad():
            first = self._chunk(images, CHUNK)
            others = [self._chunk(images[order], CHUNK) for order in orders]
        return not all(
            np.array_equal(a[order], b)
            for order, other in zip(orders, others, strict=True)
            for a, b in zip(first, other, strict=True)
        )

    def misfit(self, predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
        """Relative error of each cell, shape (n,), see `Surrogate`."""
        return transform.misfit(self.outputs, np.ones(1), predicted, truth)

    # -- training ------------------------------------------------------------------------------

    def prepare(self, samples: Samples, goal: float | None = None) -> Lesson:
        """Look at the samples; the ranks train together in `adopt`, which cannot be done meanwhile."""
        check_samples(self.inputs, self.outputs, samples)
        transform.encode(self.outputs, samples.outputs)  # refuses what cannot be learnt
        lesson = Lesson(samples, goal or self.goal)
        images = self._images(samples.inputs)
        if not (np.isfinite(images) & (images > 0.0)).all():
            raise SurrogateError(
                "images to learn from must hold positive conductivities, got others; "
                "keep cells that failed out of the samples"
            )
        lesson.images = images
        lesson.held_out = random_uniform("split", self.seed, samples.step, samples.iteration, samples.ids)
        lesson.held_out = lesson.held_out < HELD_OUT
        if lesson.held_out.all() or not lesson.held_out.any():
            lesson.held_out[:] = np.arange(len(samples)) == 0
        return lesson

    def adopt(self, lesson: Lesson) -> dict[str, float]:
        """Collective. Train on the samples, on from the present weights.

        Returns:
            samples; first_loss and last_loss, means of an epoch; held_out_p50 and held_out_p99, misfits on
            samples that were not shown; epochs; seconds.
        """
        self.goal = lesson.goal
        seen = np.flatnonzero(~lesson.held_out)
        images = torch.from_numpy(lesson.images)
        scaled = torch.from_numpy(lesson.samples.outputs.T.copy()) / self.look(images)[1][:, None]
        if self.version == 0:
            self.arrays["weights"] = start(self.network, self.seed)
        weights = self._weights(lesson.samples)
        with together(self.comm), one_thread():
            losses = self._descend(images.float(), scaled.float(), weights, seen)
            arrays = {"weights": self._flat(), **self._after(images[seen], scaled[seen])}
            # In one order in memory, as after a restart: products depend on it.
            self.arrays = {name: np.array(array, order="C") for name, array in arrays.items()}
        self._install()
        self.version += 1
        self.alone = bool(self.comm.bcast(self._place_matters(lesson.images)))
        told, _ = self.predict(lesson.samples.inputs[:, lesson.held_out])
        p50, p99 = np.quantile(self.misfit(told, lesson.samples.outputs[:, lesson.held_out]), [0.5, 0.99])
        return {
            "samples": len(lesson.samples),
            "first_loss": losses[0],
            "last_loss": losses[-1],
            "held_out_p50": float(p50),
            "held_out_p99": float(p99),
            "epochs": self.epochs,
            "seconds": perf_counter() - lesson.started,
        }

    def _weights(self, samples: Samples) -> torch.Tensor:
        weights = samples.weight / samples.weight.mean() if self.weighted else np.ones(len(samples))
        return torch.from_numpy(weights).float()

    def _descend(self, images, truth, weights, seen: np.ndarray) -> list[float]:
        """Collective. Adam with a rate that falls as a cosine; the mean loss of every epoch."""
        self._install()
        optimiser = torch.optim.Adam(self.network.parameters(), lr=RATE)
        nbatch = -(-seen.size // (NBLOCK * BLOCK))
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, self.epochs * nbatch)
        losses = []
        for epoch in range(self.epochs):
            lot = random_uniform("shuffle", self.seed, self.version, epoch, np.arange(seen.size))
            order = seen[np.argsort(lot, kind="stable")]
            total = 0.0
            for batch in range(nbatch):
                size = NBLOCK * BLOCK
                chosen = order[np.arange(batch * size, (batch + 1) * size) % seen.size]
                turns = random_bits("turn", self.seed, self.version, epoch, chosen)
                total += self._step(images, truth, weights, chosen, turns)
                optimiser.step()
                schedule.step()
            losses.append(total / nbatch)
        return losses

    def _step(self, images, truth, weights, chosen: np.ndarray, turns: np.ndarray) -> float:
        """Collective. Set the gradient of a batch; its loss."""
        rows = np.zeros((NBLOCK, self.nweight + 1), np.float32)
        for block in range(self.comm.rank, NBLOCK, self.comm.size):
            part = slice(block * BLOCK, (block + 1) * BLOCK)
            k, told = turned(images[chosen[part]], truth[chosen[part]], turns[part])
            self.network.zero_grad()
            loss = (self._loss(k, told) * weights[chosen[part]]).mean()
            loss.backward()
            gradients = [parameter.grad.reshape(-1) for parameter in self.network.parameters()]
            rows[block, :-1] = torch.cat(gradients).numpy()
            rows[block, -1] = loss.item()
        for block in range(NBLOCK):
            self.comm.Bcast(rows[block], root=block % self.comm.size)
        mean = np.add.reduce(rows, axis=0) / NBLOCK
        first = 0
        for parameter in self.network.parameters():
            part = mean[first : first + parameter.numel()]
            parameter.grad = torch.from_numpy(part.reshape(tuple(parameter.shape)).copy())
            first += parameter.numel()
        if not np.isfinite(mean[-1]):
            raise SurrogateError(
                "the training error must be finite, got nan or infinity; "
                "check that the samples' inputs and outputs are of ordinary size"
            )
        return float(mean[-1])

    def _flat(self) -> np.ndarray:
        parts = [parameter.detach().reshape(-1) for parameter in self.network.parameters()]
        return torch.cat(parts).numpy().astype(np.float32)

    def _install(self) -> None:
        """Put the kept weights into the network."""
        vector = torch.from_numpy(np.array(self.arrays["weights"], np.float32))
        with torch.no_grad():
            torch.nn.utils.vector_to_parameters(vector, self.network.parameters())

    # -- restart, and looking inside -----------------------------------------------------------

    def state(self) -> dict[str, np.ndarray]:
        """Version, weights and what was found after training, equal on every rank."""
        flags = {"version": np.array([self.version]), "alone": np.array([int(self.alone)])}
        return {**flags, **{name: array.copy() for name, array in self.arrays.items()}}

    def load_state(self, state: dict[str, np.ndarray]) -> None:
        """Take over what `state` gave, bit by bit.

        Raises:
            SurrogateError: it is of another network.
        """
        for name, shape in {"weights": (self.nweight,), **self.EXTRA}.items():
            if np.shape(state.get(name)) != shape:
                raise SurrogateError(
                    f"'{name}' of a stored surrogate must have shape {shape}, got "
                    f"{np.shape(state.get(name))}; use the surrogate.kind of then"
                )
        self.version, self.alone = int(state["version"][0]), bool(state["alone"][0])
        self.arrays = {name: np.array(a) for name, a in state.items() if name not in ("version", "alone")}
        self._install()

    def saliency(self, inputs: np.ndarray) -> np.ndarray:
        """d ln tr K / d ln k in every point, (n, ny, nx): its sum over a cell is 1, as K scales with k."""
        images = torch.from_numpy(self._images(np.ascontiguousarray(inputs, dtype=float)))
        result = []
        with one_thread():
            for image in images:
                logs = torch.log(image[None]).requires_grad_()
                told, _ = self._tell(torch.exp(logs))
                torch.log(told[0, 0] + told[0, 1]).backward()
                result.append(logs.grad[0].numpy().copy())
        return np.stack(result)


def wiener(k: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Harmonic and arithmetic means (n,) of k (n, ny, nx), between which K lies."""
    return 1.0 / (1.0 / k).mean(dim=(1, 2)), k.mean(dim=(1, 2))


def outside(told: torch.Tensor, k: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """By how much the eigenvalues of K / k0 (n, 3) lie outside Wiener's bounds, squared and added, (n,)."""
    low, high = (bound / reference for bound in wiener(k))
    xx, yy, xy = told.unbind(-1)
    middle, radius = (xx + yy) / 2, torch.sqrt(((xx - yy) / 2) ** 2 + xy**2 + 1e-12)
    return torch.relu(low - middle + radius) ** 2 + torch.relu(middle + radius - high) ** 2


def start(network: torch.nn.Module, seed: int) -> np.ndarray:
    """First weights, uniform in +- 1/sqrt(what enters a neuron), of the counter-based generator."""
    parts = []
    for number, parameter in enumerate(network.parameters()):
        entering = max(1, parameter[0].numel()) if parameter.ndim > 1 else parameter.numel()
        if getattr(parameter, "spectral", False):
            entering = parameter.shape[0] ** 2
        uniform = random_uniform("weights", seed, number, np.arange(parameter.numel()))
        parts.append((2.0 * uniform - 1.0) / np.sqrt(entering))
    return np.concatenate(parts).astype(np.float32)


def turned(k: torch.Tensor, truth: torch.Tensor, turns: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """Cells (n, ny, nx) moved, mirrored and transposed by lot, and their K (n, 3) with them.

    A periodic material knows no origin, and K turns with it.
    """
    images, tensors = [], []
    for image, (xx, yy, xy), bits in zip(k, truth, turns.tolist(), strict=True):
        image = torch.roll(image, (bits % image.shape[0], (bits >> 16) % image.shape[1]), (0, 1))
        if bits >> 32 & 1:
            image, xy = image.flip(0), -xy
        if bits >> 33 & 1 and image.shape[0] == image.shape[1]:
            image, xx, yy = image.T, yy, xx
        images.append(image)
        tensors.append(torch.stack([xx, yy, xy]))
    return torch.stack(images), torch.stack(tensors)
