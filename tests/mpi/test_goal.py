"""A tolerance for the macro field: adjoint weights, one threshold, and the error that a goal then has."""

import numpy as np
import pytest
from mpi4py import MPI

from hpcmsm.closure.budget import Budget
from hpcmsm.closure.direct import Direct
from hpcmsm.closure.gate import Gate
from hpcmsm.config import parse_case
from hpcmsm.errors import ConfigError
from hpcmsm.simulation import Simulation
from hpcmsm.surrogate.base import Surrogate
from hpcmsm.surrogate.replay import ReplayBuffer

pytestmark = pytest.mark.mpi
NX, NY, COLD, HOT = 24, 15, 300.0, 400.0
CASE = f"""
[grid]
cells = [{NX}, {NY}]
size = [{NX}.0, {NY}.0]
[time]
scheme = "backward_euler"
step = 1e9
end = 2e9
[fields]
base = "{{base}}"
error = "{{error}}"
score = "{{score}}"
[macro]
initial = 350.0
heat_capacity = 1.0
[macro.boundary.x_low]
kind = "temperature"
temperature = {COLD}
[macro.boundary.x_high]
kind = "convection"
coefficient = 0.7
ambient = {HOT}
flux = 3.0
[micro]
model = "telling:Telling"
[surrogate]
enabled = false
[checkpoint]
every = 0
"""
MODEL = """
import numpy as np

from hpcmsm.batch import Answer
from hpcmsm.fields import Field
from hpcmsm.micro.base import MicroModel


class Telling(MicroModel):
    inputs = (Field("base", lower=0.1, upper=4.0), Field("error", lower=-1, upper=1), Field("score", lower=0))
    outputs = (Field("conductivity", 3, "W/(m K)", lower=0.0, spd=True),)

    def evaluate(self, batch):
        k = batch.inputs[0]
        return Answer(np.stack([k, k, 0.0 * k]), batch.state, np.zeros(batch.ncells, np.int32))
"""
ROUGH = "1 + 0.8 * sin(1.3 * x + 2 * y) * cos(0.7 * y * y)"
SCORE = "10 ** (-2.5 + sin(37 * x * x + 11 * y * y))"
GOAL = "exp(-((x - 20) / 2) ** 2 - ((y - 4) / 2) ** 2)"


class Tells(Surrogate):
    """Errs by the input `error` and says the input `score`."""

    version, goal = 1, 1e-3

    def predict(self, inputs):
        k = inputs[0] * (1.0 + inputs[1])
        return np.stack([k, k, 0.0 * k]), inputs[2].copy()

    def misfit(self, predicted, truth):
        return np.abs(predicted - truth)[0] / predicted[0]

    def adopt(self, lesson):
        return {}

    def state(self):
        return {}

    def load_state(self, state):
        pass


def simulation(comm, folder, base=ROUGH, error="0", score="1", **gate):
    """A run whose closure is a gate around a surrogate that tells what it is told, if gate says anything."""
    if comm.rank == 0:
        (folder / "telling.py").write_text(MODEL)
    comm.Barrier()
    case = parse_case(CASE.format(base=base, error=error, score=score), "goal.toml")
    run = Simulation(case, comm, folder, folder / "out", quiet=True)
    if gate:
        section = case.gate.model_copy(
            update={"coverage": 0.9, "audit": 1e-9, "novelty": 1e9, "blend": 0, **gate}
        )
        micro, surrogate = run.micro, Tells()
        replay = ReplayBuffer(micro.inputs, micro.outputs, capacity=4096, spacing=1e-9)
        training = case.surrogate.model_copy(update={"growth": 1e9, "first_samples": 10**6})
        direct = Direct(micro, comm, run.timers)
        run.closure = Gate(direct, micro, surrogate, replay, section, training, comm, 1, run.timers)
        run.has_goal = section.macro_tolerance is not None
        run.macro.set_goal(section.goal, case.time.end)
    run.start(overwrite=True)
    run.run()
    return run


def goal_of(comm, run):
    """The weighted mean of the temperature, by hand."""
    x, y = run.grid.coordinates()["x"], run.grid.coordinates()["y"]
    weight = np.exp(-(((x - 20) / 2) ** 2) - ((y - 4) / 2) ** 2)
    sums = comm.allreduce(np.array([(weight * run.unknown[0]).sum(), weight.sum()]))
    return sums[0] / sums[1]


def steady_1d(k, flux=3.0, film=0.7):
    """Temperatures of a row of unit cells between a given temperature and convection with a flux on top."""
    matrix, right = np.zeros((k.size, k.size)), np.zeros(k.size)
    for cell in range(k.size - 1):
        mean = 2 * k[cell] * k[cell + 1] / (k[cell] + k[cell + 1])
        matrix[[cell, cell + 1], [cell, cell + 1]] += mean
        matrix[[cell, cell + 1], [cell + 1, cell]] -= mean
    half = 2 * k[-1]
    matrix[0, 0] += 2 * k[0]
    matrix[-1, -1] += film * half / (film + half)
    right[0] += 2 * k[0] * COLD
    right[-1] += film * half / (film + half) * HOT + flux * half / (film + half)
    return np.linalg.solve(matrix, right)


def test_weights_are_the_derivatives_of_the_goal(comm, agree, mpi_tmp_path):
    """K varies along x alone: against an own solver; a tensor's norm is sqrt(2) of its entry."""
    run = simulation(comm, mpi_tmp_path, base="1 + 0.6 * sin(0.9 * x)")
    run.macro.set_goal("x > 12", run.time)
    mine = np.zeros(NX * NY)
    mine[run.grid.ids] = run.macro.goal_weights(run.time, run.unknown, run._wanted(run.answer.outputs))
    weights = comm.allreduce(mine).reshape(NY, NX)
    x = np.arange(NX) + 0.5
    k = 1 + 0.6 * np.sin(0.9 * x)
    goal = (x > 12) / (x > 12).sum()
    change = 1e-6
    slopes = [
        goal @ (steady_1d(k * (1 + change * (np.arange(NX) == c))) - steady_1d(k)) / change for c in range(NX)
    ]
    expected = np.sqrt(2.0) * np.abs(slopes) / NY
    agree(comm, np.allclose(weights[:, x < 12], expected[x < 12], rtol=1e-4), f"{weights[0]} not {expected}")
    # Where the adjoint is driven its slopes at both ends of a cell differ: the norm is a little more then.
    agree(comm, (weights >= expected * (1 - 1e-4)).all(), "a weight is too small")
    agree(comm, (weights - expected).max() < 0.03 * expected.max(), "a weight is too large")


@pytest.mark.parametrize("sign", ["1", "-1", "2 * (x > 12) - 1", "sin(7 * x + 3 * y)"])
def test_the_goal_stays_within_its_tolerance(comm, agree, mpi_tmp_path, sign):
    """Errors as large as their bounds, of any signs; and more is accepted than by one tolerance for all."""
    tolerance = 0.3
    wrong = {"error": f"0.9 * ({sign}) * ({SCORE})", "score": SCORE}
    true = simulation(comm, mpi_tmp_path)
    run = simulation(comm, mpi_tmp_path, **wrong, macro_tolerance=tolerance, goal=GOAL)
    apart = abs(goal_of(comm, run) - goal_of(comm, true))
    agree(comm, apart <= tolerance, f"the goal is off by {apart}")
    if sign == "1":
        agree(comm, apart > 0.01 * tolerance, f"too easy: {apart}")
    weights = run.macro.goal_weights(run.time, run.unknown, run._wanted(run.answer.outputs))
    uniform = tolerance / comm.allreduce(float(weights.sum()))
    plain = simulation(comm, mpi_tmp_path, **wrong, tolerance=uniform)
    shares = [gated.closure.totals()["closure"]["accepted_fraction"] for gated in (run, plain)]
    agree(comm, shares[0] > 0.1 and shares[0] > 1.3 * shares[1], f"accepted {shares}")
    spent = run.closure.budget.spent
    agree(comm, 0.9 < spent <= 1.0, f"spent {spent} of the budget")
    text = run.closure.totals()["tolerance_text"]
    agree(comm, text == "0.3 of the goal, over all cells", text)


def test_the_threshold_is_one_for_all_ranks(comm, agree):
    """Against sorting and adding up, on any distribution of the cells."""
    random = np.random.default_rng(2)
    n = 500
    weights, bound = np.exp2(random.integers(-160, 64, n) / 16.0), random.lognormal(-5, 1, n)
    candidate = random.uniform(size=n) < 0.9
    whole = Budget(0.02, MPI.COMM_SELF).allowed(weights, bound, candidate)
    mine = np.arange(comm.rank, n, comm.size)
    got = Budget(0.02, comm).allowed(weights[mine], bound[mine], candidate[mine])
    agree(comm, np.array_equal(got, whole[mine]), "another threshold than alone")
    cost = np.where(candidate, weights * bound, np.inf)
    cheapest = np.argsort(cost)
    expected = cheapest[np.cumsum(cost[cheapest]) <= 0.02]
    accepted = np.flatnonzero(candidate & (bound <= whole))
    agree(comm, set(accepted) <= set(expected) and accepted.size >= expected.size - 1, f"{accepted.size}")
    shaken = weights[mine] * (1 - 1e-9 * random.uniform(size=mine.size))
    again = Budget(0.02, comm).allowed(shaken, bound[mine], candidate[mine])
    agree(comm, np.array_equal(again, got), "the last digits of an adjoint decide")
    rich = Budget(1e6, comm).allowed(weights[mine], bound[mine], candidate[mine])
    agree(comm, (rich == 0.2).all(), "errors beyond the first order are never accepted")
    poor = Budget(1e-12, comm).allowed(weights[mine], bound[mine], candidate[mine])
    agree(comm, not (bound[mine] <= poor).any(), "nothing can be afforded")


def test_what_has_no_adjoint_is_refused(comm, agree, mpi_tmp_path):
    if comm.rank == 0:
        (mpi_tmp_path / "telling.py").write_text(MODEL)
    comm.Barrier()
    overrides = ["surrogate.enabled=true", "gate.macro_tolerance=0.1", "gate.tolerance='0.1 W/(m K)'"]
    text = None
    try:
        case = parse_case(CASE.format(base="1", error="0", score="1"), "goal.toml", overrides)
        Simulation(case, comm, mpi_tmp_path, mpi_tmp_path / "out", quiet=True)
    except ConfigError as error:
        text = str(error)
    agree(
        comm, text is not None and "gate.tolerance must be a number beside gate.macro_tolerance" in text, text
    )
