"""Files that appear whole or not at all, and text tables."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spinescore.runtime.text import one_line

__all__ = ["remove_unfinished", "table", "write_atomic", "write_png"]

_unfinished: set[Path] = set()


def write_atomic(path: str | os.PathLike[str], data: bytes | str) -> Path:
    """Write `data` (text as UTF-8) to `path` so that a reader sees the old file or the whole new one, never a part.

    Missing folders are made. Raises OSError where the disk refuses.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    temporary = Path(name)
    _unfinished.add(temporary)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
        if os.name == "posix":  # mkstemp makes files that only the owner reads; the result follows the umask instead
            umask = os.umask(0)
            os.umask(umask)
            temporary.chmod(0o666 & ~umask)
        temporary.replace(path)
    except BaseException as error:
        if isinstance(error, OSError) and error.filename is None:  # a full disk names no file
            error.filename = str(path)
        temporary.unlink(missing_ok=True)
        raise
    finally:
        _unfinished.discard(temporary)
    return path


def remove_unfinished() -> None:
    """Remove the files that are being written, in a process that ends in the midst of it."""
    for temporary in tuple(_unfinished):
        temporary.unlink(missing_ok=True)


def write_png(path: str | os.PathLike[str], image: NDArray[Any]) -> Path:
    """Write `image` (H x W grey or H x W x 3 blue-green-red, uint8 or uint16) as a PNG file, atomically."""
    import cv2

    done, data = cv2.imencode(".png", np.ascontiguousarray(image), [cv2.IMWRITE_PNG_COMPRESSION, 6])
    if not done:
        raise ValueError(f"{Path(path).name}: an image of shape {image.shape} and type {image.dtype} is no PNG")
    return write_atomic(path, data.tobytes())


def table(rows: Sequence[Sequence[object]], header: Sequence[str]) -> str:
    """Rows as aligned text under `header`: numbers to the right, the rest to the left."""
    cells = [[one_line(cell) for cell in row] for row in (header, *rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(header))]
    right = [bool(rows) and all(isinstance(row[column], (int, float)) for row in rows) for column in range(len(header))]
    lines = [
        "  ".join(c.rjust(w) if r else c.ljust(w) for c, w, r in zip(line, widths, right, strict=True)).rstrip()
        for line in cells
    ]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)
