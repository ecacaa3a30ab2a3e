"""Niederer's benchmark and the speed of a wave along a fibre, against published and reference values."""

import json

import pytest

from tests.launch import ROOT, launch

CASE = ROOT / "cases" / "niederer.toml"
CABLE = """
[grid]
size = ["20 mm"]
cells = [41]
centring = "vertex"
[time]
scheme = "godunov"
step = "0.01 ms"
end = "45 ms"
[macro]
model = "monodomain"
initial = -85.23
conductivity = [0.13342]
[[macro.stimulus]]
low = [0.0]
high = ["1.5 mm"]
duration = "2 ms"
current = 50e3
[macro.probes]
first = ["5 mm"]
second = ["15 mm"]
[micro]
model = "tt06"
[surrogate]
enabled = false
[checkpoint]
every = 0
"""


def times(nranks, case, out, *settings):
    """Activation times of the probes in ms."""
    words = [word for setting in settings for word in ("--set", setting)]
    result = launch(nranks, ["hpcmsm", "run", case, "-o", out, "--quiet", *words], timeout=600)
    assert result.returncode == 0, result.stderr
    points = json.loads((out / "summary.json").read_text())["probes"]["points"]
    return {name: 1e3 * point["activation_time"] for name, point in points.items()}


@pytest.mark.parametrize(
    ("cells", "scheme", "speed", "tolerance"),
    [(41, "godunov", 0.42173, 1e-5), (201, "godunov", 0.59889, 1e-5), (201, "strang", 0.59889, 1e-2)],
)
def test_a_wave_along_the_fibres_has_the_reference_speed(tmp_path, cells, scheme, speed, tolerance):
    """Between 5 and 15 mm, in mm/ms, at 0.5 and 0.1 mm and a step of 0.01 ms."""
    case = tmp_path / "cable.toml"
    case.write_text(CABLE)
    found = times(1, case, tmp_path / "out", f"grid.cells=[{cells}]", f"time.scheme={scheme}")
    assert 10.0 / (found["second"] - found["first"]) == pytest.approx(speed, abs=tolerance)


@pytest.fixture(scope="module")
def slab(tmp_path_factory):
    """Activation times in ms at 0.5, 0.2 and 0.1 mm."""
    folder = tmp_path_factory.mktemp("slab")
    quiet = ("snapshots.every=0", "checkpoint.every=0")
    finer = {"0.2": ("[101, 36, 16]", "60 ms"), "0.1": ("[201, 71, 31]", "50 ms")}
    found = {"0.5": times(2, CASE, folder / "0.5", *quiet)}
    for name, (cells, end) in finer.items():
        lines = (f"grid.cells={cells}", f"time.end={end}", *quiet)
        found[name] = times(2, CASE, folder / name, *lines)
    return found


def test_the_far_corner_is_reached_when_eleven_codes_say(slab):
    """At 0.5 mm, where the codes differ most: mean and spread of Niederer et al. 2011."""
    assert abs(slab["0.5"]["P8"] - 117.86) < 36.11


def test_times_settle_as_the_grid_is_refined(slab):
    """Monotonically, and much less from 0.2 to 0.1 mm than before."""
    for name in ("P2", "P3", "P4", "P5", "P6", "P7", "P8", "P9"):
        coarse, middle, fine = (slab[spacing][name] for spacing in ("0.5", "0.2", "0.1"))
        assert coarse > middle > fine > 0.0
        assert middle - fine < 0.35 * (coarse - middle), name


def test_the_wave_passes_the_corners_in_their_order(slab):
    """Along the fibres it is fastest, and it reaches the far corner last."""
    for found in slab.values():
        assert found["P1"] < 2.0 < found["P5"] < found["P3"] < found["P7"] < found["P8"]
        assert found["P1"] < found["P9"] < found["P8"] and found["P2"] < found["P4"] < found["P8"]
        line = [found[f"diagonal_{number:02d}"] for number in range(11)]
        assert line == sorted(line)
        assert line[0] == found["P1"] and line[10] == found["P8"]
