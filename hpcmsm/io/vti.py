"""Fields of one block of points as a .vti file (VTK XML image data), which ParaView opens."""

from __future__ import annotations

import base64
import os
from pathlib import Path
from xml.sax.saxutils import quoteattr

import numpy as np

from hpcmsm.errors import ConfigError


def write_vti(path: Path, fields: list, size: float = 1.0) -> None:
    """Write fields of the points of a square or cube as values of its voxels.

    Args:
        path: the file, replaced whole.
        fields: pairs of a Field and its values, shape (size, [nz,] ny, nx). Vectors of a plane get a
            third component 0.
        size: side length of the block.
    Raises:
        ConfigError: the file cannot be written.
    """
    shape = fields[0][1].shape[:0:-1]  # nx, ny[, nz]
    extent = [*shape, 1][:3]
    spacing = " ".join(repr(size / extent[0]) for _ in range(3))
    whole = " ".join(f"0 {n}" for n in extent)
    arrays = "".join(_array(field, values) for field, values in fields)
    text = (
        '<?xml version="1.0"?>\n'
        '<VTKFile type="ImageData" version="1.0" byte_order="LittleEndian" header_type="UInt64">\n'
        f'<ImageData WholeExtent="{whole}" Origin="0 0 0" Spacing="{spacing}">\n'
        f'<Piece Extent="{whole}"><CellData>\n{arrays}</CellData></Piece>\n'
        "</ImageData>\n</VTKFile>\n"
    )
    replace_file(path, text.encode())


def _array(field, values: np.ndarray) -> str:
    if values.shape[0] == 2:
        values = np.concatenate([values, np.zeros_like(values[:1])])
    flat = np.ascontiguousarray(np.moveaxis(values, 0, -1), dtype="<f8").tobytes()
    data = base64.b64encode(np.uint64(len(flat)).astype("<u8").tobytes() + flat).decode()
    return (
        f'<DataArray type="Float64" Name={quoteattr(f"{field.name} [{field.unit}]")} '
        f'NumberOfComponents="{values.shape[0]}" format="binary">{data}</DataArray>\n'
    )


def replace_file(path: Path, content: bytes) -> None:
    """Write a file whole or not at all.

    Raises:
        ConfigError: it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    except OSError as error:
        raise ConfigError(
            f"output file must be writable, got '{path}' ({error.strerror}); choose another place"
        ) from None
