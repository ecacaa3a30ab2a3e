"""Cells in cells: a phase that is a composite itself asks a model of its own, one scale further down."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from hpcmsm.batch import Answer, Batch
from hpcmsm.errors import ConfigError, MicroError
from hpcmsm.fields import Field, allocate, connect, rows_of
from hpcmsm.micro.base import MicroModel
from hpcmsm.micro.cell_problem import smallest_eigenvalue
from hpcmsm.micro.tensors import COMPONENTS, PAIRS, matrices, rotation
from hpcmsm.micro.unit_cell import WIENER_SLACK

# Inputs of a lower model that are those of the cell around it; any other gets the name of the material
# before its own.
SHARED = ("temperature",)
AXES = "xyz"
NDIM = {3: 2, 6: 3}  # by the size of a tensor
# A phase conducts along the axes alone: off-diagonal parts of a lower tensor must stay below this part of
# its diagonal. What leaving them out changes is of the order of its square.
LARGEST_CROSS_PART = 0.1


def given_field(material: str, ndim: int, turned: bool = False) -> Field:
    """The input by which a cell is told what a phase conducts along each axis; all components if turned."""
    about = f"conductivity of {material} along the axes"
    if turned:
        size = len(COMPONENTS[ndim])
        return Field(
            f"{material}_conductivity", size, "W/(m K)", f"tensor of {material}", lower=0.0, spd=True
        )
    return Field(f"{material}_conductivity", ndim, "W/(m K)", about, lower=0.0)


@dataclass(frozen=True)
class Below:
    """The model of a phase. axes: which of its axes lie along x, y[, z] of the cell above; turn: the rotation
    that these are turned by, shape (3, 3); then all of its tensor counts.
    """

    model: MicroModel
    axes: tuple[int, ...]
    turn: np.ndarray | None = None

    def tensor_above(self, tensor: np.ndarray) -> np.ndarray:
        """A tensor (3 or 6, n) of this model as the cell above sees it."""
        full, ndim = matrices(tensor), len(self.axes)
        order = [*self.axes, *(axis for axis in range(full.shape[-1]) if axis not in self.axes)]
        # Not by matrix products, whose sums are rounded differently for other numbers of cells.
        return np.stack(
            [
                sum(
                    self.turn[i, k] * self.turn[j, m] * full[:, order[k], order[m]]
                    for k in range(len(order))
                    for m in range(len(order))
                )
                for i, j in PAIRS[ndim]
            ]
        )


def make_below(
    material: str, model: MicroModel, axes: str | None, ndim: int, angle: float | list[float] | None = None
) -> Below:
    """Check that a lower model answers what the cell around it, of `ndim` dimensions, asks.

    Raises:
        ConfigError: it does not give a conductivity, or its axes do not exist.
    """
    who = f"the phase '{material}'"
    outputs = {field.name: field for field in model.outputs}
    size = outputs["conductivity"].size if "conductivity" in outputs else 3
    connect((Field("conductivity", size, "W/(m K)"),), model.outputs, who, "its micro model")
    offered = AXES[: NDIM[size]]
    axes = offered[:ndim] if axes is None else axes
    if len(axes) != ndim or len(set(axes)) != ndim or set(axes) - set(offered):
        raise ConfigError(
            f"materials.{material}.axes must be {ndim} different ones of {offered}, got '{axes}'; name the "
            "axes of its micro model that lie along those of the cell around it, or give that model ndim = 3"
        )
    turn = None if angle is None else rotation(angle)
    if turn is not None and len(offered) < len(AXES) and abs(turn[2, 2]) < 1.0:
        raise ConfigError(
            f"materials.{material}.angle must leave a composite in 2D in its plane, got {angle}; give its "
            "micro model ndim = 3"
        )
    return Below(model, tuple(offered.index(axis) for axis in axes), turn)


class NestedCell(MicroModel):
    """A cell with phases that are composites: asks what they conduct, then solves its own problem.

    Collective once `nested` holds closures: every rank must call `evaluate` then, with an empty batch too.
    What a lower model needs beside the temperature becomes an input named after the material, as
    `yarn_fraction`.

    Args:
        cell: model of the cell, to which these phases are inputs (`given_field`).
        below: models of the phases, by material.
        conductivities: of the materials that are no composites, functions of temperature, one or several
            for different directions; for bounds.
    """

    def __init__(self, cell: MicroModel, below: dict[str, Below], conductivities: dict[str, list[Callable]]):
        self.cell, self.below, self.conductivities = cell, below, conductivities
        self.lower = {name: part.model for name, part in below.items()}
        self.nested = {}
        given = {f"{name}_conductivity" for name in below}
        self.inputs = tuple(field for field in cell.inputs if field.name not in given)
        self.state, self.outputs = cell.state, cell.outputs
        for name, part in below.items():
            added = [field for field in part.model.inputs if field.name not in SHARED]
            self.inputs += tuple(replace(field, name=f"{name}_{field.name}") for field in added)
            self.state += tuple(replace(field, name=f"{name}_{field.name}") for field in part.model.state)
        self.history = "full" if self.state else "none"
        self.depends_on_dt = any(model.depends_on_dt for model in (cell, *self.lower.values()))
        self.no_surrogate = next((m.no_surrogate for m in (cell, *self.lower.values()) if m.no_surrogate), "")
        leaves = [self.lower[name].phases if name in below else (name,) for name in cell.phases]
        self.phases = tuple(dict.fromkeys(leaf for group in leaves for leaf in group))
        if not all(leaves):  # the heat capacity of a model without phases is not known
            self.phases = ()

    def alone(self) -> MicroModel:
        """A copy that asks the lower models themselves, on this rank alone."""
        twin = copy.copy(self)
        twin.nested = {}
        twin.below = {name: replace(part, model=part.model.alone()) for name, part in self.below.items()}
        return twin

    def evaluate(self, batch: Batch) -> Answer:
        """Collective with closures. Ask the lower models at the cells' inputs, then answer the cells."""
        values = {name: batch.inputs[rows] for name, rows in rows_of(self.inputs).items()}
        states = {name: batch.state[rows] for name, rows in rows_of(self.state).items()}
        cost, residual, after = np.zeros(batch.ncells), np.zeros(batch.ncells), []
        # No rank may raise an error of its own before the last closure has been asked.
        answers = {name: self._ask_below(name, batch, values, states) for name in self.below}
        for name, answer in answers.items():
            self._check_aligned(name, batch, answer.outputs)
            values[f"{name}_conductivity"] = self._along_axes(self.below[name], answer)
            cost, residual = cost + answer.cost, np.maximum(residual, answer.residual)
            after.append(answer.state)
        own = replace(
            batch,
            inputs=_stacked([values[field.name] for field in self.cell.inputs], batch.ncells),
            state=_stacked([states[field.name] for field in self.cell.state], batch.ncells),
        )
        found = self.cell.evaluate(own)
        state = _stacked([found.state, *after], batch.ncells)
        residual = np.maximum(residual, found.residual)
        return Answer(found.outputs, state, found.status, cost=cost + found.cost, residual=residual)

    def _ask_below(self, name: str, batch: Batch, values: dict, states: dict) -> Answer:
        """Collective with closures. What the model of a phase answers, from this model's rows by name."""
        model = self.below[name].model
        question = replace(
            batch,
            inputs=self._inputs_below(name, values),
            state=_stacked([states[f"{name}_{field.name}"] for field in model.state], batch.ncells),
        )
        return self.nested.get(name, model).evaluate(question)

    def _inputs_below(self, name: str, values: dict[str, np.ndarray]) -> np.ndarray:
        """Inputs of a lower model, shape (ninput, n), from this model's by name."""
        fields = self.lower[name].inputs
        return _stacked([values[f.name if f.name in SHARED else f"{name}_{f.name}"] for f in fields])

    def _along_axes(self, part: Below, answer: Answer) -> np.ndarray:
        """What a phase conducts along the axes of the cell, shape (ndim, n), or all components of a turned
        one; NaN where it is not known."""
        tensor = answer.outputs[rows_of(part.model.outputs)["conductivity"]]
        along = tensor[list(part.axes)] if part.turn is None else part.tensor_above(tensor)
        return np.where(answer.status == 0, along, np.nan)

    def _check_aligned(self, name: str, batch: Batch, outputs: np.ndarray) -> None:
        if self.below[name].turn is not None:
            return
        tensor = outputs[rows_of(self.lower[name].outputs)["conductivity"]]
        ndim = NDIM[len(tensor)]
        cross = np.abs(tensor[ndim:]).max(axis=0, initial=0.0)
        with np.errstate(invalid="ignore"):
            bad = np.flatnonzero(cross > LARGEST_CROSS_PART * tensor[:ndim].min(axis=0, initial=np.inf))
        if bad.size:
            shown = ", ".join(f"{k:.4g}" for k in tensor[:, bad[0]])
            raise MicroError(
                f"materials.{name} must conduct along its axes, off-diagonal parts below "
                f"{LARGEST_CROSS_PART:g} of the diagonal, got {shown} W/(m K) in cell {batch.ids[bad[0]]}; "
                "take a microstructure with more inclusions"
            )

    def initial_state(self, inputs: np.ndarray) -> np.ndarray:
        """Those of the cell and of the lower models, one below the other."""
        if not self.state:
            return allocate(self.state, inputs.shape[1])
        values = {name: inputs[rows] for name, rows in rows_of(self.inputs).items()}
        below = [model.initial_state(self._inputs_below(name, values)) for name, model in self.lower.items()]
        return _stacked([self.cell.initial_state(self._inputs_of_cell(inputs)), *below])

    def _inputs_of_cell(self, inputs: np.ndarray) -> np.ndarray:
        """Inputs of the cell's own model, with nothing known of what its phases conduct."""
        rows, unknown = rows_of(self.inputs), np.full((6, inputs.shape[1]), np.nan)
        parts = [inputs[rows[f.name]] if f.name in rows else unknown[: f.size] for f in self.cell.inputs]
        return _stacked(parts)

    def phase_fractions(self, inputs: np.ndarray) -> np.ndarray | None:
        """Of the materials that are no composites, over all scales, shape (nphase, n)."""
        if not self.phases:
            return None
        values = {name: inputs[rows] for name, rows in rows_of(self.inputs).items()}
        total = dict.fromkeys(self.phases, 0.0)
        of_cell = self.cell.phase_fractions(self._inputs_of_cell(inputs))
        for name, fraction in zip(self.cell.phases, of_cell, strict=True):
            if name not in self.below:
                total[name] = total[name] + fraction
                continue
            model = self.lower[name]
            inside = model.phase_fractions(self._inputs_below(name, values))
            for leaf, part in zip(model.phases, inside, strict=True):
                total[leaf] = total[leaf] + fraction * part
        return np.stack([total[name] for name in self.phases])

    def admissible(self, inputs: np.ndarray, outputs: np.ndarray) -> np.ndarray:
        """Whether K lies between Wiener's bounds for the materials that are no composites.

        They hold over all scales: means of means are means over the leaves. Of a material with different
        conductivities along its axes, wherever these lie, the least and the largest count.
        """
        if not self.phases or set(self.phases) - set(self.conductivities):
            return super().admissible(inputs, outputs)
        temperature = inputs[rows_of(self.inputs)["temperature"]][0]
        with np.errstate(all="ignore"):
            phases = [[axis(temperature) for axis in self.conductivities[name]] for name in self.phases]
            least, most = (np.stack([edge(values, axis=0) for values in phases]) for edge in (np.min, np.max))
            fractions = self.phase_fractions(inputs)
            ndim = NDIM[outputs.shape[0]]
            above, below = outputs.copy(), -outputs
            above[:ndim] -= (1 - WIENER_SLACK) / sum(fractions / least)
            below[:ndim] += (1 + WIENER_SLACK) * sum(fractions * most)
            return (smallest_eigenvalue(above) >= 0) & (smallest_eigenvalue(below) >= 0)

    def draw_fields(self, ids: np.ndarray) -> dict[str, np.ndarray]:
        """Those of the cell, and those of the lower models under their new names."""
        drawn = self.cell.draw_fields(ids)
        for name, model in self.lower.items():
            drawn |= {f"{name}_{field}": values for field, values in model.draw_fields(ids).items()}
        return drawn

    def inside(self, inputs: np.ndarray) -> list[tuple[Field, np.ndarray]]:
        """Fields inside the cell itself, with what its phases conduct as the lower models say it."""
        ids = np.zeros(1, dtype=np.int64)
        batch = Batch(ids, inputs, self.initial_state(inputs))
        values = {name: inputs[rows] for name, rows in rows_of(self.inputs).items()}
        for name, part in self.below.items():
            below = self._inputs_below(name, values)
            answer = part.model.evaluate(replace(batch, inputs=below, state=part.model.initial_state(below)))
            values[f"{name}_conductivity"] = self._along_axes(part, answer)
        return self.cell.inside(_stacked([values[field.name] for field in self.cell.inputs]))

    def microstructures(self) -> list[tuple[str, np.ndarray, tuple[str, ...]]]:
        """Those of the cell, and those of the lower models."""
        shown = self.cell.microstructures()
        for name, model in self.lower.items():
            shown += [
                (f"{name}: {title}", labels, phases) for title, labels, phases in model.microstructures()
            ]
        return shown

    def facts(self) -> dict[str, object]:
        """Those of all models."""
        below = {name: model.facts() for name, model in self.lower.items()}
        return {**self.cell.facts(), "below": below}


def _stacked(parts: list[np.ndarray], ncells: int = 0) -> np.ndarray:
    """Rows one below the other; none at all is an array of shape (0, ncells)."""
    return np.ascontiguousarray(np.concatenate(parts)) if parts else np.empty((0, ncells))
