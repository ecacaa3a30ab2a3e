"""Labelled images and volumes: .npy, .tif (stacks too) and other pictures, and datasets of HDF5 files."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

from hpcmsm.errors import ConfigError, SetupError
from hpcmsm.io.store import h5py

TIFF = (".tif", ".tiff")
PICTURES = (".png", ".bmp", ".pgm")
HDF5 = (".h5", ".hdf5")


def read_labels(folder: Path, name: str) -> np.ndarray:
    """Read an image or a volume of phase numbers. Every rank may call it by itself.

    Args:
        folder: where relative names start.
        name: "fibres.npy", "fibres.tif", "fibres.png" (grey levels are the phase numbers), or
            "fibres.h5:/group/dataset". A .tif with several pages is a volume, the first at the lowest z.
    Returns:
        Values as they stand in the file, shape ([nz,] ny, nx), the first row at the lowest y.
    Raises:
        ConfigError: the file is missing, damaged or of an unknown kind.
        SetupError: no library that reads such a file is installed.
    """
    file_name, _, dataset = name.partition(":")
    path = Path(folder) / file_name
    if not path.is_file():
        raise ConfigError(f"image must be a file that exists, got '{path}'; check the path")
    ending = path.suffix.lower()
    readers = {".npy": _read_npy, **dict.fromkeys(TIFF, _read_tiff), **dict.fromkeys(PICTURES, _read_picture)}
    try:
        if ending in HDF5:
            return _read_hdf5(path, dataset)
        if ending in readers:
            return np.squeeze(readers[ending](path))
    except (OSError, EOFError, ValueError, SyntaxError, struct.error) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(f"image must be readable, got '{path}' ({reason}); write it again") from None
    known = ", ".join((".npy", *TIFF, *PICTURES, *(f"{end}:/dataset" for end in HDF5)))
    raise ConfigError(f"image must be one of {known}, got '{path.name}'; convert it")


def _read_npy(path: Path) -> np.ndarray:
    return np.load(path, allow_pickle=False)


def _read_hdf5(path: Path, dataset: str) -> np.ndarray:
    with h5py.File(path, "r") as file:
        if dataset and isinstance(file.get(dataset), h5py.Dataset):
            return np.squeeze(file[dataset][...])
        found = []
        file.visititems(
            lambda name, item: found.append(f"/{name}") if isinstance(item, h5py.Dataset) else None
        )
    raise ConfigError(
        f"image in an HDF5 file must name a dataset, got '{path.name}:{dataset}'; it holds "
        f"{', '.join(found) or 'none'}"
    )


def _read_tiff(path: Path) -> np.ndarray:
    try:
        import tifffile
    except ImportError:
        return _read_picture(path)
    return tifffile.imread(path)


def _read_picture(path: Path) -> np.ndarray:
    try:
        from PIL import Image, ImageSequence
    except ImportError:
        raise SetupError(
            f"a library that reads '{path.suffix}' must be installed, got none for '{path.name}'; "
            "pip install tifffile pillow, or save the image as .npy"
        ) from None
    with Image.open(path) as image:
        pages = [np.array(page) for page in ImageSequence.Iterator(image)]
    if len({page.shape for page in pages}) > 1:
        raise ValueError("its pages have different sizes")
    if pages[0].ndim > 2:
        raise ValueError(f"it has {pages[0].shape[2]} colours a pixel; grey levels are the phase numbers")
    return np.stack(pages)
