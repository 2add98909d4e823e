"""Facts that a DICOM header states: region, view, orientation, spacing, identity.

In DX, BodyPartExamined and ViewPosition may be absent, in CR they may be empty, and devices write free text. So every
statement is taken as evidence: agreeing evidence is used, contradictory evidence gives None and a warning.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
from collections.abc import Callable, MutableSequence
from dataclasses import dataclass, field
from functools import cache
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal

from spinescore.runtime.notices import notice
from spinescore.runtime.reading import words
from spinescore.runtime.reading.dates import calendar_date
from spinescore.runtime.scoring.orientation import from_cosines, from_letters, principal
from spinescore.runtime.study import Facing, Region, Turn

if TYPE_CHECKING:
    from pydicom.dataset import Dataset
    from pydicom.tag import BaseTag

__all__ = [
    "PATIENT_KEY_VARIABLE",
    "Facts",
    "is_stated",
    "items",
    "number",
    "other_parts",
    "patient_key",
    "postures",
    "raw_element",
    "read_facts",
    "same_fact",
    "text",
    "value",
    "whole",
]

View = Literal["lateral", "other"]

PATIENT_KEY_VARIABLE = "SPINESCORE_PATIENT_KEY"
_MAX_BYTES = 1 << 16  # of an element: pydicom takes microseconds and some 100 bytes for each of its values
_SAME_SPACING = 1e-3  # relative: headers and lists round
_MAX_ITEMS = 16  # of a code sequence
_APPLICATION_KEY = b"spinescore.patient-key/1"

# Numbers with commas; in DS only a point is allowed (PS3.5 6.2).
_COMMA = re.compile(r"[+-]?[0-9]*,[0-9]+([eE][+-]?[0-9]+)?")
_ONE_GROUP = re.compile(r"[+-]?[1-9][0-9]{0,2},[0-9]{3}")
_GROUPS_AND_COMMA = re.compile(r"[+-]?[1-9][0-9]{0,2}(\.[0-9]{3})+,[0-9]+")
_GROUPS_AND_POINT = re.compile(r"[+-]?[1-9][0-9]{0,2}(,[0-9]{3})+\.[0-9]+|[+-]?[1-9][0-9]{0,2}(,[0-9]{3}){2,}")
_PART_KEYWORDS = ("BodyPartExamined", "SeriesDescription", "ProtocolName")
_POSTURE_KEYWORDS = (
    "ViewPosition",
    "SeriesDescription",
    "ProtocolName",
    "AcquisitionDeviceProcessingDescription",
    "AcquisitionProtocolName",
    "AcquisitionProtocolDescription",
)
_AXES = {letter: axis for axis in ("AP", "HF", "LR") for letter in axis}


@dataclass(frozen=True)
class Facts:
    """The tags that matter; what the header does not say, or says in contradiction, is None."""

    modality: str | None = None
    region: Region | None = None
    view: View | None = None
    facing: Facing | None = None
    turn_deg: Turn | None = None
    spacing_mm: tuple[float, float] | None = None
    sop_instance_uid: str | None = None
    study_instance_uid: str | None = None
    study_date: str | None = None
    patient_key: str | None = None
    notes: list[str] = field(default_factory=list)


def same_fact(stated: Any, given: Any) -> bool:
    """Whether a value of `Facts` is the one that is given beside the header; pairs are spacings, and are rounded."""
    if isinstance(given, tuple):
        return all(math.isclose(*sides, rel_tol=_SAME_SPACING) for sides in zip(stated, given, strict=True))
    return bool(stated == given)


@cache
def _tag(keyword: str) -> BaseTag:
    """pydicom looks a keyword up anew at each access, which takes longer than the access."""
    from pydicom.tag import Tag

    return Tag(keyword)


def value(ds: Dataset, keyword: str, max_bytes: int = _MAX_BYTES) -> Any:
    """An element's value, or None where it is absent, empty, longer than `max_bytes` or cannot be converted."""
    tag = _tag(keyword)
    try:
        if tag not in ds:
            return None
        raw = ds.get_item(tag)
        if isinstance(raw.value, bytes) and len(raw.value) > max_bytes:
            return None
        found = ds[tag].value
    except Exception:  # pydicom converts on access, and a bad value can raise anything
        return None
    return None if found is None or (isinstance(found, str) and not found.strip()) else found


def text(ds: Dataset, keyword: str, index: int = 0) -> str | None:
    """One value of an element, the first unless `index` says another, as stripped text."""
    found = value(ds, keyword)
    if found is not None and not isinstance(found, str) and hasattr(found, "__iter__"):
        found = next(islice(found, index, None), None)
    elif index:
        found = None
    stripped = "" if found is None else str(found).strip(" \0")
    return stripped or None


def whole(ds: Dataset, keyword: str) -> str | None:
    """All of an element that has one value by the standard, as stripped text.

    A backslash parts values (PS3.5 6.2), so that a name or an ID with one in it is read as several.
    """
    found = value(ds, keyword)
    if found is None or isinstance(found, str) or not isinstance(found, MutableSequence):
        return text(ds, keyword)
    return "\\".join(str(part) for part in found).strip(" \0").strip("\\") or None


def number(ds: Dataset, keyword: str, index: int = 0) -> float | None:
    """One value of an element as a finite number; a decimal comma is read where it can only be one."""
    words = text(ds, keyword, index) or "nan"
    try:
        found = float(words)
    except ValueError:
        found = float(_with_point(words) or "nan")
    return found if math.isfinite(found) else None


def _with_point(words: str) -> str | None:
    """A number that is written with commas in the form of PS3.5 6.2; None where it has two meanings or none."""
    if _GROUPS_AND_COMMA.fullmatch(words):  # 1.024,5
        return words.replace(".", "").replace(",", ".")
    if _GROUPS_AND_POINT.fullmatch(words):  # 1,024.5 and 1,024,000
        return words.replace(",", "")
    if _COMMA.fullmatch(words) and not _ONE_GROUP.fullmatch(words):  # 1,024 can be a thousand or one
        return words.replace(",", ".")
    return None


def raw_element(ds: Dataset, keyword: str) -> Any:
    """An element as it was read, unconverted where nothing has asked for its value yet; None where it is absent."""
    tag = _tag(keyword)
    try:
        return ds.get_item(tag) if tag in ds else None
    except Exception:
        return None


def is_stated(ds: Dataset, keyword: str) -> bool:
    """Whether an element is there and not empty, whether or not its value can be understood."""
    stated = getattr(raw_element(ds, keyword), "value", None)
    if isinstance(stated, (bytes, bytearray)):
        return bool(bytes(stated).strip(b" \0\\"))
    return stated is not None and bool(str(stated).strip())


def read_facts(ds: Dataset) -> Facts:
    """Read all facts. Never raises for what a header may hold."""
    notes: list[str] = []
    row, column = _directions(ds, notes)
    turn_deg, facing = from_letters(row, column)
    view = _view(ds, row, column, notes)
    return Facts(
        modality=(text(ds, "Modality") or "").upper() or None,
        region=_region(ds, notes),
        view=view,
        facing=facing,
        turn_deg=turn_deg,
        spacing_mm=_spacing_mm(ds),
        sop_instance_uid=whole(ds, "SOPInstanceUID"),
        study_instance_uid=whole(ds, "StudyInstanceUID"),
        study_date=_date(ds),
        patient_key=_patient_key(ds),
        notes=notes,
    )


def _region_in(said: str) -> Region | None:
    regions = [region for region, pattern in words.REGION_WORDS.items() if pattern.search(said)]
    return regions[0] if len(regions) == 1 else None


def _view_in(said: str) -> View | None:
    lateral, other = words.LATERAL.search(said), words.OTHER_VIEW.search(said)
    if bool(lateral) == bool(other):
        return None
    return "lateral" if lateral else "other"


def _part_in(said: str) -> str | None:
    """The body part other than the two regions that words name."""
    if _region_in(said) or words.SPINE_OF_A_REGION.search(said):
        return None
    return next((part for part, pattern in words.OTHER_PARTS.items() if pattern.search(said)), None)


def _posture_in(said: str) -> str | None:
    if words.NEUTRAL.search(said):
        return None
    return next((posture for posture, pattern in words.POSTURES.items() if pattern.search(said)), None)


def other_parts(ds: Dataset) -> tuple[str, ...]:
    """Body parts other than the cervical and the lumbar spine that the header names."""
    found = list(_evidence(ds, _PART_KEYWORDS, _part_in).values())
    for code, meaning in _codes(ds, "AnatomicRegionSequence"):
        if code not in words.REGION_CODES:
            found.append(words.OTHER_PART_CODES.get(code) or _part_in(meaning))
    return tuple(dict.fromkeys(part for part in found if part is not None))


def postures(ds: Dataset) -> tuple[str, ...]:
    """Views that the mSASSS is not defined on, as far as the header names them: flexion, swimmer's view, .."""
    found = list(_evidence(ds, _POSTURE_KEYWORDS, _posture_in).values())
    views = [*items(ds, "ViewCodeSequence"), *items(ds, "ViewModifierCodeSequence")]
    modifiers = [inner for item in views for inner in items(item, "ViewModifierCodeSequence")]
    for code, meaning in map(_code, [*views, *modifiers]):
        found.append(words.POSTURE_CODES.get(code) or _posture_in(meaning))
    return tuple(dict.fromkeys(posture for posture in found if posture is not None))


def _evidence(ds: Dataset, keywords: tuple[str, ...], reader: Callable[[str], Any]) -> dict[str, Any]:
    found = {keyword: reader(words.plain(whole(ds, keyword) or "")) for keyword in keywords}
    return {keyword: what for keyword, what in found.items() if what is not None}


def items(ds: Dataset, keyword: str) -> list[Dataset]:
    """Return the first items of a sequence; none if it is absent or cannot be read."""
    try:
        return list(value(ds, keyword)[:_MAX_ITEMS])
    except Exception:
        return []


def _code(item: Dataset) -> tuple[str, str]:
    """Code value and plain meaning of an item."""
    return text(item, "CodeValue") or "", words.plain(text(item, "CodeMeaning") or "")


def _codes(ds: Dataset, keyword: str) -> list[tuple[str, str]]:
    return [_code(item) for item in items(ds, keyword)]


def _agreed(what: str, evidence: dict[str, Any], notes: list[str]) -> Any:
    """The one thing that all evidence says; None where there is none, or with a note where it disagrees."""
    said = set(evidence.values())
    if len(said) > 1:
        listed = ", ".join(f"{source} says {claim}" for source, claim in evidence.items())
        sentence = f"the header contradicts itself about the {what} ({listed}); its tags were not used for it"
        notes.append(notice("header-contradicts", sentence, about=what))
    return said.pop() if len(said) == 1 else None


def _region(ds: Dataset, notes: list[str]) -> Region | None:
    evidence = _evidence(ds, _PART_KEYWORDS, _region_in)
    for code, meaning in _codes(ds, "AnatomicRegionSequence"):
        said = words.REGION_CODES.get(code) or _region_in(meaning)
        if said is not None:
            evidence["AnatomicRegionSequence"] = said
    if not evidence:  # a study often covers both regions: its description counts only where nothing else speaks
        evidence = _evidence(ds, ("StudyDescription",), _region_in)
    region: Region | None = _agreed("region", evidence, notes)
    return region


def _view(ds: Dataset, row: str | None, column: str | None, notes: list[str]) -> View | None:
    evidence = _evidence(ds, ("ViewPosition", "SeriesDescription", "ProtocolName"), _view_in)
    for code, meaning in _codes(ds, "ViewCodeSequence"):
        evidence["ViewCodeSequence"] = "lateral" if code in words.LATERAL_CODES else _view_in(meaning) or "other"
    if not evidence:  # devices write a fixed PatientOrientation: it counts only where nothing else speaks
        sides = {row, column} - {None, "H", "F"}
        said = "other" if sides & {"L", "R"} else "lateral" if sides else None
        evidence = {} if said is None else {"PatientOrientation": said}
    view: View | None = _agreed("view", evidence, notes)
    return view


def _directions(ds: Dataset, notes: list[str]) -> tuple[str | None, str | None]:
    """Where rows and columns end, as principal letters of A, P, L, R, H, F; None for what is not stated.

    Patient Orientation (PS3.3 C.7.6.1.1.1); without it Image Orientation (Patient), if that one is sagittal. Converters
    write an axial one into any picture. Two that differ say nothing.
    """
    values = [text(ds, "PatientOrientation", index) for index in (0, 1)]
    row, column = (None if stated is None else principal(stated) for stated in values)
    if any(stated and not letter for stated, letter in zip(values, (row, column), strict=True)):
        sentence = "the header's Patient Orientation is not understood; state it as two directions, P\\F for example"
        notes.append(notice("orientation-ignored", sentence))
    elif row and column and row in _AXES[column]:
        sentence = "the header's Patient Orientation has rows and columns in one direction; it was not used"
        notes.append(notice("orientation-ignored", sentence))
        row = column = None
    cosines = [number(ds, "ImageOrientationPatient", index) for index in range(6)]
    if None in cosines:
        return row, column
    sagittal = from_cosines([cosine or 0.0 for cosine in cosines])
    if from_letters(*sagittal)[0] is None:
        return row, column
    if any(one not in (None, other) for one, other in zip((row, column), sagittal, strict=True)):
        sentence = (
            "the header contradicts itself about the orientation (Patient Orientation, Image Orientation); neither was "
            "used"
        )
        notes.append(notice("header-contradicts", sentence, about="orientation"))
        return None, None
    return sagittal


def _spacing_mm(ds: Dataset) -> tuple[float, float] | None:
    """PixelSpacing, else the detector's spacing divided by the magnification (PS3.3 10.7.1.3, C.8.11.7)."""
    spacing = _pair(ds, "PixelSpacing")
    if spacing is None and (spacing := _pair(ds, "ImagerPixelSpacing")) is not None:
        factor = number(ds, "EstimatedRadiographicMagnificationFactor") or 1.0
        if factor > 0:
            spacing = spacing[0] / factor, spacing[1] / factor
    return spacing


def _pair(ds: Dataset, keyword: str) -> tuple[float, float] | None:
    rows_mm, columns_mm = number(ds, keyword, 0), number(ds, keyword, 1)
    if rows_mm is None or columns_mm is None or text(ds, keyword, 2) is not None:
        return None
    return (rows_mm, columns_mm) if rows_mm > 0 and columns_mm > 0 else None


def _date(ds: Dataset) -> str | None:
    """YYYYMMDD, if it is a date of the calendar."""
    return calendar_date(text(ds, "StudyDate") or "")


def _patient_key(ds: Dataset) -> str | None:
    patient = whole(ds, "PatientID")
    return None if patient is None else patient_key(patient, whole(ds, "IssuerOfPatientID") or "")


def patient_key(patient_id: str, issuer: str = "") -> str:
    """Keyed BLAKE2b of issuer and patient ID, so that reports of one patient can be matched without naming them.

    The key is the site's secret in the environment variable SPINESCORE_PATIENT_KEY, else a fixed one. The fixed one
    keeps the ID out of sight; only a secret one also withstands a search through all possible IDs.
    """
    secret = os.environ.get(PATIENT_KEY_VARIABLE, "").encode() or _APPLICATION_KEY
    key = hashlib.blake2b(secret, digest_size=32).digest()
    message = f"{issuer}\0{patient_id}".encode("utf-8", "surrogatepass")
    return hashlib.blake2b(message, key=key, digest_size=16).hexdigest()
