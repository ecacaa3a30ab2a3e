"""What happens inside one unit cell, point by point: for pictures."""

from __future__ import annotations

import numpy as np

from hpcmsm.errors import MicroError
from hpcmsm.fields import Field
from hpcmsm.micro.cell_problem import CellProblem
from hpcmsm.micro.microstructure import make_microstructure
from hpcmsm.micro.tensors import matrices, seen_in

AXES = "xyz"


def fields_inside(
    labels: np.ndarray, phases: np.ndarray, corrector: np.ndarray, parts: np.ndarray | None = None
) -> list:
    """Fields of one cell for unit gradients of the macro temperature along each axis.

    Fluxes are means of those through the two sides of a point, with the harmonic mean of the two
    conductivities, as in the cell problem: their means over the cell are the columns of K.

    Args:
        labels: phase of each point, shape (n,) * ndim.
        phases: conductivities in W/(m K), shape (naxis, nphase); naxis is 1 or at least ndim; with `parts`
            all components of tensors.
        corrector: chi of each load, shape (ndim, *labels.shape), in units of the distance of points.
        parts: of full tensors, the gradients at corners, see `Solution`; fluxes are then those of the mean
            gradient of each point.
    Returns:
        pairs of a Field and its values, shape (size, *labels.shape).
    """
    ndim, n = labels.ndim, labels.shape[0]
    naxis = len(phases) if parts is not None else 1 if len(phases) == 1 else ndim
    conductivity = phases[:naxis, labels]
    found = [
        (Field("phase", about="number of the phase"), labels[None].astype(float)),
        (Field("conductivity", naxis, "W/(m K)", "alike, or along x, y[, z], or a tensor"), conductivity),
    ]
    for load, chi in enumerate(corrector):
        axis = AXES[load]
        if parts is None:
            sides = [_through_sides(chi, conductivity[min(d, naxis - 1)], d, d == load) for d in range(ndim)]
            gradient, flux = (np.stack(values) for values in zip(*sides, strict=True))
        else:
            gradient = _mean_of_parts(parts[load])
            flux = np.einsum("...ab,b...->a...", matrices(conductivity), gradient)
        about = f"for a temperature that rises by 1 K/m along {axis}"
        found += [
            (Field(f"corrector_{axis}", 1, "m", f"deviation of the temperature, {about}"), chi[None] / n),
            (Field(f"gradient_{axis}", ndim, "1", f"temperature gradient, {about}"), gradient),
            (Field(f"flux_{axis}", ndim, "W/(m K)", f"heat flux against its direction, {about}"), flux),
        ]
    return found


def _mean_of_parts(parts: np.ndarray) -> np.ndarray:
    """Gradient of each point (ndim, *points) from those at its corners (ndim, 2^ndim, *points).

    Part c of a corner belongs to the point that lies c & 1, c >> 1 & 1, ... further along x, y[, z].
    """
    ndim, nparts = parts.shape[:2]
    axes = tuple(range(1, ndim + 1))
    own = [np.roll(parts[:, c], [c >> (ndim - axis) & 1 for axis in axes], axes) for c in range(nparts)]
    return np.mean(own, axis=0)


def _through_sides(chi: np.ndarray, k: np.ndarray, axis: int, loaded: bool) -> tuple[np.ndarray, np.ndarray]:
    """Gradient and flux along an axis (0 is x): means of those through the two sides of each point."""
    along = chi.ndim - 1 - axis
    step = np.roll(chi, -1, along) - chi + loaded
    face = 2.0 * k * np.roll(k, -1, along) / (k + np.roll(k, -1, along))
    flux = face * step
    return 0.5 * (step + np.roll(step, 1, along)), 0.5 * (flux + np.roll(flux, 1, along))


def inside_unit_cell(cell, inputs: np.ndarray) -> list:
    """Fields of a unit cell at its inputs, shape (ninput, 1); solved on the points of its picture.

    A microstructure that follows from a fraction gives the shares of its phases at every face to the cell
    problem; here each point has one phase, so that its K may differ a little.

    Raises:
        MicroError: the cell problem has no solution.
    """
    labels = cell.labels_of(inputs)
    phases = cell._phase_conductivities(inputs)
    plane = make_microstructure(labels, None, cell.nphase)
    problem = CellProblem(plane, cell.tolerance, cell.max_iterations, cell.backend, cell.full)
    also = ("corrector", "gradient") if cell.full else ("corrector",)
    phases = seen_in(labels.ndim, phases, cell.full)
    found = problem.solve(phases, None, also=also)
    if found.status[0]:
        raise MicroError(
            f"the cell problem must be solved to be drawn, got status {found.status[0]} and residual "
            f"{found.residual[0]:.1e}; raise micro.max_iterations or check the inputs"
        )
    chi = found.corrector[..., 0]
    chi = chi - chi.mean(axis=tuple(range(1, chi.ndim)), keepdims=True)
    parts = found.gradient[..., 0] if cell.full else None
    return fields_inside(labels, phases[:, :, 0], chi, parts)
