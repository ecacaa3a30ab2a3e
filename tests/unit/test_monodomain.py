"""The table [macro] of the monodomain equation: what is refused, and what it makes of it."""

import numpy as np
import pytest
from mpi4py import MPI

from hpcmsm.assembly import build
from hpcmsm.config import parse_case
from hpcmsm.errors import ConfigError
from hpcmsm.output import snapshot_fields
from hpcmsm.report.rundata import Run

CASE = """
[grid]
size = ["4 mm", "2 mm"]
cells = [9, 5]
centring = "vertex"
[time]
scheme = "godunov"
step = "0.05 ms"
end = "1 ms"
[macro]
model = "monodomain"
initial = -85.23
conductivity = [0.13342, 0.017606]
[[macro.stimulus]]
low = [0.0, 0.0]
high = ["1 mm", "1 mm"]
duration = "2 ms"
current = 50e3
[macro.probes]
corner = ["4 mm", "2 mm"]
[macro.lines.diagonal]
start = [0.0, 0.0]
end = ["4 mm", "2 mm"]
points = 3
[micro]
model = "tt06"
[surrogate]
enabled = false
"""


def built(tmp_path, *overrides):
    return build(parse_case(CASE, "case.toml", overrides), MPI.COMM_SELF, tmp_path)


def test_a_case_becomes_the_equation(tmp_path):
    parts = built(tmp_path)
    macro, grid = parts.macro, parts.grid
    assert grid.spacing == (0.5e-3, 0.5e-3) and grid.centring == "vertex"
    x, y = grid.coordinates().values()
    assert (x.min(), x.max(), y.max()) == (0.0, 4e-3, 2e-3)
    # D = conductivity / (surface per volume * capacitance), over the squared spacing.
    np.testing.assert_allclose(macro.rates, [9.53e-5 / 0.25e-6, 1.257571e-5 / 0.25e-6], rtol=1e-5)
    (stimulus,) = macro.stimuli
    inside = (x <= 1.0001e-3) & (y <= 1.0001e-3)
    assert np.array_equal(stimulus.cells, np.flatnonzero(inside)) and stimulus.cells.size == 9
    assert stimulus.strength == pytest.approx(50e3 / 1400.0) and (stimulus.start, stimulus.end) == (0.0, 2e-3)
    macro.begin_step(macro.initial(), 0.0, 5e-5)
    offered = macro.offer(macro.initial())
    assert np.array_equal(offered["stimulus"], np.where(inside, stimulus.strength, 0.0))
    assert [probe.name for probe in macro.probes.probes] == ["corner", *(f"diagonal_{i}" for i in range(3))]
    assert macro.probes.probes[2].at == (2e-3, 1e-3)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("macro.conductivity=[0.1]", ["macro.conductivity must have one entry per axis", "got 1 for 2"]),
        ("macro.conductivity=[0.1, -0.1]", ["macro.conductivity.1", "-0.1"]),
        ("macro.conductivity=[1e300, 0.1]", ["at most 10000 stable steps", "correct it (S/m)"]),
        ("macro.conductivities=[0.1, 0.1]", ["'macro.conductivities'", "did you mean 'macro.conductivity'?"]),
        ("macro.initial=300", ["macro.initial must lie between -200 and 200 mV, got 300"]),
        ("macro.initial={temperature=300}", ["macro.initial must be a formula or name 'voltage'"]),
        ("macro.source=1.0", ["macro.source must be left out for macro.model 'monodomain', got 1.0"]),
        ("macro.coupling=stage", ["macro.coupling"]),
        ("macro.boundary.x_low.kind=periodic", ["periodic"]),
        ("time.scheme=rk4", ["time.scheme must be one of godunov, strang", "'rk4'"]),
        ("macro.stimulus=[{low=[0.0], high=[0.0], duration=1.0, current=1.0}]", ["macro.stimulus.0.low"]),
        (
            "macro.stimulus=[{low=[0.1, 0.1], high=[0.2, 0.2], duration=1.0, current=1.0}]",
            ["macro.stimulus.0 must reach at least one cell"],
        ),
        ("macro.probes.out=[0.0, 1.0]", ["macro.probes.out must lie within the grid"]),
        ("macro.probes.diagonal_1=[0.0, 0.0]", ["macro.probes.diagonal_1 must be the only point"]),
        ("macro.linear_tolerance=1e-5", ["macro.linear_tolerance must be left out"]),
        ("macro.lines.diagonal.end=[0.0]", ["macro.lines.diagonal.end must have one entry per axis"]),
        ("grid.cells=[1, 5]", ["grid.cells must be at least 2 for grid.centring 'vertex', got 1"]),
        ("micro.model=constant", ["needs the field 'temperature'", "provides voltage, stimulus"]),
        ("surrogate.enabled=true", ["surrogate.enabled must be false for TT06", "history is 'full'"]),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, override, words):
    with pytest.raises(ConfigError) as caught:
        built(tmp_path, override).macro.initial()
    for word in words:
        assert word in str(caught.value), str(caught.value)


def test_heat_conduction_has_no_half_cells(tmp_path):
    heat = ["macro={model='heat', initial=300.0, heat_capacity=1.0}", "micro={model='constant'}"]
    with pytest.raises(
        ConfigError, match=r"grid\.centring must be cell for macro\.model 'heat', got 'vertex'"
    ):
        built(tmp_path, *heat, "time.scheme=rk2")


def test_snapshots_hold_the_fields_that_are_named(tmp_path):
    parts = built(tmp_path)
    names = [field.name for field in snapshot_fields(parts)]
    assert {"voltage", "activation_time", "voltage_after", "gate_m", "calcium", "source"} <= set(names)
    chosen = snapshot_fields(parts, ["calcium", "voltage"])
    assert [field.name for field in chosen] == ["voltage", "calcium"]
    with pytest.raises(ConfigError, match=r"snapshots\.fields must name fields.*did you mean 'calcium'\?"):
        snapshot_fields(parts, ["calcum"])


def test_pictures_put_values_where_they_belong(tmp_path):
    """Centres from side to side, and cells at the sides drawn whole."""
    run = Run(tmp_path, size=(1.0, 0.5), centring="vertex")
    np.testing.assert_allclose(run.centres(0, 5), np.linspace(0.0, 1.0, 5), atol=1e-15)
    np.testing.assert_allclose(run.edges(1, 3), [-0.125, 0.125, 0.375, 0.625])
    np.testing.assert_allclose(Run(tmp_path, size=(1.0,)).centres(0, 4), [0.125, 0.375, 0.625, 0.875])
