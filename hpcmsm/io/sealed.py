"""What our HDF5 files have in common: cell fields, small arrays and texts, listed and sealed.

/cells/NAME     natural order, shape (size, *grid_shape), or (*grid_shape, size) in snapshots
/arrays/NAME    the same on every rank
/texts/NAME     one string
/contents       JSON: the checksum of each dataset
attributes of /: format, kind, header (JSON), seal (digest of header and contents), complete
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from hpcmsm.errors import CheckpointError, ShapeError
from hpcmsm.fields import SPD_COMPONENTS, Field
from hpcmsm.io.blocks import Layout, read_block, route_of, slab, write_block
from hpcmsm.io.checksum import add_over_ranks, array_digest, cell_keys, cell_sums, text_digest
from hpcmsm.io.store import h5py, make_groups, reading, write_whole, writing
from hpcmsm.parallel import together

FORMAT = 1


def write_sealed(comm, path: Path, kind: str, header: dict, fill: Callable) -> None:
    """Collective. Write a sealed file, whole or not at all.

    Args:
        kind: "checkpoint" or "snapshot".
        header: what JSON can hold; rank 0's counts.
        fill: called with a SealedWriter on every rank, puts the datasets in.
    Raises:
        SetupError: see `write_whole`.
    """

    def fill_and_seal(h5file):
        writer = SealedWriter(h5file, comm, path)
        fill(writer)
        writer.seal(kind, header)

    write_whole(comm, path, fill_and_seal)


class SealedWriter:
    """Puts datasets into an open file and remembers their checksums."""

    def __init__(self, h5file, comm, path: Path):
        self.h5file, self.comm, self.path = h5file, comm, Path(path)
        self._contents: dict[str, object] = {}
        self._sums: dict[str, np.ndarray] = {}
        self._keys = self._route = None

    def cells(self, name: str, declared: Field, values: np.ndarray, grid, last: bool = False) -> None:
        """Collective. A cell field.

        Args:
            values: this rank's cells, shape (size, ncells), ordered as grid.ids.
            last: store the components last, see `Layout`.
        Raises:
            ShapeError: values do not have the declared shape, or hold no numbers.
        """
        with together(self.comm):
            _check_cells(name, declared, values, grid)
        if self._keys is None:
            self._keys, self._route = cell_keys(grid.ids), route_of(grid)
        self._sums[f"cells/{name}"] = cell_sums(values, self._keys)
        layout, block = Layout.of(declared, last), grid
        if self._route is not None:
            values, block = self._route.move(values), self._route.target
        with together(self.comm), writing(self.path):
            dataset = self.h5file.create_dataset(f"cells/{name}", layout.shape(grid.grid_shape), values.dtype)
            describe_dataset(dataset, declared, layout)
        with together(self.comm), writing(self.path):
            write_block(dataset, layout, values, block)

    def array(self, name: str, array: np.ndarray | None) -> None:
        """Collective. A small array of numbers or byte strings; rank 0's counts.

        Raises:
            ShapeError: it holds something else.
        """
        with together(self.comm):
            if self.comm.rank == 0:
                array = _checked_array(name, array)
        facts = (array.shape, array.dtype.str, array_digest(array)) if self.comm.rank == 0 else None
        shape, dtype, self._contents[f"arrays/{name}"] = self.comm.bcast(facts)
        with together(self.comm), writing(self.path):
            make_groups(self.h5file, f"arrays/{name}")
            dataset = self.h5file.create_dataset(f"arrays/{name}", shape, np.dtype(dtype))
            if self.comm.rank == 0 and array.size:
                dataset[...] = array

    def text(self, name: str, text: str | None) -> None:
        """Collective. A text; rank 0's counts."""
        text = self.comm.bcast(text)
        self._contents[f"texts/{name}"] = text_digest(text)
        self._string(f"texts/{name}", text)

    def seal(self, kind: str, header: dict) -> None:
        """Collective. Write the list of contents and the attributes that vouch for it."""
        for name, sums in self._sums.items():
            self._contents[name] = [f"{total:016x}" for total in add_over_ranks(self.comm, sums)]
        contents = json.dumps(self._contents, sort_keys=True)
        header = self.comm.bcast(json.dumps(header, sort_keys=True))
        self._string("contents", contents)
        facts = {"kind": kind, "header": header, "seal": _seal(FORMAT, kind, header, contents)}
        with together(self.comm), writing(self.path):
            self.h5file.attrs["format"] = FORMAT
            for name, text in facts.items():
                self.h5file.attrs[name] = np.bytes_(text.encode())
            self.h5file.attrs["complete"] = 1

    def _string(self, name: str, text: str) -> None:
        # Strings of variable length cannot be written in parallel.
        encoded = text.encode()
        with together(self.comm), writing(self.path):
            kind = h5py.string_dtype("utf-8", max(len(encoded), 1))
            make_groups(self.h5file, name)
            dataset = self.h5file.create_dataset(name, (), kind)
            if self.comm.rank == 0:
                dataset[()] = encoded


def _check_cells(name: str, declared: Field, values: np.ndarray, grid) -> None:
    wanted = (declared.size, grid.ids.size)
    if values.shape != wanted or values.dtype.kind not in "biuf" or values.dtype.itemsize > 8:
        raise ShapeError(
            f"field '{name}' must be an array of numbers of shape {wanted}, got {values.dtype} "
            f"{values.shape}; give one row per component and one column per owned cell"
        )


def _checked_array(name: str, array) -> np.ndarray:
    array = np.asarray(array)
    if array.dtype.kind not in "biufS":
        raise ShapeError(
            f"array '{name}' must hold numbers or byte strings, got {array.dtype}; convert it first"
        )
    return array


def describe_dataset(dataset, declared: Field, layout: Layout) -> None:
    """Attributes that make a dataset readable by itself."""
    names = SPD_COMPONENTS[declared.size] if declared.spd else [str(n) for n in range(declared.size)]
    texts = {
        "unit": declared.unit,
        "about": declared.about,
        "components": " ".join(names[place] for place in layout.order),
    }
    for name, text in texts.items():
        dataset.attrs[name] = np.bytes_(text.encode() or b" ")
    dataset.attrs["spd"] = int(declared.spd)
    dataset.attrs["last"] = int(layout.last)


def _seal(version: int, kind: str, header: str, contents: str) -> str:
    return text_digest(f"{version}\n{kind}\n{header}\n{contents}")


@contextmanager
def open_sealed(path: Path, kind: str | None = None) -> Iterator[SealedReader]:
    """Open a sealed file for reading on this rank alone, and check its seal.

    Args:
        kind: what the file has to be; None for anything of ours.
    Raises:
        CheckpointError: the file is missing, damaged, of another kind, or not ours.
    """
    with reading(path) as h5file:
        reader = SealedReader(h5file, Path(path).name)
        if kind not in (None, reader.kind):
            raise CheckpointError(
                f"{reader.name} is a {reader.kind}, not a {kind}; give the path of a {kind}"
            )
        yield reader


class SealedReader:
    """Takes datasets out of an open file and compares them with their checksums.

    Attributes:
        kind, header: as written.
        contents: checksum by path of each dataset.
    """

    def __init__(self, h5file, name: str):
        self.h5file, self.name = h5file, name
        version = h5file.attrs.get("format")
        if not isinstance(version, np.integer) or "seal" not in h5file.attrs:
            raise CheckpointError(f"{name} is not a complete file of hpcmsm; give another file")
        if int(version) > FORMAT:
            raise CheckpointError(f"{name} is of the newer format {version}; read it with a newer hpcmsm")
        self.kind, header, seal = (decoded(h5file.attrs[key]) for key in ("kind", "header", "seal"))
        contents = self._string("contents")
        if seal != _seal(int(version), self.kind, header, contents):
            raise self.damaged("its seal is broken")
        self.header, self.contents = json.loads(header), json.loads(contents)

    def damaged(self, what: str) -> CheckpointError:
        """The error to raise when the file does not hold what it should."""
        return CheckpointError(f"{self.name} is damaged ({what}); use another file or write it anew")

    def names(self, group: str) -> list[str]:
        """Names of all datasets in cells, arrays or texts."""
        return [path.partition("/")[2] for path in sorted(self.contents) if path.startswith(f"{group}/")]

    def dataset(self, path: str):
        """A dataset, unread."""
        dataset = self.h5file.get(path)
        if not isinstance(dataset, h5py.Dataset):
            raise self.damaged(f"{path} is missing")
        if dataset.dtype.kind not in "biufS":
            raise self.damaged(f"{path} holds neither numbers nor text")
        return dataset

    def field(self, name: str) -> Field:
        """The declaration of a cell field, as far as it is stored."""
        dataset = self.dataset(f"cells/{name}")
        unit, about, components = (decoded(dataset.attrs[key]) for key in ("unit", "about", "components"))
        size = len(components.split())
        return Field(name.rpartition("/")[2], size, unit, about.strip(), spd=bool(dataset.attrs["spd"]))

    def layout(self, name: str) -> Layout:
        """How the components of a cell field stand in the file."""
        return Layout.of(self.field(name), bool(self.dataset(f"cells/{name}").attrs["last"]))

    def cells(self, name: str, block) -> np.ndarray:
        """The cells of a block, shape (size, ncells), not yet verified."""
        dataset, layout = self.dataset(f"cells/{name}"), self.layout(name)
        if dataset.shape != layout.shape(block.grid_shape):
            raise self.damaged(f"{name} has the shape {dataset.shape}")
        return read_block(dataset, layout, block.owned)

    def array(self, name: str) -> np.ndarray:
        """A small array, verified."""
        array = self.dataset(f"arrays/{name}")[()]
        array = np.asarray(array)
        if array_digest(array) != self.contents[f"arrays/{name}"]:
            raise self.damaged(f"checksum of {name}")
        return array

    def text(self, name: str) -> str:
        """A text, verified."""
        text = self._string(f"texts/{name}")
        if text_digest(text) != self.contents[f"texts/{name}"]:
            raise self.damaged(f"checksum of {name}")
        return text

    def verify_cells(self, comm, sums: dict[str, np.ndarray]) -> None:
        """Collective. Compare the checksums of cell fields that all ranks have read.

        Args:
            sums: by name, what `cell_sums` gave on this rank; the same names on every rank.
        """
        together_sums = add_over_ranks(comm, np.concatenate([np.zeros(0, np.uint64), *sums.values()]))
        first = 0
        for name, part in sums.items():
            found = [f"{total:016x}" for total in together_sums[first : first + part.size]]
            if found != self.contents[f"cells/{name}"]:
                raise self.damaged(f"checksum of {name}")
            first += part.size

    def _string(self, path: str) -> str:
        return decoded(self.dataset(path)[()])


def decoded(text) -> str:
    """A string as HDF5 keeps it, in UTF-8."""
    return text if isinstance(text, str) else bytes(text).decode()


def verify(comm, path: Path, kind: str | None = None) -> None:
    """Collective. Read a whole file once and raise a CheckpointError unless every bit is as written."""
    with together(comm), open_sealed(path, kind) as reader:
        block = slab(comm, reader.header.get("grid_shape", [0]))
        keys = cell_keys(block.ids)
        sums = {name: cell_sums(reader.cells(name, block), keys) for name in reader.names("cells")}
        if comm.rank == 0:
            for name in reader.names("arrays"):
                reader.array(name)
            for name in reader.names("texts"):
                reader.text(name)
    reader.verify_cells(comm, sums)
