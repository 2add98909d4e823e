"""DICOM files as streams: how they are opened, how the header is read, and how deflated data sets are inflated.

No step takes more memory than a file has bytes, or than its checked header declares.
"""

from __future__ import annotations

import io
import os
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from spinescore.runtime.errors import InputRejected
from spinescore.runtime.files import NO_FILE, open_regular
from spinescore.runtime.reading.decoding.syntaxes import DEFLATED, EXPLICIT_LITTLE_ENDIAN
from spinescore.runtime.text import brief

if TYPE_CHECKING:
    from pydicom.dataset import FileDataset

__all__ = ["MAX_FILE_BYTES", "bytes_left", "inflated_to", "is_plausible", "open_file", "read_header"]

MAX_FILE_BYTES = 1 << 30

_META_BYTES = 64 << 10
_HEADER_BYTES = 16 << 20  # the most that is read or inflated of a header
_HEADER_READS = 50_000  # an element takes one or two; the header of a radiograph has a few hundred elements
_PACKED_BYTES = 256 << 20  # the most that is read of a deflated file
_DEFER_BYTES = 4 << 20  # larger elements are left in the file


class _Header:
    """The stream from which pydicom reads a header: first `head`, the file's first bytes, then the file itself.

    pydicom asks for its position at every element. A file's `tell` would be a system call, at which threads switch.
    Reads and bytes are limited, because pydicom takes a kilobyte or two for a small element.
    """

    def __init__(self, head: bytes, stream: BinaryIO) -> None:
        self._head, self._stream = head, stream
        self._at = self._reads = self._taken = 0
        self.too_large = False

    def read(self, size: int = -1) -> bytes:
        end = self._at + size
        if 0 <= self._at <= end <= len(self._head):
            data = self._head[self._at : end]
        else:
            self._stream.seek(self._at)
            data = self._stream.read(size)
        self._at += len(data)
        self._reads += 1
        self._taken += len(data)
        if self._reads > _HEADER_READS or self._taken > _HEADER_BYTES:
            self.too_large = True
            raise ValueError("the header is too large")
        return data

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence == io.SEEK_CUR:
            offset += self._at
        self._at = self._stream.seek(offset, whence) if whence == io.SEEK_END else offset
        return self._at


class _Stream(io.BufferedReader):
    """A file whose `read` never takes more memory than it has bytes, whatever length an element declares."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or not 0 <= size <= 1 << 16:
            left = max(os.fstat(self.fileno()).st_size - self.tell(), 0)
            size = left if size is None or size < 0 else min(size, left)
        return super().read(size)


class _Inflated(io.BytesIO):
    """The inflated beginning of a deflated data set. `packed` is all of it, still deflated."""

    packed = b""


def open_file(path: Path, source: str) -> _Stream:
    """Open a regular file of at most `MAX_FILE_BYTES`. Raises InputRejected for any other."""
    try:
        file = open_regular(path)
    except IsADirectoryError:
        raise InputRejected("not-dicom", f"{source} is a folder; read it with load_study") from None
    except OSError as fault:
        reason = "is a device or a pipe; give the file itself"
        if fault.errno not in NO_FILE:
            reason = f"cannot be opened ({fault.strerror}); check the path"
        raise InputRejected("not-dicom", f"{source} {reason}") from None
    size = os.fstat(file.fileno()).st_size
    if size > MAX_FILE_BYTES:
        file.close()
        message = f"{source} has {size} bytes, the limit is {MAX_FILE_BYTES}; give the original image"
        raise InputRejected("too-large", message)
    return _Stream(file)


def read_header(stream: BinaryIO, source: str) -> tuple[FileDataset, BinaryIO, str | None]:
    """Return the header, a stream that stands at the pixels, and the transfer syntax that the file names.

    Raises InputRejected: not-dicom or too-large.
    """
    head = stream.read(_META_BYTES)
    if not is_plausible(head):
        raise InputRejected("not-dicom", f"{source} is not a DICOM file; give the original files of the study")
    try:
        syntax, start = _file_meta(head)
        if syntax == DEFLATED:
            stream.seek(start)
            packed = stream.read(_PACKED_BYTES)
            head, stream, syntax = b"", _Inflated(_inflate(packed, _HEADER_BYTES)), EXPLICIT_LITTLE_ENDIAN
            stream.packed = packed
        ds = _parsed(head, stream, source)
    except InputRejected:
        raise
    except Exception as fault:
        raise InputRejected("not-dicom", f"{source} cannot be read as DICOM ({brief(fault)}); send it again") from None
    if not any(keyword in ds for keyword in ("SOPClassUID", "Modality", "StudyInstanceUID", "Rows")):
        raise InputRejected("not-dicom", f"{source} does not hold a DICOM image; give the original files of the study")
    return ds, stream, syntax or None


def _parsed(head: bytes, stream: BinaryIO, source: str) -> FileDataset:
    """Return the elements before the pixels, without large ones; `stream` is then at the pixels.

    Large elements stay in the file, and nothing reads them later.
    """
    from pydicom import dcmread

    header = _Header(head, stream)
    try:
        ds = dcmread(header, defer_size=_DEFER_BYTES, stop_before_pixels=True, force=True)
    except Exception as fault:
        if header.too_large:
            message = (
                f"{source} has more than {_HEADER_READS} elements or {_HEADER_BYTES >> 20} MB before its pixels; "
                "give the original radiograph"
            )
            raise InputRejected("too-large", message) from None
        if isinstance(fault, RecursionError) or isinstance(fault.__context__, RecursionError):
            message = f"{source} nests sequences deeper than any image needs; send it again from the modality"
            raise InputRejected("not-dicom", message) from None
        raise
    stream.seek(header.tell())
    ds.buffer = None  # else the dataset would keep the file open, or its bytes in memory
    for tag, element in list(ds.items()):
        if element.value is None and getattr(element, "length", 0) > _DEFER_BYTES:
            del ds[tag]
    return ds


def is_plausible(head: bytes) -> bool:
    """Return whether a file may be DICOM: it has the mark, or begins with a plausible element (PS3.10 7.1).

    The element must be of group 2 or 8, with a valid VR or a small length.
    """
    if head[128:132] == b"DICM":
        return True
    little = head[:2] in (b"\x02\x00", b"\x08\x00") and head[3:4] == b"\x00"
    big = head[:3] == b"\x00\x08\x00"
    explicit = head[4:6].isalpha() and head[4:6].isupper()
    return len(head) >= 16 and ((little and (explicit or head[6:8] == b"\x00\x00")) or (big and explicit))


def _file_meta(head: bytes) -> tuple[str | None, int]:
    """Return the transfer syntax and the start of the data set, from the file meta information (PS3.10 7.1)."""
    at, syntax = (132, None) if head[128:132] == b"DICM" else (0, None)
    while head[at : at + 2] == b"\x02\x00":
        if at + 12 > len(head):
            raise ValueError(f"more than {len(head)} bytes of file meta information")
        long_form = head[at + 4 : at + 6] in (b"OB", b"UN", b"OW", b"SQ", b"UT")
        start = at + (12 if long_form else 8)
        length = int.from_bytes(head[start - 4 : start] if long_form else head[start - 2 : start], "little")
        if head[at + 2 : at + 4] == b"\x10\x00":
            syntax = head[start : start + length].decode("ascii", "replace").strip(" \0")
        at = start + length
    return syntax, at


def _inflate(packed: bytes, limit: int) -> bytes:
    return zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, limit)


def inflated_to(stream: BinaryIO, byte_count: int) -> BinaryIO:
    """Return a stream at the Pixel Data that reaches to their end: `stream` itself unless it is deflated."""
    if not isinstance(stream, _Inflated):
        return stream
    here = stream.tell()
    if here >= _HEADER_BYTES:  # an element claims to reach beyond the inflated part: no pixels can be found
        return stream
    packed, stream.packed = stream.packed, b""
    stream.close()  # frees its memory before more is taken
    whole = io.BytesIO(_inflate(packed, here + 12 + byte_count + 2))
    whole.seek(here)
    return whole


def bytes_left(file: BinaryIO) -> int:
    """Return the number of bytes from the position of `file` to its end."""
    here = file.tell()
    end = file.seek(0, 2)
    file.seek(here)
    return end - here
