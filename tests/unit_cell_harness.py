"""Shared by the tests of unit cells: asking one, and calling its kernel."""

import numpy as np

from hpcmsm.batch import Batch
from hpcmsm.kernels import Kernel
from hpcmsm.micro.cell_problem import SCRATCH_WORDS, SOURCES
from hpcmsm.micro.unit_cell import UnitCell


def ask(cell, *inputs):
    """Answer to inputs that are given row by row, each a number or an array."""
    inputs = np.array(np.broadcast_arrays(*(np.atleast_1d(row) for row in inputs)), float)
    ncells = inputs.shape[1]
    return cell.evaluate(Batch(np.arange(ncells), inputs, np.empty((0, ncells))))


def constants(*values):
    """Phases whose conductivity does not depend on temperature."""
    return [lambda temperature, value=value: np.full_like(temperature, value) for value in values]


def conductivity(microstructure, *phases, tolerance=1e-10, **options):
    """K (xx, yy, xy) of one cell, which must have converged."""
    cell = UnitCell(microstructure, constants(*phases), tolerance=tolerance, **options)
    inputs = [300.0, options["inputs"]] if "inputs" in options else [300.0]
    answer = ask(cell, *inputs)
    assert answer.status.tolist() == [0]
    return answer.outputs[:, 0]


def solve_image(labels, phases, tolerance, max_iterations, dtype="float64", **changes):
    """Outputs, status, iterations and residual, straight from the kernel.

    Args:
        labels: of one image, or of several where `image` says which one a cell has.
        phases: shape (nphase, ncells) or (naxis, nphase, ncells).
    """
    images = labels if "image" in changes else labels[None]
    ndim, n = images.ndim - 1, images.shape[-1]
    phases = np.ascontiguousarray(phases, dtype).reshape(-1, *np.shape(phases)[-2:])
    (naxis, nphase, ncells), ncomponent = phases.shape, {2: 3, 3: 6}[ndim]
    kernel = Kernel.load(SOURCES[ndim], f"unit_cell_{ndim}d", dtype=dtype)
    outputs, residual = np.empty((ncomponent, ncells), dtype), np.empty(ncells, dtype)
    iterations, status = np.empty(ncells, np.int32), np.empty(ncells, np.int32)
    arguments = dict(
        ncells=ncells,
        n=n,
        nred=n**ndim // 2,
        nphase=nphase,
        naxis=naxis,
        nimage=len(images),
        nsub=1,
        nword=SCRATCH_WORDS[ndim] if dtype == "float64" else {2: 16, 3: 14}[ndim],
        microstructure=0,
        max_iterations=max_iterations,
        tolerance=tolerance,
        labels=images.astype(np.int32),
        image=None,
        phases=phases,
        fraction=None,
        before=None,
        after=None,
        corrector=None,
        tangent=None,
        conductivity=outputs,
        residual=residual,
        iterations=iterations,
        status=status,
    )
    kernel(**(arguments | changes))
    return outputs, status, iterations, residual
