"""One file to one radiograph, or to the reason why there is none.

The header is read first, and what it declares is checked before the pixels are read. All that pydicom raises or warns
of for a hostile file ends as a reject or in `Radiograph.warnings`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, BinaryIO

from spinescore.runtime.errors import InputRejected
from spinescore.runtime.logs import READING
from spinescore.runtime.reading.datasets import dataset_syntax, own_header
from spinescore.runtime.reading.dicomfile import inflated_to, read_header
from spinescore.runtime.reading.facts import Facts, read_facts
from spinescore.runtime.reading.functionalgroups import lift
from spinescore.runtime.reading.grouping import Loaded
from spinescore.runtime.reading.inputs import Item
from spinescore.runtime.reading.pixelformat import PixelFormat, pixel_format
from spinescore.runtime.study import Radiograph, Reject
from spinescore.runtime.text import brief
from spinescore.runtime.warned import caught_warnings

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

__all__ = ["PROJECTION_MODALITIES", "load", "rejected"]

# Projection radiography, and the modalities of digitised or re-sent films. Other files in a folder are skipped unread.
PROJECTION_MODALITIES = frozenset({"CR", "DX", "RF", "XA", "RG", "OT", "SC"})

_KIND_BYTES = 16  # enough to recognise a PNG or JPEG file


def load(item: Item, max_pixels: int, window: str | None, header_only: bool = False) -> Loaded:
    """Read one file; every fault ends in a reject. `window` names a window by its explanation.

    With `header_only` the pixels are not read, and the result states their `byte_count`.
    """
    facts, source = Facts(), item.source
    try:
        with caught_warnings() as warned, item.open() as opened:
            if item.dataset is not None:
                ds, stream, syntax = own_header(item.dataset), opened, dataset_syntax(item.dataset)
            elif (picture := _picture(opened, item, max_pixels, header_only)) is not None:
                return _loaded(item, facts, picture)
            else:
                ds, stream, syntax = read_header(opened, source)
            lift(ds)
            facts = read_facts(ds)
            if item.in_folder and facts.modality not in PROJECTION_MODALITIES | {None}:
                raise InputRejected("not-radiograph", f"{source} has the modality {facts.modality}")
            if "Rows" not in ds and "Columns" not in ds:
                raise InputRejected("no-pixels", f"{source} holds no image; give the radiograph itself")
            declared = pixel_format(ds, source, max_pixels)
            if header_only:
                return _loaded(item, facts, declared.byte_count)
            return _loaded(item, facts, _radiograph(stream, ds, declared, syntax, facts, source, window, warned))
    except InputRejected as fault:
        return rejected(fault, item, facts)
    except MemoryError:
        message = f"{source} needs more memory than there is; give fewer or smaller images at a time"
        return rejected(InputRejected("too-large", message), item, facts)
    except Exception as fault:  # pydicom and codecs can raise anything for a hostile file
        message = f"{source} cannot be read ({brief(fault)}); send it again from the modality or the archive"
        return rejected(InputRejected("corrupt-pixels", message), item, facts)


def rejected(fault: InputRejected, item: Item, facts: Facts) -> Loaded:
    """Return a file that was refused."""
    READING.debug("a file is refused: %s", fault.code)
    return Loaded(item, facts, reject=Reject(fault.code, str(fault), item.source, facts.region))


def _loaded(item: Item, facts: Facts, image: Radiograph | int) -> Loaded:
    """Return a file with its radiograph, or with the bytes of its pixels."""
    return Loaded(item, facts, byte_count=image) if isinstance(image, int) else Loaded(item, facts, image)


def _picture(opened: BinaryIO, item: Item, max_pixels: int, header_only: bool) -> Radiograph | int | None:
    """Read a PNG or JPEG file; None for all others. In a folder it is refused: often an overlay."""
    from spinescore.runtime.reading.pictures import picture_kind, read_picture

    kind = picture_kind(opened.read(_KIND_BYTES))
    opened.seek(0)
    if kind is not None and item.in_folder:
        raise InputRejected("not-dicom", f"{item.source} is a {kind} picture; give its own path to read it")
    return None if kind is None else read_picture(opened, kind, item.source, max_pixels, header_only)


def _radiograph(
    stream: BinaryIO,
    ds: Dataset,
    declared: PixelFormat,
    syntax: str | None,
    facts: Facts,
    source: str,
    window: str | None,
    warned: list[str],
) -> Radiograph:
    from spinescore.runtime.reading.fromheader import radiograph_from_header
    from spinescore.runtime.reading.pixels import read_pixels

    notes: list[str] = []
    stream = inflated_to(stream, declared.byte_count)
    stored, decoder = read_pixels(stream, ds, declared, syntax, source, notes)
    return radiograph_from_header(
        stored, ds, declared, facts, source, decoder=decoder, window=window, notes=notes, warned=warned
    )
