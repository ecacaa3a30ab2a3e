"""All kernels are vector code in both precisions, but for loops of which it is said why not."""

import platform

import pytest
from kernel_harness import SOURCES

from benchmarks.vectorised import RARE, scalar_loops
from hpcmsm.kernels import kernel_folder


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the machine code read is that of x86-64")
def test_all_kernels_are_vectorised():
    found = {
        (loop, dtype)
        for source in SOURCES
        for dtype in ("float64", "float32")
        for loop in scalar_loops(kernel_folder() / f"{source}.c", dtype)
    }
    assert {loop for loop, _ in found} <= set(RARE), found
