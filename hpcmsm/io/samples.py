"""Fields and samples in files that travel between people: datasets and models.

Such a file may come from a stranger. Its seal finds accidents, not intent, so whatever is read is
compared with what it has to look like before it is used.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from hpcmsm.errors import ConfigError
from hpcmsm.fields import Field, ncomponent
from hpcmsm.io.sealed import SealedReader, SealedWriter, open_sealed, write_sealed
from hpcmsm.parallel import together
from hpcmsm.surrogate.base import Samples

MOST_COMPONENTS = 10_000
COUNTED = ("step", "iteration", "ids")  # arrays of int64; the others of Samples hold float64


def write_by_root(comm, path: Path, kind: str, header: dict, fill: Callable) -> None:
    """Collective. Rank 0 writes a sealed file alone, so that its bytes do not depend on the ranks.

    Raises:
        SetupError: it cannot be written; raised on every rank.
    """
    from mpi4py import MPI

    with together(comm):
        if comm.rank == 0:
            write_sealed(MPI.COMM_SELF, path, kind, header, fill)


@contextmanager
def open_strange(path: Path, kind: str) -> Iterator[SealedReader]:
    """Open a sealed file of a kind; what is not as it has to be becomes a one-line CheckpointError."""
    with open_sealed(path, kind) as reader:
        try:
            yield reader
        except (ValueError, TypeError, AttributeError, IndexError) as error:
            reason = str(error).replace(";", ",").splitlines()[0] if str(error) else type(error).__name__
            raise reader.damaged(reason) from error


def describe_fields(fields: tuple[Field, ...]) -> list[dict]:
    """Declarations of fields as JSON can hold them; an infinite bound becomes null."""
    return [
        {
            "name": field.name,
            "size": field.size,
            "unit": field.unit,
            "about": field.about,
            "lower": field.lower if math.isfinite(field.lower) else None,
            "upper": field.upper if math.isfinite(field.upper) else None,
            "spd": field.spd,
            "whole": field.whole,
        }
        for field in fields
    ]


def read_fields(facts: list[dict]) -> tuple[Field, ...]:
    """The inverse of `describe_fields`.

    Raises:
        ValueError, TypeError, KeyError: it is no such declaration.
    """
    try:
        fields = tuple(_read_field(fact) for fact in facts)
    except ConfigError as error:
        raise ValueError(str(error)) from None
    if not 0 < ncomponent(fields) <= MOST_COMPONENTS:
        raise ValueError(f"fields have {ncomponent(fields)} components")
    return fields


def _read_field(fact: dict) -> Field:
    return Field(
        str(fact["name"]),
        int(fact["size"]),
        str(fact["unit"]),
        str(fact["about"]),
        -math.inf if fact["lower"] is None else float(fact["lower"]),
        math.inf if fact["upper"] is None else float(fact["upper"]),
        bool(fact["spd"]),
        whole=bool(fact.get("whole", False)),
    )


def put_samples(writer: SealedWriter, prefix: str, samples: Samples) -> None:
    """Collective. Write all arrays of samples under arrays/prefix/."""
    for name in Samples.__dataclass_fields__:
        writer.array(f"{prefix}/{name}", getattr(samples, name))


def get_samples(
    reader: SealedReader, prefix: str, inputs: tuple[Field, ...], outputs: tuple[Field, ...]
) -> Samples:
    """Read what `put_samples` wrote, checked against the declared fields."""
    count = reader.array(f"{prefix}/ids").size
    rows = {"inputs": (ncomponent(inputs), count), "outputs": (ncomponent(outputs), count)}
    arrays = {}
    for name in Samples.__dataclass_fields__:
        dtype = np.int64 if name in COUNTED else np.float64
        arrays[name] = get_array(reader, f"{prefix}/{name}", rows.get(name, (count,)), dtype)
    return Samples(**arrays)


def get_array(reader: SealedReader, name: str, shape: tuple[int, ...], dtype) -> np.ndarray:
    """An array of finite numbers that must have this shape and type."""
    array = reader.array(name)
    if array.shape != shape or array.dtype != np.dtype(dtype):
        raise reader.damaged(f"{name} must be {np.dtype(dtype)} {shape}, got {array.dtype} {array.shape}")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise reader.damaged(f"{name} holds values that are not finite")
    return array
