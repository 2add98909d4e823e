"""Zip archives, read member by member in memory. Declared sizes are checked before memory is taken."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import PurePosixPath
from typing import BinaryIO

from spinescore.runtime.errors import InputRejected
from spinescore.runtime.reading.dicomfile import is_plausible
from spinescore.runtime.text import brief

__all__ = ["MAX_MEMBERS", "MAX_MEMBER_BYTES", "MAX_RATIO", "MAX_TOTAL_BYTES", "is_archive", "members"]

MAX_MEMBERS = 4096
MAX_MEMBER_BYTES = 512 << 20
MAX_TOTAL_BYTES = 4 << 30  # declared for all members together
MAX_RATIO = 200  # deflate can reach 1000, but the noise of a radiograph keeps it below 10
_SMALL_BYTES = 16 << 20  # a smaller member may have any ratio
_HEAD_BYTES = 4096
_MAX_DIRECTORY_BYTES = 4 << 20
_END, _ZIP64_LOCATOR, _LOCATOR_BYTES = b"PK\x05\x06", b"PK\x06\x07", 20

Member = tuple[str, Callable[[], BinaryIO]]


def is_archive(head: bytes) -> bool:
    """Return whether a file that begins with `head` is a zip archive."""
    return head[:4] in (b"PK\x03\x04", _END)


def members(file: BinaryIO, source: str, opened: ExitStack) -> Iterator[Member]:
    """Yield the name and a reader of each member that may be an image.

    Readers raise InputRejected and may be used by several threads. `file` must stay open as long as they are used.
    Raises InputRejected (not-dicom, too-large) for the archive itself.
    """
    _check_directory(file, source)
    try:
        archive = opened.enter_context(zipfile.ZipFile(file))
    except (zipfile.BadZipFile, ValueError, NotImplementedError, OSError) as fault:
        message = f"{source} is a zip archive that cannot be read ({brief(fault)}); copy it again"
        raise InputRejected("not-dicom", message) from None
    files = [info for info in archive.infolist() if not (info.filename.endswith("/") or _is_skipped(info.filename))]
    if len(files) > MAX_MEMBERS or sum(info.file_size for info in files) > MAX_TOTAL_BYTES:
        raise _too_large(source)
    for info in sorted(files, key=lambda info: info.filename):
        yield info.filename, _reader(archive, info, f"{source}/{info.filename}")


def _is_skipped(name: str) -> bool:
    """Return whether a member is an index file, a hidden file, or an addition of macOS."""
    parts = PurePosixPath(name).parts
    return not parts or parts[-1].upper() == "DICOMDIR" or parts[-1].startswith(".") or parts[0] == "__MACOSX"


def _check_directory(file: BinaryIO, source: str) -> None:
    """Check the size of the central directory (APPNOTE 4.3.16), which bounds the memory for opening the archive."""
    size = file.seek(0, io.SEEK_END)
    file.seek(max(0, size - (1 << 16) - 22 - _LOCATOR_BYTES))  # enough for the longest comment and a Zip64 locator
    tail = file.read()
    # Like zipfile, look first for an end without a comment.
    plain = tail[-22:].startswith(_END) and tail.endswith(b"\0\0")
    at = len(tail) - 22 if plain else tail.rfind(_END)
    if at < 0 or len(tail) < at + 22:
        raise InputRejected("not-dicom", f"{source} is a zip archive that is cut short; copy it again")
    directory_bytes = int.from_bytes(tail[at + 12 : at + 16], "little")
    if directory_bytes > _MAX_DIRECTORY_BYTES or tail[max(0, at - _LOCATOR_BYTES) : at].startswith(_ZIP64_LOCATOR):
        raise _too_large(source)


def _too_large(source: str) -> InputRejected:
    return InputRejected(
        "too-large",
        f"{source} is an archive of more than {MAX_MEMBERS} files or {MAX_TOTAL_BYTES >> 30} GiB; "
        "give one study's files, or unpack it and give the folder",
    )


def _reader(archive: zipfile.ZipFile, info: zipfile.ZipInfo, source: str) -> Callable[[], BinaryIO]:
    def read() -> BinaryIO:
        _check_member(info, source)
        try:
            with archive.open(info) as member:
                head = member.read(_HEAD_BYTES)
                if not is_plausible(head):
                    raise InputRejected("not-dicom", f"{source} is not a DICOM file")
                return io.BytesIO(head + member.read(info.file_size))
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, NotImplementedError) as fault:
            message = f"{source} cannot be unpacked ({brief(fault)}); copy the archive again"
            raise InputRejected("corrupt-pixels", message) from None

    return read


def _check_member(info: zipfile.ZipInfo, source: str) -> None:
    if info.flag_bits & 1:
        raise InputRejected("not-dicom", f"{source} is encrypted; unpack the archive and give the folder")
    # zipfile unpacks other methods without a limit.
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise InputRejected("not-dicom", f"{source} is compressed by a method other than deflate; unpack the archive")
    bomb = info.file_size > _SMALL_BYTES and info.file_size > MAX_RATIO * info.compress_size
    if info.file_size > MAX_MEMBER_BYTES or bomb:
        message = f"{source} unpacks to {info.file_size} bytes from {info.compress_size}; give the file itself"
        raise InputRejected("too-large", message)
