"""Which other files an ONNX file takes its weights from, without the package onnx.

Protocol Buffers' wire format (protobuf.dev/programming-guides/encoding) with the field numbers of onnx.proto: only the
messages that can lead to a tensor are entered, so the weights themselves are passed over.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path

from spinescore.runtime.errors import BundleError

__all__ = ["external_files"]

# For each message the fields that hold others: field number -> message.
_FIELDS: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "entry"},
    "entry": {},
}
_KEY, _VALUE = 1, 2  # of an entry of a tensor's external_data
_LOCATION = b"location"  # the key of the entry that names a file
_LENGTH_DELIMITED, _VARINT, _FIXED = 2, 0, {1: 8, 5: 4}
_MAX_DEPTH = 32
_SMALL = 65536  # bytes of a message that is searched for the key before it is entered field by field


def external_files(path: Path) -> set[str]:
    """The locations that tensors in the ONNX file name. Raises `BundleError` for a damaged file."""
    with path.open("rb") as file:
        if not path.stat().st_size:
            return set()
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            try:
                return set(_locations(data, 0, len(data), "model", 0))
            except (IndexError, ValueError) as error:
                raise BundleError(
                    f"The network {path} is no ONNX file, or damaged; export the bundle again."
                ) from error


def _locations(data: mmap.mmap, start: int, end: int, message: str, depth: int) -> Iterator[str]:
    if depth > _MAX_DEPTH:
        raise ValueError("nested too deep")
    if message == "entry":
        texts = {number: bytes(data[first:last]) for number, first, last in _fields(data, start, end)}
        if texts.get(_KEY) == _LOCATION:
            yield texts.get(_VALUE, b"").decode("utf-8", "replace")
        return
    inner = _FIELDS[message]
    for number, first, last in _fields(data, start, end):
        if number not in inner or (last - first < _SMALL and data.find(_LOCATION, first, last) < 0):
            continue
        yield from _locations(data, first, last, inner[number], depth + 1)


def _fields(data: mmap.mmap, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """The number and the place of every field that has a length."""
    position = start
    while position < end:
        tag, position = _varint(data, position)
        number, kind = tag >> 3, tag & 7
        if kind == _LENGTH_DELIMITED:
            size, position = _varint(data, position)
            if position + size > end:
                raise ValueError("a field is longer than its message")
            yield number, position, position + size
            position += size
        elif kind == _VARINT:
            _, position = _varint(data, position)
        elif kind in _FIXED:
            position += _FIXED[kind]
        else:
            raise ValueError("a field of no known kind")


def _varint(data: mmap.mmap, position: int) -> tuple[int, int]:
    value = shift = 0
    if (byte := data[position]) < 0x80:  # most of them
        return byte, position + 1
    while shift < 64:
        byte = data[position]
        value |= (byte & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if byte < 0x80:
            return value, position
    raise ValueError("a number without an end")
