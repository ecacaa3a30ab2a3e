"""What a model listens to: permutation importance, partial dependence, and what drives fallback."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from mpi4py import MPI

from hpcmsm.errors import SetupError
from hpcmsm.io.dataset import Dataset, read_dataset
from hpcmsm.io.modelfile import ENSEMBLE, Model, read_model
from hpcmsm.offline.collect import micro_of_text
from hpcmsm.offline.train import check_fields
from hpcmsm.surrogate.base import Samples, Surrogate
from hpcmsm.surrogate.ensemble import Ensemble
from hpcmsm.surrogate.registry import make_image_surrogate

REPEATS = 5  # permutations of each input
NGRID = 25  # points of a curve of partial dependence
MOST_CURVES = 256  # samples that such a curve is the mean over
MOST_IMAGES = 16  # the same for surrogates that see images, and cells whose saliency is told
PICTURED = 4  # of these
NBINS = 8  # into which the range of an input is cut to find where errors are large
SEED = 1


@dataclass(frozen=True)
class Explanation:
    """What was found, as rows for tables.

    importance: per input, the root mean square error with and without its values shuffled.
    dependence: per input, value and output, the mean and the spread over the samples.
    fallback: per input, the part of the variance of ln error and ln score that it explains alone, and
        the range of it in which the scores are largest.
    saliency: for models of images, per sample and conductivity in it, the share of the area and of the
        sensitivity d ln tr K / d ln k, which sums to 1 over a cell.
    """

    importance: list[dict]
    dependence: list[dict]
    fallback: list[dict]
    saliency: list[dict] = ()


def explain_files(model_path: Path, data_path: Path, folder: Path) -> tuple[Explanation, list[Path]]:
    """Explain a model by a dataset: tables and pictures in a folder.

    Raises:
        CheckpointError: a file is missing or damaged.
        ConfigError: they are of different fields. SetupError: the folder cannot be written.
    """
    from hpcmsm.offline.pictures import draw_dependence, draw_fallback, draw_importance, draw_saliency

    model, data = read_model(model_path), read_dataset(data_path)
    check_fields(model, data, f"model {model_path.name}", f"dataset {data_path.name}")
    surrogate = surrogate_of(model, data_path.parent)
    found = explain(surrogate, data)
    contents = {
        "importance.csv": csv_text(found.importance),
        "dependence.csv": csv_text(found.dependence),
        "fallback.csv": csv_text(found.fallback),
        "importance.png": draw_importance(found.importance),
        "dependence.png": draw_dependence(found.dependence, units_of(data)),
        "fallback.png": draw_fallback(*errors_of(surrogate, data), data),
    }
    if found.saliency:
        images, saliency = salient_images(surrogate, data.samples)
        contents["saliency.csv"] = csv_text(found.saliency)
        contents["saliency.png"] = draw_saliency(images[:PICTURED], saliency[:PICTURED])
    return found, [write_result(folder / name, content) for name, content in contents.items()]


def explain(surrogate: Surrogate, data: Dataset) -> Explanation:
    """Everything that can be said of a surrogate with the samples of a dataset."""
    names, samples = input_names(data), data.samples
    return Explanation(
        permutation_importance(surrogate, samples, names),
        partial_dependence(surrogate, samples, names),
        fallback_drivers(*errors_of(surrogate, data), samples.inputs, names),
        saliency_table(surrogate, samples),
    )


def surrogate_of(model: Model, folder: Path) -> Surrogate:
    """The surrogate of a model file, on this rank alone.

    Args:
        folder: where images of the micro model are looked for.
    """
    if model.kind == ENSEMBLE:
        return ensemble_of(model)
    render = micro_of_text(model.case, folder).images
    surrogate = make_image_surrogate(model.kind, model.inputs, model.outputs, MPI.COMM_SELF, 0, render=render)
    surrogate.load_state(model.state)
    return surrogate


def saliency_table(surrogate: Surrogate, samples: Samples) -> list[dict]:
    """Where in the cells of the first samples a surrogate looks; nothing for one that sees no images."""
    if not hasattr(surrogate, "saliency"):
        return []
    rows = []
    for sample, (image, shares) in enumerate(zip(*salient_images(surrogate, samples), strict=True)):
        for value in np.unique(image):
            there = image == value
            rows.append(
                {
                    "sample": sample,
                    "conductivity": float(value),
                    "area": float(there.mean()),
                    "sensitivity": float(shares[there].sum()),
                }
            )
    return rows


def salient_images(surrogate: Surrogate, samples: Samples) -> tuple[np.ndarray, np.ndarray]:
    """Conductivities and sensitivities (n, ny, nx) of the cells of the first samples."""
    inputs = np.ascontiguousarray(samples.inputs[:, :MOST_IMAGES])
    return surrogate.render(inputs), surrogate.saliency(inputs)


def ensemble_of(model: Model) -> Ensemble:
    """The ensemble of a model file, on this rank alone."""
    ensemble = Ensemble(
        model.inputs, model.outputs, MPI.COMM_SELF, members=model.members, hidden=model.hidden
    )
    ensemble.load_state(model.state)
    return ensemble


def input_names(data: Dataset) -> list[str]:
    """Names of the rows of the inputs."""
    return [name for field in data.inputs for name in field.component_names]


def units_of(data: Dataset) -> dict[str, str]:
    """Units of inputs and outputs by name of their row."""
    fields = (*data.inputs, *data.outputs)
    return {name: field.unit for field in fields for name in field.component_names}


def errors_of(ensemble: Surrogate, data: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """True relative errors and scores of the samples, shape (n,) each."""
    predicted, scores = ensemble.predict(data.samples.inputs)
    return ensemble.misfit(predicted, data.samples.outputs), scores


def permutation_importance(ensemble: Surrogate, samples: Samples, names: list[str]) -> list[dict]:
    """How much worse the answers get when the values of one input are shuffled among the samples.

    Source: Breiman 2001, doi 10.1023/A:1010933404324.
    """
    random, rows = np.random.default_rng(SEED), []
    plain = _size(ensemble.misfit(ensemble.predict(samples.inputs)[0], samples.outputs))
    for row, name in enumerate(names):
        sizes = []
        for _ in range(REPEATS):
            shuffled = samples.inputs.copy()
            shuffled[row] = random.permutation(shuffled[row])
            sizes.append(_size(ensemble.misfit(ensemble.predict(shuffled)[0], samples.outputs)))
        rows.append(
            {"input": name, "error": plain, "shuffled": float(np.mean(sizes)), "spread": float(np.std(sizes))}
        )
    return rows


def _size(errors: np.ndarray) -> float:
    return float(np.sqrt(np.mean(errors**2)))


def partial_dependence(ensemble: Surrogate, samples: Samples, names: list[str]) -> list[dict]:
    """Answers as a function of one input, the mean over what the other inputs are in the samples.

    Source: Friedman 2001, doi 10.1214/aos/1013203451.
    """
    most = MOST_IMAGES if hasattr(ensemble, "saliency") else MOST_CURVES
    step = -(-samples.inputs.shape[1] // most)
    others = samples.inputs[:, ::step]
    outputs = [name for field in ensemble.outputs for name in field.component_names]
    whole = [field.whole for field in ensemble.inputs for _ in field.component_names]
    rows = []
    for row, name in enumerate(names):
        for value in _grid(samples.inputs[row], whole[row]):
            inputs = others.copy()
            inputs[row] = value
            answers = ensemble.predict(inputs)[0]
            for output, answer in zip(outputs, answers, strict=True):
                low, high = np.quantile(answer, [0.1, 0.9])
                facts = {"mean": answer.mean(), "p10": low, "p90": high}
                facts = {key: float(number) for key, number in facts.items()}
                rows.append({"input": name, "value": float(value), "output": output, **facts})
    return rows


def _grid(values: np.ndarray, whole: bool) -> np.ndarray:
    """Where a curve is drawn; whole numbers between them where an input takes no others."""
    grid = np.linspace(values.min(), values.max(), NGRID)
    return np.unique(np.rint(grid)) if whole else grid


def fallback_drivers(
    errors: np.ndarray, scores: np.ndarray, inputs: np.ndarray, names: list[str]
) -> list[dict]:
    """Which inputs the errors and scores depend on, and where they are largest.

    The range of each input is cut into bins of equally many samples. What an input explains is the
    correlation ratio: the part of the variance of ln error that lies between the bins.
    """
    rows, logs = [], np.log(np.maximum(scores, 1e-300))
    for row, name in enumerate(names):
        bins, edges = _bins(inputs[row])
        worst = max(set(bins.tolist()), key=lambda number: logs[bins == number].mean())
        rows.append(
            {
                "input": name,
                "explains_error": correlation_ratio(bins, errors),
                "explains_score": correlation_ratio(bins, scores),
                "worst_from": float(edges[worst]),
                "worst_to": float(edges[worst + 1]),
                "error_there": float(np.quantile(errors[bins == worst], 0.99)),
                "error_all": float(np.quantile(errors, 0.99)),
            }
        )
    return sorted(rows, key=lambda found: -found["explains_score"])


def _bins(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Bin of each value (n,), and the edges of the bins."""
    edges = np.unique(np.quantile(values, np.linspace(0.0, 1.0, NBINS + 1)))
    if edges.size < 2:
        return np.zeros(values.size, dtype=np.int64), np.array([edges[0], edges[0]])
    return np.clip(np.searchsorted(edges, values, side="right") - 1, 0, edges.size - 2), edges


def correlation_ratio(bins: np.ndarray, values: np.ndarray) -> float:
    """Part of the variance of ln values that lies between the bins, from 0 to 1."""
    logs = np.log(np.maximum(values, 1e-300))
    whole = ((logs - logs.mean()) ** 2).sum()
    between = sum(
        (bins == number).sum() * (logs[bins == number].mean() - logs.mean()) ** 2
        for number in np.unique(bins)
    )
    return float(between / whole) if whole > 0.0 else 0.0


def csv_text(rows: list[dict]) -> bytes:
    """Rows as a CSV file."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, rows[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def write_result(path: Path, content: bytes) -> Path:
    """Write a table or picture."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    except OSError as error:
        raise SetupError(
            f"output folder must be writable, got '{path}' ({error.strerror}); choose another with -o"
        ) from None
    return path


def explanation_table(found: Explanation) -> str:
    """Importance and what drives fallback, as text."""
    lines = [f"{'input':<20s}{'error':>11s}{'shuffled':>11s}"]
    lines += [f"{r['input']:<20s}{r['error']:>11.2e}{r['shuffled']:>11.2e}" for r in found.importance]
    lines += ["", f"{'input':<20s}{'of error':>10s}{'of score':>10s}   largest scores where it lies in"]
    for r in found.fallback:
        there = f"{r['worst_from']:.5g} to {r['worst_to']:.5g} (p99 of errors {r['error_there']:.1e})"
        lines.append(f"{r['input']:<20s}{r['explains_error']:>10.0%}{r['explains_score']:>10.0%}   {there}")
    return "\n".join(lines)
