"""Three scales, each with a surrogate or without: the same bits on any ranks and across a restart."""

import numpy as np
from mpi4py import MPI

from hpcmsm.config import parse_case
from hpcmsm.errors import MicroError
from hpcmsm.simulation import Simulation

CASE = """
[grid]
cells = [11, 5]
size = [0.011, 0.005]
[time]
scheme = "rk2"
step = 0.1
end = 1.2
[fields]
fraction = "0.5 + 0.2 * sin(700 * y)"
yarn_fraction = "0.5 + 0.1 * sin(500 * x)"
[materials.resin]
conductivity = "0.2 + 4e-4 * (temperature - 300)"
[materials.fibre]
conductivity = "3.0 + 2e-3 * (temperature - 300)"
[materials.yarn]
axes = "zx"
[materials.yarn.micro]
model = "unit_cell"
microstructure = "cylinders"
phases = ["resin", "fibre"]
resolution = 8
ndim = 3
[materials.yarn.surrogate]
enabled = {below}
kind = "gaussian_process"
swap_after = 3
[materials.yarn.gate]
tolerance = 1e-3
audit = 0.05
[macro]
initial = "300 + 200 * sin(300 * x)"
heat_capacity = 1e6
coupling = "{coupling}"
[micro]
model = "unit_cell"
microstructure = "laminate"
phases = ["resin", "yarn"]
resolution = 8
[surrogate]
enabled = {above}
kind = "gaussian_process"
swap_after = 2
[gate]
tolerance = 5e-3
audit = 0.05
[checkpoint]
every = 7
keep = 5
"""


def run(comm, folder, above, below, coupling="stage", overrides=()):
    text = CASE.format(above=above, below=below, coupling=coupling)
    case = parse_case(text, "nested.toml", list(overrides))
    simulation = Simulation(case, comm, folder, folder / "out", quiet=True)
    simulation.start(overwrite=True)
    simulation.run()
    return simulation


def closure_state(simulation):
    return {name: array.tobytes() for name, array in simulation.closure.state().items()}


def test_any_ranks_and_a_restart_give_the_same_bits(comm, agree, mpi_tmp_path):
    whole = run(comm, mpi_tmp_path, "true", "true")
    unknown, learnt, totals = whole.unknown.copy(), closure_state(whole), whole.closure.totals()
    upper, lower = totals["closure"], totals["nested"]["yarn"]["closure"]
    asked = upper["fallback"] + upper["audited"]
    agree(comm, lower["calls"] == asked, f"{lower['calls']} calls below of {asked} questions above")
    for counts in (upper, lower):
        parts = counts["accepted"] + counts["audited"] + counts["fallback"]
        agree(comm, parts == counts["calls"], f"counts do not add up: {counts}")
        agree(comm, counts["accepted"] > 0.1 * counts["calls"], f"{counts}")

    alone = run(MPI.COMM_SELF, mpi_tmp_path / "alone", "true", "true") if comm.rank == 0 else None
    expected = comm.bcast((alone.unknown, closure_state(alone)) if alone else None)
    agree(
        comm, np.array_equal(unknown, expected[0][:, whole.grid.ids]), "temperatures: not those of one rank"
    )
    agree(comm, learnt == expected[1], "what the closures learnt is not what one rank learns")

    if comm.rank == 0:
        for path in (mpi_tmp_path / "out" / "checkpoints").glob("step_*.h5"):
            if path.name > "step_00000007.h5":
                path.unlink()
    comm.Barrier()
    resumed = Simulation.resume(mpi_tmp_path / "out", comm, quiet=True)
    agree(comm, resumed.step == 7, f"resumed at step {resumed.step}")
    versions = resumed.closure.totals()["nested"]["yarn"]["closure"]["versions"]
    agree(comm, versions > 0, "nothing was learnt below before the restart")
    trainers = [resumed.closure.trainer, resumed.micro.nested["yarn"].trainer]
    agree(comm, any(trainer.busy for trainer in trainers), "no training was under way at the restart")
    resumed.run()
    agree(comm, np.array_equal(unknown, resumed.unknown), "temperatures differ after a restart")
    agree(comm, learnt == closure_state(resumed), "the closures differ after a restart")


def test_surrogate_below_keeps_its_tolerance(comm, agree, mpi_tmp_path):
    """Iterated to the end in every step, where a gate that changed sides would never converge."""
    implicit = ["time.scheme=backward_euler", "macro.picard_tolerance=1e-9", "time.step=0.2"]
    exact = run(comm, mpi_tmp_path / "exact", "false", "false", "picard", implicit)
    found = run(comm, mpi_tmp_path / "found", "false", "true", "picard", implicit)
    accepted = found.closure.totals()["nested"]["yarn"]["closure"]["accepted_fraction"]
    agree(comm, accepted > 0.2, f"accepted {accepted}")
    k, exact_k = found.answer.outputs[:2], exact.answer.outputs[:2]
    error = np.abs(k / exact_k - 1.0).max(initial=0.0)
    agree(comm, error < 2e-3, f"conductivity off by {error}")
    change = np.abs(found.unknown - exact.unknown).max(initial=0.0)
    agree(comm, change < 0.1, f"temperature off by {change}")
    lower, calls = (
        found.closure.totals()["nested"]["yarn"]["closure"],
        found.closure.totals()["closure"]["calls"],
    )
    agree(comm, lower["calls"] == calls, f"{lower['calls']} calls below of {calls} above")
    spread = comm.allreduce(float(np.abs(found.unknown - exact.unknown).max(initial=0.0)), op=MPI.MAX)
    agree(comm, spread > 0.0, "the surrogate was not asked")


def test_a_failure_below_is_collective(comm, agree, mpi_tmp_path):
    """A cell that cannot be solved two scales down is told by all ranks."""
    overrides = [
        "time.end=0.1",
        "materials.resin.conductivity=where(temperature > 495, -1, 0.2)",
        "checkpoint.every=0",
    ]
    try:
        run(comm, mpi_tmp_path, "false", "false", overrides=overrides)
        text = ""
    except MicroError as error:
        text = str(error)
    agree(comm, "status 2" in text, f"got '{text}'")


STRIPES = np.add.outer(np.arange(8), np.arange(8)) // 2 % 2
TWO_YARNS = [
    "time.end=0.1",
    "checkpoint.every=0",
    "macro.initial=300 + 200 * (x > 1e-3) * (x < 2e-3) * (y < 1e-3)",  # one cell, which the trial leaves out
    "materials.fibre.conductivity=where(temperature > 495, 9, 0.2)",
    'materials.yarn={axes="xy", micro={model="unit_cell", microstructure="image:s.npy", '
    'phases=["resin", "fibre"]}, surrogate={enabled=false}}',
    'materials.weft={micro={model="unit_cell", microstructure="cylinders", phases=["resin", "fibre"], '
    "resolution=8, fraction=0.5}}",
    'micro={model="unit_cell", microstructure="laminate", phases=["yarn", "weft"], fraction=0.5}',
    "fields={}",
]


def test_a_phase_that_conducts_askew_on_one_rank_is_told_by_all(comm, agree, mpi_tmp_path):
    """Another phase is asked after it: nobody may be left waiting in that question."""
    if comm.rank == 0:
        np.save(mpi_tmp_path / "s.npy", STRIPES)
    comm.Barrier()
    try:
        run(comm, mpi_tmp_path, "false", "false", overrides=TWO_YARNS)
        text = ""
    except MicroError as error:
        text = str(error)
    agree(comm, "materials.yarn must conduct along its axes" in text, f"got '{text}'")
    agree(comm, len({t.removesuffix(" (on rank 0)") for t in comm.allgather(text)}) == 1, f"got '{text}'")
    comm.Barrier()
