"""Plain numpy twins of the crystal kernels, in units of epsilon, sigma and the atom's mass."""

import numpy as np

CUTOFF = 2.5
# Statics at that cut-off: lattice constant, energy of an atom, and the elastic constants.
LATTICE, COHESION, C11, C12, C44 = 1.549603, -8.099621, 97.712, 55.627, 55.627


def potential(square):
    """phi, phi'/r and (phi'' - phi'/r) / r^2 of squared distances."""
    energy = 4.0 * (square**-6 - square**-3)
    slope = (-48.0 * square**-6 + 24.0 * square**-3) / square
    second = (624.0 * square**-6 - 168.0 * square**-3) / square
    return energy, slope, (second - slope) / square


def lattice_sum(deformation, lattice, cutoff=CUTOFF, reach=12):
    """Energy per atom, P_iJ (3, 3) and dP_iJ/dF_kL (3, 3, 3, 3): a sum over all sites near the origin."""
    axis = np.arange(-reach, reach + 1)
    sites = np.array(np.meshgrid(axis, axis, axis)).reshape(3, -1).T
    sites = sites[(sites.sum(axis=1) % 2 == 0) & np.any(sites != 0, axis=1)] * (lattice / 2.0)
    r = sites @ deformation.T
    square = (r**2).sum(axis=1)
    near = square < cutoff**2
    sites, r, square = sites[near], r[near], square[near]
    energy, slope, curve = potential(square)
    volume = lattice**3 / 4.0
    stress = 0.5 * np.einsum("n,ni,nj->ij", slope, r, sites) / volume
    tangent = np.einsum("n,ni,nj,nk,nl->ijkl", curve, r, sites, r, sites)
    tangent += np.einsum("n,ik,nj,nl->ijkl", slope, np.eye(3), sites, sites)
    return 0.5 * energy.sum(), stress, 0.5 * tangent / volume


def fcc(side, lattice):
    """Positions of 4 side^3 atoms, shape (natom, 3), in a cube of side * lattice."""
    cells = np.array(np.meshgrid(*[np.arange(side)] * 3, indexing="ij")).reshape(3, -1).T
    basis = np.array([[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])
    return (cells[:, None] + basis).reshape(-1, 3) * lattice


def all_pairs(positions, deformation, side, cutoff=CUTOFF):
    """Forces (natom, 3), energy of the box and virial (3, 3), from every pair's nearest image."""
    edges = deformation * side
    d = positions[:, None] - positions[None]
    d = d - np.rint(d @ np.linalg.inv(edges).T) @ edges.T
    square = (d**2).sum(axis=-1)
    np.fill_diagonal(square, np.inf)
    square[square >= cutoff**2] = np.inf
    with np.errstate(invalid="ignore"):
        energy, slope, _ = potential(square)
    slope = np.nan_to_num(slope)
    forces = -(slope[..., None] * d).sum(axis=1)
    return forces, 0.5 * energy.sum(), -0.5 * np.einsum("ij,ija,ijb->ab", slope, d, d)
