"""What a kernel file says about its functions: arguments, shapes, units; and checks against it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from hpcmsm.errors import KernelError

NUMPY_TYPES = {"double": "float64", "float": "float32", "int": "int32", "long": "int64", "byte": "uint8"}
INTEGER_TYPES = ("int", "long", "byte")

Size = Callable[[Mapping[str, object]], int]

_FUNCTION = re.compile(r"^KERNEL\s+(\w+)\s*\(", re.MULTILINE)
_ARGUMENT = re.compile(
    r"^\s*(const\s+)?(\w+)\s*(\*?)\s*(?:__restrict__\s+)?(\w+)\s*,?\s*\)?\s*\{?\s*//\s*(.*)$"
)
_SHAPE = re.compile(r"^(optional|scratch)?\s*\(((?:[^()]|\([^()]*\))*)\)")
_UNIT = re.compile(r"^\s*(?:\[(.*?)\])?\s*(.*)$")
_LOOP = re.compile(r"\bFOR_EACH_(CELL_2D|CELL_3D|CELL|ROW|TEAM)\s*\(((?:[^()]|\([^()]*\))*)\)")
_TOKEN = re.compile(r"\s*(\d+|[A-Za-z_]\w*|[-+*()])")


@dataclass(frozen=True)
class Argument:
    """One argument of a kernel, as its line in the source declares it.

    Args:
        name: as in the source.
        type: real, double, float, int, long or byte.
        array: whether it is a pointer.
        const: whether the kernel only reads it.
        shape: expressions of the shape of an array, slowest index first; () for a scalar.
        role: "" usually, "optional" (None may be given), "scratch" (given by the engine).
        unit, about: from the comment.
    """

    name: str
    type: str
    array: bool
    const: bool
    shape: tuple[str, ...]
    role: str
    unit: str
    about: str

    def numpy_type(self, dtype: str) -> np.dtype:
        """The numpy type of its values where `real` is dtype."""
        return np.dtype(dtype if self.type == "real" else NUMPY_TYPES[self.type])


@dataclass(frozen=True)
class Signature:
    """A function of a kernel file.

    Args:
        name: of the function.
        arguments: in the order of the source.
        kind: "cell", "row" or "team", from the outermost FOR_EACH loop.
        ncells: of each outermost loop the expressions whose product is its number of cells (or rows).
    """

    name: str
    arguments: tuple[Argument, ...]
    kind: str
    ncells: tuple[tuple[str, ...], ...]


def size_expression(text: str, names: tuple[str, ...], where: str) -> Size:
    """Compile an integer expression of names, integers, + - * and parentheses.

    Returns:
        A function from a mapping of names to their integer values, to the value.
    Raises:
        KernelError: text is not such an expression, or uses a name not in names.
    """
    tokens = _TOKEN.findall(text)
    if "".join(tokens) != re.sub(r"\s", "", text) or not tokens:
        raise KernelError(
            f"size '{text}' must be made of names, integers and + - * ( ), got other signs{where}"
        )
    tokens.append("end")
    size = _sum(tokens, names, where)
    if tokens != ["end"]:
        raise KernelError(f"size '{text}' must be one expression, got '{tokens[0]}' too many{where}")
    return size


def _sum(tokens: list[str], names: tuple[str, ...], where: str) -> Size:
    left = _product(tokens, names, where)
    while tokens[0] in ("+", "-"):
        sign = 1 if tokens.pop(0) == "+" else -1
        left = _added(left, _product(tokens, names, where), sign)
    return left


def _product(tokens: list[str], names: tuple[str, ...], where: str) -> Size:
    left = _factor(tokens, names, where)
    while tokens[0] == "*":
        tokens.pop(0)
        left = _multiplied(left, _factor(tokens, names, where))
    return left


def _factor(tokens: list[str], names: tuple[str, ...], where: str) -> Size:
    token = tokens.pop(0)
    if token.isdigit():
        return lambda values, number=int(token): number
    if token in names:
        return lambda values: int(values[token])
    if token == "(":
        inner = _sum(tokens, names, where)
        if tokens.pop(0) == ")":
            return inner
    raise KernelError(
        f"size must use only integer arguments ({', '.join(names) or 'there are none'}), "
        f"got '{token}'{where}; correct the comment of that argument, or the loop"
    )


def _added(left: Size, right: Size, sign: int) -> Size:
    return lambda values: left(values) + sign * right(values)


def _multiplied(left: Size, right: Size) -> Size:
    return lambda values: left(values) * right(values)


def parse_file(text: str, filename: str) -> dict[str, Signature]:
    """Signatures of all kernels of a source, by name.

    Raises:
        KernelError: an argument line does not follow kernels/README.md.
    """
    found = {}
    for match in _FUNCTION.finditer(text):
        where = f" (kernel '{match[1]}' of {filename})"
        following = _FUNCTION.search(text, match.end())
        head, body = _split_head(text[match.end() : following.start() if following else None], where)
        kind, ncells = _outer_loops(body, where)
        arguments = _arguments(head, where)
        if sum(a.role == "scratch" for a in arguments) > (kind == "team"):
            raise KernelError(
                f"scratch memory must be one argument of a team kernel, got more or a {kind} kernel{where}; "
                "see kernels/README.md"
            )
        found[match[1]] = Signature(match[1], arguments, kind, ncells)
    return found


def _split_head(text: str, where: str) -> tuple[str, str]:
    """Argument lines, and the rest from the body's opening brace on."""
    head = re.search(r"\)\s*(?://[^\n]*)?\s*\{", text)
    while head and "//" in text[text.rfind("\n", 0, head.start()) + 1 : head.start()]:
        head = re.compile(r"\)\s*(?://[^\n]*)?\s*\{").search(text, head.end())  # that one is in a comment
    if head is None:
        raise KernelError(f"a kernel must have a body {{ }}, got none{where}; see kernels/README.md")
    comment_end = text.index("{", head.start())
    return text[:comment_end], text[comment_end:]


def _arguments(head: str, where: str) -> tuple[Argument, ...]:
    lines = [line for line in head.splitlines() if line.strip() and not line.strip().startswith(("//", ")"))]
    return tuple(_argument(line, where) for line in lines)


def _argument(line: str, where: str) -> Argument:
    match = _ARGUMENT.match(line)
    if match is None or match[2] not in ("real", *NUMPY_TYPES):
        raise KernelError(
            f"each argument must stand on its own line as 'type name, // (shape) [unit] meaning', "
            f"got '{line.strip()}'{where}; see kernels/README.md"
        )
    const, kind, star, name, comment = match.groups()
    shape = _SHAPE.match(comment) if star else None
    if star and shape is None:
        raise KernelError(
            f"the comment of an array must begin with its shape, got '{line.strip()}'{where}; "
            "see kernels/README.md"
        )
    unit, about = _UNIT.match(comment[shape.end() if shape else 0 :]).groups()
    role, sizes = (shape[1] or "", shape[2].split(",")) if shape else ("", ())
    sizes = tuple(size.strip() for size in sizes)
    return Argument(name, kind, bool(star), bool(const), sizes, role, unit or "1", about.strip())


def _outer_loops(body: str, where: str) -> tuple[str, tuple[tuple[str, ...], ...]]:
    """Kind of the kernel, from its first FOR_EACH loop, and of each the factors of its number of cells."""
    loops = list(_LOOP.finditer(re.sub(r"//[^\n]*", "", body)))
    if not loops:
        raise KernelError(
            f"a kernel must loop with FOR_EACH_CELL, _ROW or _TEAM, got none{where}; see kernels/README.md"
        )
    ncells = []
    for loop in loops:
        nindex = {"CELL_2D": 2, "CELL_3D": 3}.get(loop[1], 1)
        ncells.append(tuple(word.strip() for word in loop[2].split(",")[nindex:]))
    return loops[0][1].split("_")[0].lower(), tuple(ncells)
