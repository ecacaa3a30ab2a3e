"""The case file: defaults, units, overrides, and one clear line for everything that is wrong."""

import re
import tomllib
from pathlib import Path

import pytest

from hpcmsm.config import EXPLICIT, IMPLICIT, Case, load_case, parse_case
from hpcmsm.errors import ConfigError

CASES = sorted((Path(__file__).resolve().parents[2] / "cases").glob("*.toml"))
NAME = "wall.toml"
SMALL = """
[grid]
cells = [6, 4]
size = ["60 mm", 0.04]
[time]
end = "2 min"
step = "500 ms"
[micro]
model = "constant"
"""
# A case in which every table is there, so that each of its keys can be misspelt.
FULL = """
title = "wall"
seed = 7
[grid]
cells = [6, 4]
size = [0.06, 0.04]
[time]
scheme = "backward_euler"
end = 10.0
step = 0.5
[fields.fraction]
value = "0.3 + x"
unit = "1"
[materials.epoxy]
conductivity = 0.2
heat_capacity = "1e6 + temperature"
source = "a book"
[macro]
initial = "300 + x"
coupling = "picard"
[macro.boundary.x_low]
kind = "convection"
coefficient = 20
ambient = 300
flux = "1e3 * t"
[macro.petsc]
ksp_type = "cg"
ksp_max_it = 20
[micro]
model = "unit_cell"
phases = ["epoxy"]
[surrogate]
members = 3
[gate]
audit = 0.02
[checkpoint]
every = 3
[snapshots]
every = 2
"""


def case(*overrides, text=FULL) -> Case:
    return parse_case(text, NAME, overrides)


def refusal(*overrides, text=FULL) -> str:
    """The one line that a case is refused with."""
    with pytest.raises(ConfigError) as caught:
        case(*overrides, text=text)
    message = str(caught.value)
    assert "\n" not in message and ";" in message, message
    return message


# -- what is read ---------------------------------------------------------------------------------


def test_values_and_units_of_a_small_case():
    got = case(text=SMALL)
    assert got.grid.cells == [6, 4]
    assert got.grid.size == pytest.approx([0.06, 0.04], rel=1e-15)
    assert got.time.end == 120.0 and got.time.step == 0.5
    assert got.time.scheme == "backward_euler" and got.surrogate.enabled and got.seed == 1
    assert got.fields == {} and got.macro.boundary == {} and got.micro.backend == "cpu"


@pytest.mark.parametrize(
    "text, seconds",
    [("3 s", 3), ("3", 3), ("1.5 min", 90), ("2 h", 7200), ("4e3 us", 4e-3), (" 7  ns ", 7e-9)],
)
def test_units_of_time(text, seconds):
    assert case(f"time.end='{text}'").time.end == pytest.approx(seconds, rel=1e-15)


@pytest.mark.parametrize("text, metres", [("5 mm", 5e-3), ("2 km", 2e3), ("3 nm", 3e-9), ("2.5e2 cm", 2.5)])
def test_units_of_length(text, metres):
    assert case(f"grid.size=['{text}', 1]").grid.size[0] == pytest.approx(metres, rel=1e-15)


@pytest.mark.parametrize("text", [SMALL, FULL, *(path.read_text() for path in CASES)])
def test_effective_case_is_complete_and_reads_back_equal(text):
    first = case(text=text)
    written = first.to_toml()
    again = parse_case(written, "config")
    assert again == first
    assert again.to_toml() == written
    tables = tomllib.loads(written)
    # Every default stands in the file, so that it means the same under another version.
    assert tables["gate"].keys() == {"tolerance", "coverage", "audit", "novelty", "blend", "goal"}
    assert tables["surrogate"]["members"] == first.surrogate.members
    assert tables["checkpoint"]["keep"] == 2 and tables["time"]["max_steps"] == 1_000_000
    assert set(tables["micro"]) >= set(tomllib.loads(text)["micro"])


def test_options_of_the_micro_model_are_kept_as_they_are():
    got = case("micro.resolution=12", "micro.deep={a = [1, 2.5], b = 'c'}")
    assert got.micro.options == {"phases": ["epoxy"], "resolution": 12, "deep": {"a": [1, 2.5], "b": "c"}}
    assert parse_case(got.to_toml(), "config").micro.options == got.micro.options


def test_a_field_may_be_given_by_its_value_alone():
    assert case("fields.porosity=0.25").fields["porosity"].value == 0.25
    assert case("fields.porosity='0.1 + x'").fields["porosity"].unit == "1"


def test_a_case_cannot_be_changed_afterwards():
    got = case()
    with pytest.raises(ValueError, match="frozen"):
        got.time.end = 3.0


# -- overrides ------------------------------------------------------------------------------------


def test_overrides_take_toml_values_and_bare_words():
    got = case(
        "time.end=30",
        "time.scheme = rk4",
        "macro.coupling=stage",
        "grid.cells=[3, 5]",
        "surrogate.enabled=false",
        "macro.initial=300 + 2*x",
        "title=a = b",
        "macro.boundary.y_high.kind=periodic",
    )
    assert (got.time.end, got.time.scheme, got.grid.cells) == (30.0, "rk4", [3, 5])
    assert not got.surrogate.enabled and got.macro.initial == "300 + 2*x" and got.title == "a = b"
    assert got.macro.boundary["y_high"].kind == "periodic"
    assert got.macro.boundary["x_low"].kind == "convection"


def test_the_last_override_wins():
    assert case("seed=3", "seed=4").seed == 4


@pytest.mark.parametrize("override", ["seed", "=3", "grid.=3", ".grid=3", "", "grid..cells=3"])
def test_override_without_key_or_value(override):
    assert "--set must be section.key=value" in refusal(override)


def test_override_below_a_value():
    message = refusal("seed.deep=3")
    assert "--set must name a key of a table" in message and "'seed' is a value" in message


# -- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "override, closest",
    [
        ("titel='x'", "title"),
        ("grdi.cells=[1, 2]", "grid"),
        ("grid.cels=[1, 2]", "grid.cells"),
        ("time.schme='euler'", "time.scheme"),
        ("fields.fraction.vaule=1", "fields.fraction.value"),
        ("materials.epoxy.conductivty=1", "materials.epoxy.conductivity"),
        ("macro.intial=1", "macro.initial"),
        ("macro.boundary.x_lo.kind='flux'", "macro.boundary.x_low"),
        ("macro.boundary.x_low.ambiant=1", "macro.boundary.x_low.ambient"),
        ("surrogate.member=3", "surrogate.members"),
        ("gate.audti=0.1", "gate.audit"),
        ("checkpoint.evry=1", "checkpoint.every"),
        ("snapshots.evry=1", "snapshots.every"),
    ],
)
def test_unknown_key_names_the_closest(override, closest):
    message = refusal(override)
    wrong = override.split("=")[0]
    wrong = {"grdi.cells": "grdi", "macro.boundary.x_lo.kind": "macro.boundary.x_lo"}.get(wrong, wrong)
    assert message == f"unknown key '{wrong}' ({NAME}); did you mean '{closest}'?"


def test_unknown_key_without_a_close_one_lists_the_known():
    assert refusal("gate.zzz=1").endswith(
        "known keys are tolerance, coverage, audit, novelty, blend, macro_tolerance, goal"
    )
    assert "known keys are x_low, x_high, y_low" in refusal("macro.boundary.front.kind='flux'")


def test_a_misspelt_key_is_named_rather_than_the_missing_one():
    text = SMALL.replace("model =", "modle =").replace("end =", "ende =")
    assert refusal(text=text) == f"unknown key 'time.ende' ({NAME}); did you mean 'time.end'?"


@pytest.mark.parametrize("key", ["grid", "time", "micro"])
def test_missing_table(key):
    tables = re.split(r"(?m)^(?=\[)", SMALL)
    text = "".join(table for table in tables if not table.startswith(f"[{key}]"))
    assert refusal(text=text) == f"{key} must be given, got nothing ({NAME}); add it to the case file"


def test_missing_key():
    assert "time.step must be given" in refusal(text=SMALL.replace('step = "500 ms"', ""))
    assert "micro.model must be given" in refusal(text=SMALL.replace('model = "constant"', ""))


TYPES = [
    ("seed=1.5", "seed must be a whole number, got 1.5"),
    ("seed=true", "seed must be a whole number, got True"),
    ("title=3", "title must be a text, got 3"),
    ("grid=3", "grid must be a table, got 3"),
    ("grid.cells=3", "grid.cells must be a list, got 3"),
    ("grid.cells=[6.0, 4]", "grid.cells.0 must be a whole number, got 6.0"),
    ("grid.cells=['a', 4]", "grid.cells.0 must be a whole number, got 'a'"),
    ("grid.size=[true, 1]", "grid.size.0 must be a number, got True"),
    ("time.step=[1]", "time.step must be a number, got [1]"),
    ("time.step=true", "time.step must be a number, got True"),
    ("time.step=1979-05-27", "time.step must be a number, got datetime.date(1979, 5, 27)"),
    ("time.adaptive='no'", "time.adaptive must be true or false, got 'no'"),
    ("surrogate.enabled=1", "surrogate.enabled must be true or false, got 1"),
    ("surrogate=true", "surrogate must be a table, got True"),
    ("surrogate.hidden=[8.5]", "surrogate.hidden.0 must be a whole number, got 8.5"),
    ("gate.tolerance=tight", "such as '0.01 W/(m K)', got 'tight'"),
    ("gate.tolerance='0.01'", "gate.tolerance must be a number, or a text of a number and a unit"),
    ("gate.tolerance=true", "gate.tolerance must be a number, or a text of a number and a unit"),
    ("gate.tolerance.k=[1]", "gate.tolerance must be a number, or a text of a number and a unit"),
    ("fields=3", "fields must be a table, got 3"),
    ("fields.fraction=[1]", "fields.fraction.value must be a finite number or a text, got [1]"),
    ("macro.initial=true", "macro.initial must be a finite number or a text, got True"),
    ("macro.initial=nan", "macro.initial must be a finite number or a text, got nan"),
    ("macro.boundary.x_low.flux=inf", "macro.boundary.x_low.flux must be a finite number or a text, got inf"),
    ("macro.boundary.x_low=3", "macro.boundary.x_low must be a table, got 3"),
    ("macro.petsc.a=[1]", "macro.petsc.a must be a finite number or a text, got [1]"),
    ("materials.epoxy=3", "materials.epoxy must be a table, got 3"),
    ("micro.model=3", "micro.model must be a text, got 3"),
]
VALUES = [
    ("seed=-1", "seed must be greater than or equal to 0, got -1"),
    ("grid.cells=[0, 4]", "grid.cells.0 must be greater than or equal to 1, got 0"),
    ("grid.cells=[]", "grid.cells must have at least 1 entries, got []"),
    ("grid.cells=[4, 4, 4, 4]", "grid.cells must have at most 3 entries"),
    ("grid.size=[0, 1]", "grid.size.0 must be greater than 0, got 0"),
    ("grid.size=['-1 mm', 1]", "grid.size.0 must be greater than 0, got '-1 mm'"),
    ("grid.size=['1 s', 1]", "grid.size.0 must be in m (or cm, mm, um, nm, km), got '1 s'"),
    ("grid.size=['60mm', 1]", "grid.size.0 must be a number in m, such as 0.5 or '5 mm', got '60mm'"),
    ("grid.size=[inf, 1]", "grid.size.0 must be a finite number, got inf"),
    ("time.step='3 mm'", "time.step must be in s (or ms, us, ns, min, h), got '3 mm'"),
    ("time.step='nan s'", "time.step must be greater than 0, got 'nan s'"),
    ("time.end=-2", "time.end must be greater than 0, got -2"),
    ("time.max_steps=0", "time.max_steps must be greater than or equal to 1, got 0"),
    ("gate.tolerance=0", "gate.tolerance must be greater than 0, got 0"),
    ("gate.tolerance=nan", "gate.tolerance must be greater than 0, got nan"),
    ("gate.tolerance=1", "gate.tolerance must be less than 1, being relative, got 1"),
    ("gate.tolerance.k='-1 K'", "gate.tolerance must be greater than 0"),
    ("gate.coverage=1.0", "gate.coverage must be less than 1, got 1.0"),
    ("gate.coverage=0.5", "gate.coverage must be greater than 0.5, got 0.5"),
    ("gate.audit=0.6", "gate.audit must be less than or equal to 0.5, got 0.6"),
    ("gate.audit=0", "gate.audit must be greater than 0, got 0"),
    ("gate.novelty=nan", "gate.novelty must be greater than 0, got nan"),
    ("surrogate.members=1", "surrogate.members must be greater than or equal to 2, got 1"),
    ("surrogate.swap_after=-1", "surrogate.swap_after must be greater than or equal to 0, got -1"),
    ("surrogate.first_samples=3000", "surrogate.capacity must be at least surrogate.first_samples (3000)"),
    ("surrogate.hidden=[]", "surrogate.hidden must have at least 1 entries, got []"),
    ("checkpoint.keep=0", "checkpoint.keep must be greater than or equal to 1, got 0"),
    ("time.scheme=eulr", "did you mean 'euler'?"),
    ("micro.backend=gqu", "micro.backend must be 'cpu' or 'gpu', got 'gqu' (wall.toml); did you mean 'gpu'?"),
    ("macro.boundary.x_low.kind=convexion", "did you mean 'convection'?"),
]


@pytest.mark.parametrize("override, text", TYPES + VALUES)
def test_wrong_types_and_values(override, text):
    message = refusal(override)
    assert text in message and f"({NAME})" in message, message


@pytest.mark.parametrize("scheme", EXPLICIT + IMPLICIT)
@pytest.mark.parametrize("coupling", ["lagged", "stage", "picard"])
def test_coupling_fits_the_scheme(scheme, coupling):
    fits = coupling == "lagged" or (coupling == "stage") == (scheme in EXPLICIT)
    overrides = f"time.scheme={scheme}", f"macro.coupling={coupling}"
    if fits:
        assert case(*overrides).time.scheme == scheme
    else:
        message = refusal(*overrides)
        assert f"macro.coupling '{coupling}'" in message and scheme in message


@pytest.mark.parametrize("scheme", EXPLICIT + IMPLICIT)
def test_adaptive_needs_an_error_estimate(scheme):
    overrides = f"time.scheme={scheme}", "time.adaptive=true", "macro.coupling=lagged"
    if scheme in ("euler", "rk4", "backward_euler", "bdf2"):
        message = refusal(*overrides)
        assert "time.adaptive" in message and scheme in message and "arkimex2" in message
    else:
        assert case(*overrides).time.adaptive


@pytest.mark.parametrize(
    "overrides, words",
    [
        (["grid.size=[1.0, 1.0, 1.0]"], ["grid", "entry", "got 3 for 2"]),
        (["grid.proc_shape=[1]"], ["grid.proc_shape", "grid.cells"]),
    ],
)
def test_grid_of_one_dimension(overrides, words):
    message = refusal(*overrides)
    for word in words:
        assert word in message, message


KEYS = {
    "temperature": ["temperature"],
    "flux": ["flux"],
    "convection": ["coefficient", "ambient"],
    "periodic": [],
}


@pytest.mark.parametrize("kind", KEYS)
def test_a_side_takes_exactly_its_keys(kind):
    side = "macro.boundary.y_low"
    needed = [f"{side}.kind={kind}", *(f"{side}.{key}=1" for key in KEYS[kind])]
    assert case(*needed).macro.boundary["y_low"].kind == kind
    for left_out in KEYS[kind]:
        message = refusal(*(text for text in needed if f".{left_out}=" not in text))
        assert f"{side} '{kind}' needs '{left_out}'" in message, message
    for other in {"temperature", "flux", "coefficient", "ambient"} - set(KEYS[kind]):
        if (kind, other) == ("convection", "flux"):
            assert case(*needed, f"{side}.flux=2").macro.boundary["y_low"].flux == 2.0
        else:
            assert f"{side} '{kind}' does not take '{other}'" in refusal(*needed, f"{side}.{other}=1")


# -- files ----------------------------------------------------------------------------------------


def test_load_case_reads_a_file(tmp_path):
    path = tmp_path / "small.toml"
    path.write_text(SMALL)
    assert load_case(path, ["seed=9"]) == case("seed=9", text=SMALL)


def test_unreadable_files(tmp_path):
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"\xff\xfe\x00\x01")
    for path in (tmp_path / "no.toml", tmp_path, binary):
        with pytest.raises(ConfigError, match=f"case file must be readable, got '{path}'"):
            load_case(path)


def test_text_that_is_not_toml():
    message = refusal(text="[grid]\ncells = [1, 2\n")
    assert f"case file must be TOML, got '{NAME}'" in message and "line" in message
