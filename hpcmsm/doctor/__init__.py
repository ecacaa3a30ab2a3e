"""Checks that MPI, mpi4py, petsc4py, h5py, torch, compiler and GPU fit together, and says what to do.

Each check runs in a process of its own: libraries that do not fit together may crash.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from hpcmsm.doctor.checks import CHECKS, Finding

__all__ = ["Finding", "examine", "exit_code", "report"]

TIMEOUT = 120.0
# What a surrounding mpirun leaves; a check must not take itself for one of its ranks.
JOB_PREFIXES = ("OMPI_", "PMIX_", "PMI_", "PRTE_", "HYDRA_")


def examine() -> list[Finding]:
    """Run every check, each in its own process, all at once."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(JOB_PREFIXES)}
    environment |= {"H5PY_ALWAYS_USE_MPI": "1", "OMP_NUM_THREADS": "1"}
    paths = [str(Path(__file__).resolve().parents[2]), environment.get("PYTHONPATH", "")]
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    running = {
        name: subprocess.Popen(
            [sys.executable, "-m", "hpcmsm.doctor.checks", name],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for name in CHECKS
    }
    return [_collected(name, process) for name, process in running.items()]


def report(findings: list[Finding]) -> str:
    """The findings as text, one line each, with the advice below those that are not ok."""
    width = max(len(finding.name) for finding in findings)
    lines = []
    for finding in findings:
        mark = "ok" if finding.ok else "--" if finding.optional else "NO"
        lines.append(f"{mark}  {finding.name:<{width}}  {finding.found}")
        if not finding.ok and finding.advice:
            lines.append(f"{'':<{width + 4}}  {'to use it: ' if finding.optional else ''}{finding.advice}")
    bad = sum(not finding.ok and not finding.optional for finding in findings)
    lines.append("everything needed is there" if not bad else f"{bad} of {len(findings)} checks failed")
    return "\n".join(lines)


def exit_code(findings: list[Finding]) -> int:
    """1 if something that hpcmsm needs is not ok, else 0."""
    return int(any(not finding.ok and not finding.optional for finding in findings))


def _collected(name: str, process: subprocess.Popen) -> Finding:
    """The finding that a check printed as its last line, or how it died."""
    try:
        out, err = process.communicate(timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return Finding(
            name,
            False,
            f"no answer in {TIMEOUT:g} s",
            "call it alone: python -m hpcmsm.doctor.checks " + name,
        )
    if process.returncode == 0:
        return Finding(**json.loads(out.strip().splitlines()[-1]))
    said = " ".join(err.split())[-200:] or "nothing"
    code = process.returncode
    how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"ended with return code {code}"
    advice = (
        "the libraries do not fit together; build them with one MPI (on a login node try it inside a job)"
    )
    return Finding(name, False, f"{how}: {said}", advice)
