"""Find, compile, check and call the kernels of the folder kernels/.

    kernel = Kernel.load("heat_diagonal", "heat_diagonal_2d")
    kernel(nx=nx, ny=ny, ...)

The conventions of kernel files are in kernels/README.md.
"""

from hpcmsm.kernels.build import kernel_folder
from hpcmsm.kernels.gpu import compile_for_gpu
from hpcmsm.kernels.kernel import Kernel

__all__ = ["Kernel", "compile_for_gpu", "kernel_folder"]
