"""Pictures and one self-contained page of one run: `hpcmsm report DIR`."""

from __future__ import annotations

import os
from pathlib import Path

from hpcmsm.errors import ConfigError, SetupError
from hpcmsm.report.page import page
from hpcmsm.report.rundata import read_run


def make(folder: Path) -> list[Path]:
    """Write the pictures and index.html of a run into folder/report/.

    Args:
        folder: output folder of a run, finished or not, with a surrogate or without.
    Returns:
        the written files, the page last.
    Raises:
        ConfigError: the folder does not exist, or nothing can be written in it.
        CheckpointError: it holds no run, or a file of it is damaged.
        SetupError: matplotlib is missing.
    """
    run = read_run(Path(folder))
    pictures = _draw(run)
    target = Path(folder) / "report"
    try:
        target.mkdir(exist_ok=True)
        paths = [_write(target / picture.name, picture.png) for picture in pictures]
        return [*paths, _write(target / "index.html", page(run, pictures).encode())]
    except OSError as error:
        raise ConfigError(
            f"report folder must be writable, got '{target}' ({error.strerror}); "
            "change its rights or copy the run elsewhere"
        ) from None


def _draw(run) -> list:
    try:
        from hpcmsm.report.pictures import draw_all
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "matplotlib":
            raise
        raise SetupError(
            "hpcmsm report needs matplotlib, got none in this environment; pip install matplotlib"
        ) from None
    return draw_all(run)


def _write(path: Path, content: bytes) -> Path:
    """Write a file whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(content)
    temporary.replace(path)
    return path
