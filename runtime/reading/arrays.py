"""Radiographs from pixels in memory, treated as the same pixels in a DICOM file.

If the caller gives a header, the other arguments are written into a copy of it, and the pixels are then read as those
of a file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from spinescore.runtime.arguments import check_choice, check_pair, check_text, check_whole, is_number, shown
from spinescore.runtime.notices import as_notice, notice
from spinescore.runtime.reading import greyscale
from spinescore.runtime.reading.datasets import is_dataset, own_header
from spinescore.runtime.reading.dates import calendar_date
from spinescore.runtime.reading.facts import missing_facts, patient_key, read_facts
from spinescore.runtime.reading.fromheader import radiograph_from_header
from spinescore.runtime.reading.functionalgroups import lift
from spinescore.runtime.reading.memory import MAX_PIXELS
from spinescore.runtime.reading.pixelformat import PixelFormat, check_size, pixel_format
from spinescore.runtime.reading.shutter import Shutter, hide
from spinescore.runtime.reading.storedvalues import without_unused_bits
from spinescore.runtime.reading.tags import is_stated, number, text
from spinescore.runtime.study import REGIONS, Facing, Radiograph, Region
from spinescore.runtime.text import brief
from spinescore.runtime.warned import caught_warnings

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

__all__ = ["check_pixels", "radiograph_from_array"]

Photometric = Literal["MONOCHROME1", "MONOCHROME2"]

_PHOTOMETRIC: tuple[Photometric, ...] = ("MONOCHROME1", "MONOCHROME2")
_CALL = "radiograph_from_array(pixels, region='cervical', spacing_mm=0.15, facing='left')"
_ADVICE = {  # by the kind of a dtype
    "f": "round them first, for example numpy.rint(pixels).astype(numpy.uint16)",
    "c": "give whole numbers",
    "b": "this is a mask, not a picture",
    "O": "give an array of numpy.uint16",
    "V": "give one field of it",
}


def radiograph_from_array(
    pixels: NDArray[np.integer[Any]],
    *,
    region: Region | None = None,
    spacing_mm: float | tuple[float, float] | None = None,
    facing: Facing | None = None,
    photometric: Photometric | None = None,
    window: tuple[float, float] | None = None,
    bits_stored: int | None = None,
    header: Dataset | None = None,
    study: str | None = None,
    study_date: str | None = None,
    patient: str | None = None,
    name: str | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Radiograph:
    """Return a radiograph of pixels in memory, treated as the same pixels in a DICOM file.

    `pixels` are H x W stored values (uint8, uint16, int8 or int16) of any byte order and layout. A native,
    contiguous array is not copied: leave it unchanged until the radiograph is scored, or give a copy. Masked pixels of
    a masked array are hidden as by a shutter: they are black and do not count for the contrast.

    `photometric` MONOCHROME1 means that larger is darker. `window` is (centre, width), linear as in PS3.3 C.11.2.1.2.
    Without one the contrast is taken from the pixels; 8-bit pixels without window and header are shown unchanged. As in
    a file, only the lowest `bits_stored` bits of each value count; if that changes a value, a warning says so.

    `spacing_mm` is the distance between the centres of neighbouring pixels; give (rows, columns) if the two differ.
    `facing` is the side of the image towards which the patient looks. Region and facing are optional: the model finds
    them, and a missing facing costs a run of the localizer. `study` is the Study Instance UID or any name, `study_date`
    is YYYYMMDD, and `patient` is an ID, of which only a keyed hash is kept. Messages and reports use `name`.

    `header` is a pydicom Dataset from which all of this is read, as if the pixels were in its file; DICOM results refer
    to it. It is copied and not changed. Other arguments must not contradict it, except that `window` replaces the
    header's window.

    Raises `TypeError` or `ValueError` for invalid arguments, and `InputRejected` for more than `max_pixels` pixels or
    for a header whose file would be refused.
    """
    check_choice("region", region, (None, *REGIONS), _CALL)
    check_choice("facing", facing, (None, "left", "right"), _CALL)
    check_choice("photometric", photometric, (None, *_PHOTOMETRIC), _CALL)
    for argument, words in (("study", study), ("study_date", study_date), ("patient", patient), ("name", name)):
        check_text(argument, words, _CALL)
    check_whole("max_pixels", max_pixels, 1)
    if header is not None and not is_dataset(header):
        raise TypeError(f"header must be a pydicom Dataset or None, got {shown(header)}")
    source = name or (f"{region} array" if region else "array")
    check_pixels("pixels", pixels)
    facts = {
        "region": region,
        "facing": facing,
        "spacing_mm": None if spacing_mm is None else _spacing_mm(spacing_mm),
        "study_instance_uid": study,
        "study_date": None if study_date is None else _date(study_date),
        "patient_key": None if patient is None else patient_key(patient),
    }
    given = {field: fact for field, fact in facts.items() if fact is not None}
    edges = None if window is None else check_pair("window", window, "(centre, width)", least=1.0)
    if bits_stored is not None:
        check_whole("bits_stored", bits_stored, 1, pixels.dtype.itemsize * 8)
    rows, columns = pixels.shape
    check_size(rows, columns, source, max_pixels)
    if header is None:
        return _bare(pixels, given, source, photometric, edges, bits_stored)
    with caught_warnings() as warned:
        ds = _own(header, pixels, photometric, edges, bits_stored)
        declared = pixel_format(ds, source, max_pixels)
        stated = read_facts(ds)
        agreed = replace(stated, **missing_facts(stated, given, _contradiction))
        notes: list[str] = []
        stored, masked = _stored(pixels, declared, notes, copied=is_stated(ds, "ShutterShape"))
        radiograph = radiograph_from_header(
            stored, ds, declared, agreed, source, notes=notes, warned=warned, masked=masked
        )
    return radiograph if facing in (None, stated.facing) else replace(radiograph, facing_from="program")


def _bare(
    pixels: NDArray[np.integer[Any]],
    facts: Mapping[str, Any],
    source: str,
    photometric: Photometric | None,
    window: tuple[float, float] | None,
    bits_stored: int | None,
) -> Radiograph:
    """Return a radiograph without a header. This needs no pydicom, whose import would delay a program's first study."""
    allocated, kind = pixels.dtype.itemsize * 8, photometric or "MONOCHROME2"
    bits, (rows, columns) = bits_stored or allocated, pixels.shape
    declared = PixelFormat(rows, columns, allocated, bits, bits - 1, pixels.dtype.kind == "i", kind)
    notes: list[str] = []
    stored, masked = _stored(pixels, declared, notes, copied=False)
    occluded = None if masked is None else hide(stored, Shutter(~masked, 0.0), declared)
    table, has_window = greyscale.plain_table(stored, declared, window, occluded)
    if window is not None and not has_window:
        notes.append(notice("window-replaced", f"the window that was given {greyscale.ONE_GREY}"))
    return Radiograph(
        stored,
        table,
        stored_min=declared.stored_min,
        has_window=has_window,
        occluded=occluded,
        source=source,
        warnings=tuple(as_notice(note).saying(f"{source}: {note}").at(facts.get("region"), source) for note in notes),
        facing_from="program" if "facing" in facts else "header",
        **facts,
    )


def check_pixels(name: str, pixels: object) -> None:
    """Raise `TypeError` or `ValueError`, with the argument's `name`, if `pixels` is no array of stored values."""
    if not isinstance(pixels, np.ndarray):
        raise TypeError(f"{name} must be a NumPy array of height x width stored values, got {shown(pixels)}; convert "
                        f"with numpy.asarray, and call {_CALL}")  # fmt: skip
    if pixels.ndim != 2 or not pixels.size or pixels.dtype.kind not in "iu" or pixels.dtype.itemsize > 2:
        advice = _ADVICE.get(pixels.dtype.kind, "bring other pictures to 16 bits first")
        raise ValueError(
            f"{name} must hold height x width stored values, whole numbers of 8 or 16 bits, got {pixels.dtype} "
            f"{pixels.shape}; {advice}"
        )


def _own(
    header: Dataset,
    pixels: NDArray[np.integer[Any]],
    photometric: Photometric | None,
    window: tuple[float, float] | None,
    bits_stored: int | None,
) -> Dataset:
    """Return a copy of `header` that describes the pixels. Raises ValueError if `header` contradicts them."""
    allocated, signed = pixels.dtype.itemsize * 8, pixels.dtype.kind == "i"
    try:
        ds = own_header(header)
        lift(ds)
    except Exception as fault:  # for example if elements were left in a file that is gone
        raise ValueError(f"header cannot be read ({brief(fault)}); read it again from its file") from None
    for keyword, name, actual in (
        ("Rows", "the array's rows", pixels.shape[0]),
        ("Columns", "the array's columns", pixels.shape[1]),
        ("BitsStored", "bits_stored", bits_stored),
    ):
        stated = number(ds, keyword)
        if actual is not None and stated not in (None, actual):
            raise ValueError(f"header states {keyword} {stated:g}, and {name} would be {actual}; give this "
                             "picture's header")  # fmt: skip
        if actual is not None:
            _put(ds, keyword, int(actual))
    stored = number(ds, "BitsStored") or allocated
    if stored > allocated:
        raise ValueError(f"header states BitsStored {stored:g}, and the array has {allocated} bits a pixel; give the "
                         "pixels as they were acquired")  # fmt: skip
    kind = text(ds, "PhotometricInterpretation")
    if photometric is not None and kind not in (None, photometric):
        raise ValueError(f"photometric is {photometric}, and the header states another one; leave photometric out")
    _put(ds, "PhotometricInterpretation", photometric or kind or "MONOCHROME2")
    for keyword, bits in (("BitsAllocated", allocated), ("BitsStored", int(stored)), ("HighBit", int(stored) - 1)):
        _put(ds, keyword, bits)
    if number(ds, "PixelRepresentation") is None:
        _put(ds, "PixelRepresentation", int(signed))
    if window is not None:
        for keyword in ("VOILUTSequence", "VOILUTFunction", "WindowCenterWidthExplanation"):
            if keyword in ds:
                delattr(ds, keyword)
        for keyword, edge in zip(("WindowCenter", "WindowWidth"), window, strict=True):
            _put(ds, keyword, f"{edge:.10g}")
    return ds


def _put(ds: Dataset, keyword: str, value: int | str) -> None:
    """Set an element without reading the old one, which pydicom may not be able to convert."""
    from pydicom.datadict import dictionary_VR
    from pydicom.tag import Tag

    ds.add_new(Tag(keyword), dictionary_VR(keyword), value)


def _stored(
    pixels: NDArray[np.integer[Any]], declared: PixelFormat, notes: list[str], *, copied: bool
) -> tuple[NDArray[np.integer[Any]], NDArray[np.bool_] | None]:
    """Return the values in native byte order, C order and the declared range, and the mask of hidden pixels or None.

    An array that already complies is returned itself, unless it is to be `copied`.
    """
    masked = np.ma.getmaskarray(pixels) if isinstance(pixels, np.ma.MaskedArray) and np.ma.is_masked(pixels) else None
    values: NDArray[Any] = np.ascontiguousarray(np.ma.getdata(pixels), pixels.dtype.newbyteorder("="))
    values = values.view(np.ndarray)
    if (copied or masked is not None) and np.shares_memory(values, np.ma.getdata(pixels)):
        values = values.copy()
    if masked is not None:
        values[masked] = 0
    lowest, highest = declared.stored_min, declared.stored_max
    limits = np.iinfo(values.dtype)
    if (limits.min, limits.max) == (lowest, highest):
        return values, masked
    fits = lowest <= values.min() and values.max() <= highest
    outside = 0 if fits else int(np.count_nonzero((values < lowest) | (values > highest)))
    signs = f"{'' if declared.signed else 'un'}signed"
    if outside and declared.signed != (values.dtype.kind == "i"):
        raise ValueError(
            f"header states {signs} pixels, but {outside} values of the {values.dtype} array do not fit; give the "
            "array in the type that the header states, or correct its Pixel Representation"
        )
    if outside:
        text = f"{outside} pixels have values beyond {declared.bits_stored} {signs} bits; the higher bits were dropped,"
        text += " as in a file: check bits_stored"
        notes.append(notice("bits-dropped", text, pixels=outside, bits_stored=declared.bits_stored))
        values = values.copy() if np.shares_memory(values, np.ma.getdata(pixels)) else values
    words = values.view(f"u{values.dtype.itemsize}")
    kind = f"{'i' if declared.signed else 'u'}{words.itemsize}"
    return (without_unused_bits(words, declared) if outside else words.view(kind)), masked


def _contradiction(field: str, stated: Any, given: Any) -> str:
    """Return the message for a fact that differs from the header's, whose value is named if it tells no identity."""
    argument = {"study_instance_uid": "study", "patient_key": "patient"}.get(field, field)
    values = f", which states {stated!r}" if field in ("region", "facing", "spacing_mm") else ""
    return f"{argument} contradicts the header{values}; leave {argument} out, or give this picture's header"


def _date(given: object) -> str:
    date = calendar_date(given) if isinstance(given, str) else None
    if date is None:
        raise ValueError(f"study_date must be a date as YYYYMMDD, got {shown(given)}")
    return date


def _spacing_mm(given: object) -> tuple[float, float]:
    description = "millimetres above 0, one number or (rows, columns)"
    pair = (given, given) if is_number(given) else given
    rows, columns = check_pair("spacing_mm", pair, description, above=0.0, got=given, call=_CALL)
    return rows, columns
