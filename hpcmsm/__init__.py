"""hpcmsm couples the scales: a macro PDE on MPI ranks, a fine-scale model in every cell."""

__version__ = "0.1.0.dev0"
