"""A micro model that is a kernel: fields and parameters are bound to its arguments by name."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from time import perf_counter

import numpy as np

from hpcmsm.batch import Answer, Batch
from hpcmsm.errors import ConfigError, KernelError
from hpcmsm.fields import Field
from hpcmsm.kernels import Kernel
from hpcmsm.kernels.build import files_of
from hpcmsm.micro.base import History, MicroModel
from hpcmsm.micro.kernel_binding import NCELLS, Parameters, Slot, bind


class KernelModel(MicroModel):
    """A function of a kernel file as a micro model, without a line of Python.

    Every argument of the function is bound by its name: `ncells`; an input, output or state, as an array
    (ncells) or (size, ncells), whose size may be a product such as (n, n, ncells); a parameter; `dt`,
    `time` [s], `step`; `ids`, the global numbers of the cells. A state `x` is a `const real *x` before
    the step and a `real *x_after` after it, or one `real *x` that is advanced in place. The kernel may
    report `int *status` (0 is good), `int *iterations` (from which the cost of a cell is estimated) and
    `real *residual`. Units and shapes must be those of the argument comments.

    Args:
        source: the .c file, or the name of a file in kernels/.
        function: name of the KERNEL in it.
        inputs, outputs, state: the fields of the model.
        parameters: numbers, or lists of numbers, by the name of the argument.
        units: of parameters, by name, to be compared with the argument comments; may lack some.
        initial: function inputs (ninput, n) -> state (nstate, n); None: the fields' start values.
        lift: function inputs, outputs -> state, which makes the history "liftable".
        backend: "cpu" or "gpu".
        dtype: what `real` is; arrays of the model are float64 in any case.
    Raises:
        ConfigError: the kernel is not as declared; one line that names the argument and the rule.
    """

    def __init__(
        self,
        source: str | Path,
        function: str,
        inputs: tuple[Field, ...],
        outputs: tuple[Field, ...],
        state: tuple[Field, ...] = (),
        parameters: Parameters | None = None,
        units: Mapping[str, str] | None = None,
        initial: Callable | None = None,
        lift: Callable | None = None,
        backend: str = "cpu",
        dtype: str = "float64",
    ):
        self.inputs, self.outputs, self.state = tuple(inputs), tuple(outputs), tuple(state)
        self.history: History = "none" if not state else "liftable" if lift else "full"
        self._initial, self._lift = initial, lift
        self.source, self.function = Path(source), function
        try:
            self._kernel = Kernel.load(source, function, backend=backend, dtype=dtype)
        except KernelError as error:
            raise ConfigError(f"{error}") from None
        self._slots = bind(self._kernel, self.inputs, self.outputs, self.state, parameters or {}, units or {})
        self._number_of = np.dtype(dtype).type
        bound = {slot.name for slot in self._slots}
        self.depends_on_dt = "dt" in bound
        hidden = sorted(bound & {"time", "step", "ids"})
        if hidden:
            self.no_surrogate = (
                f"its kernel reads {', '.join(hidden)}, of which a surrogate is not told; "
                "set surrogate.enabled = false"
            )

    def initial_state(self, inputs: np.ndarray) -> np.ndarray:
        """As declared, shape (nstate, n)."""
        return super().initial_state(inputs) if self._initial is None else self._initial(inputs)

    def lift(self, inputs: np.ndarray, outputs: np.ndarray) -> np.ndarray:
        """As declared, shape (nstate, n)."""
        return super().lift(inputs, outputs) if self._lift is None else self._lift(inputs, outputs)

    def evaluate(self, batch: Batch) -> Answer:
        """Call the kernel once for all cells of a batch."""
        start, ncells, kernel = perf_counter(), batch.ncells, self._kernel
        outputs = np.empty((sum(field.size for field in self.outputs), ncells))
        new_state = np.empty_like(batch.state)
        whole = {"input": batch.inputs, "before": batch.state, "in place": batch.state}
        written = {"output": outputs, "after": new_state, "in place": new_state}
        passed, found = {NCELLS: ncells}, {}
        for slot in self._slots:
            if slot.role in ("input", "before", "in place"):
                passed[slot.name] = self._given(whole[slot.role], slot, ncells)
            elif slot.role in ("output", "after"):
                passed[slot.name] = kernel.on_device(np.empty((*slot.lead, ncells), self._number_of))
            elif slot.role == "per cell":
                passed[slot.name] = kernel.on_device(self._per_cell(slot.name, batch))
            else:
                passed[slot.name] = getattr(batch, slot.value) if slot.role == "number" else slot.value
        kernel(**passed)
        for slot in self._slots:
            if slot.role in written:
                written[slot.role][slot.rows] = kernel.on_host(passed[slot.name]).reshape(-1, ncells)
            elif slot.role == "per cell":
                found[slot.name] = kernel.on_host(passed[slot.name])
        return _answer(outputs, new_state, found, perf_counter() - start)

    def _given(self, array: np.ndarray, slot: Slot, ncells: int):
        """Some rows as the kernel takes them; a copy where it writes them."""
        values = array[slot.rows].reshape(*slot.lead, ncells)
        copied = np.array if slot.role == "in place" else np.ascontiguousarray
        return self._kernel.on_device(copied(values, self._number_of))

    def _per_cell(self, name: str, batch: Batch) -> np.ndarray:
        if name == "ids":
            return np.ascontiguousarray(batch.ids, np.int64)
        return np.zeros(batch.ncells, self._number_of if name == "residual" else np.int32)

    def facts(self) -> dict[str, object]:
        """File, function, a digest of the file and its parts, parameters, backend and number type."""
        kernel, fixed = self._kernel, [slot for slot in self._slots if slot.role == "fixed"]
        return {
            "model": "KernelModel",
            "source": self.source.name,
            "function": self.function,
            "sha256": hashlib.sha256(b"".join(p.read_bytes() for p in files_of(kernel.path))).hexdigest(),
            "parameters": {slot.name: np.asarray(slot.value).tolist() for slot in fixed},
            "backend": kernel.backend,
            "dtype": kernel.dtype,
        }


def _answer(outputs: np.ndarray, state: np.ndarray, found: dict, seconds: float) -> Answer:
    ncells = outputs.shape[1]
    cost = np.full(ncells, seconds / max(ncells, 1))
    if "iterations" in found:
        work = np.maximum(found["iterations"], 0) + 1.0  # the rest counts as an iteration
        cost = work * (seconds / max(work.sum(), 1.0))
    residual = found.get("residual")
    return Answer(
        outputs,
        state,
        found.get("status", np.zeros(ncells, np.int32)),
        cost=cost,
        residual=None if residual is None else residual.astype(np.float64),
    )
