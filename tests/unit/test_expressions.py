"""Formulas of case files: their values, what they refuse, and that a value knows no neighbours."""

import math
import warnings

import numpy as np
import pytest

from hpcmsm.errors import ConfigError
from hpcmsm.expressions import FUNCTIONS, Expression

WHERE = "macro.initial"
X = np.linspace(-2.0, 3.0, 41)
Y = np.cos(7.0 * X)


def value(text, **values):
    return Expression(text, values, WHERE)(**values)


# text, and the same thing as a function of single python floats
SCALAR_TWINS = [
    ("2", lambda x, y: 2.0),
    ("-x", lambda x, y: -x),
    ("+x", lambda x, y: x),
    ("x + 2*y - 3/4", lambda x, y: x + 2 * y - 0.75),
    ("x ** 2 ** 3 - x**3", lambda x, y: x**8 - x**3),
    ("-x**2", lambda x, y: -(x**2)),
    ("(x + y) * (x - y)", lambda x, y: (x + y) * (x - y)),
    ("sin(2 * pi * x)", lambda x, y: math.sin(2 * math.pi * x)),
    ("cos(x) + tan(y)", lambda x, y: math.cos(x) + math.tan(y)),
    ("exp(-x) * e", lambda x, y: math.exp(-x) * math.e),
    ("log(3 + x)", lambda x, y: math.log(3 + x)),
    ("sqrt(abs(x))", lambda x, y: math.sqrt(abs(x))),
    ("tanh(x) + sinh(y) - cosh(x)", lambda x, y: math.tanh(x) + math.sinh(y) - math.cosh(x)),
    ("floor(3 * x)", lambda x, y: math.floor(3 * x)),
    ("atan2(y, x)", lambda x, y: math.atan2(y, x)),
    ("mod(x, 0.7)", lambda x, y: x - 0.7 * math.floor(x / 0.7)),
    ("min(x, y) + 2*max(x, y)", lambda x, y: min(x, y) + 2 * max(x, y)),
    ("where(x > 1, x, y)", lambda x, y: x if x > 1 else y),
    ("where(0 < x <= 1, 1, 2)", lambda x, y: 1 if 0 < x <= 1 else 2),
    ("where(x < 0 or y >= 0.5 and x > 1, 5, 6)", lambda x, y: 5 if x < 0 or (y >= 0.5 and x > 1) else 6),
    ("where(not x > 0, 1, -1)", lambda x, y: 1 if not x > 0 else -1),
    ("smoothstep(x, 0, 1)", lambda x, y: 0.0 if x < 0 else 1.0 if x > 1 else 3 * x**2 - 2 * x**3),
    # A comparison is the number 1 or 0, whatever is done with it.
    ("(x > 0) + (y > 0) + (x > 1)", lambda x, y: float((x > 0) + (y > 0) + (x > 1))),
    ("(x > 0) - (y > 0)", lambda x, y: float((x > 0) - (y > 0))),
    ("-(x > 0)", lambda x, y: -float(x > 0)),
    ("exp((x > 0) * 1.0) - exp(x > 0) + 1/3", lambda x, y: 1 / 3),
    ("sin(not x > 0)", lambda x, y: math.sin(float(not x > 0))),
    ("(x > 0 and y > 0) - (x > 0 or y > 0)", lambda x, y: float((x > 0 and y > 0) - (x > 0 or y > 0))),
]


@pytest.mark.parametrize("text, twin", SCALAR_TWINS)
def test_values_are_those_of_plain_arithmetic(text, twin):
    expected = [twin(x, y) for x, y in zip(X.tolist(), Y.tolist(), strict=True)]
    np.testing.assert_allclose(value(text, x=X, y=Y), expected, rtol=1e-13, atol=1e-14)


def test_smoothstep_joins_smoothly():
    """Value, and slope by a central difference, at both ends and in the middle."""
    h = 1e-6
    at = np.array([2.0, 3.0, 4.0])
    slope = (value("smoothstep(x, 2, 4)", x=at + h) - value("smoothstep(x, 2, 4)", x=at - h)) / (2 * h)
    np.testing.assert_allclose(value("smoothstep(x, 2, 4)", x=at), [0.0, 0.5, 1.0], atol=1e-15)
    np.testing.assert_allclose(slope, [0.0, 0.75, 0.0], atol=1e-5)


@pytest.mark.parametrize("shape", [(), (0,), (1,), (5,), (3, 4), (2, 0)])
def test_result_has_the_shape_of_the_values(shape):
    for text in ("x + 1", "7"):
        got = value(text, x=np.full(shape, 2.0))
        assert got.shape == shape and got.dtype == np.float64
        assert (got == (3.0 if "x" in text else 7.0)).all()


def test_scalars_and_arrays_broadcast():
    got = value("x + 10 * t", x=np.arange(4.0), t=2.0)
    np.testing.assert_array_equal(got, [20.0, 21.0, 22.0, 23.0])


def test_result_is_ones_own():
    x = np.arange(3.0)
    got = value("x", x=x)
    got[:] = -1.0
    np.testing.assert_array_equal(x, [0.0, 1.0, 2.0])
    value("3", x=x)[:] = 0.0  # a constant is not a read-only view either


def test_constants_and_used_names():
    number = Expression(300.0, ("x",), WHERE)
    assert number.is_constant and number() == 300.0
    assert Expression("2 * pi", ("x",), WHERE).is_constant
    formula = Expression("x + t", ("x", "y", "t"), WHERE)
    assert not formula.is_constant and formula.used == {"x", "t"}


def test_a_variable_may_hide_a_constant():
    assert value("e + pi", e=np.array([1.0]))[0] == 1.0 + math.pi


def test_values_that_are_no_numbers_come_without_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        got = value("where(x < 0, log(x), 1 / x) + 0 * 10**300 * 10**300", x=np.array([-1.0, 0.0]))
    assert not np.isfinite(got).any()


REFUSED = [
    "x.real", "x.__class__", "().__class__", "x[0]", "[x]", "(x, x)", "{x}", "{1: x}",
    "lambda: x", "(lambda: x)()", "x if x else 1", "[x for x in x]", "(y := x)",
    "'text'", "b'text'", "f'{x}'", "None", "...", "1j", "True", "x == False",
    "x == 1", "x != 1", "x is x", "x in x", "x // 2", "x % 2", "x @ x", "x & 1", "x | 1", "x ^ 1",
    "~x", "x << 1", "sin(*x)", "sin(x=x)", "sin(**x)", "sin(x, y=x)", "sin(x, **x)", "sin(x)(x)", "x.sin(x)",
]  # fmt: skip


@pytest.mark.parametrize("text", REFUSED)
def test_what_is_outside_the_language_is_refused(text):
    with pytest.raises(ConfigError) as caught:
        Expression(text, ("x",), WHERE)
    message = str(caught.value)
    assert message.startswith(f"{WHERE} ") and f"got '{text}'" in message and ";" in message
    assert "\n" not in message


@pytest.mark.parametrize(
    "text", ["", " ", "1 +", "x y", "(x", "x)", "import os", "x = 1", "x; x", "$", "x\0"]
)
def test_what_is_no_formula_is_refused(text):
    with pytest.raises(ConfigError, match="macro.initial must be a formula.*write it like 300"):
        Expression(text, ("x",), WHERE)


@pytest.mark.parametrize(
    "text, words",
    [
        ("temperatur + 1", "not 'temperatur'.*did you mean 'temperature'?"),
        ("qqq", "not 'qqq'.*it may use x, temperature"),
        ("__import__", "not '__import__'"),
        ("sine(x)", "not 'sine'.*did you mean 'sin'?"),
        ("__import__('os')", "not '__import__'.*functions are abs, atan2"),
        ("eval(x)", "not 'eval'"),
        ("x(1)", "known functions, not 'x'"),
        ("sin()", r"must give 1 argument\(s\) to sin"),
        ("sin(x, x)", r"must give 1 argument\(s\) to sin"),
        ("min(1)", r"must give 2 argument\(s\) to min"),
        ("where(x > 0, 1)", r"must give 3 argument\(s\) to where"),
        ("1e999", "number"),
        ("1" + "0" * 400, "number"),
        ("x + " * 600 + "x", "at most 2000 characters"),
    ],
)
def test_the_text_names_the_fault(text, words):
    with pytest.raises(ConfigError, match=words):
        Expression(text, ("x", "temperature"), WHERE)


@pytest.mark.parametrize(
    "text", ["-" * 1500 + "x", "(" * 500 + "x" + ")" * 500, "+".join(["x"] * 990), "not " * 300 + "x"]
)
def test_deep_nesting_is_refused(text):
    with pytest.raises(ConfigError, match="macro.initial must"):
        Expression(text, ("x",), WHERE)


def called_at_depth(depth, action):
    return action() if depth == 0 else called_at_depth(depth - 1, action)


def accepted_sum(terms):
    try:
        return Expression("+".join(["x"] * terms), ("x",), WHERE)
    except ConfigError:
        return None


def test_what_was_accepted_can_be_evaluated_deep_inside_a_program():
    """A formula is checked when it is read, and evaluated below many frames of callers."""
    longest = max(terms for terms in range(1, 800) if accepted_sum(terms))
    assert longest >= 60
    assert called_at_depth(500, lambda: accepted_sum(longest)(x=2.0)) == 2.0 * longest


def test_a_formula_may_extend_over_lines():
    assert value("\n  x +\n  2 *\n  x\n", x=2.0) == 6.0


def test_an_error_is_one_line_whatever_the_formula_holds():
    with pytest.raises(ConfigError) as caught:
        Expression("x +\n y\n + 2 2", ("x",), WHERE)
    assert "\n" not in str(caught.value)
    long = "x" * 500
    with pytest.raises(ConfigError) as caught:
        Expression(long, ("x",), WHERE)
    assert len(str(caught.value)) < 900


# One formula per function and operation, over values where it is finite.
INVARIANT = {
    **{name: f"{name}({', '.join(['x', 'y', '3 + x'][:nargs])})" for name, (_, nargs) in FUNCTIONS.items()},
    "smoothstep": "smoothstep(x, 0.1 * y, 2 + y)",
    "pow": "x ** y",
    "square": "x ** 2",
    "cube": "x ** -3",
    "root": "x ** 0.5",
    "divide": "x / y + 1 / x",
    "mixed": "300 + 50 * sin(2 * pi * x) * exp(-((x - 0.2 * y) / 0.5) ** 2)",
    "compare": "(x > y) * x + (not x > y) * y",
}


@pytest.mark.parametrize("name", INVARIANT)
def test_value_of_a_cell_depends_on_nothing_but_the_cell(name):
    """Bitwise the same alone, in arrays of any length, and at any place in them."""
    random = np.random.default_rng(3)
    x, y = random.uniform(0.01, 5.0, (2, 130))
    formula = Expression(INVARIANT[name], ("x", "y"), WHERE)
    alone = np.array([formula(x=a, y=b) for a, b in zip(x, y, strict=True)])
    assert np.isfinite(alone).all()
    for size in range(1, 131):
        whole = formula(x=x[:size], y=y[:size])
        shifted = formula(x=x[130 - size :], y=y[130 - size :])
        strided = formula(x=x[size % 7 :: 3], y=y[size % 7 :: 3])
        assert whole.tobytes() == alone[:size].tobytes()
        assert shifted.tobytes() == alone[130 - size :].tobytes()
        assert strided.tobytes() == alone[size % 7 :: 3].tobytes()


def test_a_long_array_holds_the_same_bits():
    x = np.random.default_rng(4).uniform(0.01, 5.0, 20_011)
    formula = Expression("exp(sin(x)) + x ** 1.7 + log(x)", ("x",), WHERE)
    whole = formula(x=x)
    parts = np.concatenate([formula(x=part) for part in np.array_split(x, 37)])
    assert whole.tobytes() == parts.tobytes()
