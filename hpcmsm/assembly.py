"""Puts the parts of a case together: grid, macro model, micro model, closure."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from hpcmsm.closure.base import Closure
from hpcmsm.closure.direct import Direct
from hpcmsm.config import Case
from hpcmsm.errors import ConfigError
from hpcmsm.expressions import Expression
from hpcmsm.fields import Field, connect
from hpcmsm.grid import AXES, Grid
from hpcmsm.io.images import read_labels
from hpcmsm.macro.base import MacroModel
from hpcmsm.macro.boundary import periodic_axes
from hpcmsm.macro.registry import make_macro
from hpcmsm.micro.base import MicroModel
from hpcmsm.micro.registry import make_micro
from hpcmsm.parallel import random_bits, together
from hpcmsm.timers import Timers


@dataclass
class Parts:
    """What a simulation consists of.

    Args:
        cell_fields: constant fields of the cells, by name, with their values, shape (ncells,).
        case: the case with what a model that it loads brings: all that a restart needs to be told.
    """

    grid: Grid
    macro: MacroModel
    micro: MicroModel
    closure: Closure
    cell_fields: dict[str, tuple[Field, np.ndarray]]
    timers: Timers
    case: Case


def build(case: Case, comm, folder: Path, fresh: bool = True) -> Parts:
    """Collective. Make all parts of a case and connect them by field name and unit.

    Args:
        folder: folder of the case file.
        fresh: False where a checkpoint will be loaded, which holds what a model file has brought.
    Raises:
        ConfigError: parts do not fit; raised on every rank.
    """
    timers = Timers()
    with together(comm):
        micro = make_micro(case.micro, case.materials, case.fields, folder, partial(read_labels, folder))
        periodic = periodic_axes(case.macro.boundary, len(case.grid.cells))
    grid = Grid(case.grid.cells, case.grid.size, periodic, case.grid.proc_shape, comm, case.grid.centring)
    with together(comm):
        cell_fields = evaluate_cell_fields(case, grid, micro)
    # Agreed on by now: a rank whose cells are fine must not go on alone into what all make together.
    with together(comm):
        macro = make_macro(case, grid, micro, cell_fields)
        if case.surrogate.enabled and case.gate.macro_tolerance is not None:
            macro.set_goal(case.gate.goal, case.time.end)
        fixed = tuple(field for field, _ in cell_fields.values())
        connect(micro.inputs, (*macro.sends, *fixed), f"micro model '{case.micro.model}'", "the case")
        connect(macro.wants, micro.outputs, f"macro model '{case.macro.model}'", f"'{case.micro.model}'")
        model = _read_model(case, micro, folder) if fresh else None
        case = _with_sizes_of(model, case)
        closure = _make_closure(case, micro, comm, model, timers)
    return Parts(grid, macro, micro, closure, cell_fields, timers, case)


def evaluate_cell_fields(case: Case, grid: Grid, micro: MicroModel) -> dict[str, tuple[Field, np.ndarray]]:
    """Fields of [fields] in the owned cells, checked against the range that the micro model declares."""
    axes = AXES[: grid.ndim]
    declared = {field.name: field for field in micro.inputs}
    result = {}
    for name, given in case.fields.items():
        formula = Expression(given.value, axes, f"fields.{name}.value")
        values = formula(**grid.coordinates())
        field = declared.get(name, Field(name))
        _check_range(field, values, grid)
        result[name] = (Field(name, 1, given.unit, field.about, field.lower, field.upper), values)
    for name, values in micro.draw_fields(grid.ids).items():
        result.setdefault(name, (declared[name], values))
    return result


def _check_range(field: Field, values: np.ndarray, grid: Grid) -> None:
    bad = np.flatnonzero(~((values >= field.lower) & (values <= field.upper)))
    if field.whole and not bad.size:
        bad = np.flatnonzero(values != np.rint(values))
    if bad.size:
        cell, kind = bad[0], "be a whole number and " if field.whole else ""
        where = ", ".join(f"{axis} = {x[cell]:.4g} m" for axis, x in grid.coordinates().items())
        raise ConfigError(
            f"fields.{field.name}.value must {kind}lie between {field.lower:g} and {field.upper:g}, got "
            f"{values[cell]:.6g} at {where} ({bad.size} cells); correct the formula"
        )


def _make_closure(case: Case, micro: MicroModel, comm, model, timers: Timers) -> Closure:
    for name, lower in micro.lower.items():
        try:
            micro.nested[name] = _make_closure(_case_below(case, name), lower, comm, None, timers)
        except ConfigError as error:
            raise ConfigError(f"{error} (in [materials.{name}])") from None
    direct = Direct(micro, comm, timers)
    if not case.surrogate.enabled:
        return direct
    # Imported here: a run without a surrogate needs no torch.
    from hpcmsm.closure.gate import Gate
    from hpcmsm.closure.tolerance import Tolerance
    from hpcmsm.surrogate.registry import make_surrogate
    from hpcmsm.surrogate.replay import ReplayBuffer

    goal = Tolerance(case.gate.tolerance, micro.outputs).goal
    surrogate = make_surrogate(case.surrogate, micro.inputs, micro.outputs, comm, case.seed, goal)
    replay = ReplayBuffer(
        micro.inputs, micro.outputs, capacity=case.surrogate.capacity, spacing=case.gate.novelty / 10.0
    )
    gate = Gate(direct, micro, surrogate, replay, case.gate, case.surrogate, comm, case.seed, timers)
    if model is not None:
        _preload(gate, model)
    return gate


def _with_sizes_of(model, case: Case) -> Case:
    """The case with the sizes of the networks that a model brings."""
    if model is None:
        return case
    sizes = {"members": model.members, "hidden": list(model.hidden)}
    return case.model_copy(update={"surrogate": case.surrogate.model_copy(update=sizes)})


def _case_below(case: Case, name: str) -> Case:
    """The case as the micro model of a composite material sees it, with its own random decisions.

    With the case's seed, an audit above would always be one below as well.
    """
    material = case.materials[name]
    seed = int(random_bits("nested", case.seed, zlib.crc32(name.encode())) >> np.uint64(1))
    tables = {"micro": material.micro, "surrogate": material.surrogate, "gate": material.gate}
    return case.model_copy(update={**tables, "seed": seed})


def _read_model(case: Case, micro: MicroModel, folder: Path):
    """The model file that the case names, or None; its fields must be those of the micro model."""
    if case.surrogate.load is None or not case.surrogate.enabled:
        return None
    from hpcmsm.io.modelfile import ENSEMBLE, read_model

    name = case.surrogate.load
    model = read_model(folder / name)
    if model.kind != ENSEMBLE:
        raise ConfigError(
            f"surrogate.load must be a model of kind '{ENSEMBLE}', got '{model.kind}' in '{name}'; models of "
            "images answer no runs yet"
        )
    for mine, theirs in ((micro.inputs, model.inputs), (micro.outputs, model.outputs)):
        connect(mine, theirs, f"micro model '{case.micro.model}'", f"surrogate.load '{name}'")
        if [field.name for field in mine] != [field.name for field in theirs]:
            raise ConfigError(
                f"surrogate.load must be a model of the fields {', '.join(field.name for field in mine)} in "
                f"this order, got {', '.join(field.name for field in theirs)} in '{name}'; train it on data "
                "of this micro model"
            )
    return model


def _preload(gate, model) -> None:
    """Let a run begin with a trained version, and calibrate it with samples that it was not trained on."""
    gate.surrogate.load_state(model.state)
    gate.replay.add(model.training)
    gate.trainer.trained_size = len(gate.replay)
    gate.tolerance.learn(gate.replay.samples.outputs)
    # Weights of a dataset say what counts in the loss, such as V |grad u|, not how samples were drawn.
    alike = replace(model.calibration, weight=np.ones(len(model.calibration)))
    gate.calibration.add(alike, gate.predictor)
