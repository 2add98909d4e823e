"""DICOM files as streams: opening, the header, deflated data sets, and the warnings that reading them raises.

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
_HEADER_BYTES = 16 << 20  # no more is read of a header; a deflated one is inflated no further
_HEADER_READS = 50_000  # an element takes one or two, an item one; a radiograph's header has a few hundred
_PACKED_BYTES = 256 << 20  # and no more than this of a deflated file is read
_DEFER_BYTES = 4 << 20  # larger elements are left in the file


class _Header:
    """What pydicom reads a header from: `head`, the file's first bytes, and the stream itself beyond them.

    It asks for its place at every element, and a file's `tell` is a system call, at which threads hand over to each
    other. Reads and bytes are counted: pydicom makes a kilobyte or two of a small element.
    """

    def __init__(self, head: bytes, stream: BinaryIO) -> None:
        self._head, self._stream = head, stream
        self._at = self._reads = self._taken = 0
        self.too_large = False

    def read(self, size: int = -1) -> bytes:
        end = self._at + size
        if 0 <= self._at <= end <= len(self._head):
            found = self._head[self._at : end]
        else:
            self._stream.seek(self._at)
            found = self._stream.read(size)
        self._at += len(found)
        self._reads += 1
        self._taken += len(found)
        if self._reads > _HEADER_READS or self._taken > _HEADER_BYTES:
            self.too_large = True
            raise ValueError("the header is too large")
        return found

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence == io.SEEK_CUR:
            offset += self._at
        self._at = self._stream.seek(offset, whence) if whence == io.SEEK_END else offset
        return self._at


class _Stream(io.BufferedReader):
    """A file whose `read` never takes more memory than there are bytes, whatever length an element declares."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or not 0 <= size <= 1 << 16:
            left = max(os.fstat(self.fileno()).st_size - self.tell(), 0)
            size = left if size is None or size < 0 else min(size, left)
        return super().read(size)


class _Inflated(io.BytesIO):
    """The beginning of a deflated dataset; `packed` is all of it, still deflated."""

    packed = b""


def open_file(path: Path, source: str) -> _Stream:
    """A regular file of at most `MAX_FILE_BYTES`. Raises InputRejected."""
    try:
        file = open_regular(path)
    except IsADirectoryError:
        raise InputRejected("not-dicom", f"{source} is a folder; read it with load_study") from None
    except OSError as fault:
        what = "is a device or a pipe; give the file itself"
        if fault.errno not in NO_FILE:
            what = f"cannot be opened ({fault.strerror}); check the path"
        raise InputRejected("not-dicom", f"{source} {what}") from None
    size = os.fstat(file.fileno()).st_size
    if size > MAX_FILE_BYTES:
        file.close()
        message = f"{source} has {size} bytes, the limit is {MAX_FILE_BYTES}; give the original image"
        raise InputRejected("too-large", message)
    return _Stream(file)


def read_header(stream: BinaryIO, source: str) -> tuple[FileDataset, BinaryIO, str | None]:
    """Everything before the pixels, a stream that stands at them, and the transfer syntax that the file names."""
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
        raise InputRejected("not-dicom", f"{source} is not DICOM that can be read ({brief(fault)})") from None
    if not any(keyword in ds for keyword in ("SOPClassUID", "Modality", "StudyInstanceUID", "Rows")):
        raise InputRejected("not-dicom", f"{source} does not hold a DICOM image; give the original files of the study")
    return ds, stream, syntax or None


def _parsed(head: bytes, stream: BinaryIO, source: str) -> FileDataset:
    """The elements before the pixels, at which `stream` stands afterwards.

    Those that are left in the file are left out, for nothing reads them later.
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
    ds.buffer = None  # the file is not kept open, nor its bytes in memory
    for tag, element in list(ds.items()):
        if element.value is None and getattr(element, "length", 0) > _DEFER_BYTES:
            del ds[tag]
    return ds


def is_plausible(head: bytes) -> bool:
    """A preamble with its mark, or a first element of group 2 or 8 with a sane VR or length (PS3.10 7.1)."""
    if head[128:132] == b"DICM":
        return True
    little = head[:2] in (b"\x02\x00", b"\x08\x00") and head[3:4] == b"\x00"
    big = head[:3] == b"\x00\x08\x00"
    explicit = head[4:6].isalpha() and head[4:6].isupper()
    return len(head) >= 16 and ((little and (explicit or head[6:8] == b"\x00\x00")) or (big and explicit))


def _file_meta(head: bytes) -> tuple[str | None, int]:
    """The transfer syntax and the start of the data set, from the file meta information (PS3.10 7.1, explicit VR)."""
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
    """`stream` itself, or for a deflated file one in its place that reaches to the end of the pixels, at Pixel Data."""
    if not isinstance(stream, _Inflated):
        return stream
    here = stream.tell()
    if here >= _HEADER_BYTES:  # an element that claims to reach beyond what was inflated: there are no pixels to find
        return stream
    packed, stream.packed = stream.packed, b""
    stream.close()  # its memory is free before more is taken
    whole = io.BytesIO(_inflate(packed, here + 12 + byte_count + 2))
    whole.seek(here)
    return whole


def bytes_left(file: BinaryIO) -> int:
    here = file.tell()
    end = file.seek(0, 2)
    file.seek(here)
    return end - here
