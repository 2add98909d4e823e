"""The body of a call, written to files part by part while it arrives, within limits that are checked before memory.

Raises Malformed for anything that is not such a body. Names of files that the caller gives are not looked at.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path
from typing import Any

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

__all__ = ["DICOM", "FRAME", "ZIP", "Malformed", "Multipart", "Part", "Whole", "boundary_of"]

DICOM, ZIP, FRAME, _JSON = "application/dicom", "application/zip", "application/octet-stream", "application/json"
_KINDS = {DICOM: DICOM, ZIP: ZIP, "application/x-zip-compressed": ZIP, FRAME: FRAME}

logging.getLogger("python_multipart").addHandler(logging.NullHandler())  # it quotes what callers send

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_REQUEST = "request"
_MOST_REQUEST_BYTES = 1 << 16
_MOST_HEAD_BYTES = 4096
_SUFFIXES = {DICOM: ".dcm", ZIP: ".zip", FRAME: ".raw"}


class Malformed(Exception):
    """A body that is not what the caller was asked for; the sentence says what to do. `too_large` is a limit."""

    def __init__(self, sentence: str, *, too_large: bool = False) -> None:
        super().__init__(sentence)
        self.too_large = too_large


@dataclass
class Part:
    """A file that came: its name in the request, what it is, and where it lies."""

    name: str
    kind: str
    path: Path
    byte_count: int = 0


@dataclass
class _Head:
    """The lines before a part's content."""

    name: bytearray = field(default_factory=bytearray)
    value: bytearray = field(default_factory=bytearray)
    lines: dict[bytes, bytes] = field(default_factory=dict)
    byte_count: int = 0


class Files:
    """The files of one call in its folder, named by number, and its options if the body has them.

    A body is one with `write`, which takes in its next bytes, and `check`.
    """

    def __init__(self, folder: Path, most_files: int) -> None:
        self._folder, self._most = folder, most_files
        self.parts: list[Part] = []
        self.request: bytes | None = None
        self._file: FileIO | None = None

    def begin_file(self, name: str, kind: str) -> None:
        """Begin the next file. Raises Malformed if there are too many."""
        if len(self.parts) == self._most:
            raise Malformed(f"the body has more than {self._most} files; send one study", too_large=True)
        path = self._folder / f"image-{len(self.parts) + 1}{_SUFFIXES[kind]}"
        self.parts.append(Part(name, kind, path))
        self._file = FileIO(path, "x")

    def add(self, content: bytes | memoryview) -> None:
        """Write to the file that is open."""
        assert self._file is not None
        left = memoryview(content)
        self.parts[-1].byte_count += len(left)
        while left:
            left = left[self._file.write(left) or 0 :]

    def close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            file.close()


class Whole(Files):
    """A body that is one file."""

    def __init__(self, folder: Path, kind: str) -> None:
        super().__init__(folder, 1)
        self.begin_file("body", kind)

    def write(self, chunk: bytes) -> None:
        """Take in the next bytes of the body. Raises `OSError` of the disk."""
        self.add(chunk)

    def check(self) -> None:
        if not self.parts[0].byte_count:
            raise Malformed("the body is empty; send a DICOM file or a zip archive of some")


class Multipart(Files):
    """A body `multipart/form-data` with at most `most_files` files and a part `request`."""

    def __init__(self, folder: Path, boundary: bytes, most_files: int) -> None:
        super().__init__(folder, most_files)
        self._names: set[str] = set()
        self._head = _Head()
        self._text: bytearray | None = None  # of the part request; the content of other parts goes to their files
        self._ended = False
        names = ("part_begin", "header_field", "header_value", "header_end", "headers_finished", "part_data",
                 "part_end", "end")  # fmt: skip
        callbacks: Any = {f"on_{name}": getattr(self, f"_{name}") for name in names}
        try:
            self._parser = MultipartParser(boundary, callbacks)
        except FormParserError:
            raise Malformed("the boundary in the Content-Type is too long; let your library choose it") from None

    def write(self, chunk: bytes) -> None:
        """Take in the next bytes of the body. Raises Malformed, and `OSError` of the disk."""
        try:
            self._parser.write(chunk)
        except FormParserError:
            raise Malformed("the body is no multipart/form-data with the boundary of its Content-Type; let a library "
                            "make both") from None  # fmt: skip

    def check(self) -> None:
        if not self._ended:
            raise Malformed("the body ends before its last boundary; send it again")
        if not self.parts:
            raise Malformed(f"the body has no file; send DICOM files ({DICOM}), a zip archive of them "
                            f"({ZIP}), or raw frames ({FRAME}) with a part request")  # fmt: skip

    def _part_begin(self) -> None:
        self._head, self._text = _Head(), None

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._take_head(self._head.name, data, start, end)

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._take_head(self._head.value, data, start, end)

    def _take_head(self, target: bytearray, data: bytes, start: int, end: int) -> None:
        self._head.byte_count += end - start
        if self._head.byte_count > _MOST_HEAD_BYTES:
            text = f"the head of a part has more than {_MOST_HEAD_BYTES} bytes; send its Content-Disposition and -Type"
            raise Malformed(text, too_large=True)
        target += data[start:end]

    def _header_end(self) -> None:
        head = self._head
        head.lines[bytes(head.name).strip().lower()] = bytes(head.value)
        head.name.clear()
        head.value.clear()

    def _headers_finished(self) -> None:
        disposition, options = parse_options_header(self._head.lines.get(b"content-disposition"))
        name = options.get(b"name", b"").decode("latin-1")
        if disposition.lower() != b"form-data" or not _NAME.fullmatch(name):
            raise Malformed("a part has no name of 1 to 64 letters, digits, dots, hyphens and underscores in its "
                            "Content-Disposition: form-data; give it one")  # fmt: skip
        if name in self._names:
            raise Malformed(f"two parts have the name {name}; give each its own")
        self._names.add(name)
        kind = parse_options_header(self._head.lines.get(b"content-type"))[0].decode("latin-1").lower()
        if name == _REQUEST and kind in ("", _JSON, "text/plain"):
            self._text = bytearray()
        elif kind in _KINDS:
            self.begin_file(name, _KINDS[kind])
        else:
            kinds = f"{DICOM}, {ZIP} or {FRAME}"
            raise Malformed(f"the Content-Type of the part {name} is none of {kinds}; the part request is {_JSON}")

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        if self._text is None:
            self.add(memoryview(data)[start:end])
            return
        if len(self._text) + end - start > _MOST_REQUEST_BYTES:
            raise Malformed(f"the part request has more than {_MOST_REQUEST_BYTES} bytes; send the pixels as parts "
                            "of their own", too_large=True)  # fmt: skip
        self._text += data[start:end]

    def _part_end(self) -> None:
        if self._text is not None:
            self.request = bytes(self._text)
        self.close()

    def _end(self) -> None:
        self._ended = True


def boundary_of(content_type: str) -> bytes:
    """Return the boundary in a Content-Type. Raises Malformed if there is none."""
    boundary = parse_options_header(content_type)[1].get(b"boundary", b"")
    if not boundary:
        raise Malformed("the Content-Type multipart/form-data has no boundary; let your library make it")
    return boundary


class Related(Multipart):
    """A body `multipart/related` of DICOM files without names (PS3.18, section 8.6.1.2)."""

    def _headers_finished(self) -> None:
        kind = parse_options_header(self._head.lines.get(b"content-type"))[0].decode("latin-1").lower()
        if kind not in ("", DICOM):
            raise Malformed(f"a part has another Content-Type than {DICOM}; send DICOM files")
        self.begin_file(str(len(self.parts) + 1), DICOM)
