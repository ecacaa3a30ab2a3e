"""A kernel file as a micro model: what it computes, and each way in which file and table may disagree."""

import sys
from pathlib import Path

import numpy as np
import pytest

from hpcmsm.batch import Batch
from hpcmsm.config import load_case, parse_case
from hpcmsm.errors import ConfigError, MicroError, SetupError
from hpcmsm.kernels import compile_for_gpu
from hpcmsm.micro.registry import make_micro
from hpcmsm.micro.trial import try_out

CASES = Path(__file__).resolve().parents[2] / "cases"

KERNEL = """
// Everything that may be bound.
KERNEL mix(
    long ncells,           // number of cells
    long n,                // points a side
    real dt,               // [s] time step
    real time,             // [s] before the step
    long step,             // number of the step
    real rate,             // [1/s] of what happens
    const real *table,     // (2, n) [W] numbers
    const real *weight,    // optional (n, ncells) [1] not given
    const real *speed,     // (ncells) [m/s] input
    const long *ids,       // (ncells) of the cells
    const real *field,     // (n, 2, ncells) [K] state before
    real *field_after,     // (n, 2, ncells) [K] state after
    real *age,             // (ncells) [s] state, advanced in place
    real *sums,            // (2, ncells) [W] output
    int *status,           // (ncells) 0 good
    int *iterations,       // (ncells)
    real *residual         // (ncells)
) {
    FOR_EACH_CELL(c, ncells) {
        for (long i = 0; i < 2 * n; ++i)
            field_after[i * ncells + c] = field[i * ncells + c] + dt * rate * speed[c] * (i + 1);
        age[c] = age[c] + dt;
        sums[c] = sums[ncells + c] = weight ? weight[c] : R(0);
        for (long i = 0; i < n; ++i) sums[c] += table[i] * speed[c];
        for (long i = 0; i < n; ++i) sums[ncells + c] += table[n + i] + time + step;
        status[c] = speed[c] < 0;
        iterations[c] = (int)ids[c];
        residual[c] = speed[c] / 4;
    }
}
"""
TABLE = """
grid = { cells = [4, 4], size = [1.0, 1.0] }
time = { end = 1.0, step = 0.1 }
[micro]
model = "kernel:mix.c:mix"
dtype = "float64"
[micro.inputs]
speed = "m/s"
[micro.outputs]
sums = { unit = "W", size = 2, lower = 0.0 }
[micro.state]
field = { unit = "K", size = 6, initial = "speed + 10 * component" }
age = { unit = "s", initial = 2.0 }
[micro.parameters]
n = 3
rate = { value = 2.0, unit = "1/s" }
table = { value = [[1, 2, 3], [4, 5.5, 6]], unit = "W" }
"""


def build(folder, table=TABLE, kernel=KERNEL):
    (folder / "mix.c").write_text(kernel)
    return make_micro(parse_case(table, "case.toml").micro, {}, {}, folder, None)


def batch(model, speed, dt=0.5):
    inputs = np.atleast_2d(np.asarray(speed, float))
    return Batch(10 * np.arange(inputs.shape[1]), inputs, model.initial_state(inputs), 7.0, dt, 3)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_arguments_get_what_they_are_called(tmp_path, dtype):
    model = build(tmp_path, TABLE.replace("float64", dtype))
    speed = np.array([1.0, 2.5, -1.0])
    asked = batch(model, speed)
    answer = model.evaluate(asked)
    # State in the order of names: age, field.
    np.testing.assert_allclose(asked.state[0], 2.0)
    np.testing.assert_allclose(asked.state[1:], speed + 10.0 * np.arange(6)[:, None])
    np.testing.assert_allclose(answer.state[0], 2.5)
    np.testing.assert_allclose(answer.state[1:], asked.state[1:] + speed * np.arange(1, 7)[:, None])
    np.testing.assert_allclose(answer.outputs, [6.0 * speed, np.full(3, 15.5 + 30.0)])
    assert answer.status.tolist() == [0, 0, 1]
    np.testing.assert_allclose(answer.residual, speed / 4)
    assert answer.outputs.dtype == answer.state.dtype == answer.residual.dtype == np.float64
    np.testing.assert_allclose(answer.cost / answer.cost[0], [1, 11, 21])
    assert model.history == "full"


def test_what_a_surrogate_must_know(tmp_path):
    model = build(tmp_path)
    assert model.depends_on_dt
    assert model.no_surrogate.startswith("its kernel reads ids, step, time, of which")
    example = make_micro(load_case(CASES / "own_kernel.toml").micro, {}, {}, CASES, None)
    assert example.depends_on_dt
    assert not example.no_surrogate


def test_what_the_model_tells_of_itself(tmp_path):
    facts = build(tmp_path).facts()
    assert facts["source"] == "mix.c"
    assert facts["parameters"] == {"n": 3, "rate": 2.0, "table": [[1, 2, 3], [4, 5.5, 6]]}
    changed = build(tmp_path, kernel=KERNEL + "// changed\n").facts()
    assert changed["sha256"] != facts["sha256"]
    told = []
    for part in ("", "/* changed */"):
        (tmp_path / "part.h").write_text(part)
        told.append(build(tmp_path, kernel='#include "part.h"\n' + KERNEL).facts()["sha256"])
    assert told[0] != told[1]


def test_lifting_makes_the_history_liftable(tmp_path):
    table = TABLE.replace(
        'initial = "speed + 10 * component"', 'lift = "sums_1 * component - speed"'
    ).replace("initial = 2.0", "lift = 4.0")
    model = build(tmp_path, table)
    assert model.history == "liftable"
    assert build(tmp_path, table.replace("[micro]", '[micro]\nhistory = "full"')).history == "full"
    state = model.lift(np.array([[1.0, 2.0]]), np.array([[0.0, 0.0], [3.0, 5.0]]))
    np.testing.assert_allclose(state[0], 4.0)
    np.testing.assert_allclose(state[1:], np.arange(6)[:, None] * [3.0, 5.0] - [1.0, 2.0])


def test_team_kernels_are_models_too(tmp_path):
    kernel = """
KERNEL mix(
    long ncells,        // number of cells
    long n,             // points
    const real *speed,  // (ncells) [m/s] input
    real *sums,         // (2, ncells) [W] output
    real *scratch       // scratch (n) points
) {
    FOR_EACH_TEAM(team, ncells) {
        real *u = TEAM_SCRATCH(scratch, n), sum[LANES];
        FOR_EACH_POINT(i, n) FOR_EACH_LANE(l) u[i * LANES + l] = i * speed[CELL_OF(team, l, ncells)];
        TEAM_BARRIER;
        FOR_EACH_LANE(l) sum[l] = 0;
        FOR_EACH_POINT(i, n) FOR_EACH_LANE(l) sum[l] += u[i * LANES + l];
        TEAM_SUM(sum);
        TEAM_ONCE FOR_EACH_LANE(l) if (HAS_CELL(team, l, ncells))
            sums[CELL_OF(team, l, ncells)] = sums[ncells + CELL_OF(team, l, ncells)] = sum[l];
    }
}
"""
    table = TABLE.partition("[micro.state]")[0] + "[micro.parameters]\nn = 5\n"
    model = build(tmp_path, table, kernel)
    answer = model.evaluate(batch(model, np.arange(11.0)))
    np.testing.assert_array_equal(answer.outputs, np.tile(10 * np.arange(11.0), (2, 1)))
    assert model.history == "none"
    try_out(model, batch(model, np.arange(11.0)))


# ------------------------------------------------------------------------- file and table disagree


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        # the table
        ("kernel:mix.c:mix", "kernel:mix.c", "must be written as 'kernel:FILE.c:FUNCTION', got 'kernel:mix"),
        ("kernel:mix.c:mix", "kernel:mics.c:mix", "must exist, got .*mics.c'; did you mean 'mix.c'"),
        ("kernel:mix.c:mix", "kernel:mix.c:mixx", "must be one of mix.c, got 'mixx'; did you mean 'mix'"),
        ("dtype =", "dtipe =", "unknown key 'micro.dtipe' .* did you mean 'micro.dtype'"),
        ('"float64"', '"float16"', "micro.dtype must be 'float64' or 'float32', got 'float16'"),
        ("sums =", "sms =", "'sms' of .micro. must have an argument 'sms', got none .* did you mean 'sums'"),
        ('speed = "m/s"', 'speed = "km/h"', r"argument 'speed' must be in km/h, got \[m/s\] in its comment"),
        ("size = 2", "size = 3", r"'sums' must be of shape \(3, ncells\), .* got \(2, ncells\) ="),
        ("size = 6", "size = 5", r"'field' must be .* 5 components, got \(n, 2, ncells\) = \(3, 2, ncells\)"),
        ('"float64"', '"float64"\nhistory = "none"', "history must be full with states without a lift, got"),
        ("n = 3\n", "n = 3.5\n", "argument 'n' must be whole numbers, got 3.5"),
        ("n = 3\n", "", "'n' must be an input, output, state or parameter .* add it, for example as .*\\.n"),
        ("[1, 2, 3]", "[1, 2]", "argument 'table' must be numbers in rows of one length, got"),
        ("[[1, 2, 3], [4, 5.5, 6]]", "[1, 2, 3]", r"must be of shape \(2, n\) = \(2, 3\), got \(3,\)"),
        ('unit = "1/s"', 'unit = "s"', r"argument 'rate' must be in s, got \[1/s\]"),
        ("rate = {", "rates = {", "'rates' of .* must have an argument .* did you mean 'rate'"),
        ("n = 3\n", "n = 3\nwidth = 2.0\n", "'width' of .micro. must have an argument 'width', got none"),
        ("n = 3\n", "n = 3\ndt = 2.0\n", "must not be called 'dt', which has another meaning"),
        ("n = 3\n", "n = 3\nage = 2.0\n", "must not be called 'age'"),
        ("initial = 2.0", "initial = [1.0, 2.0]", "initial must have 1 formulas, one per component, got 2"),
        ("initial = 2.0", 'initial = "sped"', "micro.state.age.initial .* did you mean 'speed'"),
        ("initial = 2.0", "lift = 2.0", "micro.state.field.lift must be given when other states have one"),
        ('age = { unit = "s"', 'agee = { unit = "s"', "'agee' must have an argument 'agee_after'|'agee'"),
        # the kernel
        ("ncells", "nn", "must loop over its integer argument 'ncells'"),
        ("const real *speed", "real *speed", "'speed' must be const, as the kernel may only read it"),
        ("real *sums", "const real *sums", "must compile, got .*read-only"),
        ("real *field_after, ", "const real *field_after, ", "must compile, got .*read-only"),
        ("field_after", "field_next", "the state 'field' must have an argument"),
        ("const real *speed", "const float *speed", "'speed' must be an array .'real .'., got 'float .'"),
        ("real *sums,            // (2, ncells)", "real *sums, // (ncells, 2)", "that ends with ncells"),
        ("int *status,           // (ncells)", "int *status, // (2, ncells)", "'status' must be of shape"),
        ("int *status", "long *status", "'status' must be an array .'int .'., got 'long .'"),
        ("real dt,               // [s]", "real dt,  // [ms]", r"argument 'dt' must be in s, got \[ms\]"),
        ("long step,  ", "real step,  ", "argument 'step' must be one number .'long'., got 'real'"),
        ("real rate,  ", "real rate;  ", "each argument must stand on its own line"),
        ("age[c] = age[c]", "age[c] = oops", "must compile, got 'mix.c:.*oops"),
    ],
)  # fmt: skip
def test_a_disagreement_is_named_in_one_line(tmp_path, old, new, text):
    assert (old in TABLE) != (old in KERNEL)
    with pytest.raises(ConfigError, match=text) as caught:
        build(tmp_path, TABLE.replace(old, new), KERNEL.replace(old, new))
    assert "\n" not in str(caught.value)


def test_a_gpu_without_cupy_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(SetupError, match="backend 'gpu' must have CuPy"):
        build(tmp_path, TABLE.replace("[micro]", '[micro]\nbackend = "gpu"'))


def test_a_python_module_may_be_called_kernel(tmp_path, monkeypatch):
    table = TABLE.replace("kernel:mix.c:mix", "kernel:Model")
    with pytest.raises(ConfigError, match=r"put kernel\.py beside the case file"):
        build(tmp_path, table)


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        (
            "table[i] * speed[c]",
            "table[i] * speed[c > 0 ? c - 1 : 0]",
            "answer a cell alone as inside a batch",
        ),
        ("status[c] = speed[c] < 0", "status[c] = 1", "must solve some cells before a run starts"),
        (
            "sums[c] += table[i]",
            "sums[c] -= table[i]",
            r"ranges .* \(sums from 0 to inf\), got -6",
        ),
        ("age[c] = age[c] + dt", "age[c] = R(0) / (age[c] - age[c])", "state of KernelModel must be finite"),
    ],
)
def test_the_trial_call_finds_a_kernel_that_breaks_the_rules(tmp_path, old, new, text):
    assert old in KERNEL
    model = build(tmp_path, kernel=KERNEL.replace(old, new))
    with pytest.raises(MicroError, match=text):
        try_out(model, batch(model, np.ones(9)))
    good = build(tmp_path)
    try_out(good, batch(good, np.ones(9)))


# --------------------------------------------------------------------------------- the ready example


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_the_example_compiles_for_gpus(dtype):
    assert len(compile_for_gpu(CASES / "own_kernel.c", "sm_90", dtype)) > 1000


def test_the_example_cures_as_a_root_finder_says():
    from scipy.optimize import brentq

    case = load_case(CASES / "own_kernel.toml")
    model = make_micro(case.micro, {}, {}, CASES, None)
    assert [field.name for field in model.inputs] == ["fraction", "temperature"]
    rng = np.random.default_rng(1)
    inputs = np.stack([rng.uniform(0.2, 0.7, 50), rng.uniform(300, 480, 50)])
    state = rng.uniform(0.0, 0.9, (1, 50))
    answer = model.evaluate(Batch(np.arange(50), inputs, state, 0.0, 5.0, 1))
    assert not answer.status.any()
    for cell in range(50):
        step = 5.0 * 1.5e6 * np.exp(-7.5e3 / inputs[1, cell])
        cure = brentq(lambda a: a - state[0, cell] - step * (0.01 + a) * (1 - a) ** 2, state[0, cell], 1.0)  # noqa: B023
        assert answer.state[0, cell] == pytest.approx(cure, abs=1e-9)
        k = 0.18 + 0.06 * cure
        share = (2.5 - k) / (2.5 + k) * inputs[0, cell]
        assert answer.outputs[0, cell] == pytest.approx(k * (1 + share) / (1 - share), rel=1e-9)
    np.testing.assert_array_equal(answer.outputs[2], 0.0)
    try_out(model, Batch(np.arange(50), inputs, state, 0.0, 5.0, 1))
