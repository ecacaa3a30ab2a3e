"""What pip installs: both ways of installing find the kernels and the job templates."""

import ast
import re
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# Come with PETSc and HDF5 of the machine, or are looked for at run time (see setup.py).
NOT_BY_PIP = {"petsc4py", "h5py", "cupy"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A wheel of this tree, built from a copy so that no build folder is left here."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in ("setup.py", "pyproject.toml", "hpcmsm", "kernels", "jobs"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, source / name)
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation"]
    done = subprocess.run(
        [*command, "-w", str(folder), str(source)], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    (path,) = folder.glob("hpcmsm-*.whl")
    return zipfile.ZipFile(path)


def test_wheel_holds_every_python_file(wheel):
    there = {name for name in wheel.namelist() if name.endswith(".py")}
    assert there == {str(path.relative_to(ROOT)) for path in (ROOT / "hpcmsm").rglob("*.py")}


def test_wheel_holds_kernels_and_job_templates(wheel):
    there = set(wheel.namelist())
    kernels = {f"hpcmsm/kernel_sources/{path.name}" for path in (ROOT / "kernels").glob("*.[ch]")}
    templates = {f"hpcmsm/job_templates/{path.name}" for path in (ROOT / "jobs").glob("*.slurm")}
    assert kernels
    assert templates
    assert kernels | templates <= there
    for name in kernels:
        assert wheel.read(name) == (ROOT / "kernels" / Path(name).name).read_bytes()


def test_wheel_states_version_script_and_extras(wheel):
    import hpcmsm

    (info,) = {name.split("/")[0] for name in wheel.namelist() if ".dist-info/" in name}
    assert info == f"hpcmsm-{hpcmsm.__version__}.dist-info"
    assert "hpcmsm = hpcmsm.cli:main" in wheel.read(f"{info}/entry_points.txt").decode()
    metadata = wheel.read(f"{info}/METADATA").decode()
    assert set(re.findall("^Provides-Extra: (.+)$", metadata, re.MULTILINE)) == {
        "gpu",
        "vtk",
        "forest",
        "tune",
        "chemistry",
        "dev",
    }
    assert "Requires-Python: >=3.11" in metadata


def test_installed_package_finds_its_job_template(wheel, tmp_path):
    wheel.extractall(tmp_path)
    code = "import hpcmsm.jobs as j; print(j.__file__); print(j.template('run.slurm'), end='')"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path), "PATH": "/usr/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    where, _, text = done.stdout.partition("\n")
    assert Path(where).parent.parent == tmp_path, "the installed package was asked, not this tree"
    assert text == (ROOT / "jobs" / "run.slurm").read_text()


def needed_imports(tree: ast.AST):
    """All import statements but those that the file itself can do without (try ... except ImportError)."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            yield node
        optional = isinstance(node, ast.Try) and any(
            getattr(handler.type, "id", "") == "ImportError" for handler in node.handlers
        )
        if not optional:
            yield from needed_imports(node)


def imported_libraries() -> set[str]:
    """Top names of all that the package needs and python itself does not bring."""
    names = set()
    for path in (ROOT / "hpcmsm").rglob("*.py"):
        for node in needed_imports(ast.parse(path.read_text(encoding="utf-8"))):
            whole = (
                [node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            )
            names |= {name.split(".")[0] for name in whole}
    return names - set(sys.stdlib_module_names) - {"hpcmsm"}


def test_every_imported_library_is_declared():
    declared = set(re.findall(r"^Requires-Dist: ([\w.-]+)", metadata_of_setup(), re.MULTILINE))
    declared = {name.lower().replace("-", "_") for name in declared}
    owners = packages_distributions()
    for name in sorted(imported_libraries() - NOT_BY_PIP):
        dists = {dist.lower().replace("-", "_") for dist in owners.get(name, [name])}
        assert dists & declared, f"{name} is imported; add it to install_requires in setup.py"


def metadata_of_setup() -> str:
    """The requirements in setup.py as metadata lines, read without running a build."""
    tree = ast.parse((ROOT / "setup.py").read_text())
    (call,) = [n for n in ast.walk(tree) if isinstance(n, ast.Call) and getattr(n.func, "id", "") == "setup"]
    required = next(k.value for k in call.keywords if k.arg == "install_requires")
    return "\n".join(f"Requires-Dist: {requirement}" for requirement in ast.literal_eval(required))
