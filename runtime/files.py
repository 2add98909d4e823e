"""Files: read if they are regular and no larger than expected, hashed, and written whole or not at all.

A pipe or a device in a file's place would let the reader wait for ever or fill its memory, also through a link.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import stat
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "NO_FILE",
    "SMALL_FILE_BYTES",
    "file_sha256",
    "make_folder",
    "open_regular",
    "read_bytes",
    "read_text",
    "remove_unfinished",
    "write_atomic",
    "write_png",
    "write_set",
]

Content = bytes | str | None

SMALL_FILE_BYTES = 4 << 20  # of a document: manifest, record, plan, report, points

NO_FILE = (errno.ENXIO,)  # the errors of `open_regular` for a pipe, a socket, a device
_LEAST_READ = 1 << 16
_BLOCK = 1 << 20  # bytes that are hashed at a time

# A pipe is opened without waiting for its writer, and no child process inherits the file. Windows has neither flag.
_FLAGS = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)

_unfinished: set[Path] = set()


def open_regular(path: str | os.PathLike[str]) -> io.FileIO:
    """Open a regular file for reading. Raises `OSError`, also for a folder, pipe, socket or device.

    The opened file is asked for its kind, so that nobody can exchange it in between.
    """
    try:
        descriptor = os.open(path, _FLAGS)
    except ValueError as error:  # a name with a null character
        raise OSError(errno.EINVAL, "its name cannot be a file's", str(path)) from error
    except OSError as error:
        if error.errno == errno.ENXIO:  # a socket, or a device that is not there
            raise OSError(errno.ENXIO, "it is a pipe or a device, not a file", str(path)) from error
        raise
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, "it is a folder, not a file", str(path))
        if not stat.S_ISREG(mode):
            raise OSError(errno.ENXIO, "it is a pipe or a device, not a file", str(path))
        return io.FileIO(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_bytes(path: str | os.PathLike[str], limit: int = SMALL_FILE_BYTES) -> bytes:
    """Return the content of a regular file of at most `limit` bytes. Raises `OSError`, also for a larger one."""
    with open_regular(path) as file:
        size, parts = os.fstat(file.fileno()).st_size, []
        while size <= limit and (part := file.read(max(size, _LEAST_READ) + 1)):
            parts.append(part)
            size = max(size, sum(map(len, parts)))  # a file may grow, and those of /proc state no size
    if size > limit:
        shown = f"{limit >> 20} MiB" if limit >= 1 << 20 else f"{limit} bytes"
        raise OSError(errno.EFBIG, f"it is larger than the limit of {shown}", str(path))
    return b"".join(parts)


def read_text(path: str | os.PathLike[str], limit: int = SMALL_FILE_BYTES, encoding: str = "utf-8") -> str:
    """Return the text of a regular file of at most `limit` bytes. Raises `OSError`, `UnicodeDecodeError`."""
    return read_bytes(path, limit).decode(encoding)


def file_sha256(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a regular file, in hexadecimal digits. Raises `OSError`."""
    digest = hashlib.sha256()
    with open_regular(path) as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def make_folder(folder: Path) -> None:
    """Make a folder, with those above it. Raises `OSError`, one that says so where nobody can make one."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileNotFoundError as error:  # below /proc
        raise OSError(errno.EROFS, "no folder can be made there", str(folder)) from error


def write_atomic(path: str | os.PathLike[str], data: bytes | str) -> Path:
    """Write `data` (text as UTF-8) so that a reader sees the old file or the whole new one, never a part.

    Missing folders are made. Raises `OSError` if the disk refuses.
    """
    path = Path(path)
    make_folder(path.parent)
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


def write_set(folder: Path, files: Mapping[str, Content | Callable[[], Content]]) -> list[Path]:
    """Write files of one result, given by name as data or as a function that makes them; return the paths.

    None: a file of an earlier result with this name is removed. If a file cannot be made or written, the earlier files
    of its name and of all later names are removed, so that no parts of two results stand together. Raises `OSError`.
    """
    written: list[Path] = []
    try:
        for name, content in files.items():
            data = content() if callable(content) else content
            if data is None:
                (folder / name).unlink(missing_ok=True)
            else:
                written.append(write_atomic(folder / name, data))
    except BaseException:
        for path in {folder / name for name in files} - set(written):
            with suppress(OSError):
                path.unlink()
        raise
    return written


def remove_unfinished() -> None:
    """Remove the temporary files of `write_atomic`, in a process that ends while it writes."""
    for temporary in tuple(_unfinished):
        temporary.unlink(missing_ok=True)


def write_png(path: str | os.PathLike[str], image: NDArray[Any]) -> Path:
    """Write `image` (H x W grey or H x W x 3 blue-green-red, uint8 or uint16) as a PNG file, atomically."""
    import cv2
    import numpy as np

    done, data = cv2.imencode(".png", np.ascontiguousarray(image), [cv2.IMWRITE_PNG_COMPRESSION, 6])
    if not done:
        raise ValueError(f"{Path(path).name}: an image of shape {image.shape} and type {image.dtype} is no PNG")
    return write_atomic(path, data.tobytes())
