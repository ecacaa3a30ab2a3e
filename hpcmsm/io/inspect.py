"""What is in a checkpoint or snapshot, and how two of them differ."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from mpi4py import MPI

from hpcmsm.errors import CheckpointError
from hpcmsm.fields import Field
from hpcmsm.io.sealed import SealedReader, decoded, open_sealed, verify
from hpcmsm.io.store import reading

PIECE = 2**25  # bytes to look at in one go
# Two runs that are equal may differ in these: who computed, when, and how long it took.
NOT_COMPARED = ("timings", "provenance")


def describe(path: Path) -> str:
    """What `hpcmsm show` prints of a checkpoint, a snapshot or the index of snapshots.

    Raises:
        CheckpointError: the file is missing, damaged, or not ours.
    """
    path = Path(path)
    if _is_index(path):
        return _describe_index(path)
    verify(MPI.COMM_SELF, path)
    with open_sealed(path) as reader:
        lines = [f"{reader.kind} {path.name}: {_size(path.stat().st_size)}, every checksum as written"]
        lines += _pairs(_facts(reader))
        if reader.names("cells"):
            lines += ["", *_field_table(reader)]
        if reader.names("arrays"):
            lines += ["", *_array_table(reader)]
    return "\n".join(lines)


def _is_index(path: Path) -> bool:
    with reading(path) as h5file:
        return decoded(h5file.attrs.get("kind", b"")) == "snapshot index"


def _describe_index(path: Path) -> str:
    with reading(path) as h5file:
        steps, times = h5file["step"][()], h5file["time"][()]
        facts = {
            "snapshots": len(steps),
            "steps": f"{steps[0]} to {steps[-1]}",
            "time": f"{times[0]:g} to {times[-1]:g} s",
        }
        lines = [f"index of snapshots {path.name}", *_pairs(facts), ""]
        rows = [("field", "unit", "components")]
        for name, dataset in h5file["VTKHDF/CellData"].items():
            rows.append((name, decoded(dataset.attrs["unit"]), decoded(dataset.attrs["components"])))
    return "\n".join(lines + table(rows))


def _facts(reader: SealedReader) -> dict[str, object]:
    header = reader.header
    if "grid_shape" not in header:
        return _offline_facts(reader)
    facts = {"step": header["step"], "time": f"{header['time']:g} s"}
    if "dt" in header:
        facts["dt"] = f"{header['dt']:g} s"
    periodic = [axis for axis, wraps in zip("xyz", header["periodic"], strict=False) if wraps]
    facts["grid"] = (
        f"{' x '.join(map(str, header['cells']))} cells, {' x '.join(f'{x:g}' for x in header['size'])} m, "
        f"periodic along {', '.join(periodic) or 'no axis'}"
    )
    if "closure/surrogate/version" in reader.names("arrays"):
        facts["surrogate"] = f"version {int(reader.array('closure/surrogate/version').ravel()[0])}"
    if "config" in reader.names("texts"):
        config = reader.text("config")
        facts["config"] = f"{len(config)} characters, {len(config.splitlines())} lines"
    if "provenance" in reader.names("texts"):
        provenance = json.loads(reader.text("provenance"))
        facts |= {f"provenance.{key}": value for key, value in sorted(provenance.items())}
    return facts


def _offline_facts(reader: SealedReader) -> dict[str, object]:
    """Of a dataset or a model, which know no grid."""
    facts = {
        kind: ", ".join(f"{field['name']} [{field['unit']}]" for field in reader.header[kind])
        for kind in ("inputs", "outputs")
    }
    provenance = json.loads(reader.text("provenance"))
    return facts | {f"provenance.{key}": value for key, value in sorted(provenance.items())}


def _field_table(reader: SealedReader) -> list[str]:
    rows = [("field", "unit", "type", "smallest", "largest", "about")]
    for name in reader.names("cells"):
        declared, dataset, layout = reader.field(name), reader.dataset(f"cells/{name}"), reader.layout(name)
        lowest, highest = _range(dataset, declared, layout)
        names = [name] if declared.size == 1 else [f"{name} {part}" for part in _components(declared)]
        for place, label in enumerate(names):
            extremes = f"{lowest[place]:.6g}", f"{highest[place]:.6g}"
            about = declared.about if place == 0 else ""
            rows.append((label, declared.unit, str(dataset.dtype), *extremes, about))
    return table(rows)


def _components(declared: Field) -> list[str]:
    return [name[len(declared.name) + 1 :] for name in declared.component_names]


def _range(dataset, declared: Field, layout) -> tuple[np.ndarray, np.ndarray]:
    """Smallest and largest value of each component, NaN where one is NaN; shapes (size,)."""
    lowest, highest = np.full(declared.size, np.inf), np.full(declared.size, -np.inf)
    for where in _pieces(dataset):
        part = dataset[where]
        if layout.last:
            values = layout.from_file(part)
            rows = slice(None)
        else:
            values = part.reshape(part.shape[0], -1)
            rows = where
        lowest[rows] = np.minimum(lowest[rows], values.min(axis=1))
        highest[rows] = np.maximum(highest[rows], values.max(axis=1))
    return lowest, highest


def _pieces(dataset) -> Iterator[slice]:
    """Slices of the first axis, each of a bounded number of bytes."""
    nrow = dataset.shape[0]
    step = max(1, PIECE * nrow // max(dataset.nbytes, 1))
    return (slice(first, min(first + step, nrow)) for first in range(0, nrow, step))


def _array_table(reader: SealedReader) -> list[str]:
    rows = [("array", "shape", "type", "value")]
    for name in reader.names("arrays"):
        array = reader.array(name)
        shape = "x".join(map(str, array.shape)) or "-"
        rows.append((name, shape, str(array.dtype), str(array) if array.size == 1 else ""))
    return table(rows)


@dataclass(frozen=True)
class Row:
    """How one field differs between two files.

    Attributes:
        name: path of the field.
        equal: bitwise equal.
        absolute: largest absolute difference, in the unit of the field.
        relative: largest difference over the larger of the two magnitudes, cell by cell.
        note: why there are no numbers.
    """

    name: str
    equal: bool
    absolute: float = 0.0
    relative: float = 0.0
    note: str = ""


def compare(a: Path, b: Path) -> tuple[list[Row], bool]:
    """Compare two checkpoints or two snapshots, field by field.

    Provenance, timings and the case file are not compared.

    Returns:
        a row per field, and whether all are bitwise equal.
    Raises:
        CheckpointError: a file is missing or damaged, or they are not of the same kind.
    """
    for path in (a, b):
        if _is_index(path):
            raise CheckpointError(
                f"{Path(path).name} is an index of snapshots; compare the files beside it, one for each step"
            )
        verify(MPI.COMM_SELF, path)
    with open_sealed(a) as one, open_sealed(b, one.kind) as other:
        rows = [_compare_clock(key, one, other) for key in ("step", "time", "dt") if key in one.header]
        paths = {
            path
            for path in {*one.contents, *other.contents}
            if not path.startswith("texts/") and not set(path.split("/")) & set(NOT_COMPARED)
        }
        rows += [_compare_dataset(path, one, other) for path in sorted(paths, key=_cells_first)]
    return rows, all(row.equal for row in rows)


def _cells_first(path: str) -> tuple:
    return not path.startswith("cells/"), path


def _compare_clock(key: str, one: SealedReader, other: SealedReader) -> Row:
    first, second = float(one.header[key]), float(other.header[key])
    return Row(key, first == second, *_differences(np.array([first]), np.array([second])))


def _compare_dataset(path: str, one: SealedReader, other: SealedReader) -> Row:
    name = path.partition("/")[2]
    for reader, here in ((one, "first"), (other, "second")):
        if path not in reader.contents:
            return Row(name, False, np.nan, np.nan, f"missing in the {here} file")
    first, second = one.dataset(path), other.dataset(path)
    if (first.shape, first.dtype) != (second.shape, second.dtype):
        shapes = f"{first.dtype} {first.shape} and {second.dtype} {second.shape}"
        return Row(name, False, np.nan, np.nan, shapes)
    equal, absolute, relative = True, 0.0, 0.0
    for where in _pieces(first) if first.ndim else [()]:
        x, y = np.asarray(first[where]), np.asarray(second[where])
        equal &= x.tobytes() == y.tobytes()
        if x.dtype.kind in "biuf":
            largest = _differences(x, y)
            absolute, relative = max(absolute, largest[0]), max(relative, largest[1])
    return Row(name, equal, absolute, relative)


def _differences(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Largest absolute and relative difference; infinite where only one is NaN, 0 where both are."""
    if x.size == 0:
        return 0.0, 0.0
    x, y = x.astype(np.float64), y.astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        same = (x == y) | (np.isnan(x) & np.isnan(y))
        absolute = np.where(same, 0.0, np.abs(x - y))
        relative = np.where(same, 0.0, absolute / np.maximum(np.abs(x), np.abs(y)))
    return tuple(float(np.nan_to_num(part, nan=np.inf, posinf=np.inf).max()) for part in (absolute, relative))


def comparison_table(rows: list[Row], equal: bool) -> str:
    """What `hpcmsm compare` prints."""
    cells = [("field", "bitwise", "largest difference", "relative", "")]
    for row in rows:
        numbers = ("", "") if row.note else (f"{row.absolute:.3e}", f"{row.relative:.3e}")
        cells.append((row.name, "equal" if row.equal else "differs", *numbers, row.note))
    ndiffering = sum(not row.equal for row in rows)
    verdict = "bitwise equal" if equal else f"{ndiffering} of {len(rows)} fields differ"
    return "\n".join([*table(cells), "", verdict])


def table(rows: list[tuple[str, ...]]) -> list[str]:
    """Lines of a text table; the first row is its head."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    padded = ([cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in rows)
    head, *lines = ("  ".join(cells).rstrip() for cells in padded)
    return [head, "-" * len(head), *lines]


def _pairs(facts: dict[str, object]) -> list[str]:
    width = max(len(key) for key in facts)
    return [f"{key.ljust(width)}  {value}" for key, value in facts.items()]


def _size(nbytes: int) -> str:
    """1234567 -> 1.2 MB."""
    value, units = float(nbytes), ["bytes", "kB", "MB", "GB", "TB"]
    while value >= 1000 and len(units) > 1:
        value, units = value / 1000, units[1:]
    return f"{nbytes} bytes" if units[0] == "bytes" else f"{value:.1f} {units[0]}"
