"""The identity of a received object: the UIDs in its header, its region, and whether it can be a radiograph."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from spinescore.runtime.appliance.fault import Fault, Refused
from spinescore.runtime.errors import InputRejected
from spinescore.runtime.outputs.dicomobjects import MANUFACTURER
from spinescore.runtime.reading.dicomfile import bytes_left, open_file, read_header
from spinescore.runtime.reading.facts import read_facts
from spinescore.runtime.reading.onefile import PROJECTION_MODALITIES
from spinescore.runtime.reading.tags import text, whole
from spinescore.runtime.study import Region
from spinescore.runtime.warned import caught_warnings

__all__ = ["Identity", "is_whole", "read_identity"]

_LONGEST_UID = 64  # PS3.5 9.1
_PIXEL_DATA = b"\xe0\x7f\x10\x00"
_UNDEFINED = 0xFFFFFFFF
_SEQUENCE_END = b"\xfe\xff\xdd\xe0\0\0\0\0"
_TAIL_BYTES = 1 << 16


@dataclass(frozen=True)
class Identity:
    """The UIDs of an object and its region, if the header states one.

    `code` says why the object is no input of scoring; None for one that may be a radiograph.
    """

    sop_instance_uid: str
    sop_class_uid: str
    study_uid: str
    region: Region | None
    code: str | None


def read_identity(path: Path) -> Identity:
    """Return the identity of a DICOM file, without its pixels. Raises Refused: not-dicom, no-uid."""
    try:
        with caught_warnings(), open_file(path, "the object") as file:
            ds, _, _ = read_header(file, "the object")
            facts = read_facts(ds)
            sop_class = text(ds, "SOPClassUID") or ""
            maker = whole(ds, "Manufacturer")
    except InputRejected as error:
        raise Refused(Fault("not-dicom", str(error))) from None
    instance, study = facts.sop_instance_uid, facts.study_instance_uid
    if not instance or not study or max(len(instance), len(study)) > _LONGEST_UID:
        message = "the object's header has no valid SOP Instance UID or Study Instance UID; correct it at its source"
        raise Refused(Fault("no-uid", message))
    code = None
    if maker == MANUFACTURER and sop_class and facts.modality not in ("CR", "DX", "RF", "XA"):
        code = "own-results"
    elif facts.modality is not None and facts.modality not in PROJECTION_MODALITIES:
        code = "not-radiograph"
    return Identity(instance, sop_class, study, facts.region, code)


def is_whole(path: Path) -> bool:
    """Return whether a DICOM file reaches to the end of its pixels; true for a file that is no DICOM at all.

    A file that is still being copied would otherwise be taken for a damaged radiograph.
    """
    try:
        with caught_warnings(), open_file(path, "the object") as file:
            _, stream, _ = read_header(file, "the object")
            return stream is not file or _pixels_are_whole(file)
    except InputRejected:
        return True


def _pixels_are_whole(file: BinaryIO) -> bool:
    head = file.read(12)
    if not head:
        return True
    if len(head) < 12 or head[:4] != _PIXEL_DATA:  # other elements, or big-endian words: reading will judge
        return len(head) == 12
    explicit = head[4:6].isalpha()
    length = int.from_bytes(head[8:12] if explicit else head[4:8], "little")
    left = bytes_left(file) + (0 if explicit else 4)
    if length != _UNDEFINED:
        return left >= length
    file.seek(-min(left, _TAIL_BYTES), 2)
    return _SEQUENCE_END in file.read()
