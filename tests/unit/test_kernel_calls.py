"""Calls of kernels: arguments by place and name, checks, teams of cells, launches on a GPU."""

from __future__ import annotations

import re
import sys
import timeit

import numpy as np
import pytest

from hpcmsm.errors import KernelError
from hpcmsm.kernels import Kernel, build


@pytest.fixture
def saxpy(example):
    return Kernel.load(example, "saxpy", debug=True)


def saxpy_arguments(n=5, **changes):
    given = {"n": n, "factor": 0.5, "x": np.ones((2 * (n + 1), n)), "mask": None, "y": np.zeros(n)}
    return given | changes


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
