"""A Lennard-Jones crystal: its lattice, its units, and the fields by which waves ask for its stress."""

from __future__ import annotations

from functools import cached_property
from typing import Annotated, Literal

import numpy as np
from pydantic import Field as Key

from hpcmsm.config import Section
from hpcmsm.errors import ConfigError
from hpcmsm.fields import Field
from hpcmsm.kernels import Kernel

BOLTZMANN = 1.380649e-23  # J/K, exact in the SI
# Argon (A. Michels, H. Wijker, H. Wijker 1949, Physica 15, 627: 119.8 K and 3.405 A).
DEPTH, DIAMETER, MASS = 119.8 * BOLTZMANN, 3.405e-10, 6.6335e-26

STRETCH = Field("stretch", about="deformation gradient along x", lower=0.7, upper=1.3, start=1.0, scale=0.1)
GRADIENT = Field("deformation_gradient", 9, about="F_iJ, row by row", lower=-0.7, upper=1.7, scale=0.1)
Strain = Literal["stretch", "deformation_gradient"]

# Lattice vectors are kept up to this many cut-offs: what a compression to a half may bring inside.
REACH = 2.0


class Crystal:
    """A face-centred cubic crystal of atoms that attract each other up to a cut-off.

    The potential is 4 epsilon ((sigma/r)^12 - (sigma/r)^6), truncated without a shift. Without an
    argument it is argon; with epsilon = sigma = mass = 1 everything is in reduced units.

    Args:
        epsilon: depth of the potential in J.
        sigma: distance in m at which it crosses zero.
        mass: of an atom in kg.
        cutoff: in sigma.
        lattice_constant: of the undeformed crystal in m; None: where it has no stress at 0 K.
        backend: "cpu" or "gpu", where lattice sums are made.
    Raises:
        ConfigError: an argument is not positive and finite, or the cut-off does not reach a neighbour.

    Attributes:
        density: of the undeformed crystal in kg/m3.
        stress_unit: epsilon / sigma^3 in Pa.
        time_unit: sigma sqrt(mass / epsilon) in s.
    """

    def __init__(
        self,
        epsilon: float = DEPTH,
        sigma: float = DIAMETER,
        mass: float = MASS,
        cutoff: float = 2.5,
        lattice_constant: float | None = None,
        backend: str = "cpu",
    ):
        given = {"epsilon": epsilon, "sigma": sigma, "mass": mass, "cutoff": cutoff}
        if lattice_constant is not None:
            given["lattice_constant"] = lattice_constant
        for name, value in given.items():
            if not 0.0 < value < np.inf:
                raise ConfigError(f"{name} must be positive and finite, got {value}; correct the value")
        if not 1.6 <= cutoff <= 10.0:
            raise ConfigError(f"cutoff must be from 1.6 to 10 sigma, got {cutoff}; 2.5 is usual")
        self.epsilon, self.sigma, self.mass, self.cutoff = map(float, (epsilon, sigma, mass, cutoff))
        self._listed = 0.0, np.empty((0, 3))
        self._energy = Kernel.load("cauchy_born", "cauchy_born", backend=backend)
        self._tangent = Kernel.load("cauchy_born", "cauchy_born_tangent", backend=backend)
        self.lattice = self._relaxed() if lattice_constant is None else lattice_constant / self.sigma
        self.density = 4.0 * self.mass / (self.lattice * self.sigma) ** 3
        self.stress_unit = self.epsilon / self.sigma**3
        self.time_unit = self.sigma * np.sqrt(self.mass / self.epsilon)

    def lattice_sum(self, deformation: np.ndarray, lattice: float | None = None):
        """Energy, stress and status at zero temperature, in units of epsilon and sigma.

        Args:
            deformation: F_iJ row by row, shape (9, n).
            lattice: lattice constant in sigma; None: that of the crystal.
        Returns:
            energy per reference volume (n,), first Piola stress (9, n), status (n,): 0 good, 2 where
            F is no deformation, or compresses beyond the lattice vectors that are summed.
        """
        n, lattice, kernel = deformation.shape[1], lattice or self.lattice, self._energy
        outputs = [kernel.on_device(np.empty(shape)) for shape in (n, (9, n))]
        outputs.append(kernel.on_device(np.empty(n, np.int32)))
        kernel(*self._sizes(n, lattice), *self._arrays(kernel, lattice, deformation), *outputs)
        return tuple(kernel.on_host(array) for array in outputs)

    def tangent(self, deformation: np.ndarray, row: int = 0, column: int = 0) -> np.ndarray:
        """dP_iJ / dF_(row, column) at zero temperature in epsilon / sigma^3, shape (9, n)."""
        n, kernel = deformation.shape[1], self._tangent
        tangent, status = kernel.on_device(np.empty((9, n))), kernel.on_device(np.empty(n, np.int32))
        arrays = self._arrays(kernel, self.lattice, deformation)
        kernel(*self._sizes(n, self.lattice, row, column), *arrays, tangent, status)
        return kernel.on_host(tangent)

    def _sizes(self, n: int, lattice: float, *component: int) -> tuple:
        """The numbers with which both kernels begin."""
        nvector = len(self._vectors(lattice))
        return (n, nvector, *component, self.cutoff, REACH * self.cutoff, lattice**3 / 4.0)

    def _arrays(self, kernel: Kernel, lattice: float, deformation: np.ndarray) -> tuple:
        return kernel.on_device(self._vectors(lattice)), kernel.on_device(deformation)

    def wave_speed(self, stretch: np.ndarray) -> np.ndarray:
        """Speed in m/s of longitudinal waves along x in a crystal stretched along x, at 0 K, shape (n,).

        With respect to the undeformed crystal: sqrt(dP/dF / density). NaN where it is not stable.
        """
        stiffness = self.tangent(uniaxial(np.asarray(stretch, dtype=float)))[0] * self.stress_unit
        with np.errstate(invalid="ignore"):
            return np.sqrt(stiffness / self.density)

    @cached_property
    def _half_sites(self) -> np.ndarray:
        """Vectors of the lattice in lattice constants, without their opposites, shape (nvector, 3)."""
        # The smallest lattice constant that is ever asked for is that of touching neighbours.
        widest = int(np.ceil(2.0 * REACH * self.cutoff))
        axis = np.arange(-widest, widest + 1)
        sites = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)
        x, y, z = sites.T
        ahead = (x > 0) | ((x == 0) & ((y > 0) | ((y == 0) & (z > 0))))
        return 0.5 * sites[ahead & (sites.sum(axis=1) % 2 == 0)]

    def _vectors(self, lattice: float) -> np.ndarray:
        """Lattice vectors in sigma that are summed, shape (nvector, 3); the last ones are kept."""
        if self._listed[0] != lattice:
            vectors = self._half_sites * lattice
            near = (vectors**2).sum(axis=1) <= (REACH * self.cutoff) ** 2
            self._listed = lattice, np.ascontiguousarray(vectors[near])
        return self._listed[1]

    def _relaxed(self) -> float:
        """Lattice constant in sigma at which the crystal has no stress: bisection between bounds."""
        identity = np.eye(3).reshape(9, 1)
        low, high = 1.3, 1.65  # compressed, stretched
        while True:
            middle = 0.5 * (low + high)
            if middle in (low, high):
                return middle
            tension = self.lattice_sum(identity, middle)[1][0, 0] > 0.0
            low, high = (low, middle) if tension else (middle, high)


def uniaxial(stretch: np.ndarray) -> np.ndarray:
    """F = diag(stretch, 1, 1) row by row, shape (9, n)."""
    deformation = np.zeros((9, stretch.shape[0]))
    deformation[0], deformation[4], deformation[8] = stretch, 1.0, 1.0
    return deformation


def strain_field(strain: Strain) -> Field:
    """The input that says how a cell is deformed.

    Raises:
        ConfigError: strain is neither of the two.
    """
    fields = {"stretch": STRETCH, "deformation_gradient": GRADIENT}
    if strain not in fields:
        raise ConfigError(f"strain must be one of {', '.join(fields)}, got '{strain}'; choose one of them")
    return fields[strain]


def stress_field(strain: Strain, name: str = "stress", about: str = "first Piola stress") -> Field:
    """The stress that belongs to an input: P_11, or P_iJ row by row."""
    return Field(name, 1 if strain == "stretch" else 9, "Pa", about)


def deformation_of(strain: Strain, rows: np.ndarray) -> np.ndarray:
    """F_iJ row by row, shape (9, n), of an input's rows."""
    return uniaxial(rows[0]) if strain == "stretch" else np.ascontiguousarray(rows)


Positive = Annotated[float, Key(gt=0, allow_inf_nan=False)]


class CrystalOptions(Section):
    """Keys of [micro] that all models of a crystal have; see `Crystal`."""

    epsilon: Positive = DEPTH
    sigma: Positive = DIAMETER
    mass: Positive = MASS
    cutoff: Annotated[float, Key(ge=1.6, le=10.0)] = 2.5
    lattice_constant: Positive | None = None
    strain: Strain = "stretch"

    def crystal(self, backend: str = "cpu") -> Crystal:
        """The crystal that the keys describe."""
        return Crystal(self.epsilon, self.sigma, self.mass, self.cutoff, self.lattice_constant, backend)
