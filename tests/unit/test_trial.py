"""The trial call before the first step: each way to break the contract is refused with its name."""

import sys

import numpy as np
import pytest

from hpcmsm.batch import Answer, Batch
from hpcmsm.config import MicroSection
from hpcmsm.errors import ConfigError, MicroError, ShapeError
from hpcmsm.fields import Field
from hpcmsm.micro.base import MicroModel
from hpcmsm.micro.constant import Constant
from hpcmsm.micro.registry import MODELS, make_micro
from hpcmsm.micro.trial import try_out

TEMPERATURE = Field("temperature", unit="K", lower=200.0, upper=2000.0)
OUTPUTS = (Field("conductivity", 3, "W/(m K)", spd=True),)


class Good(MicroModel):
    """K = T / 1000 times the identity; every subclass but the good ones breaks one rule."""

    inputs = (TEMPERATURE,)
    outputs = OUTPUTS

    def k(self, batch):
        return batch.inputs[0] / 1000.0

    def answer(self, batch, k):
        return Answer(np.stack([k, k, 0 * k]), batch.state.copy(), np.zeros(batch.ncells, np.int32))

    def evaluate(self, batch):
        return self.answer(batch, self.k(batch))


class GoodWithState(Good):
    state = (Field("age", 2, "s", start=1.0),)
    history = "full"

    def evaluate(self, batch):
        outputs = self.answer(batch, self.k(batch) / batch.state[0]).outputs
        return Answer(outputs, batch.state + batch.dt, np.zeros(batch.ncells, np.int64))


class ColumnsFirst(Good):
    def evaluate(self, batch):
        answer = super().evaluate(batch)
        return Answer(answer.outputs.T.copy(), answer.state, answer.status)


class SinglePrecision(Good):
    def evaluate(self, batch):
        answer = super().evaluate(batch)
        return Answer(answer.outputs.astype(np.float32), answer.state, answer.status)


class ScalarOutput(Good):
    def evaluate(self, batch):
        answer = super().evaluate(batch)
        return Answer(answer.outputs[:1], answer.state, answer.status)


class StateOfOtherShape(GoodWithState):
    def evaluate(self, batch):
        answer = super().evaluate(batch)
        return Answer(answer.outputs, answer.state[:1], answer.status)


class NoAnswer(Good):
    def evaluate(self, batch):
        return self.k(batch)


class Given(Good):
    """Puts something of the wrong kind into one of the arrays with a value per cell."""

    def __init__(self, **given):
        self.given = given

    def evaluate(self, batch):
        answer = super().evaluate(batch)
        status = self.given.get("status", lambda n: np.zeros(n, np.int32))(batch.ncells)
        rest = {name: make(batch.ncells) for name, make in self.given.items() if name != "status"}
        return Answer(answer.outputs, answer.state, status, **rest)


class Unsolved(Good):
    def evaluate(self, batch):
        answer = super().evaluate(batch)
        return Answer(answer.outputs, answer.state, (batch.ids == 7).astype(np.int32))


class NotANumber(Good):
    def k(self, batch):
        return np.where(batch.inputs[0] > 330.0, np.nan, 1.0)


class StateNotANumber(GoodWithState):
    def evaluate(self, batch):
        answer = super().evaluate(batch)
        answer.state[1, 0] = np.inf
        return answer


class ChangesItsInputs(Good):
    def k(self, batch):
        batch.inputs[0] /= 1000.0
        return batch.inputs[0].copy()


class ChangesItsState(GoodWithState):
    def evaluate(self, batch):
        answer = super().evaluate(batch)
        batch.state[:] = answer.state
        return answer


class LooksAtTheMean(Good):
    def k(self, batch):
        return (batch.inputs[0] - batch.inputs[0].mean()) + 1.0


class LooksAtTheSize(Good):
    def k(self, batch):
        return super().k(batch) * (1.0 + 1e-15 * batch.ncells)


class LooksAtThePlace(Good):
    def k(self, batch):
        return super().k(batch) + 1e-12 * np.arange(batch.ncells)


class SumsOverTheBatch(Good):
    """A running sum gives each cell its part back, but for the rounding."""

    def k(self, batch):
        return np.diff(np.cumsum(np.append(0.0, batch.inputs[0] / 3.0)))


class RemembersTheLastCall(Good):
    def __init__(self):
        self.last = 0.0

    def k(self, batch):
        k = super().k(batch) + self.last
        self.last = 1e-9
        return k


class RemembersCells(Good):
    """A warm start kept in the model instead of in the cell's state."""

    def __init__(self):
        self.known = {}

    def k(self, batch):
        start = np.array([self.known.get(int(i), 0.0) for i in batch.ids])
        self.known.update(zip(batch.ids.tolist(), batch.inputs[0].tolist(), strict=True))
        return super().k(batch) + 1e-10 * start


class DrawsAtRandom(Good):
    def __init__(self):
        self.random = np.random.default_rng(1)

    def k(self, batch):
        return super().k(batch) + self.random.uniform(0, 1e-9, batch.ncells)


class ForgetsItsHistory(GoodWithState):
    history = "none"


class MisspeltHistory(GoodWithState):
    history = "Full"


class NoInputs(Good):
    inputs = ()


class NoOutputs(Good):
    outputs = ()


def batch_of(micro, temperature, ids=None):
    inputs = np.array([temperature], dtype=float)
    ids = np.arange(inputs.shape[1], dtype=np.int64) if ids is None else np.array(ids)
    return Batch(ids, inputs, micro.initial_state(inputs), time=0.0, dt=0.5, step=1)


WARM = np.linspace(300.0, 340.0, 9)
UNIFORM = np.full(9, 300.0)


@pytest.mark.parametrize("kind", [Good, GoodWithState, Constant])
@pytest.mark.parametrize("temperature", [WARM, UNIFORM, UNIFORM[:1], np.full(4, 2000.0), np.zeros(0)])
def test_good_models_pass_and_keep_their_batch(kind, temperature):
    micro = kind()
    batch = batch_of(micro, temperature)
    before = batch.inputs.tobytes(), batch.state.tobytes()
    try_out(micro, batch)
    assert (batch.inputs.tobytes(), batch.state.tobytes()) == before


def test_a_failure_at_changed_inputs_is_no_fault():
    """The trial tells equal cells apart by changing their inputs: the model may refuse those."""

    class OnlyAt300(Good):
        def evaluate(self, batch):
            answer = super().evaluate(batch)
            return Answer(answer.outputs, answer.state, (batch.inputs[0] != 300.0).astype(np.int32))

    try_out(OnlyAt300(), batch_of(Good(), UNIFORM))


def test_changed_inputs_stay_in_their_range():
    class Careful(Good):
        def k(self, batch):
            if (batch.inputs[0] > 2000.0).any() or (batch.inputs[0] < 200.0).any():
                raise AssertionError("out of range")
            return super().k(batch)

    for temperature in (2000.0, 200.0):
        try_out(Careful(), batch_of(Good(), np.full(6, temperature)))


SHAPE = "must be a float64 array of shape"
BAD = [
    (ColumnsFirst, ShapeError, [f"outputs of ColumnsFirst {SHAPE} (3, 5)", "conductivity[3]", "(5, 3)"]),
    (SinglePrecision, ShapeError, [f"outputs of SinglePrecision {SHAPE}", "got float32 (3, 5)"]),
    (ScalarOutput, ShapeError, [f"outputs of ScalarOutput {SHAPE}", "got float64 (1, 5)"]),
    (StateOfOtherShape, ShapeError, [f"state of StateOfOtherShape {SHAPE} (2, 5) (age[2])", "(1, 5)"]),
    (NoAnswer, MicroError, ["NoAnswer.evaluate must return an Answer, got ndarray"]),
    (lambda: Given(status=lambda n: None), MicroError, ["status of Given", "NoneType"]),
    (lambda: Given(status=lambda n: [0] * n), MicroError, ["status of Given", "list"]),
    (lambda: Given(status=lambda n: np.zeros(n)), MicroError, ["must be whole numbers", "float64"]),
    (lambda: Given(status=lambda n: np.zeros((1, n), int)), MicroError, ["status of Given", "(1, 5)"]),
    (lambda: Given(status=lambda n: np.int32(0)), MicroError, ["status of Given", "int32"]),
    (lambda: Given(cost=lambda n: np.zeros(1)), MicroError, ["cost of Given", "float64 (1,)"]),
    (lambda: Given(residual=lambda n: 1e-8), MicroError, ["residual of Given", "float"]),
    (Unsolved, MicroError, ["Unsolved must solve", "status 1 for cell 7", "inputs 320"]),
    (NotANumber, MicroError, ["outputs of NotANumber must be finite", "nan, nan, nan", "cell 9"]),
    (StateNotANumber, MicroError, ["state of StateNotANumber must be finite", "inf", "cell 5"]),
    (ChangesItsInputs, MicroError, ["ChangesItsInputs.evaluate must not change its arguments"]),
    (ChangesItsState, MicroError, ["ChangesItsState.evaluate must not change its arguments"]),
    (LooksAtTheMean, MicroError, ["LooksAtTheMean must answer a cell alone as inside a batch", "outputs"]),
    (LooksAtTheSize, MicroError, ["LooksAtTheSize must answer a cell alone as inside a batch"]),
    (LooksAtThePlace, MicroError, ["LooksAtThePlace must answer a cell alone", "(cell 6)", "1.0e-12"]),
    (SumsOverTheBatch, MicroError, ["SumsOverTheBatch must answer a cell alone as inside a batch"]),
    (RemembersTheLastCall, MicroError, ["RemembersTheLastCall must give the same answer twice", "1.0e-09"]),
    (RemembersCells, MicroError, ["RemembersCells must give the same answer twice", "its state"]),
    (DrawsAtRandom, MicroError, ["DrawsAtRandom must give the same answer twice"]),
    (ForgetsItsHistory, MicroError, ["ForgetsItsHistory.history must be 'liftable' or 'full'", "got 'none'"]),
    (MisspeltHistory, MicroError, ["history must be one of none, liftable, full, got 'Full'"]),
    (NoInputs, MicroError, ["NoInputs.inputs must declare at least one Field"]),
    (NoOutputs, MicroError, ["NoOutputs.outputs must declare at least one Field"]),
]  # fmt: skip


@pytest.mark.parametrize("make, error, words", BAD)
def test_bad_models_are_refused_by_the_name_of_their_fault(make, error, words):
    micro = make()
    batch = batch_of(micro, np.linspace(300.0, 340.0, 5), ids=range(5, 10))
    with pytest.raises(error) as caught:
        try_out(micro, batch)
    message = str(caught.value)
    assert type(caught.value) is error and "\n" not in message and ";" in message
    for word in words:
        assert word in message, message


@pytest.mark.parametrize("kind", [LooksAtTheMean, LooksAtTheSize, LooksAtThePlace])
def test_a_uniform_start_hides_no_dependence_on_neighbours(kind):
    with pytest.raises(MicroError, match="must answer a cell alone as inside a batch"):
        try_out(kind(), batch_of(kind(), UNIFORM))


def test_cells_are_taken_from_all_over_the_batch():
    """The first cells of a grid are often alike; the fault shows only at the far end."""
    temperature = np.full(1000, 300.0)
    temperature[-1] = 340.0
    with pytest.raises(MicroError, match="must be finite.*cell 999"):
        try_out(NotANumber(), batch_of(Good(), temperature))


# -- the registry ---------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _path_as_before(monkeypatch):
    """The registry adds the folder of the case to the path."""
    monkeypatch.setattr(sys, "path", sys.path.copy())


def made(folder, model, **options):
    return make_micro(MicroSection(model=model, **options), {}, {}, folder, lambda name: np.zeros((4, 4)))


@pytest.mark.parametrize("ndim, diagonal", [(2, 2), (3, 3)])
def test_constant_is_isotropic(tmp_path, ndim, diagonal):
    micro = made(tmp_path, "constant", conductivity=2.5, ndim=ndim)
    answer = micro.evaluate(batch_of(micro, WARM))
    expected = np.zeros((micro.outputs[0].size, 9))
    expected[:diagonal] = 2.5
    np.testing.assert_array_equal(answer.outputs, expected)
    assert not answer.status.any() and micro.history == "none"


@pytest.mark.parametrize(
    "model, options, words",
    [
        ("constnat", {}, ["micro.model", "'constnat'", "did you mean 'constant'?"]),
        (
            "zzz",
            {},
            ["micro.model", f"known are {', '.join(MODELS)}, 'module:Class' or 'kernel:FILE.c:NAME'"],
        ),
        ("constant", {"conductivty": 1.0}, ["'micro.conductivty'", "did you mean 'micro.conductivity'?"]),
        ("constant", {"conductivity": "much"}, ["micro.conductivity must be a number", "'much'"]),
        ("constant", {"conductivity": -1.0}, ["micro.conductivity must be greater than 0"]),
        ("constant", {"ndim": 4}, ["micro.ndim must be 2 or 3, got 4"]),
        (":Model", {}, ["micro.model must be written as 'module:Class', got ':Model'"]),
        ("module:", {}, ["micro.model must be written as 'module:Class'"]),
        ("..up:Model", {}, ["micro.model must be written as 'module:Class'"]),
        (
            "no_such_module:Model",
            {},
            ["'no_such_module:Model'", "put no_such_module.py beside the case file"],
        ),
        ("json.nothing:Model", {}, ["'json.nothing:Model'", "that can be imported"]),
        ("json:Model", {}, ["subclass of hpcmsm.micro.base.MicroModel", "'Model' in json is missing"]),
        ("json:JSONDecoder", {}, ["'JSONDecoder' in json is something else"]),
        ("json:loads", {}, ["'loads' in json is something else"]),
        ("hpcmsm.micro.base:MicroModel", {}, ["'MicroModel' in hpcmsm.micro.base is without evaluate"]),
        ("hpcmsm.micro.constant:Constant", {"k": 1}, ["[micro] must hold the options of Constant", "'k'"]),
    ],
)
def test_registry_refuses(tmp_path, model, options, words):
    with pytest.raises(ConfigError) as caught:
        made(tmp_path, model, **options)
    for word in words:
        assert word in str(caught.value), str(caught.value)


OWN = """
from hpcmsm.micro.constant import Constant


class Own(Constant):
    def __init__(self, factor: float, offset: float = 0.0):
        super().__init__(conductivity=2 * factor + offset)
        if factor > 5.0:
            raise TypeError("a bug with an argument")
"""


def test_users_model_is_found_beside_the_case(tmp_path):
    (tmp_path / "own_of_a_user.py").write_text(OWN)
    micro = made(tmp_path, "own_of_a_user:Own", factor=1.5, backend="cpu")
    assert type(micro).__name__ == "Own" and micro.tensor[0, 0] == 3.0
    with pytest.raises(ConfigError, match="options of Own.*missing a required argument: 'factor'"):
        made(tmp_path, "own_of_a_user:Own")
    # A bug inside the constructor is no wrong option: its traceback must be seen.
    with pytest.raises(TypeError, match="a bug with an argument"):
        made(tmp_path, "own_of_a_user:Own", factor=6.0)


def test_what_a_users_module_misses_is_told_as_it_is(tmp_path):
    (tmp_path / "incomplete_of_a_user.py").write_text("import a_library_that_is_missing\n")
    with pytest.raises(ModuleNotFoundError, match="a_library_that_is_missing"):
        made(tmp_path, "incomplete_of_a_user:Own")
