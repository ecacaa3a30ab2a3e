"""Fields: rows, start values, checks of arrays, bounds, and the connection by name, size and unit."""

import math

import numpy as np
import pytest

from hpcmsm.errors import ConfigError, ShapeError
from hpcmsm.fields import Field, allocate, check_array, connect, ncomponent, rows_of, within_bounds

TEMPERATURE = Field("temperature", unit="K", lower=200.0, upper=1000.0, start=300.0)
FLUX = Field("flux", 2, "W/m2")
PLANE = Field("conductivity", 3, "W/(m K)", lower=0.0, upper=50.0, spd=True)
SOLID = Field("stiffness", 6, "Pa", lower=0.0, spd=True)
ALL = (TEMPERATURE, FLUX, PLANE, SOLID)


def test_rows_follow_one_another():
    assert ncomponent(ALL) == 12 and ncomponent(()) == 0
    rows = rows_of(ALL)
    assert list(rows) == ["temperature", "flux", "conductivity", "stiffness"]
    assert [(part.start, part.stop) for part in rows.values()] == [(0, 1), (1, 3), (3, 6), (6, 12)]


def test_component_names():
    assert TEMPERATURE.component_names == ("temperature",)
    assert FLUX.component_names == ("flux_0", "flux_1")
    assert PLANE.component_names == ("conductivity_xx", "conductivity_yy", "conductivity_xy")
    endings = [name.removeprefix("stiffness_") for name in SOLID.component_names]
    assert endings == ["xx", "yy", "zz", "yz", "xz", "xy"]


@pytest.mark.parametrize("ncells", [0, 1, 7])
def test_allocate_gives_start_values(ncells):
    array = allocate((TEMPERATURE, Field("age", 2, start=-1.5)), ncells)
    assert array.dtype == np.float64 and array.flags.c_contiguous
    np.testing.assert_array_equal(array, np.repeat([[300.0], [-1.5], [-1.5]], ncells, axis=1))


@pytest.mark.parametrize("size, spd", [(0, False), (-2, False), (2, True), (4, True), (1, True)])
def test_impossible_sizes(size, spd):
    with pytest.raises(ConfigError, match=f"size of .*field 'broken' must be .*got {size}"):
        Field("broken", size, spd=spd)


GOOD = np.zeros((3, 4))


@pytest.mark.parametrize(
    "array, got",
    [
        (GOOD[:2], "float64 (2, 4)"),
        (GOOD.T, "float64 (4, 3)"),
        (GOOD[0], "float64 (4,)"),
        (GOOD.astype(np.float32), "float32 (3, 4)"),
        (GOOD.astype(np.int64), "int64 (3, 4)"),
        (GOOD.tolist(), "list"),
        (None, "NoneType"),
    ],
)
def test_check_array_names_what_it_got(array, got):
    check_array((TEMPERATURE, FLUX), GOOD, 4, "outputs of Model")
    with pytest.raises(ShapeError) as caught:
        check_array((TEMPERATURE, FLUX), array, 4, "outputs of Model")
    message = str(caught.value)
    assert message.startswith(
        "outputs of Model must be a float64 array of shape (3, 4) (temperature[1], flux[2])"
    )
    assert f"got {got};" in message


def test_check_array_without_fields():
    check_array((), np.zeros((0, 4)), 4, "state")
    with pytest.raises(ShapeError, match="no fields"):
        check_array((), np.zeros((1, 4)), 4, "state")


BOUNDS = [
    ([300.0, 0.0, 0.0], True),
    ([200.0, -1e300, 1e300], True),  # the ends belong to the range, and a flux has none
    ([1000.0, 0.0, 0.0], True),
    ([199.9, 0.0, 0.0], False),
    ([1000.1, 0.0, 0.0], False),
    ([math.nan, 0.0, 0.0], False),
    ([300.0, math.nan, 0.0], False),
    ([300.0, 0.0, math.inf], False),
]


def test_within_bounds_cell_by_cell():
    """All at once, and each alone: a bad cell is not the fault of its neighbour."""
    values = np.array([column for column, _ in BOUNDS]).T
    expected = [fine for _, fine in BOUNDS]
    assert within_bounds((TEMPERATURE, FLUX), values).tolist() == expected
    alone = [within_bounds((TEMPERATURE, FLUX), values[:, [i]])[0] for i in range(len(expected))]
    assert alone == expected


@pytest.mark.parametrize("field, ndiagonal", [(PLANE, 2), (SOLID, 3)])
def test_bounds_of_a_tensor_hold_for_its_diagonal(field, ndiagonal):
    values = np.ones((field.size, 2 * field.size))
    for row in range(field.size):
        values[row, row] = -1.0
        values[row, field.size + row] = np.nan
    fine = within_bounds((field,), values)
    assert fine[: field.size].tolist() == [row >= ndiagonal for row in range(field.size)]
    assert not fine[field.size :].any()


def test_within_bounds_of_no_cells():
    assert within_bounds(ALL, np.zeros((12, 0))).shape == (0,)


def test_connect_accepts_more_than_is_wanted():
    connect((TEMPERATURE,), (FLUX, Field("temperature", unit="K", lower=0.0)), "micro", "macro")
    connect((), (), "micro", "macro")


@pytest.mark.parametrize(
    "offered, words",
    [
        ((), ["needs the field 'flux' [W/m2]", "by does not provide", "it provides nothing"]),
        ((TEMPERATURE, PLANE), ["needs the field 'flux'", "it provides temperature, conductivity"]),
        ((Field("flux", 3, "W/m2"),), ["'flux' must have 2 components for who, got 3 from by"]),
        ((Field("flux", 2, "W/cm2"),), ["'flux' must be in W/m2 for who, got W/cm2 from by"]),
    ],
)
def test_connect_names_what_does_not_fit(offered, words):
    with pytest.raises(ConfigError) as caught:
        connect((FLUX,), offered, "who", "by")
    for word in words:
        assert word in str(caught.value)
