"""The kernel engine: declarations, checks, the cache, arithmetic, both shapes of kernels, both compilers."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
import timeit
from pathlib import Path

import numpy as np
import pytest

from hpcmsm.errors import KernelError, SetupError
from hpcmsm.kernels import Kernel, build, compile_for_gpu, kernel_folder
from hpcmsm.kernels.signature import parse_file, size_expression

SOURCES = sorted(path.stem for path in kernel_folder().glob("*.c"))

EXAMPLE = """
// Not a kernel: KERNEL nothing( in a comment.
KERNEL saxpy(
    long n,              // number of cells
    real factor,         // [m] what x is multiplied with (a number)
    const real *x,       // (2 * (n + 1), n) [K] first summand
    const byte *mask,    // optional (n) where to add
    double *y            // (n) [J/(m3 K)] sum
) {
    FOR_EACH_CELL(c, n) y[c] = y[c] + (mask && !mask[c] ? 0.0 : (double)(factor * x[n + c]));
}

KERNEL mean_square(
    long n,             // number of cells
    long npoint,        // points of a cell
    const real *field,  // (npoint, n) [1] anything
    real *mean,         // (n) [1] mean of its square
    real *largest,      // (n) [1] largest value
    real *scratch       // scratch (npoint + 3) [1] the cell's own copy
) {
    FOR_EACH_TEAM(team, n) {
        real *u = TEAM_SCRATCH(scratch, npoint + 3);
        real sum[LANES], top[LANES];
        FOR_EACH_POINT(i, npoint) FOR_EACH_LANE(l) u[i * LANES + l] = field[i * n + CELL_OF(team, l, n)];
        TEAM_BARRIER;
        FOR_EACH_LANE(l) sum[l] = 0;
        FOR_EACH_LANE(l) top[l] = u[l];
        FOR_EACH_POINT(i, npoint) FOR_EACH_LANE(l) {
            sum[l] = MUL_ADD(u[i * LANES + l], u[i * LANES + l], sum[l]);
            top[l] = hp_max(u[i * LANES + l], top[l]);
        }
        TEAM_SUM(sum);
        TEAM_MAX(top);
        TEAM_ONCE FOR_EACH_LANE(l)
            if (HAS_CELL(team, l, n)) {
                mean[CELL_OF(team, l, n)] = sum[l] / (real)npoint;
                largest[CELL_OF(team, l, n)] = top[l];
            }
    }
}

KERNEL elementary(
    long n,         // number of values
    const real *x,  // (n) [1] arguments
    real *e,        // (n) [1] exp
    real *t,        // (n) [1] tanh
    real *g         // (n) [1] log
) {
    FOR_EACH_CELL(c, n) e[c] = hp_exp(x[c]);
    FOR_EACH_CELL(c, n) t[c] = hp_tanh(x[c]);
    FOR_EACH_CELL(c, n) g[c] = hp_log(x[c]);
}

KERNEL number_cells(
    long nx,   // along x
    long ny,   // along y
    long nz,   // along z
    long *id   // (nz, ny, nx) [1] x + 10 y + 100 z
) {
    FOR_EACH_CELL_3D(x, y, z, nx, ny, nz) id[(z * ny + y) * nx + x] = x + 10 * y + 100 * z;
}
"""


@pytest.fixture
def example(tmp_path):
    path = tmp_path / "example.c"
    path.write_text(EXAMPLE)
    return path


@pytest.fixture
def saxpy(example):
    return Kernel.load(example, "saxpy", debug=True)


def saxpy_arguments(n=5, **changes):
    given = {"n": n, "factor": 0.5, "x": np.ones((2 * (n + 1), n)), "mask": None, "y": np.zeros(n)}
    return given | changes


# --- declarations


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
    assert (signature.kind, signature.ncells) == ("cell", ("n",))


def test_kinds_and_cells_are_read_from_the_loops():
    signatures = parse_file(EXAMPLE, "example.c")
    assert list(signatures) == ["saxpy", "mean_square", "elementary", "number_cells"]
    assert (signatures["mean_square"].kind, signatures["mean_square"].ncells) == ("team", ("n",))
    assert signatures["mean_square"].arguments[-1].role == "scratch"
    assert signatures["number_cells"].ncells == ("nx", "ny", "nz")
    rows = parse_file((kernel_folder() / "heat.c").read_text(), "heat.c")
    assert (rows["heat_divergence_3d"].kind, rows["heat_divergence_3d"].ncells) == ("row", ("ny * nz",))


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


# --- finding and compiling


def test_a_missing_file_names_the_closest():
    with pytest.raises(KernelError, match=r"kernel file must exist, got '.*haet\.c'; did you mean 'heat\.c'"):
        Kernel.load("haet", "heat_divergence_2d")


def test_a_missing_function_names_the_closest():
    with pytest.raises(KernelError, match="did you mean 'heat_divergence_2d'"):
        Kernel.load("heat", "heat_divergense_2d")


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


ROOT = Path(__file__).resolve().parents[2]


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


# --- calls


def test_a_call_by_place_and_by_name(saxpy):
    y = np.zeros(5)
    saxpy(5, 0.5, np.full((12, 5), 3.0), None, y)
    assert np.array_equal(y, np.full(5, 1.5))
    saxpy(**saxpy_arguments(x=np.full((12, 5), 3.0), y=y, mask=np.array([1, 0, 1, 0, 0], np.uint8)))
    assert np.array_equal(y, [3.0, 1.5, 3.0, 1.5, 1.5])
    saxpy(np.int64(5), np.float32(0.5), mask=None, y=y, x=np.zeros((12, 5)))
    assert np.array_equal(y, [3.0, 1.5, 3.0, 1.5, 1.5])


def read_only(n):
    array = np.zeros(n)
    array.flags.writeable = False
    return array


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        (
            {"x": np.ones((12, 5), np.float32)},
            "argument 'x' must be a C-contiguous numpy array of float64, got",
        ),
        ({"x": np.ones((5, 12)).T}, "argument 'x' must be a C-contiguous numpy array of float64, got"),
        ({"x": [1.0, 2.0]}, "argument 'x' must be a C-contiguous numpy array of float64, got list"),
        ({"x": None}, "argument 'x' must be an array, got None"),
        (
            {"x": np.ones((5, 12))},
            "argument 'x' must be of shape (2 * (n + 1), n) = (12, 5), got shape (5, 12)",
        ),
        ({"mask": np.ones(4, np.uint8)}, "argument 'mask' must be of shape (n) = (5,), got shape (4,)"),
        ({"mask": np.ones(5, bool)}, "argument 'mask' must be a C-contiguous numpy array of uint8, got bool"),
        (
            {"y": read_only(5)},
            "argument 'y' must be writable, as the kernel writes it, got a read-only array",
        ),
        ({"n": 5.0}, "argument 'n' must be an integer, got 5.0"),
        ({"factor": "half"}, "argument 'factor' must be a number, got 'half'"),
    ],
)
def test_a_wrong_argument_is_named(saxpy, changes, fault):
    with pytest.raises(KernelError, match=re.escape(fault)) as caught:
        saxpy(**(saxpy_arguments() | changes))
    assert "(kernel 'saxpy' of example.c)" in str(caught.value)


def test_missing_and_superfluous_arguments_are_named(saxpy):
    arguments = saxpy_arguments()
    with pytest.raises(KernelError, match="got cells besides"):
        saxpy(**arguments, cells=5)
    with pytest.raises(KernelError, match="got too many besides"):
        saxpy(*arguments.values(), 1)
    with pytest.raises(KernelError, match="got n besides"):
        saxpy(5, **arguments)
    del arguments["x"]
    with pytest.raises(KernelError, match=r"arguments must be \(n, factor, x, mask, y\), got x missing"):
        saxpy(**arguments)


def test_debug_follows_the_environment(example, monkeypatch):
    monkeypatch.setenv("HPCMSM_DEBUG", "1")
    assert Kernel.load(example, "saxpy").debug
    monkeypatch.setenv("HPCMSM_DEBUG", "0")
    assert not Kernel.load(example, "saxpy").debug


def test_a_call_costs_little(example):
    """Below 20 us for a batch of 1 (typically 4); the best of many, as the machine may be busy."""
    kernel = Kernel.load(example, "saxpy", debug=False)
    arguments = saxpy_arguments(1)
    assert min(timeit.repeat(lambda: kernel(**arguments), number=200, repeat=20)) / 200 < 20e-6


def test_cells_of_a_block_are_numbered(example):
    ids = np.empty((3, 4, 5), np.int64)
    Kernel.load(example, "number_cells", debug=True)(5, 4, 3, ids)
    z, y, x = np.indices(ids.shape)
    assert np.array_equal(ids, x + 10 * y + 100 * z)


def test_two_thread_counts_do_not_mix(example):
    """They share one object, and each brings scratch memory for its own threads only."""
    many = Kernel.load(example, "mean_square", threads=4)
    few = Kernel.load(example, "mean_square", threads=2)
    field = np.random.default_rng(1).random((9, 200))
    answers = [np.empty((2, 200)) for _ in range(2)]
    for kernel, (mean, largest) in zip((few, many), answers, strict=True):
        kernel(200, 9, field, mean, largest)
    assert np.array_equal(*answers)


# --- team kernels


def mean_square(example, field, dtype="float64", threads=1):
    n = field.shape[1]
    mean, largest = np.full(n, np.nan, dtype), np.full(n, np.nan, dtype)
    kernel = Kernel.load(example, "mean_square", dtype=dtype, debug=True, threads=threads)
    kernel(n=n, npoint=len(field), field=np.ascontiguousarray(field, dtype), mean=mean, largest=largest)
    return mean, largest


@pytest.mark.parametrize(("dtype", "lanes", "tolerance"), [("float64", 8, 1e-15), ("float32", 16, 1e-6)])
@pytest.mark.parametrize("ncells", [1, 7, 8, 9, 40])
def test_teams_sum_like_numpy(example, dtype, lanes, tolerance, ncells):
    field = np.random.default_rng(0).random((37, ncells)).astype(dtype)
    mean, largest = mean_square(example, field, dtype)
    assert np.allclose(mean, (field.astype(float) ** 2).mean(axis=0), rtol=tolerance * 37, atol=0)
    assert np.array_equal(largest, field.max(axis=0))
    assert Kernel.load(example, "mean_square", dtype=dtype).lanes == lanes


def test_a_cell_depends_on_itself_alone(example):
    """Permuted, split and on more threads: the same bits."""
    random = np.random.default_rng(2)
    field = random.standard_normal((50, 61))
    whole = np.array(mean_square(example, field))
    order = random.permutation(61)
    assert np.array_equal(np.array(mean_square(example, field[:, order])), whole[:, order])
    assert np.array_equal(np.array(mean_square(example, field, threads=3)), whole)
    for cells in (slice(0, 1), slice(3, 20), slice(20, 61)):
        assert np.array_equal(np.array(mean_square(example, field[:, cells])), whole[:, cells])


# --- arithmetic


def elementary(example, x):
    answers = np.empty((3, x.size), x.dtype)
    Kernel.load(example, "elementary", dtype=x.dtype.name, debug=True)(x.size, x, *answers)
    return answers


ARGUMENTS = {
    "float64": {"exp": (-745.0, 709.7), "tanh": (-25.0, 25.0), "log": (1e-320, 1e308)},
    "float32": {"exp": (-103.0, 88.7), "tanh": (-12.0, 12.0), "log": (1e-44, 3e38)},
}


def spread_arguments(name, dtype):
    """Many values in the range of a function, some of them small, some near where it bends."""
    low, high = ARGUMENTS[dtype][name]
    random = np.random.default_rng(3)
    if name == "log":
        x = np.exp(random.uniform(np.log(low), np.log(high), 40000))
        return np.concatenate([x, random.uniform(0.5, 2.0, 40000)]).astype(dtype)
    small = np.exp(random.uniform(-60, 0, 20000)) * random.choice([-1, 1], 20000)
    return np.concatenate([random.uniform(low, high, 40000), random.uniform(-2, 2, 20000), small]).astype(
        dtype
    )


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(("place", "name", "ulps"), [(0, "exp", 2.0), (1, "tanh", 3.0), (2, "log", 2.0)])
def test_functions_are_accurate(example, dtype, place, name, ulps):
    x = spread_arguments(name, dtype)
    found = elementary(example, x)[place]
    with np.errstate(under="ignore"):
        wanted = getattr(np, name)(x.astype(np.longdouble))  # at least 11 bits more than found
    error = np.abs(found - wanted) / np.spacing(np.abs(wanted.astype(dtype)))
    assert error.max() <= ulps, x[error.argmax()]


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_functions_at_their_limits(example, dtype):
    huge, tiny = np.finfo(dtype).max, np.finfo(dtype).smallest_subnormal
    top = 710.0 if dtype == "float64" else 89.0
    x = np.array(
        [0.0, -0.0, np.inf, -np.inf, np.nan, huge, -huge, tiny, -tiny, top, -1.1 * top, 1.0, -1.0], dtype
    )
    with np.errstate(all="ignore"):
        wanted = np.array([np.exp(x), np.tanh(x), np.log(x)])
    found = elementary(example, x)
    special = ~np.isfinite(wanted) | (wanted == 0) | (np.abs(wanted) == 1)
    assert np.array_equal(found[special], wanted[special], equal_nan=True)
    assert np.allclose(found[~special], wanted[~special], rtol=8 * np.finfo(dtype).eps, atol=0)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_vector_and_remainder_give_the_same_bits(example, dtype):
    x = np.random.default_rng(4).uniform(-30, 30, 103).astype(dtype)
    whole = elementary(example, x)
    for length in (1, 2, 3, 7, 15, 31):
        parts = [elementary(example, x[i : i + length].copy()) for i in range(0, x.size, length)]
        assert np.array_equal(np.concatenate(parts, axis=1), whole, equal_nan=True)


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


def lines_with(path, text):
    return [number for number, line in enumerate(path.read_text().splitlines(), 1) if text in line]


HEAT_LOOPS = ("= normal_2d", "= normal_3d", "+= cross_2d", "+= cross_3d")


@pytest.mark.parametrize("flags", [(), ("-DHPCMSM_FLOAT32",)], ids=["float64", "float32"])
def test_loops_vectorise(example, flags):
    heat = kernel_folder() / "heat.c"
    for path, marks in (
        (example, ["hp_exp(x[c])", "hp_tanh(x[c])", "hp_log(x[c])", "sum[l] = MUL_ADD"]),
        (heat, ["k = conductivity + outer", *(f"last) result[i] {loop}" for loop in HEAT_LOOPS)]),
    ):
        failed, report = compiler_report(path, *flags)
        assert not failed, report
        vectorised = {int(n) for n in re.findall(rf"{path.name}:(\d+):\d+: .*vectorized", report)}
        for mark in marks:
            assert vectorised & set(lines_with(path, mark)), f"{mark} of {path.name} is not vectorised"


@pytest.mark.parametrize("flags", [(), ("-DHPCMSM_FLOAT32",)], ids=["float64", "float32"])
@pytest.mark.parametrize("source", SOURCES)
def test_kernels_compile_without_a_warning(source, flags):
    """-Wdouble-promotion: no float32 code computes in float64 behind the author's back."""
    warnings = ("-fsyntax-only", "-Wall", "-Wextra", "-Wdouble-promotion", "-Wno-unknown-pragmas", "-Werror")
    failed, report = compiler_report(kernel_folder() / f"{source}.c", *flags, *warnings)
    assert not failed, report


# --- GPU


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("architecture", ["sm_80", "sm_90"])
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


class FakeArray:
    """Stands for a CuPy array."""

    def __init__(self, shape, dtype):
        self.shape, self.dtype = shape, np.dtype(dtype)
        self.size = int(np.prod(shape))
        self.flags = np.empty(1).flags


class FakeCupy:
    """Records the launch instead of launching; enough of CuPy for the engine."""

    ndarray = FakeArray

    def __init__(self, shared):
        self.launches, self.attributes = (
            [],
            {"MaxSharedMemoryPerBlockOptin": shared, "MultiProcessorCount": 4},
        )
        self.cuda = self.compiler = self.runtime = self
        self.CompileException = self.CUDARuntimeError = RuntimeError

    def RawModule(self, code, options, backend):  # the name is CuPy's
        self.code, self.options = code, options
        return self

    def get_function(self, name):
        return self

    def getDeviceCount(self):  # the name is CuPy's
        return 1

    def Device(self):  # the name is CuPy's
        return self

    def empty(self, size, dtype):
        return FakeArray((size,), dtype)

    def __call__(self, blocks, threads, arguments, shared_mem):
        self.launches.append((blocks, threads, arguments, shared_mem))


@pytest.fixture
def fake_cupy(monkeypatch):
    fake = FakeCupy(shared=100_000)
    monkeypatch.setitem(sys.modules, "cupy", fake)
    return fake


def test_numbers_reach_the_gpu_as_declared(example, fake_cupy):
    kernel = Kernel.load(example, "saxpy", backend="gpu", dtype="float32", debug=True)
    kernel(300, 0.5, FakeArray((602, 300), np.float32), None, FakeArray((300,), np.float64))
    blocks, threads, arguments, shared = fake_cupy.launches[0]
    assert (blocks, threads, shared) == ((3,), (128,), 0)
    assert [type(a) for a in arguments[:2]] == [np.int64, np.float32]
    assert arguments[3] == 0  # no mask
    assert "-DHPCMSM_FLOAT32" in fake_cupy.options
    assert "--fmad=false" in fake_cupy.options
    assert fake_cupy.code == build.full_source(example)
    with pytest.raises(KernelError, match="argument 'x' must be a C-contiguous CuPy array of float32"):
        kernel(300, 0.5, np.ones((602, 300), np.float32), None, FakeArray((300,), np.float64))
    kernel(0, 0.5, FakeArray((2, 0), np.float32), None, FakeArray((0,), np.float64))
    assert len(fake_cupy.launches) == 1  # no cells, no launch


def test_scratch_lies_in_shared_memory_where_it_fits(example, fake_cupy):
    kernel = Kernel.load(example, "mean_square", backend="gpu")
    for n, npoint in ((5, 97), (50, 20_000)):
        out = FakeArray((n,), np.float64)
        kernel(n, npoint, FakeArray((npoint, n), np.float64), out, out)
    (blocks, _, arguments, shared), (many_blocks, _, many_arguments, none) = fake_cupy.launches
    assert (blocks, arguments[-1], shared) == ((5,), 0, 100 * 8)
    assert (many_blocks, many_arguments[-1].size, none) == ((32,), 32 * 20_003, 0)
    assert fake_cupy.max_dynamic_shared_size_bytes == 800


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
