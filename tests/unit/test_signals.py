"""Signals stay Python's: PETSc must not turn a broken pipe into the end of the job."""

import subprocess
import sys

PROGRAM = """
import subprocess
from hpcmsm.grid import Grid

Grid((4, 4), (1.0, 1.0))
for _ in range(20):
    subprocess.run(["true"], input="x" * 100_000, text=True, capture_output=True)
print("alive")
"""


def test_a_broken_pipe_does_not_end_the_job():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "alive", done.stderr
