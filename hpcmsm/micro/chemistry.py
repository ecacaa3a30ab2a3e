"""Chemistry of a cell: a reactor at constant pressure, advanced by Cantera over one time step.

Cantera is the product of D. G. Goodwin, H. K. Moffat, I. Schoegl, R. L. Speth and B. W. Weber,
https://www.cantera.org; it integrates with CVODE (Hindmarsh et al. 2005, doi 10.1145/1089014.1089020).
"""

from __future__ import annotations

import warnings
from pathlib import Path
from time import thread_time
from typing import Annotated

import numpy as np
from pydantic import Field as Key

from hpcmsm.batch import Answer, Batch
from hpcmsm.config import Count, MicroSection, Section, validate
from hpcmsm.errors import ConfigError, SetupError
from hpcmsm.fields import Field
from hpcmsm.micro.base import MicroModel
from hpcmsm.mixture import GAS_CONSTANT, Mixture

COLDEST, HOTTEST = 200.0, 5000.0  # K, beyond which no mechanism means anything
# Status of a cell.
SOLVED, FAILED, NO_MIXTURE = 0, 1, 2
# How far the mass fractions of a cell may be from 1 in sum, and below 0.
SUM_SLACK, NEGATIVE_SLACK = 1e-6, 2e-3
# What a surrogate's answer may make of a mass fraction, and of the mass of an element.
ADMISSIBLE_NEGATIVE, ADMISSIBLE_LOSS = 1e-8, 1e-10


class Chemistry(MicroModel):
    """Mass fractions that react at constant pressure and enthalpy.

    The answer is the change of every mass fraction over the step. The temperature follows from the
    enthalpy, which no reaction changes; so whoever uses the answer conserves energy to rounding, and
    elements are conserved to rounding by a correction that is smaller than the integrator's tolerance.

    Every cell gets a new integrator: one that is used again remembers something of the cell before
    (measured: up to 8e-4 K), and would be hardly any faster.

    Args:
        mechanism: a file that Cantera finds, or the path of one.
        pressure: in Pa.
        tolerance, absolute_tolerance: of the integrator, per step; the latter of mass fractions.
        max_steps: most internal steps of the integrator.

    Attributes:
        mixture: thermodynamics of the species.
    """

    history = "none"
    depends_on_dt = True

    def __init__(
        self,
        mechanism: str = "h2o2.yaml",
        pressure: float = 101325.0,
        tolerance: float = 1e-6,
        absolute_tolerance: float = 1e-12,
        max_steps: int = 20000,
    ):
        self._cantera = import_cantera()
        self.mechanism, self.pressure = mechanism, float(pressure)
        self.tolerance, self.absolute_tolerance, self.max_steps = tolerance, absolute_tolerance, max_steps
        self._gas = self._read(mechanism)
        self.mixture = mixture_of(self._gas, self.pressure)
        self.inputs = (
            Field("temperature", 1, "K", "temperature", COLDEST, HOTTEST, scale=1000.0, start=300.0),
            *(Field(name, 1, "1", f"mass fraction of {name}", lower=0.0) for name in self.mixture.species),
        )
        self.outputs = tuple(
            Field(f"change_{name}", 1, "1", f"what a step of reaction adds to the mass fraction of {name}")
            for name in self.mixture.species
        )

    def _read(self, mechanism: str):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                return self._cantera.Solution(mechanism)
        except (self._cantera.CanteraError, OSError) as error:
            raise ConfigError(
                f"micro.mechanism must be a mechanism that Cantera can read, got '{mechanism}' "
                f"({_first_line(error)}); give h2o2.yaml, gri30.yaml, or a file beside the case"
            ) from None

    def evaluate(self, batch: Batch) -> Answer:
        """Integrate the cells of a batch one by one over batch.dt; for dt = 0 nothing changes."""
        before = np.ascontiguousarray(batch.inputs[1:])
        after = before.copy()
        status, cost = self._checked(batch.inputs), np.zeros(batch.ncells)
        if batch.dt > 0.0:
            for cell in np.flatnonzero(status == SOLVED):
                start = thread_time()  # what other programs do meanwhile is no cost of the cell
                status[cell] = self._advance(batch.inputs[0, cell], before[:, cell], batch.dt, after[:, cell])
                cost[cell] = thread_time() - start
            after = self.mixture.conserve(before, np.maximum(after, 0.0))
        return Answer(after - before, batch.state, status, cost=cost)

    @staticmethod
    def _checked(inputs: np.ndarray) -> np.ndarray:
        """NO_MIXTURE where temperature or mass fractions are impossible, shape (n,) int32."""
        total = np.zeros(inputs.shape[1])
        for row in inputs[1:]:
            total += row
        with np.errstate(invalid="ignore"):
            fine = np.isfinite(inputs).all(axis=0) & (np.abs(total - 1.0) <= SUM_SLACK)
            fine &= (inputs[0] >= COLDEST) & (inputs[0] <= HOTTEST)
            fine &= (inputs[1:] >= -NEGATIVE_SLACK).all(axis=0)
        return np.where(fine, SOLVED, NO_MIXTURE).astype(np.int32)

    def _advance(self, temperature: float, fractions: np.ndarray, dt: float, out: np.ndarray) -> int:
        """Advance one cell, mass fractions (nspecies,) into out; its status."""
        gas, cantera = self._gas, self._cantera
        try:
            gas.TPY = temperature, self.pressure, fractions
            reactor = cantera.IdealGasConstPressureReactor(gas, clone=False)
            net = cantera.ReactorNet([reactor])
            net.rtol, net.atol, net.max_steps = self.tolerance, self.absolute_tolerance, self.max_steps
            net.advance(dt)
        except cantera.CanteraError:
            return FAILED
        out[:] = reactor.phase.Y
        return SOLVED

    def conserved(self, inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The changes add nothing to any element: sums (nelement, nspecies), and 0 for each cell."""
        return self.mixture.share, np.zeros((len(self.mixture.share), inputs.shape[1]))

    def admissible(self, inputs: np.ndarray, outputs: np.ndarray) -> np.ndarray:
        """Whether mass fractions stay positive, elements are kept, and a temperature belongs to it."""
        temperature, before = np.ascontiguousarray(inputs[0]), np.ascontiguousarray(inputs[1:])
        after = np.ascontiguousarray(before + outputs)
        fine = np.isfinite(outputs).all(axis=0)
        with np.errstate(invalid="ignore"):
            fine &= (after >= np.minimum(before, 0.0) - ADMISSIBLE_NEGATIVE).all(axis=0)
            for shares in self.mixture.share:
                lost = np.zeros(outputs.shape[1])
                for share, row in zip(shares, outputs, strict=True):
                    lost += share * row
                fine &= np.abs(lost) <= ADMISSIBLE_LOSS
        enthalpy = self.mixture.enthalpy(temperature, before)
        found, exists = self.mixture.temperature(enthalpy, after, temperature)
        return fine & exists & (found >= COLDEST) & (found <= HOTTEST)

    def facts(self) -> dict[str, object]:
        """Mechanism and its size, pressure, tolerances, Cantera's version."""
        return {
            "model": "Chemistry",
            "mechanism": Path(self.mechanism).name,
            "species": self.mixture.nspecies,
            "reactions": self._gas.n_reactions,
            "pressure": self.pressure,
            "tolerance": self.tolerance,
            "absolute_tolerance": self.absolute_tolerance,
            "cantera": self._cantera.__version__,
        }


def import_cantera():
    """The package.

    Raises:
        SetupError: it is not installed.
    """
    try:
        import cantera
    except ImportError as error:
        raise SetupError(
            f"micro.model 'cantera' needs the package cantera, got none ({error}); "
            "pip install 'hpcmsm[chemistry]'"
        ) from None
    return cantera


def mixture_of(gas, pressure: float) -> Mixture:
    """Thermodynamics of a Cantera phase.

    Raises:
        ConfigError: its species are not described by two NASA polynomials of seven coefficients.
    """
    weights = gas.molecular_weights / 1000.0
    atoms = np.array([[gas.n_atoms(s, e) for s in gas.species_names] for e in gas.element_names])
    share = atoms * gas.atomic_weights[:, None] / gas.molecular_weights
    thermo = np.array([_polynomials(species) for species in gas.species()])
    # From units of the gas constant to those of mass, but for the temperature between the polynomials.
    thermo[:, 1:] *= (GAS_CONSTANT / weights)[:, None]
    return Mixture(tuple(gas.species_names), weights, thermo, share, pressure, _conduction(gas))


def _polynomials(species) -> np.ndarray:
    """Middle temperature, then heat capacity and enthalpy above and below it, in units of R."""
    thermo = species.thermo
    if type(thermo).__name__ != "NasaPoly2":
        raise ConfigError(
            f"micro.mechanism must describe its species by NASA7 polynomials, got {type(thermo).__name__} "
            f"for {species.name}; choose another mechanism"
        )
    # Each polynomial also has the constant of an entropy, which nobody here asks for.
    return np.concatenate([thermo.coeffs[:7], thermo.coeffs[8:14]])


def _conduction(gas) -> np.ndarray | None:
    """Fits of the species' conductivities over sqrt(T), None where the mechanism has no transport data."""
    if gas.transport_model in ("none", ""):
        return None
    return np.array([gas.get_thermal_conductivity_polynomial(k) for k in range(gas.n_species)])


def _first_line(error: Exception) -> str:
    """What Cantera's error says, without its frame of stars."""
    lines = [line.strip(" *") for line in str(error).splitlines()]
    return next((line for line in lines if line and not line.startswith("CanteraError")), "unreadable")


class Options(Section):
    """Keys of [micro] for model = "cantera"; see Chemistry. mechanism: first looked for beside the case."""

    mechanism: str = "h2o2.yaml"
    pressure: Annotated[float, Key(gt=0, allow_inf_nan=False)] = 101325.0
    tolerance: Annotated[float, Key(gt=0, lt=1)] = 1e-6
    absolute_tolerance: Annotated[float, Key(gt=0, lt=1)] = 1e-12
    max_steps: Count = 20000


def from_case(section: MicroSection, materials, fields, read_image, folder: Path) -> Chemistry:
    """Build it from the table [micro]."""
    options = validate(Options, section.options, "case file", "micro.")
    beside = folder / options.mechanism
    mechanism = str(beside) if beside.is_file() else options.mechanism
    return Chemistry(**{**options.model_dump(), "mechanism": mechanism})
