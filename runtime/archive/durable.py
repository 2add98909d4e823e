"""Files that appear whole, and are on the disk when a function returns."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

__all__ = ["move", "write_new", "write_whole"]


def write_new(path: Path, data: bytes) -> None:
    """Write a file that nobody reads yet. Raises OSError."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def write_whole(path: Path, data: bytes) -> None:
    """Write a file by temporary file and rename. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write_new(temporary, data)
        move(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def move(source: Path, target: Path) -> None:
    """Give a file or folder its final name; a file there is replaced."""
    source.replace(target)
    with suppress(OSError):  # Windows opens no folder
        descriptor = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
