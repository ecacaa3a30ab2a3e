"""Stress of a Lennard-Jones crystal at a temperature, by molecular dynamics (kernels/lennard_jones.c)."""

from __future__ import annotations

from time import perf_counter
from typing import Annotated, NamedTuple

import numpy as np
from pydantic import Field as Key

from hpcmsm.batch import Answer, Batch
from hpcmsm.config import Count, MicroSection, validate
from hpcmsm.errors import ConfigError
from hpcmsm.fields import Field
from hpcmsm.kernels import Kernel
from hpcmsm.micro.base import MicroModel
from hpcmsm.micro.crystal import (
    BOLTZMANN,
    Crystal,
    CrystalOptions,
    Positive,
    Strain,
    deformation_of,
    strain_field,
    stress_field,
)
from hpcmsm.parallel import random_bits

SMALLEST_BOX, LARGEST_BOX = 4, 6  # lattice constants a side: 256 to 864 atoms
# Neighbours that the lists hold, as a multiple of those in an undeformed crystal: twice is not a solid.
CROWDED = 2.0


class Averages(NamedTuple):
    """What a run of the atoms gives, in units of epsilon and sigma.

    stress, error: first Piola stress and its standard error, shape (9, n). energy: potential and kinetic
    of an atom, shape (2, n). status: shape (n,), see `LennardJones`.
    """

    stress: np.ndarray
    error: np.ndarray
    energy: np.ndarray
    status: np.ndarray


class LennardJones(MicroModel):
    """First Piola stress of a small periodic crystal under a given deformation and temperature.

    Every call starts from the deformed lattice, so that there is no state: the atoms are thermalised,
    then their stress is averaged over blocks of samples, whose scatter gives the standard error. Random
    numbers are keyed by (seed, step, iteration, cell id): another step of the run draws other noise.

    Args:
        crystal: the lattice and its units; None: argon. Give it the lattice constant of the temperature
            (measured here: the stress of argon's lattice of 0 K is -0.97 epsilon/sigma^3 at 12 K).
        temperature: in K; None: a field of the cells, `temperature`.
        side: lattice constants along a side of the box, 4 to 6.
        time_step, friction: in reduced units, sigma sqrt(mass/epsilon) and its inverse.
        equilibration: steps before the first sample.
        blocks, samples, every: number of blocks, samples of a block, and steps from sample to sample.
            The error is only right where a block is longer than the memory of the stress: at friction 5
            a block of one time unit gives 0.93 of the scatter over boxes, at friction 1 one of half a
            unit gives a third of it.
        skin: in sigma, how far lists of neighbours reach beyond the cut-off. Changes no bit of the answer.
        strain: "stretch" or "deformation_gradient", as in `CauchyBorn`.
        noise: whether the standard error is an output of its own, `stress_error`; a surrogate should
            not be made to learn it. It is in Answer.residual in any case, the largest of the components.
        seed: of the random numbers.
        backend: "cpu" or "gpu".
    Raises:
        ConfigError: an argument is out of range, or the box too small for the cut-off.

    Status of an answer: 0 good, 2 not a deformation, or one that makes the box narrower than two cut-offs,
    3 the atoms have blown up (a smaller time_step is needed).
    """

    history = "none"

    def __init__(
        self,
        crystal: Crystal | None = None,
        temperature: float | None = None,
        side: int = 4,
        time_step: float = 0.005,
        friction: float = 5.0,
        equilibration: int = 400,
        blocks: int = 10,
        samples: int = 20,
        every: int = 10,
        skin: float = 0.3,
        strain: Strain = "stretch",
        noise: bool = True,
        seed: int = 0,
        backend: str = "cpu",
    ):
        self.crystal, self.strain, self.seed, self.backend = crystal or Crystal(), strain, seed, backend
        self.temperature, self.side, self.skin = temperature, int(side), float(skin)
        self.time_step, self.friction = float(time_step), float(friction)
        self.equilibration, self.blocks, self.samples, self.every = equilibration, blocks, samples, every
        self._check()
        self.inputs = (strain_field(strain), *self._temperature_field())
        error = stress_field(strain, "stress_error", "standard error of the stress")
        self.outputs = (stress_field(strain), *((error,) if noise else ()))
        self.density, self.wave_speed = self.crystal.density, self.crystal.wave_speed
        self.natom = 4 * self.side**3
        self.kernel = Kernel.load("lennard_jones", "lennard_jones", backend=backend)
        reach = (self.crystal.cutoff + self.skin) / self.crystal.lattice
        self.most = int(CROWDED * 4.0 * 4.0 / 3.0 * np.pi * reach**3)

    def evaluate(self, batch: Batch) -> Answer:
        """Run the atoms of a batch, in one kernel call."""
        start = perf_counter()
        bits = random_bits("atoms", self.seed, batch.step, batch.iteration, batch.ids)
        found = self.run(
            deformation_of(self.strain, batch.inputs[: self.inputs[0].size]),
            self._temperatures(batch.inputs),
            bits.view(np.int64),
        )
        size = self.outputs[0].size
        parts = (found.stress[:size], found.error[:size])[: len(self.outputs)]
        outputs = np.concatenate(parts) * self.crystal.stress_unit
        cost = np.full(batch.ncells, (perf_counter() - start) / max(batch.ncells, 1))
        residual = found.error[:size].max(axis=0) * self.crystal.stress_unit
        return Answer(outputs, batch.state, found.status, cost=cost, residual=residual)

    def run(self, deformation: np.ndarray, temperature: np.ndarray, keys: np.ndarray) -> Averages:
        """Atoms under these deformations (9, n), at temperatures (n,) in epsilon, with random keys (n,)."""
        n, kernel = deformation.shape[1], self.kernel
        found = Averages(
            stress=kernel.on_device(np.empty((9, n))),
            error=kernel.on_device(np.empty((9, n))),
            energy=kernel.on_device(np.empty((2, n))),
            status=kernel.on_device(np.empty(n, np.int32)),
        )
        kernel(
            ncells=n,
            nside=self.side,
            natom=self.natom,
            most=self.most,
            nword=list_words(self.natom, self.most, kernel),
            equilibration=self.equilibration,
            nblock=self.blocks,
            nsample=self.samples,
            every=self.every,
            dt=self.time_step,
            friction=self.friction,
            cutoff=self.crystal.cutoff,
            skin=self.skin,
            lattice=self.crystal.lattice,
            temperature=kernel.on_device(temperature),
            key=kernel.on_device(keys),
            deformation=kernel.on_device(deformation),
            positions=None,
            velocities=None,
            stress=found.stress,
            error=found.error,
            energy=found.energy,
            status=found.status,
        )
        return Averages(*(kernel.on_host(array) for array in found))

    def facts(self) -> dict[str, object]:
        """The potential, the box and how long it is run."""
        crystal = self.crystal
        return {
            "model": "LennardJones",
            "epsilon": crystal.epsilon,
            "sigma": crystal.sigma,
            "mass": crystal.mass,
            "cutoff": crystal.cutoff,
            "lattice_constant": crystal.lattice * crystal.sigma,
            "density": crystal.density,
            "atoms": self.natom,
            "steps": self.equilibration + self.blocks * self.samples * self.every,
            "time_step": self.time_step,
            "friction": self.friction,
            "strain": self.strain,
            "backend": self.backend,
            **({} if self.temperature is None else {"temperature": self.temperature}),
        }

    def _temperature_field(self) -> tuple[Field, ...]:
        if self.temperature is not None:
            return ()
        upper = 2.0 * self.crystal.epsilon / BOLTZMANN
        return (Field("temperature", unit="K", about="of the atoms", lower=0.0, upper=upper),)

    def _temperatures(self, inputs: np.ndarray) -> np.ndarray:
        """In units of epsilon, shape (n,)."""
        kelvin = inputs[-1] if self.temperature is None else np.full(inputs.shape[1], self.temperature)
        return np.ascontiguousarray(kelvin * (BOLTZMANN / self.crystal.epsilon))

    def _check(self) -> None:
        ranges = {
            "temperature": (self.temperature or 0.0, 0.0, np.inf),
            "side": (self.side, SMALLEST_BOX, LARGEST_BOX),
            "time_step": (self.time_step, 1e-5, 0.02),
            "friction": (self.friction, 0.0, 100.0),
            "equilibration": (self.equilibration, 0, 10**8),
            "blocks": (self.blocks, 2, 10**6),
            "samples": (self.samples, 1, 10**6),
            "every": (self.every, 1, 10**6),
            "skin": (self.skin, 0.05, 1.0),
        }
        for name, (value, low, high) in ranges.items():
            if not low <= value <= high:
                raise ConfigError(f"{name} must be from {low:g} to {high:g}, got {value}; correct the value")
        if self.side * self.crystal.lattice < 2.0 * (self.crystal.cutoff + 0.05):
            raise ConfigError(
                f"side must make the box wider than two cut-offs, got {self.side} lattice constants; raise it"
            )


def list_words(natom: int, most: int, kernel: Kernel) -> int:
    """Scratch numbers per lane that hold the neighbour lists of a team."""
    nbytes = 4 * natom * (most * kernel.lanes + 1)
    return -(-nbytes // (np.dtype(kernel.dtype).itemsize * kernel.lanes))


class Options(CrystalOptions):
    """Keys of [micro] for model = "lennard_jones"; see `LennardJones`."""

    temperature: Annotated[float, Key(ge=0, allow_inf_nan=False)] | None = None
    side: Annotated[int, Key(ge=SMALLEST_BOX, le=LARGEST_BOX, strict=True)] = 4
    time_step: Positive = 0.005
    friction: Annotated[float, Key(ge=0)] = 5.0
    equilibration: Annotated[int, Key(ge=0, strict=True)] = 400
    blocks: Annotated[int, Key(ge=2, strict=True)] = 10
    samples: Count = 20
    every: Count = 10
    skin: Annotated[float, Key(ge=0.05, le=1.0)] = 0.3
    noise: bool = True
    seed: Annotated[int, Key(ge=0, strict=True)] = 0


def from_case(section: MicroSection, materials, fields, read_image) -> LennardJones:
    """Build the model from the table [micro].

    Raises:
        ConfigError: an option is wrong.
    """
    options = validate(Options, section.options, "case file", "micro.")
    own = options.model_dump(exclude=set(CrystalOptions.model_fields) - {"strain"})
    return LennardJones(options.crystal(), backend=section.backend, **own)
