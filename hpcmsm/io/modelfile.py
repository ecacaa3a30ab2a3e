"""Model files: a trained surrogate with its names, units, scaling, samples and history."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from hpcmsm.fields import Field, ncomponent
from hpcmsm.io.samples import (
    describe_fields,
    get_array,
    get_samples,
    open_strange,
    put_samples,
    read_fields,
    write_by_root,
)
from hpcmsm.io.sealed import SealedReader
from hpcmsm.surrogate.base import Samples

KIND, ENSEMBLE = "model", "ensemble"
WIDEST, MOST_LAYERS, MOST_MEMBERS = 4096, 8, 64


@dataclass(frozen=True)
class Model:
    """A trained surrogate, as a file holds it.

    Args:
        inputs, outputs: fields of the closure that it answers for.
        state: arrays of its `state()`.
        training, calibration: samples it was trained on, and samples kept apart for calibration.
        errors, scores: of the calibration samples, shape (n,).
        start: digest of the weights that training began with.
        nsample: number of samples it was trained on, also where they are left out of the file.
        history: figures of the training, what JSON can hold.
        case, microstructure: those of the dataset.
        provenance: versions, host, commit.
        kind: "ensemble", "cnn" or "fno".
    """

    inputs: tuple[Field, ...]
    outputs: tuple[Field, ...]
    state: dict[str, np.ndarray]
    training: Samples
    calibration: Samples
    errors: np.ndarray
    scores: np.ndarray
    start: str = ""
    nsample: int = 0
    history: dict = field(default_factory=dict)
    case: str = ""
    microstructure: str = ""
    provenance: dict = field(default_factory=dict)
    kind: str = ENSEMBLE

    @property
    def hidden(self) -> tuple[int, ...]:
        """Widths of the hidden layers."""
        return tuple(int(width) for width in self.state["widths"][1:-1])

    @property
    def members(self) -> int:
        """Number of networks."""
        return self.state["weights"].shape[0]


def write_model(comm, path: Path, model: Model) -> None:
    """Collective. Write a model, whole or not at all; rank 0's counts.

    Raises:
        SetupError: the file cannot be written.
    """
    header = {
        "inputs": describe_fields(model.inputs),
        "outputs": describe_fields(model.outputs),
        "start": model.start,
        "nsample": model.nsample,
        "surrogate": model.kind,
    }

    def fill(writer):
        for name, array in model.state.items():
            writer.array(f"surrogate/{name}", array)
        put_samples(writer, "training", model.training)
        put_samples(writer, "calibration", model.calibration)
        writer.array("calibration/errors", model.errors)
        writer.array("calibration/scores", model.scores)
        writer.text("history", json.dumps(model.history, indent=1, sort_keys=True))
        writer.text("config", model.case)
        writer.text("microstructure", model.microstructure)
        writer.text("provenance", json.dumps(model.provenance, indent=1, sort_keys=True))

    write_by_root(comm, path, KIND, header, fill)


def read_model(path: Path) -> Model:
    """Read a model on this rank, verifying every bit and every shape.

    Raises:
        CheckpointError: the file is missing, damaged, or no model.
    """
    with open_strange(path, KIND) as reader:
        inputs, outputs = read_fields(reader.header["inputs"]), read_fields(reader.header["outputs"])
        calibration = get_samples(reader, "calibration", inputs, outputs)
        count = (len(calibration),)
        kind = str(reader.header.get("surrogate", ENSEMBLE))
        read_state = _read_state if kind == ENSEMBLE else _read_image_state
        return Model(
            inputs,
            outputs,
            read_state(reader, inputs, outputs),
            get_samples(reader, "training", inputs, outputs),
            calibration,
            get_array(reader, "calibration/errors", count, np.float64),
            get_array(reader, "calibration/scores", count, np.float64),
            str(reader.header["start"]),
            int(reader.header["nsample"]),
            json.loads(reader.text("history")),
            reader.text("config"),
            reader.text("microstructure"),
            json.loads(reader.text("provenance")),
            kind,
        )


def _read_image_state(reader: SealedReader, inputs, outputs) -> dict[str, np.ndarray]:
    """Arrays of an `ImageSurrogate`, whose sizes it will compare with those of its network."""
    weights = reader.array("surrogate/weights")
    state = {"weights": get_array(reader, "surrogate/weights", (weights.size,), np.float32)}
    for name in ("version", "alone"):
        state[name] = get_array(reader, f"surrogate/{name}", (1,), np.int64)
    for name in ("factor", "noise", "part"):
        if f"surrogate/{name}" in reader.names("arrays"):
            shape = reader.array(f"surrogate/{name}").shape
            state[name] = get_array(reader, f"surrogate/{name}", shape, np.float64)
    if state["version"][0] < 1:
        raise reader.damaged("version must be positive")
    return state


def _read_state(reader: SealedReader, inputs, outputs) -> dict[str, np.ndarray]:
    """The ensemble's arrays, whose shapes follow from the fields, the widths and the members."""
    widths = reader.array("surrogate/widths")
    ninput, noutput = ncomponent(inputs), ncomponent(outputs)
    sensible = widths.dtype == np.int64 and widths.ndim == 1 and 3 <= widths.size <= MOST_LAYERS
    if (
        not sensible
        or widths.min() < 1
        or widths.max() > WIDEST
        or tuple(widths[[0, -1]]) != (ninput, noutput)
    ):
        raise reader.damaged(f"widths {widths.tolist()} do not fit the fields")
    nweight = int(((widths[:-1] + 1) * widths[1:]).sum())
    nmember = reader.array("surrogate/weights").shape[0]
    if not 2 <= nmember <= MOST_MEMBERS:
        raise reader.damaged(f"{nmember} members")
    shapes = {
        "weights": (nmember, nweight),
        "damping": (nmember,),
        "input_scaling": (2, ninput),
        "output_scaling": (2, noutput),
        "field_scales": (len(outputs),),
    }
    state = {
        name: get_array(reader, f"surrogate/{name}", shape, np.float64) for name, shape in shapes.items()
    }
    version = get_array(reader, "surrogate/version", (1,), np.int64)
    scales = (state["input_scaling"][1], state["output_scaling"][1], state["field_scales"])
    if version[0] < 1 or any((scale <= 0.0).any() for scale in scales):
        raise reader.damaged("version and scales must be positive")
    return {"version": version, "widths": widths, **state}
