"""The part of HDF5 that Keras writes, read from bytes with every offset checked.

The HDF5 library itself is not safe for files of unknown origin: with a few bytes of a Keras file changed at random, it
read outside its memory or never returned. Keras' files, written through h5py, use little of the format: superblock 0,
groups as symbol tables, object headers of version 1, contiguous datasets, and attributes of text. All else is refused,
above all references to other files: external and soft links, external and virtual storage. Each object is read once, so
neither a loop nor a block that is referred to many times makes the result larger than the file.

Section numbers: HDF5 File Format Specification, version 3.0.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from math import prod

from spinescore.export.untrusted import check_shape
from spinescore.runtime.errors import CheckpointError

__all__ = ["HDF5_MAGIC", "Dataset", "Group", "read_hdf5"]

HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
_UNDEFINED = 0xFFFFFFFFFFFFFFFF
_MAX_DEPTH = 32
_MAX_STEPS = 1_000_000  # messages, links and texts read; a ResNet152 with its optimizer needs about 50,000
_AGAIN = "load the model in Keras and save it again"
_FLOATS = {  # size, exponent bits, mantissa bits of a floating-point datatype (IV.A.2.d, class 1)
    (2, 5, 10): "f2",
    (4, 8, 23): "f4",
    (8, 11, 52): "f8",
    (2, 8, 7): "bfloat16",
}


@dataclass(frozen=True)
class Dataset:
    """`raw` holds the elements, of NumPy type `dtype` (or 'bfloat16' or 'opaque')."""

    path: str
    shape: tuple[int, ...]
    dtype: str
    raw: memoryview
    attributes: dict[str, str | list[str]]


@dataclass(frozen=True)
class Group:
    path: str
    attributes: dict[str, str | list[str]]
    groups: dict[str, Group] = field(default_factory=dict)
    datasets: dict[str, Dataset] = field(default_factory=dict)


def read_hdf5(data: bytes) -> Group:
    """Return the root group. Raises CheckpointError if the file is damaged, or not of the layout that Keras writes."""
    return _Reader(memoryview(data)).root()


class _Reader:
    def __init__(self, data: memoryview) -> None:
        self._data = data
        self._seen: set[int] = set()
        self._steps_left = _MAX_STEPS
        self._text_left = len(data)  # attributes may share text; in total they hold no more than the file's size

    def root(self) -> Group:
        """Read the superblock (II.A) and return the root group after it."""
        if bytes(self._take(0, 8, "the superblock")) != HDF5_MAGIC:
            raise CheckpointError("the file does not start as HDF5 does")
        version, offset_size, length_size = (self._data[position] for position in (8, 13, 14))
        if version > 1 or (offset_size, length_size) != (8, 8):
            raise CheckpointError(f"the HDF5 file is of a layout that Keras does not write; {_AGAIN}")
        start = 24 + 4 * version
        base, _, end, _, _, header = self._unpack("<6Q", start, "the superblock")
        if base != 0 or end > len(self._data):
            raise CheckpointError(f"the HDF5 file has {len(self._data)} of {end} bytes; it is truncated, get it again")
        root = self._object(header, "", 0)
        if not isinstance(root, Group):
            raise CheckpointError("the HDF5 file's root is no group; it is damaged")
        return root

    def _object(self, address: int, path: str, depth: int) -> Group | Dataset:
        self._visit(address, path)
        if depth > _MAX_DEPTH:
            raise CheckpointError(f"entry {path!r} is nested more than {_MAX_DEPTH} deep; it is damaged or forged")
        messages = self._messages(address, path)
        kinds = {kind for kind, _ in messages}
        if kinds & {0x02, 0x06}:
            raise CheckpointError(f"group {path or '/'!r} holds links that Keras does not write (external?); {_AGAIN}")
        attributes = self._attributes([body for kind, body in messages if kind == 0x0C], path)
        bodies = {kind: body for kind, body in messages if kind != 0x0C}
        if 0x11 in bodies:
            return self._group(bodies[0x11], path, attributes, depth)
        if {0x01, 0x03, 0x08} <= kinds:
            return self._dataset(bodies, path, attributes)
        raise CheckpointError(f"entry {path!r} is neither a group nor a dataset; the file is damaged")

    # Object headers (IV.A.1.a)

    def _messages(self, address: int, path: str) -> list[tuple[int, memoryview]]:
        """Return type and body of each message in the object header, continuation blocks included."""
        version, count, _, size = self._unpack("<BxHII", address, path)
        if version != 1:
            raise CheckpointError(f"entry {path!r} is of an HDF5 layout that Keras does not write; {_AGAIN}")
        blocks = [self._take(address + 16, size, path)]
        messages: list[tuple[int, memoryview]] = []
        while blocks:
            block = blocks.pop()
            while len(block) >= 8 and len(messages) < count:
                self._step()
                kind, length, flags = struct.unpack_from("<HHB", block)
                if 8 + length > len(block) or flags & 0x02:
                    raise CheckpointError(f"entry {path!r} has a damaged or shared description; {_AGAIN}")
                body, block = block[8 : 8 + length], block[8 + length :]
                messages.append((kind, body))
                if kind == 0x10:
                    offset, extent = struct.unpack_from("<QQ", _at_least(body, 16, path))
                    self._visit(offset, path)
                    blocks.append(self._take(offset, extent, path))
        return messages

    # Groups (III.A.1, III.B, III.C, III.D)

    def _group(self, body: memoryview, path: str, attributes: dict[str, str | list[str]], depth: int) -> Group:
        tree, heap = struct.unpack_from("<QQ", _at_least(body, 16, path))
        size, _, start = self._unpack("<8xQQQ", heap, path)
        if bytes(self._take(heap, 4, path)) != b"HEAP":
            raise CheckpointError(f"group {path or '/'!r} has no table of names; the file is damaged")
        names = self._take(start, size, path)
        group = Group(path, attributes)
        for offset, address in self._entries(tree, path, 0):
            end = bytes(names[offset : offset + 1024]).find(b"\0")
            name = bytes(names[offset : offset + end]).decode("utf-8", "replace") if end > 0 else ""
            if not name or "/" in name or name in group.groups or name in group.datasets:
                raise CheckpointError(f"group {path or '/'!r} has an entry without a name of its own; it is damaged")
            member = self._object(address, f"{path}/{name}" if path else name, depth + 1)
            if isinstance(member, Group):
                group.groups[name] = member
            else:
                group.datasets[name] = member
        return group

    def _entries(self, address: int, path: str, depth: int) -> list[tuple[int, int]]:
        """Return the name's offset and the header's address for each link in a group's B-tree."""
        self._visit(address, path)
        signature = bytes(self._take(address, 4, path))
        if signature == b"TREE" and depth < _MAX_DEPTH:
            kind, _, used = self._unpack("<BBH", address + 4, path)
            children = self._unpack(f"<{2 * used + 1}Q", address + 24, path)[1::2]
            if kind == 0:
                return [entry for child in children for entry in self._entries(child, path, depth + 1)]
        if signature == b"SNOD":
            (used,) = self._unpack("<H", address + 6, path)
            entries = [self._unpack("<QQI", address + 8 + 40 * index, path) for index in range(used)]
            if any(cache == 2 for _, _, cache in entries):
                raise CheckpointError(f"group {path or '/'!r} holds a soft link, which is not followed; {_AGAIN}")
            return [(offset, header) for offset, header, _ in entries]
        raise CheckpointError(f"group {path or '/'!r} has a damaged table of entries; get the file again")

    # Datasets (IV.A.2.b, d, i)

    def _dataset(self, messages: dict[int, memoryview], path: str, attributes: dict[str, str | list[str]]) -> Dataset:
        if 0x07 in messages:
            raise CheckpointError(f"entry {path!r} keeps its values in another file, which is not followed; {_AGAIN}")
        dtype, itemsize = _datatype(messages[0x03], path)
        shape = check_shape(path, _shape(messages[0x01], path), itemsize, len(self._data))
        size = prod(shape) * itemsize
        version, layout = _at_least(messages[0x08], 2, path)[:2]
        if 0x0B in messages or version not in (3, 4) or layout not in (0, 1):
            raise CheckpointError(
                f"entry {path!r} is stored in chunks, compressed or virtually, which Keras does not do; "
                "rewrite the file with: h5repack -l CONTI -f NONE IN.h5 OUT.h5"
            )
        if layout == 0:
            raw = _at_least(messages[0x08][4:], size, path)[:size]
        else:
            address, _ = struct.unpack_from("<QQ", _at_least(messages[0x08][2:], 16, path))
            raw = self._take(address, size, path) if size else memoryview(b"")
        return Dataset(path, shape, dtype, raw, attributes)

    # Attributes (IV.A.2.m) and the global heap (III.E)

    def _attributes(self, bodies: list[memoryview], path: str) -> dict[str, str | list[str]]:
        """Return the attributes that hold text; numbers are not needed and left out."""
        result: dict[str, str | list[str]] = {}
        for body in bodies:
            version, flags, *sizes = struct.unpack_from("<BBHHH", _at_least(body, 8, path))
            if version not in (1, 2, 3) or (version > 1 and flags):
                raise CheckpointError(f"entry {path!r} has an attribute that Keras does not write so; {_AGAIN}")
            position, parts = 9 if version == 3 else 8, []
            for size in sizes:
                parts.append(_at_least(body[position:], size, path)[:size])
                position += -(-size // 8) * 8 if version == 1 else size
            name = bytes(parts[0]).split(b"\0")[0].decode("utf-8", "replace")
            value = self._text(_datatype(parts[1], path), _shape(parts[2], path), body[position:], f"{path}@{name}")
            if value is not None:
                result[name] = value
        return result

    def _text(
        self, datatype: tuple[str, int], shape: tuple[int, ...], raw: memoryview, entry: str
    ) -> str | list[str] | None:
        kind, size = datatype
        if kind not in ("text", "heap text"):
            return [] if 0 in shape else None
        count = prod(check_shape(entry, shape, max(size, 1), len(raw)))
        cells = [raw[index * size : (index + 1) * size] for index in range(count)]
        texts = [self._heap_text(cell, entry) if kind == "heap text" else bytes(cell) for cell in cells]
        decoded = [text.rstrip(b"\0").decode("utf-8", "replace") for text in texts]
        return decoded if shape else decoded[0]

    def _heap_text(self, cell: memoryview, entry: str) -> bytes:
        """Return a string of variable length from the global heap; `cell` has its length, collection and index."""
        length, address, number = struct.unpack_from("<IQI", _at_least(cell, 16, entry))
        if length == 0:
            return b""
        self._text_left -= length
        if self._text_left < 0:
            raise CheckpointError(f"entry {entry!r} declares more text than the file holds; it is damaged or forged")
        (size,) = self._unpack("<8xQ", address, entry)
        heap = self._take(address, size, entry)
        position = 16
        while bytes(heap[:4]) == b"GCOL" and position + 16 <= len(heap):
            self._step()
            index, _, extent = struct.unpack_from("<HH4xQ", heap, position)
            if index == number:
                return bytes(_at_least(heap[position + 16 :], length, entry)[:length])
            if index == 0:
                break
            position += 16 + -(-extent // 8) * 8
        raise CheckpointError(f"entry {entry!r} has lost its text; the file is damaged, get it again")

    # Bytes

    def _take(self, offset: int, size: int, entry: str) -> memoryview:
        if offset + size > len(self._data):
            where = "lie nowhere" if offset == _UNDEFINED else f"end at byte {offset + size} of {len(self._data)}"
            raise CheckpointError(f"entry {entry or '/'!r}: its bytes {where}; the file is damaged, get it again")
        return self._data[offset : offset + size]

    def _unpack(self, layout: str, offset: int, entry: str) -> tuple[int, ...]:
        values: tuple[int, ...] = struct.unpack(layout, self._take(offset, struct.calcsize(layout), entry))
        return values

    def _step(self) -> None:
        self._steps_left -= 1
        if self._steps_left < 0:
            raise CheckpointError(f"the HDF5 file has more than {_MAX_STEPS} parts; it is damaged or forged")

    def _visit(self, address: int, path: str) -> None:
        if address in self._seen:
            raise CheckpointError(f"entry {path or '/'!r} is linked twice; the file is damaged or forged")
        self._seen.add(address)


def _at_least(body: memoryview, size: int, entry: str) -> memoryview:
    if len(body) < size:
        raise CheckpointError(f"entry {entry or '/'!r} has a description that is cut off; get the file again")
    return body


def _shape(body: memoryview, path: str) -> tuple[int, ...]:
    """Return the current dimensions of a dataspace; () is a scalar (IV.A.2.b)."""
    version, rank, _, kind = _at_least(body, 4, path)[:4]
    if version not in (1, 2) or (version == 2 and kind == 2):
        return (0,)  # a null dataspace: no elements
    return struct.unpack_from(
        f"<{rank}Q", _at_least(body, (8 if version == 1 else 4) + 8 * rank, path), 12 - 4 * version
    )


def _datatype(body: memoryview, path: str) -> tuple[str, int]:
    """Return the type of numbers or text, and its bytes (IV.A.2.d). 'other' is refused when its values are needed.

    It is a NumPy type, 'bfloat16', 'opaque', 'text' (fixed length), 'heap text' (variable length) or 'other'.
    """
    bits, _, _, size = struct.unpack_from("<BBBI", _at_least(body, 8, path), 1)
    order, kind, name = ">" if bits & 1 else "<", body[0] & 0x0F, "other"
    if kind == 0 and size in (1, 2, 4, 8):
        name = f"{order}{'i' if bits & 0x08 else 'u'}{size}"
    elif kind == 1:
        exponent, mantissa = _at_least(body, 16, path)[13], body[15]
        number = _FLOATS.get((size, exponent, mantissa))
        name = "other" if number is None else f"{order}{number}".replace("<bfloat16", "bfloat16")
    elif kind in (3, 5):
        name = "text" if kind == 3 else "opaque"
    elif kind == 8 and size == 1:
        name = "|b1"  # h5py's way to write booleans
    elif kind == 9 and bits & 0x0F == 1:
        name = "heap text"
    return name, size
