"""Stress of a Lennard-Jones crystal at zero temperature by the Cauchy-Born rule (kernels/cauchy_born.c)."""

from __future__ import annotations

import numpy as np

from hpcmsm.batch import Answer, Batch
from hpcmsm.config import MicroSection, validate
from hpcmsm.micro.base import MicroModel
from hpcmsm.micro.crystal import Crystal, CrystalOptions, Strain, deformation_of, strain_field, stress_field


class CauchyBorn(MicroModel):
    """First Piola stress, as the derivative of the lattice's energy by the deformation.

    Deterministic and without a state; 0.5 us a cell. Status 2: not a deformation, or one that compresses
    the lattice to below a half.

    Args:
        crystal: the lattice and its units; None: argon.
        strain: "stretch", F = diag(stretch, 1, 1), which is answered by P_11, or
            "deformation_gradient", F_iJ row by row, which is answered by P_iJ row by row.
    Raises:
        ConfigError: strain is neither.

    Source: J. L. Ericksen 1984, The Cauchy and Born hypotheses for crystals; R. E. Miller, E. B. Tadmor
    2009, doi 10.1088/0965-0393/17/5/053001.
    """

    history = "none"

    def __init__(self, crystal: Crystal | None = None, strain: Strain = "stretch"):
        self.crystal, self.strain = crystal or Crystal(), strain
        self.inputs = (strain_field(strain),)
        self.outputs = (stress_field(strain),)
        self.density, self.wave_speed = self.crystal.density, self.crystal.wave_speed

    def evaluate(self, batch: Batch) -> Answer:
        """The stresses of a batch, in one kernel call."""
        deformation = deformation_of(self.strain, batch.inputs)
        _, stress, status = self.crystal.lattice_sum(deformation)
        rows = stress[: self.outputs[0].size] * self.crystal.stress_unit
        return Answer(rows, batch.state, status)

    def energy(self, inputs: np.ndarray) -> np.ndarray:
        """Elastic energy in J per m3 of the undeformed crystal, shape (n,)."""
        energy, _, _ = self.crystal.lattice_sum(deformation_of(self.strain, inputs))
        return energy * self.crystal.stress_unit

    def facts(self) -> dict[str, object]:
        """The potential, and what follows from it for waves."""
        crystal = self.crystal
        return {
            "model": "CauchyBorn",
            "epsilon": crystal.epsilon,
            "sigma": crystal.sigma,
            "mass": crystal.mass,
            "cutoff": crystal.cutoff,
            "lattice_constant": crystal.lattice * crystal.sigma,
            "density": crystal.density,
            "wave_speed": float(crystal.wave_speed(np.ones(1))[0]),
            "strain": self.strain,
        }


def from_case(section: MicroSection, materials, fields, read_image) -> CauchyBorn:
    """Build the model from the table [micro].

    Raises:
        ConfigError: an option is wrong.
    """
    options = validate(CrystalOptions, section.options, "case file", "micro.")
    return CauchyBorn(options.crystal(section.backend), options.strain)
