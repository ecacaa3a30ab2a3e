"""`Simulation`: the loop that advances both scales, and writes what is due."""

from __future__ import annotations

import json
import math
from functools import partial
from pathlib import Path
from time import perf_counter

import numpy as np

from hpcmsm.assembly import Parts, build
from hpcmsm.batch import Answer, Batch
from hpcmsm.config import Case, check_resumable, parse_case
from hpcmsm.errors import SolverError
from hpcmsm.fields import rows_of
from hpcmsm.io.checkpoint import CheckpointData, newest_checkpoint, read_checkpoint, write_checkpoint
from hpcmsm.io.sealed import open_sealed
from hpcmsm.io.snapshots import SnapshotWriter
from hpcmsm.macro.stepping import make_stepper
from hpcmsm.micro.trial import try_out
from hpcmsm.output import SOURCE, Output, snapshot_fields
from hpcmsm.parallel import together
from hpcmsm.progress import Progress
from hpcmsm.provenance import provenance


class Simulation:
    """A coupled run of both scales.

    Args:
        case: the checked case.
        comm: communicator of all ranks.
        folder: folder of the case file, where user modules and images are.
        output: folder that takes everything the run writes.
        quiet: no progress on the terminal.
        fresh: False where a checkpoint will be loaded.
    """

    def __init__(self, case: Case, comm, folder: Path, output: Path, quiet: bool = False, fresh: bool = True):
        self.comm, self.folder = comm, folder
        self.started = perf_counter()
        self.parts: Parts = build(case, comm, folder, fresh)
        self.case = case = self.parts.case
        self.grid, self.macro, self.closure = self.parts.grid, self.parts.macro, self.parts.closure
        self.timers = self.parts.timers
        self.micro = self.parts.micro
        self.stepper = make_stepper(self.macro, self.grid, case.time, case.macro, self._ask)
        self.has_goal = case.surrogate.enabled and case.gate.macro_tolerance is not None
        self.macro.kept_values = self.macro.initial_kept(self.grid.ncells)
        self.step, self.time, self.dt = 0, 0.0, case.time.step
        # Where steps are counted from: the start, or where a resumed run was given another time.step or end.
        self.anchor = (0, 0.0)
        self.state = self.micro.initial_state(self._inputs(self.unknown))
        self.answer: Answer | None = None
        self.iteration = 0
        with together(comm):
            self.shown = snapshot_fields(self.parts, case.snapshots.fields)
        self.output = Output(output, comm)
        told = {name: str(value) for name, value in self.micro.facts().items()}
        self.provenance = {**provenance(comm), "case_folder": str(folder.resolve()), "micro": told}
        self.quiet = quiet
        self.resumed_at = 0

    @property
    def unknown(self) -> np.ndarray:
        """The unknowns of the macro model in the owned cells, shape (ncomponent, ncells)."""
        return self.stepper.unknown

    # -- the seam ------------------------------------------------------------------------------

    def _inputs(self, unknown: np.ndarray) -> np.ndarray:
        offered = self.macro.offer(unknown)
        fixed = {name: values for name, (_, values) in self.parts.cell_fields.items()}
        rows = [np.atleast_2d({**fixed, **offered}[field.name]) for field in self.micro.inputs]
        return np.ascontiguousarray(np.concatenate(rows))

    def _batch(self, unknown: np.ndarray, time: float, dt: float) -> Batch:
        inputs = self._inputs(unknown)
        sensitivity = partial(self._sensitivity, time, unknown) if self.has_goal else None
        return Batch(self.grid.ids, inputs, self.state, time, dt, self.step + 1, self.iteration, sensitivity)

    def _sensitivity(self, time: float, unknown: np.ndarray, outputs: np.ndarray) -> np.ndarray:
        """Collective. What errors of these outputs (noutput, ncells) would change the goal by, (ncells,)."""
        return self.macro.goal_weights(time, unknown, self._wanted(outputs))

    def _wanted(self, outputs: np.ndarray) -> dict[str, np.ndarray]:
        """Those of the closure's outputs that the macro model asks for, by name."""
        rows = rows_of(self.closure.outputs)
        return {field.name: outputs[rows[field.name]] for field in self.macro.wants}

    def _ask(self, time: float, dt: float, unknown: np.ndarray) -> None:
        """Collective. Let the closure answer for a macro field, and hand the outputs to the macro model."""
        with self.timers.phase("coupling"):
            batch = self._batch(unknown, time, dt)
            self.answer = self.closure.evaluate(batch)
            self.iteration += 1
            self.macro.use(unknown, self._wanted(self.answer.outputs))

    def try_micro(self) -> None:
        """Collective. The trial call of the micro model, see micro/trial.py."""
        with together(self.comm):
            try_out(self.micro, self._batch(self.unknown, self.time, self.dt))

    # -- start, restart ------------------------------------------------------------------------

    def start(self, overwrite: bool = False) -> None:
        """Collective. Begin at t = 0 in an output folder that holds no run yet."""
        self.output.create(self.case.to_toml(), overwrite)
        self.try_micro()
        self.snapshots = SnapshotWriter(self.output.folder, self.grid, self.shown)
        # Nothing advances yet: a micro model with a state is asked for the outputs of its present one.
        self._ask(self.time, 0.0 if self.micro.state else self.dt, self.unknown)
        self.output.log(0, self.time, 0.0, self.closure.finish_step(0), 0, perf_counter() - self.started)
        self._write_snapshot()
        if self.case.checkpoint.every:
            # A run that is cut off before its first due checkpoint can go on as well.
            self._write_checkpoint()

    @classmethod
    def resume(cls, output: Path, comm, overrides: list[str] = (), quiet: bool = False) -> Simulation:
        """Collective. Continue from the newest whole checkpoint of an output folder, on any ranks.

        Raises:
            CheckpointError: there is none, or it does not fit.
        """
        path, notes = newest_checkpoint(output, comm)
        text, facts = read_case_of(path)
        before = parse_case(text, f"{path.name}:config")
        case = parse_case(text, f"{path.name}:config", overrides)
        check_resumable(before, case)
        simulation = cls(case, comm, Path(facts.get("case_folder", ".")), output, quiet, fresh=False)
        simulation._load(path)
        if (before.time.step, before.time.end) != (case.time.step, case.time.end):
            simulation.anchor = (simulation.step, simulation.time)
            simulation.dt = case.time.step
        simulation.resumed_at = simulation.step
        simulation.output.rewrite_case(case.to_toml())
        simulation.provenance["resumed_from"] = path.name
        sources = [told.get("sha256") for told in (facts.get("micro", {}), simulation.provenance["micro"])]
        if None not in sources and sources[0] != sources[1]:
            notes.append("the file of the micro model has changed since the checkpoint; continuing with it")
        for note in notes:
            simulation.output.say(note)
        return simulation

    def _cell_fields(self) -> dict:
        """Everything that lives in cells and must survive, by name: (field, array (size, ncells))."""
        fields = self._named("macro/", self.macro.unknowns, self.unknown)
        if self.stepper.previous is not None:
            fields |= self._named("macro/previous_", self.macro.unknowns, self.stepper.previous)
        fields |= self._named("macro/", self.macro.kept, self.macro.kept_values)
        return fields | self._named("micro/", self.micro.state, self.state) | self.closure.cell_fields()

    @staticmethod
    def _named(prefix: str, fields, array: np.ndarray) -> dict:
        """Fields and their rows of an array (ncomponent, ncells), by prefix and name."""
        rows = rows_of(fields)
        return {f"{prefix}{field.name}": (field, array[rows[field.name]]) for field in fields}

    def _load(self, path: Path) -> None:
        wanted = {name: field for name, (field, _) in self._cell_fields().items()}
        data = read_checkpoint(path, self.grid, wanted)
        self.step, self.time, self.dt = data.step, data.time, data.dt
        arrays = {name: array for name, (_, array) in data.cell_fields.items()}
        self.stepper.set_unknown(self._joined(arrays, "macro/", self.macro.unknowns))
        if self.stepper.previous is not None:
            self.stepper.previous = self._joined(arrays, "macro/previous_", self.macro.unknowns)
        if self.macro.kept:
            self.macro.kept_values = self._joined(arrays, "macro/", self.macro.kept)
        self.stepper.previous_dt = float(data.arrays["stepper/previous_dt"][0])
        first, start = data.arrays["stepper/anchor"]
        self.anchor = (int(first), float(start))
        if self.micro.state:
            self.state = self._joined(arrays, "micro/", self.micro.state)
        prefix = "closure/"
        self.closure.load_state(
            {name[len(prefix) :]: a for name, a in data.arrays.items() if name.startswith(prefix)}
        )
        self.closure.load_cell_fields(
            self.grid.ids, {name: arrays[name] for name in self.closure.cell_fields()}
        )
        self.output.reopen(self.step)
        self.snapshots = SnapshotWriter(self.output.folder, self.grid, self.shown)
        self.snapshots.truncate(self.step)
        for note in self.snapshots.notes:
            self.output.say(note)

    @staticmethod
    def _joined(arrays: dict[str, np.ndarray], prefix: str, fields) -> np.ndarray:
        """The reverse of `_named`: one array (ncomponent, ncells)."""
        return np.concatenate([np.atleast_2d(arrays[f"{prefix}{field.name}"]) for field in fields])

    # -- the loop ------------------------------------------------------------------------------

    @property
    def total_steps(self) -> int | None:
        """Number of steps of the whole run where dt is fixed."""
        if self.case.time.adaptive:
            return None
        first, start = self.anchor
        left = (self.case.time.end - start) / self.case.time.step
        return first + max(0 if first else 1, math.ceil(left - 1e-9))

    def run(self) -> dict:
        """Collective. Advance to the end; returns the summary, equal on every rank."""
        if self._finished():
            return self.output.read_summary() or self._finish()
        self.output.remove_summary()
        with self._progress() as progress:
            while not self._finished():
                figures = self._advance()
                self._write_due()
                gated = self.case.surrogate.enabled and figures["calls"]
                share = figures["accepted"] / figures["calls"] if gated else None
                progress.update(self.step, self.time, self.time - self.before, share)
        return self._finish()

    def _progress(self) -> Progress:
        quiet = self.quiet or self.comm.rank != 0
        return Progress(self.total_steps, self.case.time.end, quiet=quiet)

    def _finished(self) -> bool:
        if self.total_steps is not None:
            return self.step >= self.total_steps
        return self.time >= self.case.time.end * (1.0 - 1e-12)

    def _next_dt(self) -> float:
        """Length of the coming step: the last one ends exactly at time.end."""
        if self.total_steps is None:
            return min(self.dt, self.case.time.end - self.time)
        last = self.step + 1 == self.total_steps
        return self.case.time.end - self.time if last else self.case.time.step

    def _advance(self) -> dict:
        if self.step >= self.case.time.max_steps:
            raise SolverError(
                f"time.max_steps must suffice to reach time.end, got {self.case.time.max_steps} at "
                f"t = {self.time:.6g} s; raise it or loosen time.tolerance"
            )
        began = perf_counter()
        self.iteration = 0
        dt = self._next_dt()
        with self.timers.phase("macro"):
            result = self.stepper.advance(self.step + 1, self.time, dt)
        self._check_finite()
        self.step += 1
        self.before, self.time = self.time, result.time
        if self.total_steps is not None:
            # Counted, not added up: rounding must not drift over many steps.
            first, start = self.anchor
            self.time = min(start + (self.step - first) * self.case.time.step, self.case.time.end)
        self.dt = result.next_dt
        self.state = self.answer.state
        self.macro.finish_step(self.before, self.time, self.unknown)
        figures = self.closure.finish_step(self.step)
        iterations = result.linear
        self.output.log(
            self.step, self.time, self.time - self.before, figures, iterations, perf_counter() - began
        )
        return figures

    def _check_finite(self) -> None:
        values = self.unknown
        bad = self.comm.allreduce(int(values.size - np.isfinite(values).sum()))
        if bad:
            names = ", ".join(field.name for field in self.macro.unknowns)
            raise SolverError(
                f"{names} must stay finite, got {bad} values that are not after step "
                f"{self.step + 1}; lower time.step (explicit schemes are stable only for small steps)"
            )

    # -- writing -------------------------------------------------------------------------------

    def _write_due(self) -> None:
        last = self._finished()
        every = self.case.snapshots.every
        if last or (every and self.step % every == 0):
            self._write_snapshot()
        every = self.case.checkpoint.every
        if last or (every and self.step % every == 0):
            self._write_checkpoint()

    def _write_snapshot(self) -> None:
        with self.timers.phase("snapshot"):
            sources = (
                (self.macro.unknowns, self.unknown),
                (self.macro.kept, self.macro.kept_values),
                (self.closure.outputs, self.answer.outputs),
                (self.micro.state, self.state),
            )
            arrays = {}
            for fields, array in sources:
                arrays |= {name: array[rows] for name, rows in rows_of(fields).items()}
            arrays.update({name: values for name, (_, values) in self.parts.cell_fields.items()})
            arrays[SOURCE.name] = self.answer.source
            wanted = [field.name for field in self.snapshots.fields]
            arrays = {name: np.atleast_2d(np.asarray(arrays[name], dtype=np.float64)) for name in wanted}
            self.snapshots.write(self.step, self.time, arrays)

    def _write_checkpoint(self) -> None:
        with self.timers.phase("checkpoint"):
            arrays = {f"closure/{name}": array for name, array in self.closure.state().items()}
            arrays["stepper/previous_dt"] = np.array([self.stepper.previous_dt])
            arrays["stepper/anchor"] = np.array(self.anchor, dtype=np.float64)
            data = CheckpointData(
                self.step,
                self.time,
                self.dt,
                self._cell_fields(),
                arrays,
                self.case.to_toml(),
                self.provenance,
            )
            write_checkpoint(self.output.folder, data, self.grid, self.case.checkpoint.keep)

    def _finish(self) -> dict:
        summary = {
            "case": self.case.title,
            "hpcmsm": self.provenance["hpcmsm"],
            "nranks": self.comm.size,
            "cells": self.grid.total_cells,
            "steps": self.step,
            "time": self.time,
            # Wall times are those since the last start, counts those of the whole run.
            "timed_from_step": self.resumed_at,
            "wall_time": perf_counter() - self.started,
            **self.closure.totals(),
            "micro_work": self.closure.work(),
            **self.macro.figures(),
            "phases": self.timers.over_ranks(self.comm),
            "fields": self._ranges(),
            "files": self.output.files(),
            "provenance": self.provenance,
        }
        self.output.write_summary(summary)
        return summary

    def _ranges(self) -> dict:
        from mpi4py import MPI

        fields = list(self._named("", self.macro.unknowns, self.unknown).values())
        if self.answer is not None:
            fields += self._named("", self.closure.outputs, self.answer.outputs).values()
        ranges = {}
        for field, array in fields:
            for name, row in zip(field.component_names, array, strict=True):
                low = self.comm.allreduce(float(row.min(initial=np.inf)), op=MPI.MIN)
                high = self.comm.allreduce(float(row.max(initial=-np.inf)), op=MPI.MAX)
                ranges[name] = {"unit": field.unit, "min": low, "max": high}
        return ranges


def read_case_of(path: Path) -> tuple[str, dict]:
    """The case text and the provenance that a checkpoint carries."""
    with open_sealed(path, "checkpoint") as reader:
        return reader.text("config"), json.loads(reader.text("provenance"))
