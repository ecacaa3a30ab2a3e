"""`Direct`: every cell by the micro model, and one failure for all ranks."""

import re

import numpy as np
import pytest

from hpcmsm.batch import MICRO, Answer, Batch
from hpcmsm.closure.direct import Direct
from hpcmsm.errors import KernelError, MicroError, ShapeError
from hpcmsm.fields import Field
from hpcmsm.micro.base import MicroModel
from hpcmsm.timers import Timers

pytestmark = pytest.mark.mpi


class Doubles(MicroModel):
    """k = 2 T, and counts its calls; what goes wrong is said by `fault` and where by `bad`."""

    inputs = (Field("temperature", unit="K"), Field("position", 2, "m"))
    outputs = (Field("k"),)
    state = (Field("age", start=1.0),)
    history = "full"

    def __init__(self, fault=None, bad=()):
        self.fault, self.bad = fault, bad
        self.calls = 0

    def evaluate(self, batch):
        self.calls += 1
        outputs, status = 2.0 * batch.inputs[:1], np.zeros(batch.ncells, np.int32)
        hit = np.isin(batch.ids, self.bad)
        if self.fault == "status":
            status[hit] = 3
        elif self.fault == "nan":
            outputs[0, hit] = np.nan
        elif self.fault == "shape" and hit.any():
            outputs = outputs.T.copy()
        elif self.fault == "raises" and hit.any():
            raise KernelError("the kernel must run, got a fault; look at it")
        residual = np.where(hit, 0.25, 1e-9)
        cost = np.where(hit, 2.0, 1.0) if self.fault == "cost" else np.zeros(batch.ncells)
        return Answer(outputs, batch.state + batch.dt, status, cost=cost, residual=residual)


def mine(comm, per_rank=5) -> Batch:
    """Cells of this rank: the ids of rank r are 100 r, 100 r + 1 ..."""
    ids = 100 * comm.rank + np.arange(per_rank, dtype=np.int64)
    inputs = np.array([300.0 + ids, 0.5 * ids, -1.0 * ids])
    return Batch(ids, inputs, np.ones((1, per_rank)), time=2.0, dt=0.25, step=12)


def ask(comm, micro, batch) -> tuple[Answer | None, Exception | None]:
    try:
        return Direct(micro, comm, Timers()).evaluate(batch), None
    except (MicroError, ShapeError, KernelError) as error:
        return None, error


def test_every_cell_is_answered_by_the_micro_model(comm, agree):
    micro, timers = Doubles(), Timers()
    direct = Direct(micro, comm, timers)
    batch = mine(comm)
    answer = direct.evaluate(batch)
    agree(comm, np.array_equal(answer.outputs, 2.0 * batch.inputs[:1]), f"{answer.outputs}")
    agree(comm, (answer.state == 1.25).all() and (answer.source == MICRO).all(), f"{answer}")
    agree(comm, micro.calls == 1, "a batch is one call")
    spent = answer.cost.sum()
    agree(comm, 0 < spent <= timers.seconds["micro"] and np.ptp(answer.cost) == 0, f"{answer.cost}")
    agree(
        comm,
        (direct.inputs, direct.outputs, direct.micro_state) == (micro.inputs, micro.outputs, micro.state),
    )


def test_measured_cost_of_the_model_is_kept(comm, agree):
    answer, _ = ask(comm, Doubles("cost", bad=[100 * comm.rank]), mine(comm))
    agree(comm, answer.cost.tolist() == [2.0, 1.0, 1.0, 1.0, 1.0], f"{answer.cost}")


def test_calls_are_counted_over_ranks_and_steps(comm, agree):
    direct = Direct(Doubles(), comm, Timers())
    total = 0
    for step in (1, 2):
        for size in (5, comm.rank):
            direct.evaluate(mine(comm, size))
        expected = 5 * comm.size + comm.size * (comm.size - 1) // 2
        figures = direct.finish_step(step)
        total += expected
        wanted = {"calls": expected, "accepted": 0, "audited": 0, "fallback": expected}
        agree(comm, figures == wanted, f"{figures}, not {wanted}")
    closure = direct.totals()["closure"]
    agree(comm, closure["calls"] == closure["fallback"] == total, f"{closure}")
    other = Direct(Doubles(), comm, Timers())
    other.load_state({name: array.copy() for name, array in direct.state().items()})
    agree(comm, other.totals() == direct.totals(), f"{other.totals()}")


def test_a_rank_without_cells_asks_nothing(comm, agree):
    micro = Doubles()
    answer, error = ask(comm, micro, mine(comm, 0 if comm.rank == 0 else 3))
    agree(comm, error is None, f"{error}")
    agree(comm, micro.calls == (0 if comm.rank == 0 else 1), f"{micro.calls} calls")
    shapes = answer.outputs.shape, answer.state.shape, answer.status.shape, answer.cost.shape
    n = 0 if comm.rank == 0 else 3
    agree(comm, shapes == ((1, n), (1, n), (n,), (n,)), f"{shapes}")


@pytest.mark.parametrize("fault, status", [("status", 3), ("nan", 0)])
def test_a_failed_cell_is_named_on_every_rank(comm, agree, fault, status):
    for culprit in range(comm.size):
        answer, error = ask(comm, Doubles(fault, bad=[100 * culprit + 2, 100 * culprit + 4]), mine(comm))
        agree(comm, answer is None and type(error) is MicroError, f"{answer}, {error!r}")
        text = str(error)
        words = [
            "2 of 5 cells",
            "at step 12",
            f"first: cell {100 * culprit + 2} on rank {culprit}, status {status}",
            "residual 2.5e-01",
            f"temperature = {302 + 100 * culprit}",
            f"position_1 = {-(100 * culprit + 2)}",
            "micro.max_iterations",
        ]
        missing = [word for word in words if word not in text]
        agree(comm, not missing and "\n" not in text, f"{missing} not in {text}")
        agree(comm, len(set(comm.allgather(text))) == 1, f"texts differ: {text}")


def test_of_failures_on_all_ranks_one_is_told(comm, agree):
    _, error = ask(comm, Doubles("status", bad=range(1000)), mine(comm))
    agree(comm, "5 of 5 cells" in str(error) and "cell 0 on rank 0" in str(error), f"{error}")
    agree(comm, len(re.findall("on rank", str(error))) == 1, f"{error}")


@pytest.mark.parametrize(
    "fault, kind, words",
    [("shape", ShapeError, "outputs of Doubles"), ("raises", KernelError, "the kernel must run")],
)
def test_errors_of_one_rank_are_raised_by_all(comm, agree, fault, kind, words):
    """Also what is found before the cells are looked at; the others must not wait for that rank."""
    last = comm.size - 1
    answer, error = ask(comm, Doubles(fault, bad=[100 * last]), mine(comm))
    agree(comm, answer is None and type(error) is kind and words in str(error), f"{error!r}")
    agree(comm, comm.rank == last or f"(on rank {last})" in str(error), f"{error}")
    answer, error = ask(comm, Doubles(), mine(comm))
    agree(comm, error is None, "the ranks are out of step afterwards")


def test_a_failure_is_not_counted_as_a_call(comm, agree):
    micro = Doubles("status", bad=[100 * (comm.size - 1)])
    direct = Direct(micro, comm, Timers())
    with pytest.raises(MicroError):
        direct.evaluate(mine(comm))
    micro.fault = None
    direct.evaluate(mine(comm))
    figures = direct.finish_step(1)
    agree(comm, figures["calls"] == 5 * comm.size, f"{figures}")


def test_work_and_its_imbalance_are_those_of_the_ranks(comm, agree):
    # Two cells of rank 0 cost 2 s instead of 1; in the first step every rank is asked, then only rank 0.
    closure = Direct(Doubles("cost", bad=[0, 1]), comm, Timers())
    agree(comm, closure.work() == {"seconds": 0.0, "imbalance": None}, closure.work())
    closure.evaluate(mine(comm))
    closure.finish_step(1)
    closure.evaluate(mine(comm, 5 if comm.rank == 0 else 0))
    closure.finish_step(2)
    seconds = 5.0 * comm.size + 2.0 + 7.0
    expected = {"seconds": seconds, "imbalance": (7.0 + 7.0) * comm.size / seconds}
    found = closure.work()
    agree(comm, found == pytest.approx(expected), f"{found}, not {expected}")
