"""A human ventricular cell, epicardial: ten Tusscher and Panfilov 2006 (kernel kernels/tt06.c)."""

from __future__ import annotations

import numpy as np

from hpcmsm.batch import Answer, Batch
from hpcmsm.config import Count, MicroSection, Section, validate
from hpcmsm.fields import Field
from hpcmsm.kernels import Kernel
from hpcmsm.micro.base import MicroModel

VOLTAGE = Field(
    "voltage", unit="mV", about="inside of the membrane against its outside", lower=-200, upper=200
)
STIMULUS = Field("stimulus", unit="V/s", about="current from outside over the membrane's capacitance")
AFTER = Field("voltage_after", unit="mV", about="voltage that the cell alone reaches at the end of the step")


def gate(name: str, start: float) -> Field:
    """A gate, from 0 (closed) to 1 (open)."""
    return Field(f"gate_{name}", about=f"gate {name}", lower=0.0, upper=1.0, start=start)


def concentration(name: str, start: float, about: str) -> Field:
    """An amount of ions in mmol/l."""
    return Field(name, unit="mmol/l", about=about, lower=0.0, start=start)


# Cells of a block: on the CPU their 19 numbers each fit into the nearest cache, on the GPU each has a thread.
BLOCK = {"cpu": 64, "gpu": 128}

MS_PER_S = 1e3


class TT06(MicroModel):
    """Voltage and ions of a myocyte, advanced by a macro time step.

    Gates by Rush and Larsen's exponential step, the rest by forward Euler; first order in time. The peak
    of a beat is 37.7 mV; a step of 0.05 ms makes it 43, 0.1 ms 50, 0.2 ms 66, and 0.5 ms ends with an error:
    ask for more substeps then.

    Args:
        substeps: equal steps that a macro time step is cut into.
        backend: "cpu" or "gpu".
    Source: ten Tusscher and Panfilov 2006, doi 10.1152/ajpheart.00109.2006; start values of Niederer et
        al. 2011, doi 10.1098/rsta.2011.0139.
    """

    inputs = (VOLTAGE, STIMULUS)
    outputs = (AFTER,)
    state = (
        gate("xr1", 0.00621),
        gate("xr2", 0.4712),
        gate("xs", 0.0095),
        gate("m", 0.00172),
        gate("h", 0.7444),
        gate("j", 0.7045),
        gate("d", 3.373e-5),
        gate("f", 0.7888),
        gate("f2", 0.9755),
        gate("fcass", 0.9953),
        gate("s", 0.999998),
        gate("r", 2.42e-8),
        concentration("calcium", 0.000126, "calcium in the cytoplasm"),
        concentration("calcium_reticulum", 3.64, "calcium in the sarcoplasmic reticulum"),
        concentration("calcium_subspace", 0.00036, "calcium between reticulum and membrane"),
        Field("release_ready", about="share of release channels not inactivated", upper=1.0, start=0.9073),
        concentration("sodium", 8.604, "sodium in the cytoplasm"),
        concentration("potassium", 136.89, "potassium in the cytoplasm"),
    )
    history = "full"

    def __init__(self, substeps: int = 1, backend: str = "cpu"):
        self.substeps = substeps
        self._kernel = Kernel.load("tt06", "tt06_advance", backend=backend)
        self._block = BLOCK[backend]

    def evaluate(self, batch: Batch) -> Answer:
        """Advance by batch.dt in s; status 1 where a value is not finite or the voltage impossible."""
        if batch.dt == 0.0:
            return Answer(batch.inputs[:1].copy(), batch.state.copy(), np.zeros(batch.ncells, np.int32))
        n, kernel = batch.ncells, self._kernel
        outputs = kernel.on_device(np.empty((1, n)))
        state = kernel.on_device(np.empty((len(self.state), n)))
        status = kernel.on_device(np.empty(n, np.int32))
        kernel(
            ncells=n,
            nblock=-(-n // self._block),
            size=self._block,
            nsubstep=self.substeps,
            dt=batch.dt * MS_PER_S / self.substeps,
            stimulus=kernel.on_device(batch.inputs[1]),
            voltage=kernel.on_device(batch.inputs[0]),
            state=kernel.on_device(batch.state),
            voltage_after=outputs[0],
            state_after=state,
            status=status,
        )
        return Answer(kernel.on_host(outputs), kernel.on_host(state), kernel.on_host(status))


class Options(Section):
    """Keys of [micro] for model = "tt06"."""

    substeps: Count = 1


def from_case(section: MicroSection, materials, fields, read_image) -> TT06:
    """Build it from the table [micro]."""
    options = validate(Options, section.options, "case file", "micro.")
    return TT06(options.substeps, section.backend)
