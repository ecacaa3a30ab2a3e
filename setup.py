"""Packaging of hpcmsm; `pip install .` and `pip install -e .` both find kernels/ and jobs/.

petsc4py and h5py are needed too but not named as dependencies: they must be built against the MPI
of the machine, and pip would build PETSc from source or bring an h5py without MPI. Take them from
the system (Debian: python3-petsc4py-real, python3-h5py-mpi) or from modules; `hpcmsm doctor` checks.
"""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
README = ROOT / "README.md"


def version() -> str:
    """The version that hpcmsm/__init__.py states, without importing the package."""
    text = (ROOT / "hpcmsm" / "__init__.py").read_text()
    return re.search(r'^__version__ = "(.+)"$', text, re.MULTILINE)[1]


setup(
    name="hpcmsm",
    version=version(),
    description="Macro PDE on MPI ranks coupled to fine-scale models in every cell, with trusted surrogates",
    long_description=README.read_text() if README.exists() else "",
    long_description_content_type="text/markdown",
    author="hpcmsm developers",
    license="BSD-3-Clause",
    python_requires=">=3.11",
    # The kernel sources and job templates lie at the top level and become data of the package.
    packages=[
        *find_packages(include=["hpcmsm", "hpcmsm.*"]),
        "hpcmsm.kernel_sources",
        "hpcmsm.job_templates",
    ],
    package_dir={"hpcmsm.kernel_sources": "kernels", "hpcmsm.job_templates": "jobs"},
    package_data={
        "hpcmsm.kernel_sources": ["*.c", "*.h", "*.md"],
        "hpcmsm.job_templates": ["*.slurm", "*.pbs"],
    },
    install_requires=[
        "numpy>=1.24",
        "scipy",
        "mpi4py>=3.1",
        "pydantic>=2",
        "tomli-w",
        "matplotlib",
        "pillow",
        "torch>=2.4",
    ],
    extras_require={
        "gpu": ["cupy-cuda12x"],
        "vtk": ["vtk"],
        "forest": ["scikit-learn"],
        "tune": ["optuna"],
        "chemistry": ["cantera>=3.2"],
        "dev": [
            "pytest",
            "pytest-mpi",
            "ruff",
            "vtk",
            "optuna",
            "cantera>=3.2",
            "nvidia-cuda-nvrtc-cu12",
            "tifffile",
            "scikit-learn",
            "mapie",
            "pandas",
            "setuptools",
            "wheel",
        ],
    },
    entry_points={"console_scripts": ["hpcmsm = hpcmsm.cli:main"]},
)
