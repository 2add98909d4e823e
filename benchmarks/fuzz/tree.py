"""DICOM files as trees of elements: parsed, and encoded again after mutation."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

__all__ = ["LONG", "PIXEL_DATA", "SHORT", "UNDEFINED", "Element", "Parent", "Tree", "encoded", "parent", "tree"]

PIXEL_DATA = 0x7FE00010
LONG = (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV")
SHORT = (b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FD", b"FL", b"IS", b"LO", b"LT", b"PN", b"SH", b"SL",
          b"SS", b"ST", b"TM", b"UI", b"UL", b"US")  # fmt: skip
UNDEFINED = 0xFFFFFFFF


@dataclass(frozen=True)
class Element:
    """One element; `length`, if not None, is written in place of the true length."""

    tag: int
    vr: bytes
    value: bytes
    length: int | None = None


@dataclass(frozen=True)
class Tree:
    """A file for mutations: preamble and mark, meta elements, elements of the data set, and its encoding."""

    opening: bytes
    meta: list[Element]
    elements: list[Element]
    implicit: bool = False
    big_endian: bool = False
    deflated: bool = False
    packed_tail: bytes = b""  # appended after the elements, already deflated


@dataclass(frozen=True)
class Parent:
    """A good file: its bytes, and its tree if it can be parsed."""

    name: str
    data: bytes
    tree: Tree | None


def parent(name: str, data: bytes) -> Parent:
    """Return a file to mutate; a file that cannot be parsed is mutated by bytes alone."""
    try:
        return Parent(name, data, tree(data))
    except (struct.error, ValueError, IndexError, zlib.error):
        return Parent(name, data, None)


def tree(data: bytes) -> Tree:
    """Parse a well-formed file. Raises ValueError, struct.error, IndexError or zlib.error for others."""
    opening = data[:132] if data[128:132] == b"DICM" else b""
    at, meta, syntax = len(opening), [], b"1.2.840.10008.1.2"
    while data[at : at + 2] == b"\x02\x00":
        element, at = _element(data, at, implicit=False, big=False)
        meta.append(element)
        syntax = element.value.strip(b" \0") if element.tag == 0x00020010 else syntax
    body, deflated = data[at:], syntax == b"1.2.840.10008.1.2.1.99"
    if deflated:
        body = zlib.decompress(body, -15)
    implicit, big = syntax == b"1.2.840.10008.1.2", syntax == b"1.2.840.10008.1.2.2"
    at, elements = 0, []
    while at + 8 <= len(body):
        element, at = _element(body, at, implicit, big)
        elements.append(element)
    if not any(element.tag == PIXEL_DATA for element in elements):
        raise ValueError("no pixels")
    return Tree(opening, meta, elements, implicit, big, deflated)


def _element(data: bytes, at: int, implicit: bool, big: bool) -> tuple[Element, int]:
    order = ">" if big else "<"
    group, number = struct.unpack_from(f"{order}HH", data, at)
    vr = b"" if implicit else data[at + 4 : at + 6]
    if implicit:
        length, start = struct.unpack_from(f"{order}I", data, at + 4)[0], at + 8
    elif vr in LONG:
        length, start = struct.unpack_from(f"{order}I", data, at + 8)[0], at + 12
    elif vr in SHORT:
        length, start = struct.unpack_from(f"{order}H", data, at + 6)[0], at + 8
    else:
        raise ValueError(f"no VR: {vr!r}")
    tag = group << 16 | number
    if length == UNDEFINED:  # allowed for pixels, which come last; sequences are not searched for their end
        if tag != PIXEL_DATA:
            raise ValueError("a sequence of undefined length")
        return Element(tag, vr, data[start:], UNDEFINED), len(data)
    if start + length > len(data):
        raise ValueError("cut short")
    return Element(tag, vr, data[start : start + length]), start + length


def encoded(tree: Tree) -> bytes:
    """Return the file of a tree, with its wrong lengths and tags."""
    meta = b"".join(_encoded(element, False, False) for element in tree.meta)
    body = b"".join(_encoded(element, tree.implicit, tree.big_endian) for element in tree.elements)
    if tree.deflated:
        packer = zlib.compressobj(1, zlib.DEFLATED, -15)
        body = packer.compress(body) + packer.flush(zlib.Z_FULL_FLUSH if tree.packed_tail else zlib.Z_FINISH)
    return tree.opening + meta + body + tree.packed_tail


def _encoded(element: Element, implicit: bool, big: bool) -> bytes:
    order = ">" if big else "<"
    length = len(element.value) if element.length is None else element.length
    head = struct.pack(f"{order}HH", element.tag >> 16, element.tag & 0xFFFF)
    if implicit:
        return head + struct.pack(f"{order}I", length) + element.value
    if element.vr in LONG:
        return head + element.vr + b"\0\0" + struct.pack(f"{order}I", length) + element.value
    return head + element.vr + struct.pack(f"{order}H", length & 0xFFFF) + element.value
