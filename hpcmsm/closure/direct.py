"""`Direct`: every cell asks the micro model."""

from __future__ import annotations

from time import perf_counter

import numpy as np

from hpcmsm.batch import Answer, Batch
from hpcmsm.closure.base import Closure
from hpcmsm.errors import MicroError
from hpcmsm.fields import check_array, ncomponent
from hpcmsm.micro.base import MicroModel
from hpcmsm.parallel import together
from hpcmsm.timers import Timers


class Direct(Closure):
    """Ask the micro model for every cell of a batch, in one call.

    Args:
        micro: the fine-scale model.
        comm: communicator whose ranks agree on failures.
        timers: where the time of the micro model is counted, as the phase "micro".
    """

    def __init__(self, micro: MicroModel, comm, timers: Timers):
        self.micro = micro
        self.comm = comm
        self.timers = timers
        self.inputs, self.outputs, self.micro_state = micro.inputs, micro.outputs, micro.state
        self.calls = 0
        self.step_calls = 0
        self.step_cost = 0.0
        # Since the last start, of all steps: cost summed over ranks, cost of the rank with the most.
        self._costs = np.zeros(2)

    def evaluate(self, batch: Batch) -> Answer:
        """Collective. Answer every cell by the micro model; cells that failed raise a MicroError."""
        with together(self.comm):
            with self.timers.phase("micro"):
                answer = self._ask(batch) if batch.ncells or self.micro.nested else self._nothing()
            self._check(batch, answer)
        self.step_calls += batch.ncells
        self.step_cost += float(answer.cost.sum())
        return answer

    def _nothing(self) -> Answer:
        """For a rank whose cells are all answered otherwise: no micro model need know of empty batches."""
        none = np.zeros(0, dtype=np.int32)
        return Answer(
            np.zeros((ncomponent(self.outputs), 0)), np.zeros((ncomponent(self.micro_state), 0)), none
        )

    def _ask(self, batch: Batch) -> Answer:
        start = perf_counter()
        answer = self.micro.evaluate(batch)
        name = type(self.micro).__name__
        check_array(self.micro.outputs, answer.outputs, batch.ncells, f"outputs of {name}")
        check_array(self.micro.state, answer.state, batch.ncells, f"state of {name}")
        if batch.ncells and not answer.cost.any():
            answer.cost[:] = (perf_counter() - start) / batch.ncells
        return answer

    def _check(self, batch: Batch, answer: Answer) -> None:
        failed = np.flatnonzero((answer.status != 0) | ~np.isfinite(answer.outputs).all(axis=0))
        if failed.size == 0:
            return
        first = failed[0]
        values = ", ".join(
            f"{name} = {value:.6g}"
            for name, value in zip(
                (name for field in self.inputs for name in field.component_names),
                batch.inputs[:, first],
                strict=True,
            )
        )
        raise MicroError(
            f"{failed.size} of {batch.ncells} cells of this batch were not solved at step {batch.step} "
            f"(first: cell {batch.ids[first]} on rank {self.comm.rank}, status {answer.status[first]}, "
            f"residual {answer.residual[first]:.1e}, {values}); raise micro.max_iterations, lower time.step, "
            "or check these inputs"
        )

    def finish_step(self, step: int) -> dict[str, float]:
        """Collective. Count the calls of the step, and how their cost falls on the ranks."""
        from mpi4py import MPI

        for closure in self.micro.nested.values():
            closure.finish_step(step)
        calls = self.comm.allreduce(self.step_calls)
        self._costs[0] += self.comm.allreduce(self.step_cost)
        self._costs[1] += self.comm.allreduce(self.step_cost, op=MPI.MAX)
        self.step_calls, self.step_cost = 0, 0.0
        self.calls += calls
        return {"calls": calls, "accepted": 0, "audited": 0, "fallback": calls}

    def totals(self) -> dict[str, object]:
        """Calls of the whole run, all answered by the micro model; and those of the closures that it asks."""
        closure = {"calls": self.calls, "accepted": 0, "audited": 0, "fallback": self.calls}
        totals = {"closure": {**closure, "accepted_fraction": 0.0, "versions": 0}, "audit_error": None}
        nested = {name: closure.totals() for name, closure in self.micro.nested.items()}
        return {**totals, "nested": nested} if nested else totals

    def work(self) -> dict[str, float | None]:
        """Seconds of the micro model since the last start, and how unevenly the ranks had to work.

        imbalance: cost of the rank with the most over the mean, in the mean over the steps, as ranks wait
        for one another in each.
        """
        total, most = self._costs
        return {"seconds": total, "imbalance": most * self.comm.size / total if total > 0.0 else None}

    def state(self) -> dict[str, np.ndarray]:
        """The count of calls, and the states of the closures that the micro model asks."""
        arrays = {"calls": np.array([self.calls], dtype=np.int64)}
        for name, closure in self.micro.nested.items():
            arrays.update({f"nested/{name}/{key}": array for key, array in closure.state().items()})
        return arrays

    def load_state(self, state: dict[str, np.ndarray]) -> None:
        """Take over what `state` gave."""
        self.calls = int(state["calls"][0])
        for name, closure in self.micro.nested.items():
            prefix = f"nested/{name}/"
            closure.load_state({k[len(prefix) :]: a for k, a in state.items() if k.startswith(prefix)})
