"""Zip archives, member by member in memory. What the directory declares is checked before memory is taken for it."""

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
MAX_TOTAL_BYTES = 4 << 30  # of all members, as declared
MAX_RATIO = 200  # deflate reaches 1000; a radiograph's noise keeps it below 10
_SMALL_BYTES = 16 << 20  # below this any ratio will do
_HEAD_BYTES = 4096
_MAX_DIRECTORY_BYTES = 4 << 20
_END, _ZIP64_LOCATOR, _LOCATOR_BYTES = b"PK\x05\x06", b"PK\x06\x07", 20

Member = tuple[str, Callable[[], BinaryIO]]


def is_archive(head: bytes) -> bool:
    return head[:4] in (b"PK\x03\x04", _END)


def members(file: BinaryIO, source: str, opened: ExitStack) -> Iterator[Member]:
    """Name and reader of each member that may be an image. Readers raise InputRejected and are safe between threads.

    `file` must stay open as long as the readers are used. Raises InputRejected (not-dicom, too-large) for the archive.
    """
    _check_directory(file, source)
    try:
        archive = opened.enter_context(zipfile.ZipFile(file))
    except (zipfile.BadZipFile, ValueError, NotImplementedError, OSError) as fault:
        raise InputRejected("not-dicom", f"{source} is a zip archive that cannot be read ({brief(fault)})") from None
    files = [
        info
        for info in archive.infolist()
        if info.filename and not info.is_dir() and not _is_passed_over(info.filename)
    ]
    if len(files) > MAX_MEMBERS or sum(info.file_size for info in files) > MAX_TOTAL_BYTES:
        raise _too_large(source)
    for info in sorted(files, key=lambda info: info.filename):
        yield info.filename, _reader(archive, info, f"{source}/{info.filename}")


def _is_passed_over(name: str) -> bool:
    """Index files, hidden ones, and what macOS adds."""
    parts = PurePosixPath(name).parts
    return not parts or parts[-1].upper() == "DICOMDIR" or parts[-1].startswith(".") or parts[0] == "__MACOSX"


def _check_directory(file: BinaryIO, source: str) -> None:
    """The end of the central directory (APPNOTE 4.3.16): its size bounds what opening the archive takes."""
    size = file.seek(0, io.SEEK_END)
    file.seek(max(0, size - (1 << 16) - 22 - _LOCATOR_BYTES))  # a comment of any length, and what may stand before it
    tail = file.read()
    plain = tail[-22:].startswith(_END) and tail.endswith(b"\0\0")  # as zipfile looks for it: first without a comment
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
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # others unpack without a bound
        raise InputRejected("not-dicom", f"{source} is packed by another method than deflate; unpack the archive")
    bomb = info.file_size > _SMALL_BYTES and info.file_size > MAX_RATIO * info.compress_size
    if info.file_size > MAX_MEMBER_BYTES or bomb:
        raise InputRejected(
            "too-large", f"{source} unpacks to {info.file_size} bytes from {info.compress_size}; give the file itself"
        )
