"""Symmetric tensors by component, and materials that conduct along axes of their own."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from hpcmsm.errors import ConfigError
from hpcmsm.parallel import random_uniform

COMPONENTS = {2: ("xx", "yy", "xy"), 3: ("xx", "yy", "zz", "yz", "xz", "xy")}
PAIRS = {2: ((0, 0), (1, 1), (0, 1)), 3: ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))}
# Those of a tensor in 3D that a section normal to z sees.
IN_PLANE = [0, 1, 5]
# Parts of a turned component below this are what rounding left of a right angle.
NEGLIGIBLE = 1e-14

# One function of temperature per component; None: zero, or for zz of a plane material not known.
Components = list[Callable[[np.ndarray], np.ndarray] | None]


def matrices(components: np.ndarray) -> np.ndarray:
    """Matrices (..., ndim, ndim) of tensors by component, shape (3 or 6, ...)."""
    ndim = {3: 2, 6: 3}[len(components)]
    full = np.empty((*components.shape[1:], ndim, ndim))
    for component, (i, j) in zip(components, PAIRS[ndim], strict=True):
        full[..., i, j] = full[..., j, i] = component
    return full


def components_of(full: np.ndarray) -> np.ndarray:
    """Components (3 or 6, ...) of symmetric matrices (..., ndim, ndim)."""
    return np.stack([full[..., i, j] for i, j in PAIRS[full.shape[-1]]])


def seen_in(ndim: int, phases: np.ndarray, full: bool) -> np.ndarray:
    """What counts in a picture of ndim dimensions of phases (naxis, nphase, n), `full`: of all components."""
    rows = IN_PLANE if full and len(phases) > len(COMPONENTS[ndim]) else slice(len(phases) if full else ndim)
    return np.ascontiguousarray(phases[rows])


def rotation(angles: float | Sequence[float]) -> np.ndarray:
    """The matrix, shape (3, 3), that turns the axes of a crystal into their places in the cell.

    Args:
        angles: in degrees: about z, from x towards y; or Bunge's Euler angles: about z, about the new x,
            about the new z.
    """
    first, tilt, second = (angles, 0.0, 0.0) if isinstance(angles, float | int) else angles
    return _about(2, first) @ _about(0, tilt) @ _about(2, second)


def _about(axis: int, degrees: float) -> np.ndarray:
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    one, other = [a for a in range(3) if a != axis]
    turned = np.eye(3)
    turned[[one, other], [one, other]] = c
    turned[one, other], turned[other, one] = -s, s
    return turned


def drawn_angles(seed: int, number: int, count: int, ndim: int) -> float | tuple[float, ...]:
    """Orientation `number` of `count` by lot, see `rotation`; all are equally likely.

    In 2D one in each of `count` equal parts of the half circle, so that together they prefer no direction.
    """
    lots = [float(random_uniform("orientation", seed, number, part)) for part in range(3)]
    if ndim == 2:
        return 180.0 * (number + lots[0]) / count
    return 360.0 * lots[0], float(np.rad2deg(np.arccos(1.0 - 2.0 * lots[1]))), 360.0 * lots[2]


def turned(conductivity: Components, matrix: np.ndarray, who: str) -> Components:
    """Those of a material whose axes are turned by a rotation.

    Raises:
        ConfigError: the material is turned out of the plane, and has no component zz.
    """
    found = []
    for i, j in PAIRS[3]:
        parts = []
        for (k, m), function in zip(PAIRS[3], conductivity, strict=True):
            part = matrix[i, k] * matrix[j, m] + (matrix[i, m] * matrix[j, k] if k != m else 0.0)
            if abs(part) < NEGLIGIBLE:
                continue
            if function is not None:
                parts.append((part, function))
            elif k == m and (i, j) != (2, 2):
                raise ConfigError(
                    f"{who} must have a component zz to be turned out of the plane, got none; add it"
                )
        found.append(_sum(parts) if parts else None)
    return found


def _sum(parts: list[tuple[float, Callable]]) -> Callable:
    return lambda temperature: sum(part * function(temperature) for part, function in parts)


def check_definite(conductivity: Components, ndim: int, who: str) -> None:
    """Refuse components that are the same at all temperatures and no conductivity at any.

    Raises:
        ConfigError: an eigenvalue is not positive.
    """
    temperature = np.array([200.0, 300.0, 1000.0])
    given = conductivity if ndim == 3 else [conductivity[row] for row in IN_PLANE]
    with np.errstate(all="ignore"):
        values = np.stack([np.zeros(3) if f is None else f(temperature) + np.zeros(3) for f in given])
    if not np.isfinite(values).all() or np.ptp(values, axis=1).any():
        return  # a status of the cells where it happens
    lengths = np.linalg.eigvalsh(matrices(values[:, 0]))
    if lengths[0] <= 0:
        shown = ", ".join(f"{length:.4g}" for length in lengths)
        raise ConfigError(
            f"{who} must be positive definite, got the eigenvalues {shown} W/(m K); lower its cross terms"
        )


def harmonic_mean(fractions: np.ndarray, tensors: np.ndarray) -> np.ndarray:
    """Components (ncomponent, n) of the inverse of the mean inverse; NaN where there is none.

    Args:
        fractions: of the phases, shape (nphase, n).
        tensors: shape (ncomponent, nphase, n).
    """
    full = matrices(tensors)
    good = np.isfinite(full).all(axis=(0, 2, 3)) & np.isfinite(fractions).all(axis=0)
    good &= (np.linalg.eigvalsh(np.where(good[:, None, None], full, 0.0)) > 0).all(axis=(0, 2))
    full = np.where(good[:, None, None], full, np.eye(full.shape[-1]))
    weights = np.where(good, fractions, 1.0 / len(fractions))
    mean = np.linalg.inv(np.einsum("pn,pnij->nij", weights, np.linalg.inv(full)))
    return np.where(good, components_of(mean), np.nan)
