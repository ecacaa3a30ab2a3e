"""Records and ledger: thinned by lot, sorted, and the same however cells are dealt to ranks."""

import numpy as np
import pytest
from mpi4py import MPI

from hpcmsm.closure.ledger import Ledger
from hpcmsm.closure.records import MOST_AUDITS, MOST_FALLBACKS, SAME_USE, Records
from hpcmsm.fields import Field

pytestmark = pytest.mark.mpi
INPUTS = (Field("temperature"), Field("fraction"))
OUTPUTS = (Field("conductivity", 3, spd=True),)
AUDIT = 0.05


class Answers:
    """True answers of n cells: the global arrays, equal on every rank."""

    def __init__(self, n, audited=0.1, candidate=0.9, seed=0):
        random = np.random.default_rng(seed)
        self.ids = random.permutation(3 * n)[:n].astype(np.int64)
        self.inputs = random.normal(size=(2, n))
        self.outputs = random.normal(size=(3, n))
        self.audited = random.uniform(size=n) < audited
        self.candidate = self.audited | (random.uniform(size=n) < candidate)
        self.error = random.lognormal(size=n)

    def note(self, records, step, cells):
        """Note the answers of some cells, given as indices."""
        records.note(
            step,
            self.ids[cells],
            np.ascontiguousarray(self.inputs[:, cells]),
            np.ascontiguousarray(self.outputs[:, cells]),
            self.audited[cells],
            self.candidate[cells],
            self.error[cells],
        )

    def of(self, ids):
        """Where these ids stand in the arrays."""
        order = np.argsort(self.ids)
        return order[np.searchsorted(self.ids, ids, sorter=order)]


def dealt(comm, n, way):
    """Cells of this rank."""
    if way == "all on the last":
        return np.arange(n) if comm.rank == comm.size - 1 else np.zeros(0, dtype=int)
    if way == "blocks":
        return np.array_split(np.arange(n), comm.size)[comm.rank]
    return np.flatnonzero(np.random.default_rng(7).integers(0, comm.size, n) == comm.rank)


def gathered(comm, answers, cells, step=3, seed=11, parts=1):
    """What is chosen when this rank notes these cells, in so many calls."""
    records = Records(comm, seed, INPUTS, OUTPUTS)
    for part in np.array_split(cells, parts):
        answers.note(records, step, part)
    return records.gather(step, AUDIT)


def arrays_of(chosen):
    arrays = {f"c.{name}": value for name, value in vars(chosen.calibration).items()}
    arrays.update({f"t.{name}": value for name, value in vars(chosen.training).items()})
    return {**arrays, "error": chosen.training_error}


def same(one, other):
    one, other = arrays_of(one), arrays_of(other)
    return all(
        one[name].tobytes() == other[name].tobytes() and one[name].shape == other[name].shape for name in one
    )


@pytest.mark.parametrize("way", ["blocks", "at random", "all on the last"])
@pytest.mark.parametrize("n", [0, 1, 40, 3001])
def test_the_same_bits_however_cells_are_dealt(comm, agree, way, n):
    answers = Answers(n)
    alone = gathered(MPI.COMM_SELF, answers, np.arange(n))
    got = gathered(comm, answers, dealt(comm, n, way), parts=2)
    agree(comm, same(got, alone), f"{len(got.training)} samples, alone {len(alone.training)}")


def test_few_answers_are_all_kept_sorted_and_whole(comm, agree):
    answers = Answers(200)
    chosen = gathered(comm, answers, dealt(comm, 200, "at random"))
    ids = np.concatenate([chosen.calibration.ids, chosen.training.ids])
    agree(comm, (np.diff(chosen.calibration.ids) > 0).all(), "calibration is not sorted")
    agree(comm, (np.diff(chosen.training.ids) > 0).all(), "training is not sorted")
    agree(comm, np.unique(ids).size == ids.size, "a sample has two uses")
    lost = answers.candidate[answers.of(np.setdiff1d(answers.ids, ids))]
    agree(comm, not lost.any(), "a candidate was lost")
    for samples in (chosen.calibration, chosen.training):
        at = answers.of(samples.ids)
        agree(comm, np.array_equal(samples.inputs, answers.inputs[:, at]), "inputs of other cells")
        agree(comm, np.array_equal(samples.outputs, answers.outputs[:, at]), "outputs of other cells")
        weight = np.where(answers.audited[at], 1.0 / AUDIT, 1.0)
        agree(comm, np.array_equal(samples.weight, weight), f"{samples.weight}")
        agree(comm, (samples.step == 3).all(), "step")
    at = answers.of(chosen.training.ids)
    agree(comm, np.array_equal(chosen.training_error, answers.error[at]), "errors of other cells")
    agree(comm, answers.candidate[answers.of(chosen.calibration.ids)].all(), "a refused cell calibrates")
    agree(comm, not answers.candidate[at].all(), "refused cells must be learnt from all the same")


def test_a_cell_keeps_its_use_for_some_steps(comm, agree):
    """Its answers in neighbouring steps are twins: no version may be judged by the twin of what it learnt."""
    answers, uses = Answers(400, audited=0.0, candidate=1.0), []
    for step in range(3 * SAME_USE):
        chosen = gathered(comm, answers, dealt(comm, 400, "blocks"), step=step)
        uses.append(np.isin(answers.ids, chosen.calibration.ids))
    changed = np.diff(uses, axis=0).any(axis=1)
    agree(comm, np.flatnonzero(changed).tolist() == [SAME_USE - 1, 2 * SAME_USE - 1], f"{changed}")
    parts = np.mean(uses[::SAME_USE], axis=0)
    agree(comm, ((parts > 0) & (parts < 1)).mean() > 0.6, "for long, every cell must serve both uses")


def test_half_calibrates(comm, agree):
    answers = Answers(500, audited=0.0, candidate=1.0)
    sizes = []
    for step in range(0, 20 * SAME_USE, SAME_USE):
        chosen = gathered(comm, answers, dealt(comm, 500, "blocks"), step=step)
        sizes.append(len(chosen.calibration))
        agree(comm, len(chosen.calibration) + len(chosen.training) == 500, "some were lost")
    deviation = 0.5 * np.sqrt(20 * 500)
    agree(comm, abs(sum(sizes) - 5000) < 4 * deviation, f"{sum(sizes)} of 10000 calibrate")


def test_many_answers_are_thinned_without_bias(comm, agree):
    """About as many as asked are kept, by another lot in each step, and the weights make up for it."""
    n = 6000
    answers = Answers(n, audited=0.2, candidate=1.0)
    naudited = int(answers.audited.sum())
    kept, weights = {True: [], False: []}, {True: [], False: []}
    sets = []
    for step in range(10):
        chosen = gathered(comm, answers, dealt(comm, n, "blocks"), step=step)
        ids = np.concatenate([chosen.calibration.ids, chosen.training.ids])
        weight = np.concatenate([chosen.calibration.weight, chosen.training.weight])
        audited = answers.audited[answers.of(ids)]
        for kind in (True, False):
            kept[kind].append(int((audited == kind).sum()))
            weights[kind].append(weight[audited == kind].sum())
        sets.append(set(ids.tolist()))
    for kind, most in ((True, MOST_AUDITS), (False, MOST_FALLBACKS)):
        mean = np.mean(kept[kind])
        agree(comm, abs(mean - most) < 4 * np.sqrt(most / 10), f"{mean} kept on average, asked {most}")
    # Weights estimate how many accepted cells the audits stand for, and how many fell back.
    for kind, number in ((True, naudited / AUDIT), (False, n - naudited)):
        ratio = np.mean(weights[kind]) / number
        agree(comm, abs(ratio - 1) < 0.1, f"weights sum up to {ratio} of the cells")
    common = len(sets[0] & sets[1])
    agree(comm, common < 0.2 * len(sets[0]), f"{common} of {len(sets[0])} are drawn again")


def test_a_seed_draws_other_cells(comm, agree):
    answers = Answers(3000, audited=0.0)
    one, other = (gathered(comm, answers, dealt(comm, 3000, "blocks"), seed=seed) for seed in (1, 2))
    agree(comm, not np.array_equal(one.training.ids, other.training.ids), "the seed does nothing")


def test_what_was_gathered_is_forgotten(comm, agree):
    answers = Answers(50)
    records = Records(comm, 1, INPUTS, OUTPUTS)
    answers.note(records, 1, dealt(comm, 50, "blocks"))
    first, second = records.gather(1, AUDIT), records.gather(2, AUDIT)
    agree(comm, len(first.training) > 0, "nothing was gathered")
    agree(comm, len(second.training) == len(second.calibration) == 0, "gathered twice")
    shapes = second.training.inputs.shape, second.training.outputs.shape
    agree(comm, shapes == ((2, 0), (3, 0)), f"{shapes}")


def test_ledger_has_the_bits_of_one_rank(comm, agree):
    answers = Answers(700)
    signed = np.random.default_rng(2).normal(0.0, 1e-3, 700)
    ledgers = []
    for part, cells in ((comm, dealt(comm, 700, "at random")), (MPI.COMM_SELF, np.arange(700))):
        ledger = Ledger(part)
        figures = []
        for half in (cells[cells < 300], cells[cells >= 300]):
            ledger.count(calls=half.size, audited=half.size, missed=(answers.error[half] > 1).sum())
            ledger.audits(answers.error[half], signed[half])
            figures.append(ledger.close_step())
        ledgers.append((figures, ledger.audit_errors(), ledger["missed"]))
    agree(comm, ledgers[0] == ledgers[1], f"{ledgers[0]}, alone {ledgers[1]}")
