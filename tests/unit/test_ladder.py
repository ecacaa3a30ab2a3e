"""The import ladder: a file imports only from rooms above its own, and libraries stay in their rooms."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "hpcmsm"

# From the top: a room may import the rooms before it.
ROOMS = (
    "errors",
    "fields",
    "parallel",
    "timers",
    "batch",
    "expressions",
    "validation",
    "config",
    "provenance",
    "summary",
    "progress",
    "kernels",
    "mixture",
    "grid",
    "micro",
    "surrogate",
    "closure",
    "macro",
    "io",
    "output",
    "assembly",
    "simulation",
    "evaluate",
    "jobs",
    "scaling",
    "report",
    "offline",
    "doctor",
    "cli",
)
STRANGERS = ("micro", "surrogate", "macro")  # do not know each other
LIBRARIES = {
    "petsc4py": {"grid", "macro"},
    "h5py": {"io"},
    "torch": {"surrogate"},
    "cupy": {"kernels"},
    "optuna": {"offline"},
    "cantera": {"micro"},
}
# The doctor looks at every library, inside functions.
EXCEPTION = "doctor"


def room_of(path: Path, package: Path = PACKAGE) -> str:
    return path.relative_to(package).parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    """Dotted names of everything that a file imports, wherever in the file."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively; write the whole name"
            whole = node.module == "hpcmsm"
            names |= {f"hpcmsm.{alias.name}" for alias in node.names} if whole else {node.module}
    return names


def violations(path: Path, package: Path = PACKAGE) -> list[str]:
    """What a file imports against the rules."""
    room, wrong = room_of(path, package), []
    if room not in ROOMS:
        return [f"give the room {room} a place in ROOMS and in the design"]
    for name in sorted(imports(path)):
        top, *below = name.split(".")
        if top == "hpcmsm":
            wanted = below[0] if below else "__version__"
            if wanted in ("__version__", room):
                continue
            if wanted not in ROOMS or ROOMS.index(wanted) > ROOMS.index(room):
                wrong.append(f"{room} must not import {name}: that room is below it")
            elif room in STRANGERS and wanted in STRANGERS:
                wrong.append(f"{room} must not know {wanted}")
        elif top in LIBRARIES and room not in LIBRARIES[top] and room != EXCEPTION:
            wrong.append(f"only {' and '.join(sorted(LIBRARIES[top]))} may import {top}, not {room}")
    return wrong


FILES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


@pytest.mark.parametrize("path", FILES, ids=[str(path.relative_to(PACKAGE)) for path in FILES])
def test_file_keeps_to_the_ladder(path):
    assert violations(path) == []


@pytest.mark.parametrize(
    ("file", "text", "allowed"),
    [
        ("micro/a.py", "from hpcmsm.fields import Field", True),
        ("micro/a.py", "from hpcmsm.micro.base import MicroModel", True),
        ("micro/a.py", "from hpcmsm.surrogate.base import Surrogate", False),
        ("surrogate/a.py", "from hpcmsm import micro", False),
        ("closure/a.py", "from hpcmsm.surrogate.base import Surrogate", True),
        ("fields.py", "import hpcmsm.cli", False),
        ("fields.py", "from hpcmsm import __version__", True),
        ("attic.py", "import os", False),
        ("closure/a.py", "def f():\n    import torch.nn", False),
        ("surrogate/a.py", "import torch.nn", True),
        ("closure/a.py", "if True:\n    from petsc4py import PETSc", False),
        ("report/a.py", "import h5py", False),
        ("doctor/a.py", "import h5py, cupy, torch, petsc4py", True),
    ],
)
def test_the_rules_themselves(tmp_path, file, text, allowed):
    path = tmp_path / file
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    assert (violations(path, tmp_path) == []) is allowed


def test_doctor_imports_libraries_inside_functions_only():
    for path in (PACKAGE / "doctor").glob("*.py"):
        top = {
            name.split(".")[0]
            for node in ast.parse(path.read_text()).body
            if isinstance(node, (ast.Import, ast.ImportFrom))
            for name in ([node.module] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names])
        }
        assert not top & {*LIBRARIES, "mpi4py", "numpy", "vtkmodules"}, path


def test_import_is_light():
    code = "import sys, hpcmsm; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    done = subprocess.run(
        [sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, {str(PACKAGE.parent)!r}); {code}"],
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = set(done.stdout.split())
    assert "hpcmsm" in loaded
    assert not loaded & {"numpy", "mpi4py", "petsc4py", "h5py", "torch", "scipy", "pydantic", "matplotlib"}
