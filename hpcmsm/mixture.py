"""`Mixture`: thermodynamics of an ideal gas at constant pressure, for whole batches of cells."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from hpcmsm.errors import ConfigError
from hpcmsm.kernels import Kernel

GAS_CONSTANT = 8.31446261815324  # J/(mol K), exact since 2019
MOST_ELEMENTS = 8  # as many as the kernel holds
# Newton's method is done when its last step was below this part of the temperature.
CONVERGED = 1e-9


@dataclass(frozen=True, eq=False)
class Mixture:
    """Data of the species, and what follows from them. Cells are columns, species are rows.

    Args:
        species: their names.
        weights: molar masses in kg/mol, shape (nspecies,).
        thermo: shape (nspecies, 13): temperature in K where two polynomials meet, then above and below
            it five coefficients of the heat capacity in J/(kg K) and the constant of the enthalpy in J/kg.
        share: mass of each element in a mass of each species, shape (nelement, nspecies).
        pressure: in Pa.
        conduction: coefficients of the conductivity over sqrt(T), polynomials of ln T, shape
            (nspecies, 5) in W/(m K^1.5), or None if they are not known.
    """

    species: tuple[str, ...]
    weights: np.ndarray
    thermo: np.ndarray
    share: np.ndarray
    pressure: float
    conduction: np.ndarray | None = None

    def __post_init__(self):
        if len(self.share) > MOST_ELEMENTS:
            raise ConfigError(
                f"a mixture must have at most {MOST_ELEMENTS} elements, got {len(self.share)}; "
                "leave out species of the mechanism"
            )

    @property
    def nspecies(self) -> int:
        return len(self.species)

    @cached_property
    def _kernels(self) -> dict[str, Kernel]:
        names = ("enthalpy", "temperature", "properties", "conserve")
        return {name: Kernel.load("mixture", f"mixture_{name}") for name in names}

    def enthalpy(self, temperature: np.ndarray, fractions: np.ndarray) -> np.ndarray:
        """Enthalpy (n,) in J/kg, that of formation included, at temperatures (n,) in K."""
        enthalpy = np.empty(temperature.size)
        self._kernels["enthalpy"](
            **self._sizes(fractions),
            thermo=self.thermo,
            temperature=temperature,
            fractions=fractions,
            enthalpy=enthalpy,
        )
        return enthalpy

    def temperature(
        self, enthalpy: np.ndarray, fractions: np.ndarray, guess: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Temperature (n,) in K at which the mixture has this enthalpy (n,), near to a guess (n,).

        The second array tells where there is one, (n,) bool: elsewhere mass fractions or enthalpy make
        no sense.
        """
        temperature, residual = guess.copy(), np.empty(guess.size)
        self._kernels["temperature"](
            **self._sizes(fractions),
            thermo=self.thermo,
            enthalpy=enthalpy,
            fractions=fractions,
            temperature=temperature,
            residual=residual,
        )
        return temperature, residual <= CONVERGED

    def properties(
        self, temperature: np.ndarray, fractions: np.ndarray, diffusion: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Density (n,) in kg/m3, and conductivity over heat capacity (n,) in kg/(m s).

        Args:
            diffusion: what takes the place of the latter, where given.
        """
        density = np.empty(temperature.size)
        given = diffusion is not None
        diffusion = diffusion if given else np.empty(temperature.size)
        self._kernels["properties"](
            **self._sizes(fractions),
            pressure_over_r=self.pressure / GAS_CONSTANT,
            thermo=self.thermo,
            moles=1.0 / self.weights,
            conduction=None if given else self.conduction,
            temperature=temperature,
            fractions=fractions,
            density=density,
            diffusion=diffusion,
        )
        return density, diffusion

    def conserve(self, before: np.ndarray, fractions: np.ndarray) -> np.ndarray:
        """Mass fractions (nspecies, n) with the element masses that `before` has.

        They are moved by the smallest relative change that does it.
        """
        fractions = fractions.copy()
        self._kernels["conserve"](
            **self._sizes(fractions),
            nelement=len(self.share),
            share=self.share,
            before=before,
            fractions=fractions,
        )
        return fractions

    def _sizes(self, fractions: np.ndarray) -> dict[str, int]:
        return {"ncells": fractions.shape[1], "nspecies": self.nspecies}
