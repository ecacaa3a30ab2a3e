"""Kinds of surrogates by the name that a case file gives them."""

from __future__ import annotations

from hpcmsm.config import SurrogateSection
from hpcmsm.errors import ConfigError
from hpcmsm.fields import Field
from hpcmsm.surrogate.base import Surrogate

IMAGE_KINDS = ("cnn", "fno")  # learn from images of the cells, outside of runs
KINDS = ("ensemble", "laplace", "gaussian_process", "random_forest", "rbf", "isat")


def make_surrogate(
    section: SurrogateSection,
    inputs: tuple[Field, ...],
    outputs: tuple[Field, ...],
    comm,
    seed: int,
    goal: float,
) -> Surrogate:
    """The surrogate that a case file asks for, untrained.

    Args:
        section: [surrogate] of the case file.
        inputs, outputs: fields of the closure.
        comm: MPI communicator of the ranks that train and use it together.
        seed: of the random numbers.
        goal: error that is small enough, a tenth of what is tolerated.
    Raises:
        ConfigError: no such kind.
        SetupError: the kind needs a library that is missing.
    """
    # Each kind is imported alone: it may need what the others do not.
    if section.kind in ("ensemble", "laplace"):
        from hpcmsm.surrogate.ensemble import Ensemble
        from hpcmsm.surrogate.laplace import Laplace

        networks = {"ensemble": Ensemble, "laplace": Laplace}[section.kind]
        hidden = tuple(section.hidden)
        return networks(inputs, outputs, comm, seed, members=section.members, hidden=hidden, goal=goal)
    if section.kind == "gaussian_process":
        from hpcmsm.surrogate.gaussian_process import GaussianProcess

        return GaussianProcess(inputs, outputs, comm, seed, goal=goal)
    if section.kind == "random_forest":
        from hpcmsm.surrogate.random_forest import RandomForest

        return RandomForest(inputs, outputs, comm, seed, goal=goal)
    if section.kind == "rbf":
        from hpcmsm.surrogate.rbf import RadialBasis

        return RadialBasis(inputs, outputs, comm, seed, goal=goal)
    if section.kind == "isat":
        from hpcmsm.surrogate.isat import Isat

        return Isat(inputs, outputs, comm, seed, goal=goal)
    raise ConfigError(f"surrogate.kind must be one of {', '.join(KINDS)}, got '{section.kind}'; choose one")


def make_image_surrogate(kind: str, inputs, outputs, comm, seed: int, **options) -> Surrogate:
    """A surrogate that learns from images, of a kind among IMAGE_KINDS; see `ImageSurrogate`."""
    from hpcmsm.surrogate.cnn import Cnn
    from hpcmsm.surrogate.fno import Fno

    return {"cnn": Cnn, "fno": Fno}[kind](inputs, outputs, comm, seed, **options)
