"""Reading files that others may have put there: regular files alone, and no more bytes than are expected.

A pipe or a device in a file's place would let the reader wait for ever or fill its memory, also through a link.
"""

from __future__ import annotations

import errno
import io
import os
import stat

__all__ = ["NO_FILE", "SMALL_FILE_BYTES", "open_regular", "read_bytes", "read_text"]

SMALL_FILE_BYTES = 4 << 20  # of a document: manifest, record, plan, report, points

NO_FILE = (errno.ENXIO,)  # the errors of `open_regular` for a pipe, a socket, a device
_LEAST_READ = 1 << 16

# A pipe is opened without waiting for its writer, and no child process inherits the file. Windows has neither flag.
_FLAGS = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)


def open_regular(path: str | os.PathLike[str]) -> io.FileIO:
    """Open a regular file for reading. Raises `OSError`, also for a folder, pipe, socket or device.

    The kind is asked of the file that was opened, so that nobody can exchange it in between.
    """
    descriptor = _opened(path)
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


def _opened(path: str | os.PathLike[str]) -> int:
    """A descriptor. Raises `OSError`."""
    try:
        return os.open(path, _FLAGS)
    except ValueError as error:  # a name with a null character
        raise OSError(errno.EINVAL, "its name cannot be a file's", str(path)) from error
    except OSError as error:
        if error.errno == errno.ENXIO:  # a socket, or a device that is not there
            raise OSError(errno.ENXIO, "it is a pipe or a device, not a file", str(path)) from error
        raise


def read_bytes(path: str | os.PathLike[str], limit: int = SMALL_FILE_BYTES) -> bytes:
    """The content of a regular file of at most `limit` bytes. Raises `OSError`, also for a larger one."""
    with open_regular(path) as file:
        size, parts = os.fstat(file.fileno()).st_size, []
        while size <= limit and (part := file.read(max(size, _LEAST_READ) + 1)):
            parts.append(part)
            size = max(size, sum(map(len, parts)))  # a file may grow, and those of /proc state no size
    if size > limit:
        raise OSError(errno.EFBIG, f"it is larger than the limit of {_shown(limit)}", str(path))
    return b"".join(parts)


def read_text(path: str | os.PathLike[str], limit: int = SMALL_FILE_BYTES, encoding: str = "utf-8") -> str:
    """The text of a regular file of at most `limit` bytes. Raises `OSError`, `UnicodeDecodeError`."""
    return read_bytes(path, limit).decode(encoding)


def _shown(limit: int) -> str:
    return f"{limit >> 20} MiB" if limit >= 1 << 20 else f"{limit} bytes"
