"""Kernel files are found, compiled for both backends and kept in a cache; all of kernels/ compile."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from kernel_harness import ROOT, SOURCES, compiler_report

from hpcmsm.errors import KernelError, SetupError
from hpcmsm.kernels import Kernel, build, compile_for_gpu, kernel_folder
from hpcmsm.kernels.signature import parse_file


def test_a_missing_file_names_the_closest():
    with pytest.raises(KernelError, match=r"kernel file must exist, got '.*haet\.c'; did you mean 'heat\.c'"):
        Kernel.load("haet", "heat_faces")


def test_a_missing_function_names_the_closest():
    with pytest.raises(KernelError, match="did you mean 'heat_faces'"):
        Kernel.load("heat", "heat_fases")


@pytest.mark.parametrize(
    ("option", "rule"),
    [({"backend": "tpu"}, "backend must be cpu or gpu"), ({"dtype": "int8"}, "dtype of a kernel must be"),
     ({"threads": 0}, "threads of a kernel must be at least 1")],
)  # fmt: skip
def test_wrong_options_are_named(example, option, rule):
    with pytest.raises(KernelError, match=rule):
        Kernel.load(example, "saxpy", **option)


def test_an_error_in_the_source_is_shown_with_its_line(tmp_path):
    path = tmp_path / "broken.c"
    path.write_text(
        "KERNEL broken(\n    long n  // cells\n) {\n    FOR_EACH_CELL(c, n) {\n    oops;\n    }\n}\n"
    )
    with pytest.raises(
        KernelError, match=r"broken\.c must compile, got 'broken\.c:5:.*error.*oops"
    ) as caught:
        Kernel.load(path, "broken")
    assert "\n" not in str(caught.value)
    with pytest.raises(KernelError, match=r"must compile for sm_90, got 'broken\.c\(5\): error.*oops"):
        compile_for_gpu(path)


@pytest.mark.parametrize("compiler", ["no-such-compiler", "false"])
def test_a_missing_compiler_is_named(example, monkeypatch, compiler):
    monkeypatch.setenv("CC", compiler)
    with pytest.raises(SetupError, match=f"a C compiler must be installed, got none as '{compiler}'"):
        Kernel.load(example, "saxpy")


def test_the_gpu_without_cupy_is_named(example, monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(SetupError, match="backend 'gpu' must have CuPy"):
        Kernel.load(example, "saxpy", backend="gpu")


def test_importing_the_engine_does_not_import_cupy():
    code = "import sys, hpcmsm.kernels; print(sorted({'cupy', 'torch', 'mpi4py'} & set(sys.modules)))"
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert answer.stdout.strip() == "[]"


def test_a_compiled_kernel_is_kept(example, tmp_path, monkeypatch):
    monkeypatch.setenv("HPCMSM_CACHE", str(tmp_path / "cache"))
    first = build.compile_for_cpu(example, "float64", 1)
    stamp = first.stat().st_mtime_ns
    assert build.compile_for_cpu(example, "float64", 1) == first
    assert first.stat().st_mtime_ns == stamp
    others = {
        build.compile_for_cpu(example, "float32", 1),
        build.compile_for_cpu(example, "float64", 2),
        _compiled_after_change(example),
    }
    assert first not in others
    assert len(others) == 3
    assert len(list((tmp_path / "cache").iterdir())) == 4  # no drafts left


def _compiled_after_change(path):
    path.write_text(path.read_text() + "// changed\n")
    return build.compile_for_cpu(path, "float64", 1)


def test_a_changed_header_gives_another_object(example, tmp_path, monkeypatch):
    folder = tmp_path / "kernels"
    folder.mkdir()
    (folder / build.HEADER).write_text((kernel_folder() / build.HEADER).read_text())
    monkeypatch.setattr(build, "kernel_folder", lambda: folder)
    first = build.compile_for_cpu(example, "float64", 1)
    with open(folder / build.HEADER, "a") as header:
        header.write("/* changed */\n")
    assert build.compile_for_cpu(example, "float64", 1) != first


def test_an_unwritable_cache_is_replaced(example, tmp_path, monkeypatch):
    """A file stands where the folder should be: not even root can write there."""
    (tmp_path / "cache").write_text("in the way")
    monkeypatch.setenv("HPCMSM_CACHE", str(tmp_path / "cache"))
    found = build.compile_for_cpu(example, "float64", 1)
    assert found.is_file()
    assert tmp_path not in found.parents


@pytest.mark.parametrize(
    ("environment", "wanted"),
    [
        ({"HPCMSM_CACHE": "/a", "XDG_CACHE_HOME": "/b"}, "/a"),
        ({"XDG_CACHE_HOME": "/b"}, "/b/hpcmsm"),
        ({"HOME": "/c"}, "/c/.cache/hpcmsm"),
    ],
)
def test_where_the_cache_lies(monkeypatch, environment, wanted):
    for name in ("HPCMSM_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert build.cache_folder() == Path(wanted)


def test_processes_may_race_for_an_empty_cache(example, tmp_path):
    code = (
        "import sys, numpy as np; from hpcmsm.kernels import Kernel\n"
        "y = np.ones(3); x = np.ones((8, 3))\n"
        "Kernel.load(sys.argv[1], 'saxpy')(3, 0.5, x, None, y); print(y.sum())"
    )
    environment = os.environ | {"HPCMSM_CACHE": str(tmp_path / "cache")}
    command = [sys.executable, "-c", code, str(example)]
    started = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment)
        for _ in range(8)
    ]
    assert [process.communicate(timeout=120)[0].strip() for process in started] == ["4.5"] * 8
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_sources_are_found_when_installed(tmp_path, monkeypatch):
    """Beside the package there is nothing; inside it there are kernel_sources."""
    package = tmp_path / "site-packages" / "hpcmsm"
    (package / "kernel_sources").mkdir(parents=True)
    monkeypatch.setattr(build, "__file__", str(package / "kernels" / "build.py"))
    with pytest.raises(SetupError, match=r"folder 'kernels' must hold hpcmsm\.h"):
        build.kernel_folder()
    (package / "kernel_sources" / build.HEADER).write_text("")
    assert build.kernel_folder() == package / "kernel_sources"


def test_parts_are_put_in_place_and_missing_ones_named(tmp_path):
    (tmp_path / "factor.h").write_text("INLINE real factor(void) { return R(3); }\n")
    body = "\nKERNEL triple(\n    long ncells,  // number\n    real *v       // (ncells) values\n)\n{\n"
    body += "    FOR_EACH_CELL(c, ncells) v[c] *= factor();\n}\n"
    (tmp_path / "triple.c").write_text('#include "factor.h"' + body)
    values = np.arange(4.0)
    Kernel.load(tmp_path / "triple.c", "triple")(ncells=4, v=values)
    assert values.tolist() == [0.0, 3.0, 6.0, 9.0]
    (tmp_path / "triple.c").write_text('#include "other.h"' + body)
    with pytest.raises(KernelError, match="included by triple.c must lie beside it"):
        Kernel.load(tmp_path / "triple.c", "triple")


@pytest.mark.parametrize("flags", [(), ("-DHPCMSM_FLOAT32",)], ids=["float64", "float32"])
@pytest.mark.parametrize("source", SOURCES)
def test_kernels_compile_without_a_warning(source, flags):
    """-Wdouble-promotion: no float32 code computes in float64 behind the author's back."""
    warnings = ("-fsyntax-only", "-Wall", "-Wextra", "-Wdouble-promotion", "-Wno-unknown-pragmas", "-Werror")
    failed, report = compiler_report(kernel_folder() / f"{source}.c", *flags, *warnings)
    assert not failed, report


# Each architecture and each type of number once: compiling the largest takes five seconds.
@pytest.mark.parametrize(("architecture", "dtype"), [("sm_80", "float32"), ("sm_90", "float64")])
@pytest.mark.parametrize("source", SOURCES)
def test_kernels_compile_for_the_gpu(source, architecture, dtype):
    """Machine code for each architecture, in which every kernel of the file stands; needs no GPU."""
    code = compile_for_gpu(source, architecture, dtype)
    assert code.startswith(b"\x7fELF")
    for name in parse_file((kernel_folder() / f"{source}.c").read_text(), source):
        assert f".text.{name}\0".encode() in code


def test_the_examples_of_the_readme_work(tmp_path):
    """Newton's law of cooling and the mean square, as printed there, on the CPU and for the GPU."""
    text = (kernel_folder() / "README.md").read_text()
    path = tmp_path / "readme.c"
    blocks = re.findall(r"^    KERNEL (?:.*\n)+?    }$", text, re.MULTILINE)
    path.write_text("\n".join(textwrap.dedent(block) for block in blocks))
    t, rate, after = np.linspace(1, 2, 5), np.linspace(0, 1, 10).reshape(2, 5), np.empty(5)
    Kernel.load(path, "cooling", debug=True)(ncells=5, dt=0.1, temperature=t, rate=rate, after=after)
    assert np.allclose(after, t * np.exp(-rate.sum(axis=0) * 0.1), rtol=1e-15)
    Kernel.load(path, "mean_square", debug=True)(ncells=5, npoint=2, field=rate, mean=after)
    assert np.allclose(after, (rate**2).mean(axis=0), rtol=1e-15)
    assert compile_for_gpu(path)


def test_the_example_compiles_for_the_gpu(example):
    text = compile_for_gpu(example, "compute_90").decode()
    assert text.count(".visible .entry") == 4
    assert "fma.rn.f64" in text  # MUL_ADD
    saxpy = text[text.index(".entry saxpy") :].split(".visible")[0]
    assert "fma" not in saxpy  # nothing else is contracted
