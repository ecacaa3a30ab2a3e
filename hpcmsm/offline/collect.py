"""Samples of a micro model: drawn over its input ranges, or harvested from a run."""

from __future__ import annotations

import difflib
import hashlib
import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from scipy.stats import qmc

from hpcmsm.batch import Batch
from hpcmsm.config import Case, parse_case
from hpcmsm.errors import ConfigError, MicroError
from hpcmsm.fields import check_array, ncomponent, rows_of
from hpcmsm.io.checkpoint import newest_checkpoint
from hpcmsm.io.dataset import NOWHERE, Dataset
from hpcmsm.io.images import read_labels
from hpcmsm.io.samples import get_samples, open_strange
from hpcmsm.micro.base import MicroModel
from hpcmsm.micro.registry import make_micro
from hpcmsm.offline.weights import gradient_weights
from hpcmsm.parallel import together
from hpcmsm.provenance import provenance
from hpcmsm.surrogate.base import Samples

MOST_SAMPLES = 2**24
# What would differ between rank counts or from day to day: without it the same samples are the same file.
PASSING = ("nranks", "started", "command")
IMAGE = "image:"


def collect(case: Case, folder: Path, count: int, given: list[str], comm) -> Dataset:
    """Collective. Ask the micro model of a case at `count` points of a scrambled Sobol sequence.

    Every rank asks a contiguous share in one batch; the dataset is the same on any number of ranks.
    Cells that the micro model could not answer are left out.

    Args:
        folder: folder of the case file.
        given: texts "name=lower:upper" that narrow the range of an input.
    Returns:
        the dataset, equal on every rank.
    Raises:
        ConfigError: an input is unknown or has no finite range, or the micro model has a memory.
        MicroError: fewer than half of the points could be answered.
    """
    with together(comm):
        micro = _memoryless(_micro_of(case, folder))
        if not 1 <= count <= MOST_SAMPLES:
            raise ConfigError(f"-n must lie between 1 and {MOST_SAMPLES}, got {count}; change it")
        whole = np.array([field.whole for field in micro.inputs for _ in field.component_names])
        points = sobol_points(input_ranges(micro, given), count, case.seed, whole)
        whole = [field.whole for field in micro.inputs for _ in field.component_names]
        points[whole] = np.rint(points[whole])
    table = _answers(micro, points, case.time.step, comm)
    good = table[0] == 0.0
    if good.sum() < 0.5 * count:
        raise MicroError(
            f"micro model must answer at least half of the points, got {int(good.sum())} of {count}; "
            "narrow the ranges with --input NAME=LOWER:UPPER"
        )
    index = np.flatnonzero(good).astype(np.int64)
    nowhere, zeros = np.full(index.size, NOWHERE, np.int64), np.zeros(index.size, np.int64)
    inputs, outputs = points[:, index], np.ascontiguousarray(table[1:, index])
    samples = Samples(nowhere, zeros, nowhere, inputs, outputs, np.ones(index.size))
    return _dataset(micro, samples, index, case, folder, comm)


def _micro_of(case: Case, folder: Path) -> MicroModel:
    return make_micro(case.micro, case.materials, case.fields, folder, partial(read_labels, folder))


def micro_of_text(case: str, folder: Path) -> MicroModel:
    """The micro model of a case whose text a dataset or a model carries.

    Args:
        folder: where images are looked for.
    """
    return _micro_of(parse_case(case, "the dataset's case"), folder)


def _memoryless(micro: MicroModel) -> MicroModel:
    if micro.history == "full":
        raise ConfigError(
            "micro.model must have a history of 'none' or 'liftable', got 'full' for "
            f"{type(micro).__name__}; what a cell with a memory answers is no function of its inputs"
        )
    return micro


def input_ranges(micro: MicroModel, given: list[str]) -> np.ndarray:
    """Lowest and highest value of every input, shape (2, ninput): as declared, or narrower if given."""
    names = [name for field in micro.inputs for name in field.component_names]
    ranges = np.array([[f.lower, f.upper] for f in micro.inputs for _ in f.component_names])
    for text in given:
        name, _, value = text.partition("=")
        if name.strip() not in names:
            close = difflib.get_close_matches(name.strip(), names, 1)
            advice = f"did you mean '{close[0]}'?" if close else f"inputs are {', '.join(names)}"
            raise ConfigError(f"--input must be NAME=LOWER:UPPER with a known input, got '{text}'; {advice}")
        row = ranges[names.index(name.strip())]
        row[:] = _range(value, text, *row)
    for name, (lower, upper) in zip(names, ranges, strict=True):
        if not np.isfinite(upper - lower):
            raise ConfigError(
                f"--input {name} must be given where the micro model declares no finite range, got "
                f"{lower:g} to {upper:g}; add --input {name}=LOWER:UPPER"
            )
    return ranges.T


def _range(value: str, text: str, lowest: float, highest: float) -> tuple[float, float]:
    lower, _, upper = value.partition(":")
    try:
        lower, upper = float(lower), float(upper)
    except ValueError:
        raise ConfigError(f"--input must be NAME=LOWER:UPPER, got '{text}'; write two numbers") from None
    if not (lowest <= lower <= upper <= highest and np.isfinite(upper - lower)):
        raise ConfigError(
            f"--input must be a range between {lowest:g} and {highest:g}, got '{text}'; narrow it"
        )
    return lower, upper


def sobol_points(ranges: np.ndarray, count: int, seed: int, whole: np.ndarray | None = None) -> np.ndarray:
    """The first `count` points of a scrambled Sobol sequence, shape (ninput, count).

    Args:
        ranges: lowest and highest values, shape (2, ninput).
        whole: which inputs take whole numbers only, shape (ninput,) bool.

    Source: Sobol 1967; scrambling: Owen 1998, doi 10.1145/272991.273010.
    """
    sequence = qmc.Sobol(ranges.shape[1], scramble=True, seed=np.random.default_rng(seed))
    unit = sequence.random_base2(max(0, int(count - 1).bit_length()))[:count].T
    points = ranges[0][:, None] + (ranges[1] - ranges[0])[:, None] * unit
    if whole is not None:
        lowest, highest = ranges[:, whole, None]
        points[whole] = np.floor(lowest + (highest - lowest + 1.0) * unit[whole])
    return np.ascontiguousarray(points)


def _answers(micro: MicroModel, points: np.ndarray, dt: float, comm) -> np.ndarray:
    """Collective. Status and outputs of all points, shape (1 + noutput, n); a status of 0 is good."""
    count, rows = points.shape[1], 1 + ncomponent(micro.outputs)
    ends = [count * rank // comm.size for rank in range(comm.size + 1)]
    mine = np.arange(ends[comm.rank], ends[comm.rank + 1], dtype=np.int64)
    part = np.zeros((rows, mine.size))
    with together(comm):
        if mine.size:
            inputs = np.ascontiguousarray(points[:, mine])
            answer = micro.evaluate(Batch(mine, inputs, micro.initial_state(inputs), 0.0, dt, 1))
            check_array(micro.outputs, answer.outputs, mine.size, f"outputs of {type(micro).__name__}")
            part[0] = (answer.status != 0) | ~np.isfinite(answer.outputs).all(axis=0)
            part[1:] = answer.outputs
    everyone = np.empty((count, rows))
    sizes = [int(size) * rows for size in np.diff(ends)]
    comm.Allgatherv(np.ascontiguousarray(part.T), [everyone, sizes])
    return np.ascontiguousarray(everyone.T)


def harvest(run: Path, comm, weigh_by: str | None = None) -> Dataset:
    """Collective. The replay buffer and the calibration window of a run's newest whole checkpoint.

    Args:
        weigh_by: macro field u whose V |grad u| in their cells becomes the weight of the samples; None
            leaves them the weights of how they were chosen.
    Raises:
        CheckpointError: there is no checkpoint.
        ConfigError: it holds no samples, because the run had no surrogate.
    """
    path, _ = newest_checkpoint(run, comm)
    with together(comm), open_strange(path, "checkpoint") as reader:
        facts = json.loads(reader.text("provenance"))
        folder = Path(facts.get("case_folder", "."))
        case = parse_case(reader.text("config"), f"{path.name}:config")
        micro = _micro_of(case, folder)
        if "closure/replay/ids" not in reader.names("arrays"):
            raise ConfigError(
                f"--from must name a run with a surrogate, got '{run}' without samples; set surrogate.enabled"
            )
        places = ("closure/replay", "closure/calibration/window")
        parts = [get_samples(reader, place, micro.inputs, micro.outputs) for place in places]
        samples = sorted_samples(parts)
        if weigh_by is not None:
            samples = replace(samples, weight=gradient_weights(reader, weigh_by, samples.ids))
    return _dataset(micro, samples, np.arange(len(samples), dtype=np.int64), case, folder, comm)


def sorted_samples(parts: list[Samples]) -> Samples:
    """Samples of several origins in the order (step, iteration, id)."""
    names = Samples.__dataclass_fields__
    joined = Samples(*(np.concatenate([getattr(part, name) for part in parts], axis=-1) for name in names))
    return joined.take(np.lexsort((joined.ids, joined.iteration, joined.step)))


def _dataset(micro, samples, index, case: Case, folder: Path, comm) -> Dataset:
    facts = {name: fact for name, fact in provenance(comm).items() if name not in PASSING}
    facts = comm.bcast({**facts, "case": case.title, "seed": str(case.seed)})
    link = json.dumps(_microstructure(micro, case, folder), indent=1, sort_keys=True)
    return Dataset(micro.inputs, micro.outputs, samples, index, case.to_toml(), link, facts)


def _microstructure(micro: MicroModel, case: Case, folder: Path) -> dict:
    """What the micro model is made of; an image by its name and the digest of its labels."""
    options = {name: str(value) for name, value in case.micro.options.items()}
    facts = {name: str(value) for name, value in micro.facts().items()}
    named = options.get("microstructure", "")
    if named.startswith(IMAGE):
        labels = read_labels(folder, named.removeprefix(IMAGE))
        facts["sha256"] = hashlib.sha256(np.ascontiguousarray(labels).tobytes()).hexdigest()
    return {**options, **facts, "model": case.micro.model}


def describe_dataset(dataset: Dataset) -> str:
    """A table of the ranges of a dataset, one row per input and output."""
    lines = [f"{'field':<24s}{'unit':<14s}{'smallest':>14s}{'largest':>14s}"]
    for fields, table in (
        (dataset.inputs, dataset.samples.inputs),
        (dataset.outputs, dataset.samples.outputs),
    ):
        rows = rows_of(fields)
        for field in fields:
            for name, row in zip(field.component_names, table[rows[field.name]], strict=True):
                lines.append(f"{name:<24s}{field.unit:<14s}{row.min():>14.6g}{row.max():>14.6g}")
    return "\n".join(lines)
