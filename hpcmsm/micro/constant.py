"""A micro model that returns at once: to measure what the framework itself costs."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from pydantic import Field as Key

from hpcmsm.batch import Answer, Batch
from hpcmsm.config import MicroSection, Section, validate
from hpcmsm.fields import Field
from hpcmsm.micro.base import MicroModel

TEMPERATURE = Field("temperature", unit="K", about="macro temperature", lower=0.0, upper=5000.0)


class Constant(MicroModel):
    """The same isotropic conductivity everywhere.

    Args:
        conductivity: W/(m K).
        ndim: 2 or 3.
    """

    inputs = (TEMPERATURE,)

    def __init__(self, conductivity: float = 1.0, ndim: int = 2):
        size, diagonal = {2: (3, 2), 3: (6, 3)}[ndim]
        self.outputs = (
            Field("conductivity", size, "W/(m K)", "effective conductivity", lower=0.0, spd=True),
        )
        self.tensor = np.zeros((size, 1))
        self.tensor[:diagonal] = conductivity

    def evaluate(self, batch: Batch) -> Answer:
        """The constant for every cell."""
        outputs = np.repeat(self.tensor, batch.ncells, axis=1)
        return Answer(outputs, batch.state, np.zeros(batch.ncells, dtype=np.int32))


class Options(Section):
    """Keys of [micro] for model = "constant"."""

    conductivity: Annotated[float, Key(gt=0, allow_inf_nan=False)] = 1.0
    ndim: Literal[2, 3] = 2


def from_case(section: MicroSection, materials, fields, read_image) -> Constant:
    """Build it from the table [micro]."""
    options = validate(Options, section.options, "case file", "micro.")
    return Constant(**options.model_dump())
