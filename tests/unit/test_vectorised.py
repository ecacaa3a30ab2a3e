"""benchmarks/vectorised.py, and what it finds: the loops of the kernels are vector code."""

import platform

import pytest
from kernel_harness import SOURCES

from benchmarks.vectorised import RARE, examine, main, scalar_loops, vector_loops
from hpcmsm.kernels import kernel_folder

pytestmark = pytest.mark.skipif(
    platform.machine() != "x86_64", reason="the machine code read is that of x86-64"
)

# These take many seconds to compile; tests/long has them, and all kernels in float32.
SLOW = ("grain", "tt06", "unit_cell_3d", "unit_cell_tensor", "unit_cell_tensor_3d")

KERNELS = """
INLINE real cube(real x) { return x * x * x; }

KERNEL fast(
    long ncells,    // number of cells
    const real *x,  // (ncells) numbers
    real *y         // (ncells) their cubes, and more
) {
    /* FOR_EACH_CELL in a comment; */
    FOR_EACH_CELL(c, ncells) y[c] = cube(x[c]); // FOR_EACH_LANE
    FOR_EACH_CELL(c, ncells) {
        y[c] = hp_exp(y[c]) / x[c];
    }
}

SEPARATE void square(long n, real *y)
{
    FOR_EACH_CELL(c, n) y[c] = y[c] * y[c];
}

KERNEL slow(
    long ncells,       // number of cells
    const int *times,  // (ncells) how often
    real *y            // (ncells) numbers
) {
    FOR_EACH_CELL(c, ncells)
        for (int k = 0; k < times[c]; ++k)
            y[c] = y[c] * (R(1) - y[c]);
    square(ncells, y);
}
"""


@pytest.fixture
def example(tmp_path):
    path = tmp_path / "example.c"
    path.write_text(KERNELS)
    return path


def test_loops_of_the_source_are_found(example):
    found = [(loop.function, loop.first, loop.last) for loop in vector_loops(example)]
    assert found == [("fast", 10, 10), ("fast", 11, 13), ("square", 18, 18), ("slow", 26, 28)]


@pytest.mark.parametrize(("dtype", "size"), [("float64", 8), ("float32", 4)])
def test_a_loop_of_unequal_turns_is_told_from_vector_code(example, dtype, size):
    (cube, division, square, slow), outside = examine(example, dtype)
    assert cube.vectorised and division.vectorised and square.vectorised and not slow.vectorised
    assert slow.packed == 0 and slow.scalar >= 2 and outside == []
    widest = max((one for one in cube.found if one.packed), key=lambda one: one.lanes)
    assert widest.lanes * size == widest.width == cube.width >= 16
    assert sum(one.packed and one.width == cube.width for one in cube.found) == 2  # x * x * x


@pytest.mark.parametrize("source", sorted(set(SOURCES) - set(SLOW)))
def test_the_kernels_are_vectorised(source):
    """Every vector loop with arithmetic, but those of which it is said why not."""
    assert set(scalar_loops(kernel_folder() / f"{source}.c")) <= set(RARE)


def test_the_table_counts_everything_once(capsys):
    result = main(["triangular", "diffusion", "--dtype", "float32", "--loops"])
    rows = {row["kernel"]: row for row in result["kernels"]}
    assert set(rows) == {"triangular_square", "diffusion_step"} and result["not_vectorised"] == []
    for row in rows.values():
        assert row["loops"] == row["vectorised"] > 0 and row["packed"] > 0 and row["scalar_loops"] == 0
    assert rows["triangular_square"]["share"] == 1.0
    printed = capsys.readouterr().out
    assert "| diffusion_step | float32 | 2 | 2 |" in printed and "diffusion.c:" in printed
