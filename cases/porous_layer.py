"""A micro model of one's own, for cases/own_micro.toml: copy it and change the physics.

Heat conduction through a porous solid by Maxwell's formula, with pores that close slowly where it
is hot, so that every cell also remembers something.
"""

import numpy as np

from hpcmsm.batch import Answer
from hpcmsm.fields import Field
from hpcmsm.micro.base import MicroModel


class PorousLayer(MicroModel):
    """Conductivity of a solid with round pores whose fraction decays with a temperature-dependent rate."""

    inputs = (Field("temperature", unit="K", lower=200.0, upper=2000.0),)
    outputs = (Field("conductivity", 3, "W/(m K)", "effective conductivity", lower=0.0, spd=True),)
    state = (Field("porosity", unit="1", about="volume fraction of pores", lower=0.0, upper=1.0, start=0.4),)
    history = "full"  # a cell must be advanced in every step, so no surrogate may replace it

    def __init__(self, solid: float = 2.0, pores: float = 0.03, rate: float = 1e-3):
        self.solid, self.pores, self.rate = solid, pores, rate

    def evaluate(self, batch):
        temperature, porosity = batch.inputs[0], batch.state[0]
        closing = self.rate * np.maximum(temperature - 600.0, 0.0) / 100.0
        porosity = porosity / (1.0 + closing * batch.dt)  # backward Euler
        contrast = (self.pores - self.solid) / (self.pores + self.solid)
        k = self.solid * (1.0 + contrast * porosity) / (1.0 - contrast * porosity)  # Maxwell 1873, 2D
        outputs = np.stack([k, k, np.zeros_like(k)])  # rows xx, yy, xy
        return Answer(outputs, porosity[None], np.zeros(batch.ncells, np.int32))
