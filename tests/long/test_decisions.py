"""Decisions of an implicit run on other ranks: the same but where the bound meets the tolerance by chance.

An implicit run agrees over ranks to the tolerance of its linear solver, and what is learnt from it to some
times that. So a decision may turn where the bound of the error is that near to the tolerance; after the first
such cell the samples are others, and nothing more is promised than what holds for any run.
"""

import numpy as np
import pytest

from tests.launch import ROOT, launch

PROGRAM = """
import sys
from pathlib import Path
import numpy as np
from mpi4py import MPI
from hpcmsm.config import load_case
from hpcmsm.simulation import Simulation

case, folder, *settings = sys.argv[1:]
comm, folder = MPI.COMM_WORLD, Path(folder)
simulation = Simulation(load_case(Path(case), settings), comm, Path(case).parent, folder / "out", quiet=True)
gate, seen = simulation.closure, []
answer = gate.evaluate

def evaluate(batch):
    result = answer(batch)
    seen.append([gate.verdict.decisions, gate.verdict.bound, gate.verdict.allowed, batch.inputs[0]])
    return result

gate.evaluate = evaluate
simulation.start()
simulation.run()
mine = np.zeros((len(seen), 4, simulation.grid.total_cells))
mine[:, :, simulation.grid.ids] = seen
whole = np.empty_like(mine)
comm.Allreduce(mine, whole)
if comm.rank == 0:
    np.save(folder / "seen.npy", whole)
"""
CASE = ROOT / "cases" / "composite_wall.toml"
SHORT = ["time.end=150", "grid.cells=[48, 24]", "checkpoint.every=0", "snapshots.every=0"]


def seen_by(nranks, folder, *settings):
    """Decisions, bounds, what they may be at most, and temperatures of every step, each (nstep, ncells)."""
    folder.mkdir()
    result = launch(nranks, ["python", "-c", PROGRAM, CASE, folder, *SHORT, *settings], timeout=300)
    assert result.returncode == 0, result.stderr
    return np.load(folder / "seen.npy").transpose(1, 0, 2)


@pytest.mark.parametrize("tolerance", [2e-3, 1e-3])
@pytest.mark.parametrize("solver, near, kelvin", [(1e-10, 1e-6, 1e-8), (1e-4, 1e-3, 1e-2)])
def test_decisions_on_other_ranks_turn_at_most_at_the_threshold(tmp_path, tolerance, solver, near, kelvin):
    settings = [f"gate.tolerance={tolerance}", f"macro.linear_tolerance={solver}"]
    decisions, bound, allowed, temperature = seen_by(1, tmp_path / "1", *settings)
    assert all((decisions == kind).sum() > 500 for kind in (0, 1, 2)), "a run that shows nothing"
    for nranks in (2, 3):
        other = seen_by(nranks, tmp_path / str(nranks), *settings)
        differ = decisions != other[0]
        steps = np.flatnonzero(differ.any(axis=1))
        until = steps[0] + 1 if steps.size else None
        apart = np.abs(temperature - other[3])[:until].max()
        assert 0.0 < apart < kelvin, f"{apart} K on {nranks} ranks"
        if steps.size:
            margin = np.abs(bound[steps[0]] / allowed[steps[0]] - 1.0)[differ[steps[0]]]
            told = f"{differ.sum()} decisions on {nranks} ranks, {margin.max():.1e} from the threshold"
            assert margin.max() < near, told
