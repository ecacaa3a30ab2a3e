"""What happens inside one unit cell, point by point: for pictures."""

from __future__ import annotations

import numpy as np

from hpcmsm.errors import MicroError
from hpcmsm.fields import Field
from hpcmsm.micro.cell_problem import CellProblem
from hpcmsm.micro.microstructure import make_microstructure

AXES = "xyz"


def fields_inside(labels: np.ndarray, phases: np.ndarray, corrector: np.ndarray) -> list:
    """Fields of one cell for unit gradients of the macro temperature along each axis.

    Fluxes are means of those through the two sides of a point, with the harmonic mean of the two
    conductivities, as in the cell problem: their means over the cell are the columns of K.

    Args:
        labels: phase of each point, shape (n,) * ndim.
        phases: conductivities in W/(m K), shape (naxis, nphase); naxis is 1 or at least ndim.
        corrector: chi of each load, shape (ndim, *labels.shape), in units of the distance of points.
    Returns:
        pairs of a Field and its values, shape (size, *labels.shape).
    """
    ndim, n = labels.ndim, labels.shape[0]
    naxis = 1 if len(phases) == 1 else ndim
    conductivity = phases[:naxis, labels]
    found = [
        (Field("phase", about="number of the phase"), labels[None].astype(float)),
        (Field("conductivity", naxis, "W/(m K)", "along x, y[, z], or along each axis alike"), conductivity),
    ]
    for load, chi in enumerate(corrector):
        axis = AXES[load]
        sides = [_through_sides(chi, conductivity[min(d, naxis - 1)], d, d == load) for d in range(ndim)]
        gradient, flux = (np.stack(values) for values in zip(*sides, strict=True))
        about = f"for a temperature that rises by 1 K/m along {axis}"
        found += [
            (Field(f"corrector_{axis}", 1, "m", f"deviation of the temperature, {about}"), chi[None] / n),
            (Field(f"gradient_{axis}", ndim, "1", f"temperature gradient, {about}"), gradient),
            (Field(f"flux_{axis}", ndim, "W/(m K)", f"heat flux against its direction, {about}"), flux),
        ]
    return found


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
    problem = CellProblem(plane, cell.tolerance, cell.max_iterations, cell.backend)
    found = problem.solve(np.ascontiguousarray(phases[: labels.ndim]), None, also=("corrector",))
    if found.status[0]:
        raise MicroError(
            f"the cell problem must be solved to be drawn, got status {found.status[0]} and residual "
            f"{found.residual[0]:.1e}; raise micro.max_iterations or check the inputs"
        )
    chi = found.corrector[..., 0]
    chi = chi - chi.mean(axis=tuple(range(1, chi.ndim)), keepdims=True)
    return fields_inside(labels, phases[:, :, 0], chi)
