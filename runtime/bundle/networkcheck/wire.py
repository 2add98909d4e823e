"""Reads the wire format of ONNX files, and the external files that they name, without the package onnx.

Protocol Buffers' wire format (protobuf.dev/programming-guides/encoding) with the field numbers of onnx.proto: only the
messages that can lead to a tensor are entered, so the weights themselves are passed over.
"""

from __future__ import annotations

from collections.abc import Iterator
from mmap import mmap

__all__ = ["LENGTH_DELIMITED", "VARINT", "external_files", "length_fields", "varint", "wire_fields"]

# For each kind of message, the fields that hold messages: field number -> kind of message.
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
_SEARCHED = ("node", "tensor", "sparse", "entry")
_KEY, _VALUE = 1, 2  # of an entry of a tensor's external_data
_LOCATION = b"location"  # the key of the entry that names a file
LENGTH_DELIMITED, VARINT, _FIXED = 2, 0, {1: 8, 5: 4}
_MAX_DEPTH = 32
_SMALL = 65536  # bytes of a message that is searched for the key before it is entered field by field


def external_files(data: mmap) -> frozenset[str]:
    """Return the files that an ONNX file refers to, also in inner graphs and functions.

    Raises `IndexError` or `ValueError` if it is damaged.
    """
    return frozenset(_locations(data, 0, len(data), "model", 0))


def _locations(data: mmap, start: int, end: int, message: str, depth: int) -> Iterator[str]:
    """Yield the locations of entries; nodes and tensors without that key are passed over."""
    if depth > _MAX_DEPTH:
        raise ValueError("nested too deep")
    if message == "entry":
        texts = {number: bytes(data[first:last]) for number, first, last in length_fields(data, start, end)}
        if texts.get(_KEY) == _LOCATION:
            yield texts.get(_VALUE, b"").decode("utf-8", "replace")
        return
    inner = _FIELDS[message]
    for number, first, last in length_fields(data, start, end):
        if number in inner:
            searched = last - first < _SMALL and inner[number] in _SEARCHED
            if not (searched and data.find(_LOCATION, first, last) < 0):
                yield from _locations(data, first, last, inner[number], depth + 1)


def length_fields(data: mmap, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Yield the number and the place of every field that has a length."""
    for number, kind, first, last in wire_fields(data, start, end):
        if kind == LENGTH_DELIMITED:
            yield number, first, last


def wire_fields(data: mmap, start: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield the number, the kind and the place of every field of a message. Raises `IndexError`, `ValueError`."""
    position = start
    while position < end:
        tag, first = varint(data, position)
        number, kind = tag >> 3, tag & 7
        if kind == LENGTH_DELIMITED:
            size, first = varint(data, first)
            position = first + size
        elif kind == VARINT:
            _, position = varint(data, first)
        elif kind in _FIXED:
            position = first + _FIXED[kind]
        else:
            raise ValueError("a field of no known kind")
        if position > end:
            raise ValueError("a field is longer than its message")
        yield number, kind, first, position


def varint(data: mmap, position: int) -> tuple[int, int]:
    """Return the number at a position and the position behind it. Raises `IndexError`, `ValueError`."""
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
