"""What a kernel file declares: arguments, shapes, sizes, and which mistakes are named."""

from __future__ import annotations

import re

import pytest
from kernel_harness import EXAMPLE

from hpcmsm.errors import KernelError
from hpcmsm.kernels import Kernel, kernel_folder
from hpcmsm.kernels.signature import parse_file, size_expression


def test_declarations_are_read(example):
    signature = parse_file(EXAMPLE, "example.c")["saxpy"]
    assert [a.name for a in signature.arguments] == ["n", "factor", "x", "mask", "y"]
    assert [a.type for a in signature.arguments] == ["long", "real", "real", "byte", "double"]
    assert [a.array for a in signature.arguments] == [False, False, True, True, True]
    assert [a.const for a in signature.arguments] == [False, False, True, True, False]
    assert [a.unit for a in signature.arguments] == ["1", "m", "K", "1", "J/(m3 K)"]
    assert [a.role for a in signature.arguments] == ["", "", "", "optional", ""]
    assert signature.arguments[2].shape == ("2 * (n + 1)", "n")
    assert signature.arguments[1].about == "what x is multiplied with (a number)"
    assert (signature.kind, signature.ncells) == ("cell", (("n",),))


def test_kinds_and_cells_are_read_from_the_loops():
    signatures = parse_file(EXAMPLE, "example.c")
    assert list(signatures) == ["saxpy", "mean_square", "elementary", "number_cells"]
    assert (signatures["mean_square"].kind, signatures["mean_square"].ncells) == ("team", (("n",),))
    assert signatures["mean_square"].arguments[-1].role == "scratch"
    assert signatures["number_cells"].ncells == (("nx", "ny", "nz"),)
    rows = parse_file((kernel_folder() / "heat_diagonal.c").read_text(), "heat_diagonal.c")
    assert (rows["heat_diagonal_3d"].kind, rows["heat_diagonal_3d"].ncells) == ("row", (("ny * nz",),))
    several = parse_file((kernel_folder() / "heat.c").read_text(), "heat.c")["heat_faces"]
    assert several.ncells == (("(n - 1) * ninner", "nouter"), ("ninner", "nouter"))


@pytest.mark.parametrize(
    ("line", "rule"),
    [
        ("real *y", "each argument must stand on its own line"),
        ("real x, real z, // [1] two", "each argument must stand on its own line"),
        ("real *y  // [K] no shape", "the comment of an array must begin with its shape"),
        ("string y  // [1] text", "each argument must stand on its own line"),
        ("real *y  // (n / 2) [1] half", "size 'n / 2' must be made of names"),
        ("real *y  // (m) [1] unknown", "size must use only integer arguments (n), got 'm'"),
        ("real *y  // ((n) [1] open", "must begin with its shape"),
        ("real *y  // scratch (n) [1] in a cell kernel", "scratch memory must be one argument of a team"),
    ],
)
def test_a_wrong_declaration_is_named(tmp_path, line, rule):
    path = tmp_path / "wrong.c"
    path.write_text(
        f"KERNEL wrong(\n    long n,  // cells\n    {line}\n) {{\n    FOR_EACH_CELL(c, n) {{ }}\n}}\n"
    )
    with pytest.raises(KernelError, match=re.escape(rule)) as caught:
        Kernel.load(path, "wrong")
    assert "kernel 'wrong' of wrong.c" in str(caught.value)


def test_a_kernel_without_a_loop_is_refused(tmp_path):
    path = tmp_path / "wrong.c"
    path.write_text("KERNEL wrong(\n    long n  // cells\n) {\n    // FOR_EACH_CELL(c, n)\n}\n")
    with pytest.raises(KernelError, match="must loop with FOR_EACH_CELL"):
        Kernel.load(path, "wrong")


def test_a_file_without_kernels_is_refused(tmp_path):
    path = tmp_path / "empty.c"
    path.write_text("INLINE real half(real x) { return x * R(0.5); }\n")
    with pytest.raises(
        KernelError, match=r"kernel must be one of empty\.c, got 'half'; choose from nothing here"
    ):
        Kernel.load(path, "half")


@pytest.mark.parametrize(
    "text",
    ["7", "n", "2 * n + m", "n - m - 1", "2 * (n + 1) * m", "(n)", "n*n - (m - (n - 2)) * 3", "((n + m))"],
)
def test_sizes_are_computed_as_python_would(text):
    values = {"n": 11, "m": 4}
    wanted = {
        "7": 7, "n": 11, "2 * n + m": 26, "n - m - 1": 6, "2 * (n + 1) * m": 96, "(n)": 11,
        "n*n - (m - (n - 2)) * 3": 136, "((n + m))": 15,
    }[text]  # fmt: skip
    assert size_expression(text, ("n", "m"), "")(values) == wanted


@pytest.mark.parametrize(
    "text", ["", "n /2", "n**2", "f(n)", "n n", "(n", "n)", "n +", "-n", "__import__", "1.5"]
)
def test_other_expressions_are_refused(text):
    with pytest.raises(KernelError, match="size"):
        size_expression(text, ("n", "m"), "")
