"""Mutates good DICOM files into hostile ones, by tag and then by byte. The same seed gives the same file."""

from __future__ import annotations

import io
import random
import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import replace

from spinescore.benchmarks.fuzz.tree import LONG, PIXEL_DATA, SHORT, UNDEFINED, Element, Parent, Tree, encoded

__all__ = ["mutant"]

_NO_VR = (b"ZZ", b"\0\0", b"??", b"ob", b"\xff\xff", b"O\0")
_LENGTHS = (0, 1, 2, 3, 7, 0xFF, 0x7FFF, 0xFFFE, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, UNDEFINED)
_JPEGS_AND_VIDEO = (50, 51, 57, 70, 80, 81, 90, 91, 100, 102, 201, 202, 203)
_SYNTAXES = (
    *("", "1.2.3", "9" * 64, "\xff", "1.2.840.10008.1.2", "1.2.840.10008.1.2 ", "1.2.840.10008.1.2.1"),
    *("1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.5"),
    *(f"1.2.840.10008.1.2.4.{number}" for number in _JPEGS_AND_VIDEO),
)
# Tags that the reader uses: pixel format, grey scale, identity, region, view, spacing.
_READ = (0x00080005, 0x00080016, 0x00080018, 0x00080020, 0x00080060, 0x00081030, 0x0008103E, 0x00082218, 0x00100020,
         0x00100021, 0x00180015, 0x00181030, 0x00181114, 0x00181164, 0x00185101, 0x0020000D, 0x00200020, 0x00280002,
         0x00280004, 0x00280008, 0x00280010, 0x00280011, 0x00280030, 0x00280100, 0x00280101, 0x00280102, 0x00280103,
         0x00280120, 0x00280121, 0x00281050, 0x00281051, 0x00281052, 0x00281053, 0x00281055, 0x00281056, 0x00283000,
         0x00283010, 0x20500020, 0x00540220)  # fmt: skip
_WORDS = {*range(0x00280010, 0x00280012), *range(0x00280100, 0x00280104), 0x00280002, 0x00280120, 0x00280121}
_NUMBERS = (b"nan", b"inf", b"-inf", b"1e400", b"-1", b"0", b"1e-400", b"9" * 400, b"1,5", b"0x10", b"--1", b"1\\",
            b"\\\\\\", b"1\\2\\3", b" ", b"\0\0", b"1e308\\1e308", b"0.0", b"65536", b"2147483648", b"1A")  # fmt: skip
_TEXTS = (b"", b"\x1b$B\x1b(B\x1b", b"=" * 99, b"^" * 99, b"%s%n{}", b"\r\n\t", b"\xf0\x9f\x92\x80",
          b"\xed\xa0\x80", b"../../x", b"A\\" * 999, b"CSPINE", b"LSPINE\\CSPINE", b"\0" * 64, b"1." * 99)  # fmt: skip
_CHARSETS = (b"ISO_IR 192", b"\\ISO 2022 IR 87", b"ISO 2022 IR 149\\ISO 2022 IR 58", b"GB18030",
             b"ISO_IR 999", b"\\" * 50, b"ISO_IR 192\\ISO_IR 13", b"utf-8", b"rot13", b"idna", b"\xff")  # fmt: skip


_BOMB_BYTES = 64 << 20

OfTree = Callable[[random.Random, Tree], Tree]
OfBytes = Callable[[random.Random, bytes, bytes], bytes]


def mutant(parents: list[Parent], seed: int) -> bytes:
    """Return the hostile file `seed`."""
    rng = random.Random(seed)
    own = [one for one in parents if one.name.startswith("phantom")]  # many of their mutants can still be read
    chosen = rng.choice(own if own and rng.random() < 0.6 else parents)
    data = chosen.data
    if chosen.tree is not None and rng.random() < 0.9:
        tree = replace(chosen.tree, meta=list(chosen.tree.meta), elements=list(chosen.tree.elements))
        for _ in range(rng.choice((1, 1, 1, 2, 2, 3, 5))):
            tree = rng.choice(_OF_TREES)(rng, tree)
        data = encoded(tree)
    if chosen.tree is None or rng.random() < 0.25:
        data = rng.choice(_OF_BYTES)(rng, data, rng.choice(parents).data)
    return _zipped(rng, data) if rng.random() < 0.04 else data


def _pick(rng: random.Random, tree: Tree) -> int:
    """Choose an element; those that the reader uses are more likely."""
    read = [at for at, element in enumerate(tree.elements) if element.tag in _READ]
    return rng.choice(read) if read and rng.random() < 0.8 else rng.randrange(len(tree.elements))


def _with(tree: Tree, at: int, element: Element) -> Tree:
    tree.elements[at] = element
    return tree


def _inserted(tree: Tree, element: Element) -> Tree:
    """Insert an element at its place by tag; an element of the same tag is replaced."""
    kept = [other for other in tree.elements if other.tag != element.tag]
    at = next((at for at, other in enumerate(kept) if other.tag > element.tag), len(kept))
    return replace(tree, elements=[*kept[:at], element, *kept[at:]])


def _word(tree: Tree, number: int) -> bytes:
    return struct.pack(">H" if tree.big_endian else "<H", number & 0xFFFF)


def _item(tree: Tree, value: bytes, length: int | None = None) -> bytes:
    order = ">" if tree.big_endian else "<"
    return struct.pack(f"{order}HHI", 0xFFFE, 0xE000, len(value) if length is None else length) + value


def _value(rng: random.Random, tree: Tree) -> Tree:
    at = _pick(rng, tree)
    old = tree.elements[at]
    if old.tag in _WORDS:
        numbers = (0, 1, 2, 3, 7, 8, 15, 16, 17, 31, 32, 64, 255, 4096, 0x7FFF, 0x8000, 0xFFFF)
        new = b"".join(_word(tree, rng.choice(numbers)) for _ in range(rng.choice((1, 1, 1, 1, 0, 2, 400))))
    elif old.tag == PIXEL_DATA:
        new = old.value[: rng.randrange(len(old.value) + 1)] + rng.randbytes(rng.choice((0, 1, 2, 999)))
    else:
        many = rng.choice((1, 1, 1, 1, 2, 3, 60, 3000))
        new = b"\\".join(rng.choice((*_NUMBERS, *_TEXTS, rng.randbytes(rng.randrange(9)))) for _ in range(many))
    return _with(tree, at, replace(old, value=new, length=old.length))


def _representation(rng: random.Random, tree: Tree) -> Tree:
    at = _pick(rng, tree)
    vr = rng.choice((*LONG, *SHORT, *_NO_VR))
    return _with(tree, at, replace(tree.elements[at], vr=vr))


def _length(rng: random.Random, tree: Tree) -> Tree:
    at = _pick(rng, tree)
    old = tree.elements[at]
    near = len(old.value) + rng.choice((-2, -1, 1, 2, 8))
    return _with(tree, at, replace(old, length=max(0, rng.choice((*_LENGTHS, near)))))


def _order(rng: random.Random, tree: Tree) -> Tree:
    at, other = _pick(rng, tree), _pick(rng, tree)
    kind = rng.randrange(4)
    if kind == 0 and len(tree.elements) > 1:
        del tree.elements[at]
    elif kind == 1:
        tree.elements.insert(other, tree.elements[at])
    elif kind == 2:
        tree.elements[at], tree.elements[other] = tree.elements[other], tree.elements[at]
    else:
        tag = rng.choice((*_READ, 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD, 0))
        return _with(tree, at, replace(tree.elements[at], tag=tag))
    return tree


def _nested(rng: random.Random, tree: Tree) -> Tree:
    tag = rng.choice((0x00081140, 0x00082218, 0x00283010, 0x00540220, 0x00291010))
    depth = rng.choice((3, 40, 300, 12000))
    if rng.random() < 0.5:  # without lengths
        order = ">" if tree.big_endian else "<"
        open_item = _encoded_head(tree, tag, UNDEFINED) + _item(tree, b"", UNDEFINED)
        ends = struct.pack(f"{order}HHI", 0xFFFE, 0xE00D, 0) + struct.pack(f"{order}HHI", 0xFFFE, 0xE0DD, 0)
        cut = rng.choice((depth, depth, rng.randrange(depth)))
        value = _item(tree, b"", UNDEFINED) + open_item * (depth - 1) + (ends * cut)
        return _inserted(tree, Element(tag, b"SQ", value, UNDEFINED))
    value = b""
    for _ in range(min(depth, 300)):
        value = _encoded_head(tree, tag, len(value) + 8) + _item(tree, value)
    return _inserted(tree, Element(tag, b"SQ", _item(tree, value)))


def _encoded_head(tree: Tree, tag: int, length: int) -> bytes:
    order = ">" if tree.big_endian else "<"
    head = struct.pack(f"{order}HH", tag >> 16, tag & 0xFFFF)
    return head + (b"" if tree.implicit else b"SQ\0\0") + struct.pack(f"{order}I", length)


def _lookup(rng: random.Random, tree: Tree) -> Tree:
    bits = rng.choice((0, 7, 8, 10, 12, 16, 16, 17, 255))
    count = rng.choice((0, 1, 2, 255, 256, 1024, 4096, 65535))
    numbers = (count, rng.choice((0, 1, 0x7FFF, 0x8000, 0xFFFF)), bits)[: rng.choice((3, 3, 3, 3, 2, 0))]
    size = rng.choice((count * 2, count * 2, count, 0, 1, 3, 200_000))
    vr = rng.choice((b"OW", b"OW", b"US", b"SS", b"OB", b"UN", b"UT", b"DS"))
    parts = (Element(0x00283002, rng.choice((b"US", b"SS", b"US", b"DS")), b"".join(_word(tree, n) for n in numbers)),
             Element(0x00283006, vr, rng.randbytes(size), rng.choice((None, None, None, *_LENGTHS))))  # fmt: skip
    inside = replace(tree, opening=b"", meta=[], elements=list(parts), deflated=False, packed_tail=b"")
    value = _item(tree, encoded(inside), rng.choice((None, None, None, 0, UNDEFINED))) * rng.choice((1, 1, 1, 2, 40))
    return _inserted(tree, Element(rng.choice((0x00283000, 0x00283010)), rng.choice((b"SQ", b"SQ", b"UN")), value))


def _codes(rng: random.Random, tree: Tree) -> Tree:
    tag = rng.choice((0x00082218, 0x00540220))
    many = rng.choice((1, 2, 100, 60_000))
    return _inserted(tree, Element(tag, b"SQ", _item(tree, rng.choice((b"", rng.randbytes(20)))) * many))


def _charset(rng: random.Random, tree: Tree) -> Tree:
    names = b"\\".join(rng.choice(_CHARSETS) for _ in range(rng.choice((1, 1, 2, 3, 4000))))
    return _inserted(tree, Element(0x00080005, b"CS", names))


def _bloat(rng: random.Random, tree: Tree) -> Tree:
    """Add many empty elements, one large element, or one with many values."""
    kind, tag = rng.randrange(3), rng.choice(_READ)
    if kind == 0:
        more = [Element(0x00291000 + n % 0xEFFF, b"LO", b"") for n in range(rng.choice((500, 70_000)))]
        return replace(tree, elements=tree.elements[:-1] + more + tree.elements[-1:])
    value = bytes(rng.choice((70_000, 5 << 20))) if kind == 1 else b"1\\" * rng.choice((9_000, 400_000))
    return _inserted(tree, Element(tag, rng.choice((b"UN", b"UC", b"OB", b"UT")), value))


def _meta(rng: random.Random, tree: Tree) -> Tree:
    kind = rng.randrange(6)
    if kind == 0:
        return replace(tree, opening=b"")
    if kind == 1:
        return replace(tree, opening=rng.choice((b"", tree.opening)), meta=[])
    if kind == 2 and tree.meta:
        del tree.meta[rng.randrange(len(tree.meta))]
    elif kind == 3 and tree.meta:
        at = rng.randrange(len(tree.meta))
        tree.meta[at] = replace(tree.meta[at], length=rng.choice(_LENGTHS))
    elif kind == 4:
        return replace(tree, meta=tree.meta * rng.choice((2, 900)))
    syntax = Element(0x00020010, b"UI", rng.choice(_SYNTAXES).encode("latin-1"))
    return replace(tree, meta=[syntax if old.tag == syntax.tag else old for old in tree.meta])


def _bomb(rng: random.Random, tree: Tree) -> Tree:
    """Deflate the file, with a tail that grows enormously or is invalid."""
    syntax = Element(0x00020010, b"UI", b"1.2.840.10008.1.2.1.99")
    meta = [syntax if old.tag == syntax.tag else old for old in tree.meta]
    packer = zlib.compressobj(1, zlib.DEFLATED, -15)
    tail = packer.compress(bytes(_BOMB_BYTES)) + packer.flush() if rng.random() < 0.5 else rng.randbytes(64)
    return replace(tree, meta=meta, deflated=True, packed_tail=tail)


def _pixels(rng: random.Random, tree: Tree) -> Tree:
    """Cut, drop, double, shuffle or multiply fragments; change offsets or bytes of the codestream."""
    at = next((at for at, element in enumerate(tree.elements) if element.tag == PIXEL_DATA), None)
    if at is None:
        return tree
    old = tree.elements[at]
    if old.length != UNDEFINED:
        return _with(tree, at, replace(old, length=rng.choice((None, UNDEFINED, *_LENGTHS)),
                                        vr=rng.choice((b"OB", b"OW", b"UN", b"SQ"))))  # fmt: skip
    return _with(tree, at, replace(old, value=_fragments(rng, tree, old.value)))


def _fragments(rng: random.Random, tree: Tree, value: bytes) -> bytes:
    offsets_end = 8 + int.from_bytes(value[4:8], "little")
    start = offsets_end + 8
    length = int.from_bytes(value[offsets_end + 4 : start], "little")
    offsets, frame, rest = value[:offsets_end], value[start : start + length], value[start + length :]
    kind = rng.randrange(9)
    if kind == 0:
        pieces = [frame[: rng.randrange(len(frame) + 1)]]
    elif kind == 1:
        step = rng.choice((1, 2, 100, len(frame) // 2 + 1))
        pieces = [frame[n : n + step] for n in range(0, len(frame), step)]
        if rng.random() < 0.3:
            rng.shuffle(pieces)
    elif kind == 2:
        pieces = rng.choice(([], [b""] * 3, [b""] * 70_000, [frame, frame], [frame] * 40))
    elif kind == 3:
        many = rng.choice((4, 4, 8, 9000))
        offset = rng.choice((b"\xff\xff\xff\x7f", b"\0\0\0\0", rng.randbytes(4)))
        offsets, pieces = _item(tree, offset * (many // 4)), [frame]
    elif kind == 4:
        return offsets + _item(tree, frame, rng.choice(_LENGTHS)) + rest
    elif kind == 5:
        return value[: rng.randrange(len(value))]
    else:  # mostly in the codestream's own header
        pieces = [_flipped(rng, frame, rng.choice((64, 256, len(frame))))]
    return offsets + b"".join(_item(tree, piece) for piece in pieces) + rest


def _flipped(rng: random.Random, data: bytes, within: int | None = None) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        at = rng.randrange(max(1, min(len(data), within or len(data))))
        piece = rng.choice((rng.randbytes(1), b"\0", b"\xff", b"\xff\xff", b"\0\0\0\1", rng.randbytes(4)))
        changed[at : at + len(piece)] = piece
    return bytes(changed)


def _flipped_anywhere(rng: random.Random, data: bytes, other: bytes) -> bytes:
    return _flipped(rng, data, rng.choice((200, 1200, None)))


def _cut(rng: random.Random, data: bytes, other: bytes) -> bytes:
    return data[: rng.randrange(len(data) + 1)] if data else data


def _spliced(rng: random.Random, data: bytes, other: bytes) -> bytes:
    return data[: rng.randrange(len(data) + 1)] + other[rng.randrange(len(other) + 1) :]


def _removed(rng: random.Random, data: bytes, other: bytes) -> bytes:
    at = rng.randrange(len(data) + 1)
    return data[:at] + data[at + rng.choice((1, 2, 8, 128, 4096)) :]


def _zipped(rng: random.Random, data: bytes) -> bytes:
    """Put the file into an archive with a directory or members that may be wrong."""
    file = io.BytesIO()
    packing = rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
    with zipfile.ZipFile(file, "w") as archive:
        for n in range(rng.choice((1, 2, 5))):
            name = rng.choice((f"{n}.dcm", f"../{n}", f"/a/{n}", f"d/{n}", f"{n}/DICOMDIR"))
            archive.writestr(zipfile.ZipInfo(name), data, packing)  # without a date: the same file each time
    return _flipped(rng, file.getvalue()) if rng.random() < 0.7 else file.getvalue()


_OF_TREES: tuple[OfTree, ...] = (_value, _value, _value, _representation, _length, _order, _nested, _lookup, _codes,
                                 _charset, _bloat, _meta, _bomb, _pixels, _pixels, _pixels)  # fmt: skip
_OF_BYTES: tuple[OfBytes, ...] = (_flipped_anywhere, _cut, _spliced, _removed)
