"""pydicom datasets in memory: a copy of the header, and the pixels as a stream like that of a file."""

from __future__ import annotations

import copy
import io
import struct
import sys
from typing import TYPE_CHECKING, Any, BinaryIO

from spinescore.runtime.reading.decoding.syntaxes import DEFLATED, EXPLICIT_BIG_ENDIAN, EXPLICIT_LITTLE_ENDIAN
from spinescore.runtime.reading.tags import whole

if TYPE_CHECKING:
    from pydicom.dataset import Dataset
    from typing_extensions import TypeIs

__all__ = ["dataset_syntax", "is_dataset", "name_of", "own_header", "pixel_stream"]

_PIXELS_GROUP = 0x7FE00000
_PIXEL_DATA = 0x7FE00010
_FLOAT_PIXELS = (0x7FE00008, 0x7FE00009)
_UNDEFINED_LENGTH = 0xFFFFFFFF


def is_dataset(value: object) -> TypeIs[Dataset]:
    """Return whether an object is a pydicom dataset. Does not import pydicom: without it there are no datasets."""
    module = sys.modules.get("pydicom.dataset")
    return module is not None and isinstance(value, module.Dataset)


def name_of(ds: Dataset) -> str:
    """Return a dataset's name for messages: its SOP Instance UID, never the path of its file."""
    uid = whole(ds, "SOPInstanceUID")
    return f"dataset {uid}" if uid else "dataset without a SOP Instance UID"


def own_header(ds: Dataset) -> Dataset:
    """Return a copy of all elements before the pixels; later changes by the caller must not reach results."""
    return copy.deepcopy(ds[:_PIXELS_GROUP])


def dataset_syntax(ds: Dataset) -> str | None:
    """Return the transfer syntax of the Pixel Data as they are in memory; None if nothing states it."""
    syntax = getattr(getattr(ds, "file_meta", None), "TransferSyntaxUID", None)
    stated = "" if syntax is None else str(syntax).strip(" \0")
    return EXPLICIT_LITTLE_ENDIAN if stated == DEFLATED else stated or None


def pixel_stream(ds: Dataset) -> BinaryIO:
    """Return a stream that stands at the Pixel Data element, like a file after its header; empty without pixels."""
    syntax = dataset_syntax(ds)
    big_endian = syntax == EXPLICIT_BIG_ENDIAN or (syntax is None and ds.original_encoding[1] is False)
    order = ">" if big_endian else "<"
    for tag in _FLOAT_PIXELS:
        if tag in ds:
            return io.BytesIO(struct.pack(f"{order}HH4x", tag >> 16, tag & 0xFFFF))
    element: Any = ds.get(_PIXEL_DATA)
    data: Any = b"" if element is None or element.value is None else element.value
    if hasattr(data, "read"):  # pydicom keeps a stream if it was given one
        data.seek(0)
        data = data.read()
    if not data:
        return io.BytesIO()
    length = _UNDEFINED_LENGTH if element.is_undefined_length else len(data)
    vr = b"OB" if element.VR == "OB" else b"OW"
    head = struct.pack(f"{order}HH2s2xI", _PIXEL_DATA >> 16, _PIXEL_DATA & 0xFFFF, vr, length)
    return io.BytesIO(head + bytes(data))
