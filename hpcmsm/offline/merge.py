"""Federated averaging: one model of several that were trained where their data had to stay."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hpcmsm.errors import ConfigError
from hpcmsm.io.modelfile import ENSEMBLE, Model, read_model
from hpcmsm.offline.collect import sorted_samples
from hpcmsm.offline.train import check_fields
from hpcmsm.surrogate.ensemble import Ensemble
from hpcmsm.surrogate.network import Network


def merge_files(paths: list[Path], comm) -> Model:
    """The mean of several models, weighted by their numbers of samples.

    Raises:
        CheckpointError: a file is missing, damaged, or no model.
        ConfigError: they are of different fields or shapes, or not trained from one common model.
    """
    models = [read_model(path) for path in paths]
    names = [path.name for path in paths]
    for model, name in zip(models, names, strict=True):
        check_fields(models[0], model, f"model {names[0]}", f"model {name}")
        if model.kind != ENSEMBLE:
            raise ConfigError(
                f"models to merge must be of kind '{ENSEMBLE}', got '{model.kind}' in {name}; leave it out"
            )
        if (model.hidden, model.members) != (models[0].hidden, models[0].members):
            raise ConfigError(
                f"models to merge must have the same networks, got {models[0].members} of "
                f"{list(models[0].hidden)} in {names[0]} and {model.members} of {list(model.hidden)} in "
                f"{name}; train them --from one model"
            )
        if not model.start or model.start != models[0].start:
            raise ConfigError(
                f"models to merge must be trained --from one common model, got another start in {name} than "
                f"in {names[0]}; mean weights of unrelated networks mean nothing"
            )
    return merge(models, comm)


def merge(models: list[Model], comm) -> Model:
    """Weights averaged by number of samples, after all were brought to the same scales.

    A mean of weights means something only near the common start: train a few steps (`--epochs 4`), merge,
    and begin the next round with the result.
    Source: McMahan, Moore, Ramage, Hampson, Aguera y Arcas 2017, arXiv 1602.05629.
    """
    share = np.array([model.nsample for model in models], dtype=float)
    share /= share.sum()
    state = _mean_state(models, share)
    first = models[0]
    calibration = sorted_samples([model.calibration for model in models])
    ensemble = Ensemble(first.inputs, first.outputs, comm, members=first.members, hidden=first.hidden)
    ensemble.load_state(state)
    predicted, scores = ensemble.predict(calibration.inputs)
    return Model(
        first.inputs,
        first.outputs,
        state,
        sorted_samples([model.training for model in models]),
        calibration,
        ensemble.misfit(predicted, calibration.outputs),
        scores,
        start=first.start,
        nsample=sum(model.nsample for model in models),
        history={"merged": [model.history for model in models], "share": share.tolist()},
        case=first.case,
        microstructure=first.microstructure,
        provenance=first.provenance,
    )


def _mean_state(models: list[Model], share: np.ndarray) -> dict[str, np.ndarray]:
    def mean(name):
        return np.tensordot(share, np.array([model.state[name] for model in models]), 1)

    network = Network(tuple(int(width) for width in models[0].state["widths"]))
    inputs, outputs = mean("input_scaling"), mean("output_scaling")
    weights = np.zeros_like(models[0].state["weights"])
    for part, model in zip(share, models, strict=True):
        old = model.state
        for member, flat in enumerate(old["weights"]):
            weights[member] += part * network.rescale(
                flat, old["input_scaling"], inputs, old["output_scaling"], outputs
            )
    return {
        "version": np.array([max(int(model.state["version"][0]) for model in models)]),
        "widths": models[0].state["widths"],
        "weights": weights,
        "damping": mean("damping"),
        "input_scaling": inputs,
        "output_scaling": outputs,
        "field_scales": mean("field_scales"),
    }
