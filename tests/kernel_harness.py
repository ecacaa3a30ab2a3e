"""What the tests of the kernel engine share: an example file, and the compiler's report."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from hpcmsm.kernels import build, kernel_folder

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted(path.stem for path in kernel_folder().glob("*.c"))
EXAMPLE = (ROOT / "tests" / "example_kernels.c").read_text()


def compiler_report(path, *flags):
    """What the compiler says about a kernel file, loops it vectorised included."""
    command, version = build.compiler()
    report = "-Rpass=loop-vectorize" if "clang" in version else "-fopt-info-vec-optimized"
    source = build.full_source(path)
    answer = subprocess.run(
        [*command, *build.FLAGS, report, *flags, "-x", "c", "-", "-o", os.devnull],
        input=source, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return answer.returncode, answer.stderr
