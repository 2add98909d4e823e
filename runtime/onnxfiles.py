"""Reads operators and external files of an ONNX file, without its weights and without the package onnx.

Protocol Buffers' wire format (protobuf.dev/programming-guides/encoding) with the field numbers of onnx.proto: only the
messages that can lead to a tensor are entered, so the weights themselves are passed over.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from spinescore.runtime.errors import BundleError
from spinescore.runtime.files import open_regular

__all__ = ["NetworkFacts", "network_facts"]

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
_TENSORS = ("tensor", "sparse", "entry")  # what leads to locations alone
_OPERATOR = 4  # of a node
_KEY, _VALUE = 1, 2  # of an entry of a tensor's external_data
_LOCATION = b"location"  # the key of the entry that names a file
_LENGTH_DELIMITED, _VARINT, _FIXED = 2, 0, {1: 8, 5: 4}
_MAX_DEPTH = 32
_SMALL = 65536  # bytes of a message that is searched for the key before it is entered field by field


@dataclass(frozen=True)
class NetworkFacts:
    """`locations` are the files that tensors name, `operators` those of the wanted ones that nodes have."""

    locations: frozenset[str]
    operators: frozenset[str]


def network_facts(path: Path, wanted: frozenset[str]) -> NetworkFacts:
    """Return the files that an ONNX file refers to, and those of the `wanted` operators that it has.

    Inner graphs and functions are looked into as well. Raises `BundleError` if the file is damaged.
    """
    with open_regular(path) as file:
        if not os.fstat(file.fileno()).st_size:
            return NetworkFacts(frozenset(), frozenset())
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            words = (_LOCATION, *(name.encode() for name in wanted))
            try:
                found = list(_found(data, 0, len(data), "model", words, 0))
            except (IndexError, ValueError) as error:
                raise BundleError(
                    f"The network {path} is no ONNX file, or damaged; export the bundle again."
                ) from error
    locations = frozenset(text for message, text in found if message == "entry")
    return NetworkFacts(locations, wanted.intersection(text for message, text in found if message == "node"))


def _found(
    data: mmap.mmap, start: int, end: int, message: str, words: Sequence[bytes], depth: int
) -> Iterator[tuple[str, str]]:
    """Locations of entries, and operators of nodes; nodes and tensors without one of the words are passed over."""
    if depth > _MAX_DEPTH:
        raise ValueError("nested too deep")
    if message == "entry":
        texts = {number: bytes(data[first:last]) for number, first, last in _fields(data, start, end)}
        if texts.get(_KEY) == _LOCATION:
            yield message, texts.get(_VALUE, b"").decode("utf-8", "replace")
        return
    inner = _FIELDS[message]
    for number, first, last in _fields(data, start, end):
        if message == "node" and number == _OPERATOR:
            yield message, bytes(data[first:last]).decode("utf-8", "replace")
        elif number in inner:
            sought = words if inner[number] == "node" else (_LOCATION,) if inner[number] in _TENSORS else ()
            small = last - first < _SMALL
            if not (small and sought and all(data.find(word, first, last) < 0 for word in sought)):
                yield from _found(data, first, last, inner[number], words, depth + 1)


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
