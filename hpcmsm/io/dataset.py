"""Datasets: samples of a micro model with names, units and where they come from, in one file."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from hpcmsm.fields import Field
from hpcmsm.io.samples import (
    describe_fields,
    get_array,
    get_samples,
    open_strange,
    put_samples,
    read_fields,
    write_by_root,
)
from hpcmsm.surrogate.base import Samples

KIND = "dataset"
NOWHERE = -1  # step and global cell id of a sample that no run has met


@dataclass(frozen=True)
class Dataset:
    """True answers of a micro model.

    Args:
        inputs, outputs: fields of the samples' rows.
        samples: step and id say where a run met them, NOWHERE where none did.
        index: number of each sample in the sequence that it was drawn from, shape (n,) int64.
        case: the effective case file, TOML.
        microstructure: what the micro model says about itself and its microstructure, JSON.
        provenance: versions, host, commit.
    """

    inputs: tuple[Field, ...]
    outputs: tuple[Field, ...]
    samples: Samples
    index: np.ndarray
    case: str = ""
    microstructure: str = ""
    provenance: dict = field(default_factory=dict)

    def keyed(self, number: int = 0) -> Samples:
        """The samples with a key (step, iteration, id) of their own each, also those from nowhere.

        Args:
            number: place of this dataset among those that are used together.
        """
        drawn = self.samples.ids == NOWHERE
        step = np.where(drawn, NOWHERE - number, self.samples.step)
        ids = np.where(drawn, self.index, self.samples.ids)
        others = (self.samples.inputs, self.samples.outputs, self.samples.weight)
        return Samples(step, self.samples.iteration, ids, *others)


def write_dataset(comm, path: Path, dataset: Dataset) -> None:
    """Collective. Write a dataset, whole or not at all; rank 0's counts, and its bytes are the file's.

    Raises:
        SetupError: the file cannot be written.
    """
    header = {
        "inputs": describe_fields(dataset.inputs),
        "outputs": describe_fields(dataset.outputs),
        "samples": len(dataset.samples),
    }

    def fill(writer):
        put_samples(writer, "samples", dataset.samples)
        writer.array("samples/index", dataset.index)
        writer.text("config", dataset.case)
        writer.text("microstructure", dataset.microstructure)
        writer.text("provenance", json.dumps(dataset.provenance, indent=1, sort_keys=True))

    write_by_root(comm, path, KIND, header, fill)


def read_dataset(path: Path) -> Dataset:
    """Read a dataset on this rank, verifying every bit.

    Raises:
        CheckpointError: the file is missing, damaged, or no dataset.
    """
    with open_strange(path, KIND) as reader:
        inputs, outputs = read_fields(reader.header["inputs"]), read_fields(reader.header["outputs"])
        samples = get_samples(reader, "samples", inputs, outputs)
        return Dataset(
            inputs,
            outputs,
            samples,
            get_array(reader, "samples/index", (len(samples),), np.int64),
            reader.text("config"),
            reader.text("microstructure"),
            json.loads(reader.text("provenance")),
        )
