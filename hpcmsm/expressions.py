"""Formulas in case files: a small safe language, parsed into a tree that we walk ourselves."""

from __future__ import annotations

import ast
import difflib
import math
import operator
from collections.abc import Iterable

import numpy as np

from hpcmsm.errors import ConfigError

CONSTANTS = {"pi": math.pi, "e": math.e}


def _where(condition, yes, no):
    return np.where(condition, yes, no)


def _smoothstep(x, first, last):
    """0 below first, 1 above last, a cubic between them with zero slope at both ends."""
    s = np.clip((x - first) / (last - first), 0.0, 1.0)
    return s * s * (3.0 - 2.0 * s)


# name -> (function, number of arguments)
FUNCTIONS = {
    **{
        name: (getattr(np, name), 1)
        for name in ("sin", "cos", "tan", "exp", "sqrt", "tanh", "sinh", "cosh", "floor")
    },
    "log": (np.log, 1),
    "abs": (np.abs, 1),
    "atan2": (np.arctan2, 2),
    "mod": (np.mod, 2),
    "min": (np.minimum, 2),
    "max": (np.maximum, 2),
    "where": (_where, 3),
    "smoothstep": (_smoothstep, 3),
}
BINARY = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: np.power,
}
UNARY = {ast.USub: operator.neg, ast.UAdd: operator.pos, ast.Not: np.logical_not}
COMPARE = {
    ast.Lt: np.less,
    ast.LtE: np.less_equal,
    ast.Gt: np.greater,
    ast.GtE: np.greater_equal,
}
LOGIC = {ast.And: np.logical_and, ast.Or: np.logical_or}
MAX_LENGTH = 2000
# A formula is read near the top of the program and evaluated below many frames of it.
MAX_DEPTH = 100
MAX_NUMBER = 10**300
# Arrays are padded to whole multiples of this, so that no value is computed by the remainder loop
# of a vectorised function: a cell's value must not depend on where it lies in the array.
PADDED = 64


class Expression:
    """A formula of named variables, for example "300 + 50 * sin(2 * pi * x)".

    Args:
        text: the formula, or a number.
        names: the variables that it may use.
        where: the key of the case file, for error messages.
    Raises:
        ConfigError: it does not parse, or uses a name, function or operation that is not offered.
    """

    def __init__(self, text: str | float, names: Iterable[str], where: str):
        self.text = str(text)
        self.where = where
        self.names = tuple(names)
        self.used: set[str] = set()
        self._tree = self._parse()
        if _depth(self._tree) > MAX_DEPTH:
            raise self._error(f"must have at most {MAX_DEPTH} nested operations", "simplify the formula")
        self._check(self._tree)

    def __call__(self, **values) -> np.ndarray:
        """Evaluate for float64 arrays of one common shape, or scalars; the result has that shape."""
        used = {name: np.asarray(values[name], dtype=np.float64) for name in self.used}
        shape = np.broadcast_shapes(*(np.shape(value) for value in values.values())) if values else ()
        count = int(np.prod(shape))
        padded = -(-max(count, 1) // PADDED) * PADDED
        columns = {name: _pad(value, shape, padded) for name, value in used.items()}
        with np.errstate(all="ignore"):
            result = self._walk(self._tree, columns)
        full = np.broadcast_to(np.asarray(result, dtype=np.float64), (padded,))
        return full[:count].reshape(shape).copy()

    @property
    def is_constant(self) -> bool:
        """Whether it uses no variable at all."""
        return not self.used

    def _error(self, problem: str, advice: str) -> ConfigError:
        text = " ".join(self.text.split())
        shown = text if len(text) <= 80 else text[:77] + "..."
        return ConfigError(f"{self.where} {problem}, got '{shown}'; {advice}")

    def _parse(self) -> ast.expr:
        if len(self.text) > MAX_LENGTH:
            raise self._error(f"must be at most {MAX_LENGTH} characters", "shorten the formula")
        try:
            # Joined, so that a formula may extend over several lines of a case file.
            return ast.parse(" ".join(self.text.split()), mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            advice = "write it like 300 + 50 * sin(2 * pi * x)"
            raise self._error("must be a formula", advice) from None

    def _check(self, node: ast.expr) -> None:
        """Refuse everything outside the language before anything runs."""
        match node:
            case ast.Constant(value=bool()):
                raise self._error("may use numbers only", "replace True or False by a comparison")
            case ast.Constant(value=int() | float()):
                if abs(node.value) > MAX_NUMBER:
                    raise self._error("must use numbers up to 1e300", "lower the number")
            case ast.Name(id=name):
                self._check_name(name)
            case ast.BinOp(op=op) if type(op) in BINARY:
                self._check(node.left)
                self._check(node.right)
            case ast.UnaryOp(op=op) if type(op) in UNARY:
                self._check(node.operand)
            case ast.BoolOp():
                for value in node.values:
                    self._check(value)
            case ast.Compare(ops=ops) if all(type(op) in COMPARE for op in ops):
                for value in (node.left, *node.comparators):
                    self._check(value)
            case ast.Call(func=ast.Name(id=name), keywords=[]):
                self._check_call(name, node.args)
            case _:
                raise self._error(
                    "may use + - * / **, comparisons, and functions only",
                    f"functions are {', '.join(sorted(FUNCTIONS))}",
                )

    def _check_name(self, name: str) -> None:
        if name in self.names:
            self.used.add(name)
        elif name not in CONSTANTS:
            close = difflib.get_close_matches(name, [*self.names, *CONSTANTS], 1)
            advice = (
                f"did you mean '{close[0]}'?"
                if close
                else f"it may use {', '.join(self.names) or 'no variable'}"
            )
            raise self._error(f"must use known variables, not '{name}'", advice)

    def _check_call(self, name: str, arguments: list[ast.expr]) -> None:
        if name not in FUNCTIONS:
            close = difflib.get_close_matches(name, FUNCTIONS, 1)
            advice = (
                f"did you mean '{close[0]}'?" if close else f"functions are {', '.join(sorted(FUNCTIONS))}"
            )
            raise self._error(f"must use known functions, not '{name}'", advice)
        wanted = FUNCTIONS[name][1]
        if len(arguments) != wanted:
            raise self._error(f"must give {wanted} argument(s) to {name}", "correct the call")
        for argument in arguments:
            self._check(argument)

    def _walk(self, node: ast.expr, values: dict[str, np.ndarray]):
        match node:
            case ast.Constant(value=value):
                return np.float64(value)
            case ast.Name(id=name):
                return values[name] if name in values else CONSTANTS[name]
            case ast.BinOp(left=left, op=op, right=right):
                return BINARY[type(op)](self._walk(left, values), self._walk(right, values))
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return _number(np.logical_not(self._walk(operand, values)))
            case ast.UnaryOp(op=op, operand=operand):
                return UNARY[type(op)](self._walk(operand, values))
            case ast.BoolOp(op=op, values=parts):
                return _number(_fold(LOGIC[type(op)], [self._walk(part, values) for part in parts]))
            case ast.Compare(left=left, ops=ops, comparators=others):
                sides = [self._walk(side, values) for side in (left, *others)]
                pairs = [COMPARE[type(op)](a, b) for op, a, b in zip(ops, sides, sides[1:], strict=False)]
                return _number(_fold(np.logical_and, pairs))
            case ast.Call(func=ast.Name(id=name), args=arguments):
                return FUNCTIONS[name][0](*(self._walk(argument, values) for argument in arguments))


def _number(truth: np.ndarray) -> np.ndarray:
    """1 or 0. Numpy adds its truth values by "or", and takes their sine in half precision."""
    return np.asarray(truth, dtype=np.float64)


def _depth(tree: ast.expr) -> int:
    """Length of the longest way from a tree's root to a leaf, counted without recursion."""
    depth, level = 0, [tree]
    while level:
        depth += 1
        level = [child for node in level for child in ast.iter_child_nodes(node)]
    return depth


def _fold(operation, parts: list):
    result = parts[0]
    for part in parts[1:]:
        result = operation(result, part)
    return result


def _pad(value: np.ndarray, shape: tuple[int, ...], length: int) -> np.ndarray:
    """The value as a flat array of whole blocks, filled up with its last entry."""
    flat = np.broadcast_to(value, shape).ravel()
    padded = np.empty(length)
    padded[: flat.size] = flat
    padded[flat.size :] = flat[-1] if flat.size else 1.0
    return padded
