"""Content items of a structured report as encoded bytes (PS3.3 C.17.3; Explicit VR Little Endian, PS3.5 7.1.2).

A report of two regions has about 850 items with 8,000 elements. As pydicom datasets they take 0.3 s of processor time
to build and 0.3 s to write; as bytes they take a few milliseconds. pydicom parses only the items that somebody reads.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from spinescore.runtime.outputs.codes import Triple

__all__ = [
    "CONTENT_SEQUENCE",
    "Relationship",
    "code_item",
    "container",
    "element",
    "image_item",
    "name_item",
    "number_item",
    "region_item",
    "sequence",
    "text_item",
    "uid_item",
]

Relationship = Literal["CONTAINS", "HAS ACQ CONTEXT", "HAS CONCEPT MOD", "HAS OBS CONTEXT", "SELECTED FROM"]

CONTENT_SEQUENCE = 0x0040A730
_CONCEPT_NAME = 0x0040A043
_LONG_VRS = ("SQ", "UC", "UT")  # with a length of 32 bits
_MAX_CODE_VALUE = 16  # characters; a longer one is a Long Code Value (PS3.3 8.1)


def element(tag: int, vr: str, value: bytes) -> bytes:
    """Return a data element; `value` is padded to an even length."""
    if len(value) % 2:
        value += b"\0" if vr == "UI" else b" "
    head = struct.pack("<HH2s", tag >> 16, tag & 0xFFFF, vr.encode("ascii"))
    length = struct.pack("<HI", 0, len(value)) if vr in _LONG_VRS else struct.pack("<H", len(value))
    return head + length + value


def sequence(tag: int, *items: bytes) -> bytes:
    """Return a sequence of items; each item is given as its encoded elements."""
    return element(tag, "SQ", b"".join(struct.pack("<HHI", 0xFFFE, 0xE000, len(item)) + item for item in items))


@lru_cache(maxsize=1024)
def _code(tag: int, triple: Triple) -> bytes:
    """Return a sequence of one coded concept (PS3.3 8.8)."""
    value, scheme, meaning = (part.encode("ascii") for part in triple)
    short = element(0x00080100, "SH", value) if len(value) <= _MAX_CODE_VALUE else b""
    long = b"" if short else element(0x00080119, "UC", value)
    item = short + element(0x00080102, "SH", scheme) + element(0x00080104, "LO", meaning) + long
    return sequence(tag, item)


@lru_cache(maxsize=64)
def _kind(relationship: Relationship, value_type: str) -> bytes:
    return element(0x0040A010, "CS", relationship.encode("ascii")) + element(
        0x0040A040, "CS", value_type.encode("ascii")
    )


def _item(relationship: Relationship, value_type: str, name: Triple, *elements: bytes) -> bytes:
    return _kind(relationship, value_type) + _code(_CONCEPT_NAME, name) + b"".join(elements)


def _children(*items: bytes) -> bytes:
    return sequence(CONTENT_SEQUENCE, *items) if items else b""


def text_item(relationship: Relationship, name: Triple, words: bytes) -> bytes:
    """Return a TEXT item; `words` are encoded in the document's character set."""
    return _item(relationship, "TEXT", name, element(0x0040A160, "UT", words))


def name_item(relationship: Relationship, name: Triple, person: bytes) -> bytes:
    """Return a PNAME item; `person` is a DICOM person name, encoded in the document's character set."""
    return _item(relationship, "PNAME", name, element(0x0040A123, "PN", person))


def uid_item(relationship: Relationship, name: Triple, uid: str) -> bytes:
    """Return a UIDREF item."""
    return _item(relationship, "UIDREF", name, element(0x0040A124, "UI", uid.encode("ascii")))


def code_item(relationship: Relationship, name: Triple, value: Triple, *children: bytes) -> bytes:
    """Return a CODE item."""
    return _item(relationship, "CODE", name, _code(0x0040A168, value), _children(*children))


def number_item(name: Triple, value: float, unit: Triple, relationship: Relationship = "CONTAINS") -> bytes:
    """Return a NUM item. A float also has its binary value (PS3.3 C.18.1)."""
    from pydicom.valuerep import format_number_as_ds

    floating = b"" if isinstance(value, int) else element(0x0040A161, "FD", struct.pack("<d", value))
    decimal = element(0x0040A30A, "DS", format_number_as_ds(float(value)).encode("ascii"))
    measured = _code(0x004008EA, unit) + floating + decimal
    return _item(relationship, "NUM", name, sequence(0x0040A300, measured))


def image_item(relationship: Relationship, image: tuple[str, str], *children: bytes) -> bytes:
    """Return an IMAGE item for a source image, given as SOP class and SOP instance UID."""
    reference = zip((0x00081150, 0x00081155), image, strict=True)
    referenced = b"".join(element(tag, "UI", uid.encode("ascii")) for tag, uid in reference)
    name = ("260753009", "SCT", "Source")
    return sequence(0x00081199, referenced) + _item(relationship, "IMAGE", name, _children(*children))


def region_item(points: NDArray[np.float64], image: tuple[str, str]) -> bytes:
    """Return a SCOORD item for points (n, 2) in an image: a POINT if there is one, else a POLYLINE (PS3.3 C.18.6)."""
    kind = b"POINT" if len(points) == 1 else b"POLYLINE"
    return _item(
        "CONTAINS",
        "SCOORD",
        ("111030", "DCM", "Image Region"),
        _children(image_item("SELECTED FROM", image)),
        element(0x00700022, "FL", points.astype("<f4").tobytes()),
        element(0x00700023, "CS", kind),
    )


def container(name: Triple, items: Sequence[bytes], template: str | None = None) -> bytes:
    """Return a CONTAINER of `items`; `template` is the number of their template in PS3.16."""
    continuity = element(0x0040A050, "CS", b"CONTINUOUS")
    identifier = _template(template) if template is not None else b""
    return _item("CONTAINS", "CONTAINER", name, continuity, identifier, _children(*items))


@lru_cache(maxsize=16)
def _template(number: str) -> bytes:
    identifier = element(0x00080105, "CS", b"DCMR") + element(0x0040DB00, "CS", number.encode("ascii"))
    return sequence(0x0040A504, identifier)
