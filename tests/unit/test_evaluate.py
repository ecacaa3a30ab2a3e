"""`evaluate`: the micro model of a case alone, at chosen inputs."""

import sys
from pathlib import Path

import numpy as np
import pytest

from hpcmsm.config import parse_case
from hpcmsm.errors import ConfigError
from hpcmsm.evaluate import evaluate_case

CASE = """
[grid]
cells = [4, 4]
size = [1.0, 1.0]
[time]
end = 1.0
step = 0.1
[materials.a]
conductivity = "1 + temperature / 1000"
[materials.b]
conductivity = 3.0
[micro]
model = "unit_cell"
microstructure = "laminate"
phases = ["a", "b"]
resolution = 8
"""
CONSTANT = CASE[: CASE.index("[materials.a]")] + '[micro]\nmodel = "constant"\nconductivity = 2.0\n'


def rows(given, text=CASE):
    return evaluate_case(parse_case(text, "case.toml"), Path("."), given)


def test_a_laminate_at_chosen_inputs():
    """Along the layers the mean of the conductivities, across them that of their inverses."""
    got = rows(["temperature=400", "fraction=0.25"])
    assert len(got) == 1
    first, second, fraction = 1.4, 3.0, 0.25
    along = (1 - fraction) * first + fraction * second
    across = 1 / ((1 - fraction) / first + fraction / second)
    row = got[0]
    assert sorted([row["conductivity_xx"], row["conductivity_yy"]]) == pytest.approx(
        [across, along], rel=1e-6
    )
    assert abs(row["conductivity_xy"]) < 1e-6
    assert (row["temperature"], row["fraction"], row["status"]) == (400.0, 0.25, 0)


def test_ranges_give_every_combination_in_order():
    got = rows(["fraction=0:0.5:3", "temperature=300:500:2"])
    asked = [(row["temperature"], row["fraction"]) for row in got]
    assert asked == [(t, f) for t in (300.0, 500.0) for f in (0.0, 0.25, 0.5)]
    alone = [rows([f"temperature={t}", f"fraction={f}"])[0] for t, f in asked]
    assert got == alone


def test_a_range_of_one_and_backwards():
    assert [row["temperature"] for row in rows(["temperature=400:300:1"], CONSTANT)] == [400.0]
    temperatures = [row["temperature"] for row in rows([" temperature = 400:300:3"], CONSTANT)]
    assert temperatures == [400.0, 350.0, 300.0]
    assert {row["conductivity_xx"] for row in rows(["temperature=1:9:5"], CONSTANT)} == {2.0}


@pytest.mark.parametrize(
    "given, words",
    [
        ([], "must be given for every input, got none for temperature, fraction"),
        (["temperature=300"], "must be given for every input, got none for fraction"),
        (["temprature=300"], "got 'temprature=300'; did you mean 'temperature'?"),
        (["zzz=300"], "inputs are temperature, fraction"),
        (["temperature"], "NAME=VALUE with a known input, got 'temperature'"),
        (["temperature="], "a number or first:last:count, got 'temperature='"),
        (["temperature=warm"], "a number or first:last:count, got 'temperature=warm'"),
        (["temperature=300:400"], "a number or first:last:count, got 'temperature=300:400'"),
        (["temperature=300:400:3:4"], "a number or first:last:count"),
        (["temperature=300:400:2.5"], "a number or first:last:count"),
        (["temperature=300:400:0"], "a count from 1 to 1000000, got 'temperature=300:400:0'"),
        (["temperature=300:400:-1"], "a count from 1 to 1000000"),
        (["temperature=300:400:10000000000000"], "a count from 1 to 1000000"),
        (["temperature=300:400:2000", "fraction=0:0.5:2000"], "at most 1000000 combinations"),
        (["temperature=300", "fraction=1.5"], "--input fraction must lie between 0 and 1, got 1.5"),
        (["temperature=300", "fraction=0:2:3"], "--input fraction must lie between"),
        (["temperature=nan", "fraction=0.1"], "--input temperature must lie between .* K, got nan"),
        (["temperature=inf", "fraction=0.1"], "--input temperature must lie between .* K, got inf"),
    ],
)
def test_wrong_inputs_are_refused(given, words):
    with pytest.raises(ConfigError, match=words) as caught:
        rows(given)
    assert "\n" not in str(caught.value)


def test_a_million_combinations_are_the_most():
    given = ["temperature=300:400:1000", "fraction=0:0.5:1001"]
    with pytest.raises(ConfigError, match="at most 1000000 combinations"):
        rows(given)
    assert len(rows(["temperature=300:400:3000"], CONSTANT)) == 3000


def test_a_failed_cell_is_reported_not_hidden(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", sys.path.copy())  # the folder of the case is added to it
    (tmp_path / "fails_above.py").write_text(
        "import numpy as np\n"
        "from hpcmsm.batch import Answer\n"
        "from hpcmsm.micro.constant import Constant\n"
        "class FailsAbove(Constant):\n"
        "    def evaluate(self, batch):\n"
        "        answer = super().evaluate(batch)\n"
        "        bad = (batch.inputs[0] > 350).astype(np.int32)\n"
        "        return Answer(answer.outputs, answer.state, bad, residual=0.5 * bad)\n"
    )
    case = parse_case(
        CONSTANT.replace('"constant"\nconductivity = 2.0', '"fails_above:FailsAbove"'), "case.toml"
    )
    got = evaluate_case(case, tmp_path, ["temperature=300:400:3"])
    assert [(row["status"], row["residual"]) for row in got] == [(0, 0.0), (0, 0.0), (1, 0.5)]
    assert all(np.isfinite(row["conductivity_xx"]) for row in got)
