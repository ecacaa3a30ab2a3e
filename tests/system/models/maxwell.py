"""A quick stand-in for a unit cell: Maxwell's formula with temperature-dependent phases."""

import numpy as np

from hpcmsm.batch import Answer
from hpcmsm.fields import Field
from hpcmsm.micro.base import MicroModel


class Maxwell(MicroModel):
    inputs = (
        Field("temperature", unit="K", lower=200.0, upper=1000.0),
        Field("fraction", unit="1", lower=0.0, upper=0.785),
    )
    outputs = (Field("conductivity", 3, "W/(m K)", lower=0.0, spd=True),)

    def evaluate(self, batch):
        temperature, fraction = batch.inputs
        matrix = 0.2087 + 3.43e-4 * (temperature - 273.15)
        fibre = 2.4 + 5.07e-3 * (temperature - 273.15)
        contrast = (fibre - matrix) / (fibre + matrix)
        k = matrix * (1 + contrast * fraction) / (1 - contrast * fraction)
        return Answer(np.stack([k, k, np.zeros_like(k)]), batch.state, np.zeros(batch.ncells, np.int32))


class Ageing(Maxwell):
    """The same with a state that every step changes."""

    state = (Field("age", unit="s", start=0.0),)
    history = "full"

    def evaluate(self, batch):
        answer = super().evaluate(batch)
        age = batch.state + batch.dt * batch.inputs[0] / 300.0
        return Answer(answer.outputs * (1.0 - 1e-3 * age), age, answer.status)
