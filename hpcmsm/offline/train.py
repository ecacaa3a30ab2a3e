"""Train a surrogate on datasets: split, learning curve, transfer, and what a model file holds of it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from hpcmsm.errors import ConfigError
from hpcmsm.expressions import Expression
from hpcmsm.fields import Field, connect
from hpcmsm.io.checksum import array_digest
from hpcmsm.io.dataset import Dataset, read_dataset
from hpcmsm.io.modelfile import ENSEMBLE, Model
from hpcmsm.offline.collect import sorted_samples
from hpcmsm.parallel import random_uniform, together
from hpcmsm.surrogate import transform
from hpcmsm.surrogate.base import Samples, Surrogate
from hpcmsm.surrogate.ensemble import Ensemble
from hpcmsm.surrogate.gaussian_process import GaussianProcess
from hpcmsm.surrogate.learner import FEWEST_SAMPLES
from hpcmsm.surrogate.registry import make_image_surrogate

# Of 512 samples 128 calibrate: a coverage of 0.99 can only be vouched for by at least 99.
CALIBRATION_PART, TEST_PART = 0.25, 0.15
CURVE_POINTS = 5  # sizes of the learning curve, each half of the next
CURVE_POINTS_OF_IMAGES = 2  # their training takes longer
CHEAP = 1_000_000  # added to the iteration of cheap samples

Fields = tuple[Field, ...]
Render = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Recipe:
    """How a surrogate is made; see `Ensemble`, and `ImageSurrogate` for the kinds "cnn" and "fno"."""

    hidden: tuple[int, ...] = (16, 16)
    members: int = 5
    goal: float = 1e-4
    epochs: int = 60
    seed: int = 1
    kind: str = "ensemble"
    bounds: float = 0.0
    weight: str = ""

    def surrogate(self, inputs: Fields, outputs: Fields, comm, render: Render | None) -> Surrogate:
        """Collective. An untrained surrogate of this recipe.

        Args:
            render: images of the cells, see `ImageSurrogate`; for kinds that learn from images.
        """
        if self.kind == "ensemble":
            return self.ensemble(inputs, outputs, comm)
        return make_image_surrogate(
            self.kind,
            inputs,
            outputs,
            comm,
            self.seed,
            render=render,
            goal=self.goal,
            epochs=self.epochs,
            bounds=self.bounds,
            weighted=bool(self.weight),
        )

    def ensemble(self, inputs: Fields, outputs: Fields, comm) -> Ensemble:
        """Collective. An untrained ensemble of this recipe."""
        return Ensemble(
            inputs,
            outputs,
            comm,
            self.seed,
            members=self.members,
            hidden=self.hidden,
            goal=self.goal,
            epochs=self.epochs,
            weighted=bool(self.weight),
        )


@dataclass(frozen=True)
class Split:
    """Disjoint parts of samples: to learn from, to calibrate with, and to be judged by."""

    training: Samples
    calibration: Samples
    test: Samples


def read_datasets(paths: list[Path]) -> tuple[Dataset, Samples]:
    """The first of several datasets, and the samples of all of them with keys of their own, sorted.

    Raises:
        CheckpointError: a file is missing, damaged, or no dataset.
        ConfigError: the datasets do not have the same inputs and outputs.
    """
    datasets = [read_dataset(path) for path in paths]
    for path, other in zip(paths, datasets, strict=True):
        check_fields(datasets[0], other, f"dataset {paths[0].name}", f"dataset {path.name}")
    return datasets[0], sorted_samples([data.keyed(place) for place, data in enumerate(datasets)])


def set_apart(cheap: Samples) -> Samples:
    """Cheap samples with keys that no exact sample has."""
    others = (cheap.ids, cheap.inputs, cheap.outputs, cheap.weight)
    return Samples(cheap.step, cheap.iteration + CHEAP, *others)


def check_fields(wanted, offered, who: str, by: str) -> None:
    """Raise a ConfigError unless two datasets or models have the same fields in the same order."""
    for mine, theirs in ((wanted.inputs, offered.inputs), (wanted.outputs, offered.outputs)):
        connect(mine, theirs, who, by)
        names = [[field.name for field in fields] for fields in (mine, theirs)]
        if names[0] != names[1]:
            raise ConfigError(
                f"{by} must have the fields {', '.join(names[0])} as {who}, got {', '.join(names[1])}; "
                "use files of the same micro model"
            )


def weighed(samples: Samples, inputs: Fields, formula: str) -> Samples:
    """Samples whose weight in the loss is a formula of the inputs, and of the `weight` of the dataset.

    Raises:
        ConfigError: the formula is wrong, or not positive everywhere.
    """
    names = (*(name for field in inputs for name in field.component_names), "weight")
    rows = [*samples.inputs, samples.weight]
    weight = Expression(formula, names, "--weight")(**dict(zip(names, rows, strict=True)))
    if not (np.isfinite(weight).all() and (weight > 0.0).all()):
        raise ConfigError(
            f"--weight must be positive for all samples, got {float(np.min(weight)):g}; correct the formula"
        )
    return replace(samples, weight=weight)


def split(samples: Samples, seed: int) -> Split:
    """Draw by lot, for each sample by its key, whether it trains, calibrates or tests."""
    lot = random_uniform("split", seed, samples.step, samples.iteration, samples.ids)
    calibrates, tests = lot < CALIBRATION_PART, lot >= 1.0 - TEST_PART
    parts = Split(samples.take(~calibrates & ~tests), samples.take(calibrates), samples.take(tests))
    if len(parts.training) < FEWEST_SAMPLES or not len(parts.calibration) or not len(parts.test):
        raise ConfigError(
            f"DATA must hold enough samples to train, calibrate and test, got {len(samples)}; collect "
            "more with -n"
        )
    return parts


def learn(
    recipe: Recipe,
    start: Model | None,
    samples: Samples,
    inputs: Fields,
    outputs: Fields,
    comm,
    render: Render | None = None,
):
    """Collective. A surrogate trained on samples, from the weights of another model if there is one."""
    ensemble = recipe.surrogate(inputs, outputs, comm, render)
    if start is not None:
        ensemble.load_state(start.state)
    ensemble.train(samples)
    return ensemble


def learn_difference(recipe: Recipe, base: Ensemble, cheap: Samples, samples: Samples, comm) -> Ensemble:
    """Collective. An ensemble that has learnt a cheap model and how few exact samples differ from it.

    A Gaussian process learns the difference in the encoded outputs; both together then answer at inputs
    of cheap samples, and the result learns from these answers and the exact samples. The more exact
    samples there are, the fewer of these answers are used: they are not the truth.

    Args:
        base: ensemble trained on the cheap samples.
        cheap, samples: cheap and exact samples.
    """
    difference = _difference(recipe, base, samples, comm)
    cheap = cheap.take(_first(cheap, max(0, len(cheap) - len(samples))))
    answers = _encoded(base, cheap) + difference.predict(cheap.inputs)[0]
    lifted = _answered(cheap, transform.decode(base.outputs, answers))
    whole = recipe.ensemble(base.inputs, base.outputs, comm)
    whole.load_state(base.state())
    whole.train(sorted_samples([lifted, samples]))
    return whole


def _difference(recipe: Recipe, base: Ensemble, samples: Samples, comm) -> GaussianProcess:
    """Collective. A Gaussian process for the difference of exact samples to the base, in encoded outputs.

    Of a smooth difference and ten to fifty samples it leaves a third of the error that a small network does;
    of a rough one (unit cells on even grids) about as much. It takes no weights of samples.
    """
    apart = transform.encode(base.outputs, samples.outputs) - _encoded(base, samples)
    fields = tuple(Field(f"{field.name}_difference", field.size) for field in base.outputs)
    difference = GaussianProcess(base.inputs, fields, comm, recipe.seed)
    difference.train(_answered(samples, apart))
    return difference


def _encoded(ensemble: Ensemble, samples: Samples) -> np.ndarray:
    return transform.encode(ensemble.outputs, ensemble.predict(samples.inputs)[0])


def _answered(samples: Samples, outputs: np.ndarray) -> Samples:
    return Samples(samples.step, samples.iteration, samples.ids, samples.inputs, outputs, samples.weight)


def teacher(
    recipe: Recipe,
    inputs: Fields,
    outputs: Fields,
    comm,
    start: Model | None,
    cheap: Samples | None,
    render: Render | None = None,
):
    """Collective. A function that makes a surrogate of samples, with what is known already.

    Kinds that learn from images begin with the weights of another model. Else, where there is a cheaper
    or an older model and what it was trained on, the difference to it is learnt; where there is only a
    model, training begins with its weights.
    """
    base = None
    if cheap is not None:
        base = learn(recipe, start, cheap, inputs, outputs, comm)
    elif start is not None and len(start.training) and recipe.kind == ENSEMBLE:
        base, cheap = recipe.ensemble(inputs, outputs, comm), set_apart(start.training)
        base.load_state(start.state)

    def teach(samples: Samples) -> Surrogate:
        if base is None:
            return learn(recipe, start, samples, inputs, outputs, comm, render)
        return learn_difference(recipe, base, cheap, samples, comm)

    return teach


def learning_curve(
    teach: Callable[[Samples], Surrogate], parts: Split, npoint: int = CURVE_POINTS
) -> tuple[Surrogate, list[dict]]:
    """Collective. Train on more and more samples; the last ensemble and one row of test errors per size."""
    rows, ensemble = [], None
    for size in curve_sizes(len(parts.training))[-npoint:]:
        ensemble = teach(parts.training.take(_first(parts.training, size)))
        rows.append({"samples": size, **test_errors(ensemble, parts.test)})
    return ensemble, rows


def curve_sizes(count: int) -> list[int]:
    """Sizes of the learning curve: halves of halves of the number of samples, ascending."""
    sizes = [count // 2**power for power in range(CURVE_POINTS)]
    return sorted(size for size in sizes if size >= FEWEST_SAMPLES)


def _first(samples: Samples, size: int) -> np.ndarray:
    """Indices of a part of the samples that covers the same region, ascending; nested in `size`."""
    lot = random_uniform("shuffle", 0, samples.step, samples.iteration, samples.ids)
    # The first points of a Sobol sequence cover the region by themselves.
    order = np.arange(len(samples)) if (samples.step < 0).all() else np.argsort(lot, kind="stable")
    return np.sort(order[:size])


def test_errors(ensemble: Surrogate, test: Samples) -> dict[str, float]:
    """Median, 99th percentile and largest relative error on samples never seen."""
    errors = ensemble.misfit(ensemble.predict(test.inputs)[0], test.outputs)
    p50, p99 = np.quantile(errors, [0.5, 0.99])
    return {"p50": float(p50), "p99": float(p99), "max": float(errors.max())}


def train(
    dataset: Dataset,
    samples: Samples,
    recipe: Recipe,
    comm,
    start: Model | None = None,
    cheap: Samples | None = None,
    trials: list[dict] = (),
    render: Render | None = None,
) -> Model:
    """Collective. Train a surrogate and say how good it is.

    Args:
        dataset: gives fields and origin; samples: what to learn from, see `read_datasets`.
        start: model to begin with: of another resolution, material or scale.
        cheap: samples of a cheaper model, of which only the difference is to be learnt.
        trials: what tuning tried, for the history.
        render: images of the cells, for kinds that learn from them.
    Returns:
        the model, equal on every rank and for every number of ranks.
    Raises:
        ConfigError: too few samples.
        SurrogateError: samples that cannot be learnt from.
    """
    with together(comm):
        parts = split(samples, recipe.seed)
    inputs, outputs = dataset.inputs, dataset.outputs
    teach = teacher(recipe, inputs, outputs, comm, start, cheap, render)
    ensemble, curve = learning_curve(
        teach, parts, CURVE_POINTS if recipe.kind == ENSEMBLE else CURVE_POINTS_OF_IMAGES
    )
    predicted, scores = ensemble.predict(parts.calibration.inputs)
    return Model(
        inputs,
        outputs,
        ensemble.state(),
        parts.training,
        parts.calibration,
        ensemble.misfit(predicted, parts.calibration.outputs),
        scores,
        start=start_digest(recipe, start),
        nsample=len(parts.training),
        history={"recipe": asdict(recipe), "curve": curve, "trials": list(trials), "test": len(parts.test)},
        case=dataset.case,
        microstructure=dataset.microstructure,
        provenance=dataset.provenance,
        kind=recipe.kind,
    )


def start_digest(recipe: Recipe, start: Model | None) -> str:
    """What identifies the weights that training begins with."""
    if start is None:
        return ""
    text = " ".join(array_digest(start.state[name]) for name in sorted(start.state))
    return hashlib.sha256(text.encode()).hexdigest()


def without_samples(model: Model) -> Model:
    """The model without the samples it was trained on, where these must not leave the house."""
    none = np.zeros(0, dtype=np.int64)
    return Model(
        **{
            **vars(model),
            "training": model.training.take(none),
            "calibration": model.calibration.take(none),
            "errors": np.zeros(0),
            "scores": np.zeros(0),
        }
    )


def vouched_coverage(model: Model) -> float:
    """The largest gate.coverage that the calibration samples can vouch for at the start of a run."""
    count = len(model.calibration)
    return count / (count + 1)


def curve_table(rows: list[dict]) -> str:
    """The learning curve as text."""
    lines = [f"{'samples':>8s}{'p50':>12s}{'p99':>12s}{'max':>12s}   relative error on the test part"]
    lines += [f"{r['samples']:>8d}{r['p50']:>12.2e}{r['p99']:>12.2e}{r['max']:>12.2e}" for r in rows]
    return "\n".join(lines)
