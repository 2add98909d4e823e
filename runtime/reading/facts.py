"""The facts that a DICOM header states: region, view, orientation, spacing, identity.

In DX, BodyPartExamined and ViewPosition may be absent; in CR they may be empty; and devices write free text. So every
statement counts as evidence. If all evidence agrees it is used; if not, the fact is None and a warning is given.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from spinescore.runtime.notices import notice
from spinescore.runtime.reading import words
from spinescore.runtime.reading.dates import calendar_date
from spinescore.runtime.reading.orientation import from_cosines, from_letters, principal
from spinescore.runtime.reading.tags import items, number, text, whole
from spinescore.runtime.study import Facing, Region, Turn

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

__all__ = ["PATIENT_KEY_VARIABLE", "Facts", "missing_facts", "other_parts", "patient_key", "postures", "read_facts"]

View = Literal["lateral", "other"]

PATIENT_KEY_VARIABLE = "SPINESCORE_PATIENT_KEY"
_SAME_SPACING = 1e-3  # relative: headers and lists round
_APPLICATION_KEY = b"spinescore.patient-key/1"
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
    """The facts of one header. A fact is None if the header does not state it, or contradicts itself about it."""

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


def missing_facts(
    header: Any, stated: Mapping[str, Any], contradiction: Callable[[str, Any, Any], str]
) -> dict[str, Any]:
    """Return the `stated` facts, by field, that are None in the header (Facts or a radiograph).

    Raises ValueError, with the message `contradiction(field, header's value, stated value)`, if the two differ.
    """
    for field_name, value in stated.items():
        of_header = getattr(header, field_name)
        if of_header is not None and not _agree(of_header, value):
            raise ValueError(contradiction(field_name, of_header, value))
    return {name: value for name, value in stated.items() if getattr(header, name) is None}


def _agree(first: Any, second: Any) -> bool:
    """Return whether two values of one fact agree. Pairs are spacings, and may be rounded."""
    if isinstance(second, tuple):
        return all(math.isclose(*sides, rel_tol=_SAME_SPACING) for sides in zip(first, second, strict=True))
    return bool(first == second)


def read_facts(ds: Dataset) -> Facts:
    """Return all facts of a header. No content of a header raises an exception."""
    notes: list[str] = []
    row, column = _directions(ds, notes)
    turn_deg, facing = from_letters(row, column)
    view = _view(ds, row, column, notes)
    patient = whole(ds, "PatientID")
    return Facts(
        modality=(text(ds, "Modality") or "").upper() or None,
        region=_region(ds, notes),
        view=view,
        facing=facing,
        turn_deg=turn_deg,
        spacing_mm=_spacing_mm(ds),
        sop_instance_uid=whole(ds, "SOPInstanceUID"),
        study_instance_uid=whole(ds, "StudyInstanceUID"),
        study_date=calendar_date(text(ds, "StudyDate") or ""),
        patient_key=None if patient is None else patient_key(patient, whole(ds, "IssuerOfPatientID") or ""),
        notes=notes,
    )


def other_parts(ds: Dataset) -> tuple[str, ...]:
    """Return the body parts that the header names beside the cervical and the lumbar spine."""
    codes = {**words.OTHER_PART_CODES, **dict.fromkeys(words.REGION_CODES)}
    parts = [
        *_evidence(ds, _PART_KEYWORDS, _part_in).values(),
        *_coded(items(ds, "AnatomicRegionSequence"), codes, _part_in),
    ]
    return tuple(dict.fromkeys(part for part in parts if part is not None))


def postures(ds: Dataset) -> tuple[str, ...]:
    """Return the views that the header names and the mSASSS is not defined on: flexion, swimmer's view, .."""
    views = [*items(ds, "ViewCodeSequence"), *items(ds, "ViewModifierCodeSequence")]
    modifiers = [inner for item in views for inner in items(item, "ViewModifierCodeSequence")]
    coded = _coded([*views, *modifiers], words.POSTURE_CODES, _posture_in)
    stated = [*_evidence(ds, _POSTURE_KEYWORDS, _posture_in).values(), *coded]
    return tuple(dict.fromkeys(posture for posture in stated if posture is not None))


def _region_in(sentence: str) -> Region | None:
    regions = [region for region, pattern in words.REGION_WORDS.items() if pattern.search(sentence)]
    return regions[0] if len(regions) == 1 else None


def _view_in(sentence: str) -> View | None:
    lateral, other = words.LATERAL.search(sentence), words.OTHER_VIEW.search(sentence)
    if bool(lateral) == bool(other):
        return None
    return "lateral" if lateral else "other"


def _part_in(sentence: str) -> str | None:
    """Return the body part in a sentence, if it is not one of the two regions."""
    if _region_in(sentence) or words.SPINE_OF_A_REGION.search(sentence):
        return None
    return next((part for part, pattern in words.OTHER_PARTS.items() if pattern.search(sentence)), None)


def _posture_in(sentence: str) -> str | None:
    if words.NEUTRAL.search(sentence):
        return None
    return next((posture for posture, pattern in words.POSTURES.items() if pattern.search(sentence)), None)


def _evidence(ds: Dataset, keywords: tuple[str, ...], reader: Callable[[str], Any]) -> dict[str, Any]:
    """Return what `reader` takes from the text of each element, without the elements from which it takes nothing."""
    claims = {keyword: reader(words.plain(whole(ds, keyword) or "")) for keyword in keywords}
    return {keyword: claim for keyword, claim in claims.items() if claim is not None}


def _coded(coded: list[Dataset], codes: Mapping[str, Any], reader: Callable[[str], Any]) -> list[Any]:
    """Return what each item's code stands for, or what `reader` takes from the meaning of a code that is not known."""
    pairs = [(text(item, "CodeValue") or "", words.plain(text(item, "CodeMeaning") or "")) for item in coded]
    return [codes[code] if code in codes else reader(meaning) for code, meaning in pairs]


def _agreed(subject: str, evidence: dict[str, Any], notes: list[str]) -> Any:
    """Return the claim on which all evidence agrees; None without evidence, or, with a note, if it disagrees."""
    claims = set(evidence.values())
    if len(claims) > 1:
        listed = ", ".join(f"{source} says {claim}" for source, claim in evidence.items())
        sentence = f"the header contradicts itself about the {subject} ({listed}); its tags were not used for it"
        notes.append(notice("header-contradicts", sentence, about=subject))
    return claims.pop() if len(claims) == 1 else None


def _region(ds: Dataset, notes: list[str]) -> Region | None:
    evidence = _evidence(ds, _PART_KEYWORDS, _region_in)
    for claim in filter(None, _coded(items(ds, "AnatomicRegionSequence"), words.REGION_CODES, _region_in)):
        evidence["AnatomicRegionSequence"] = claim
    if not evidence:  # a study often covers both regions: its description counts only if nothing else is stated
        evidence = _evidence(ds, ("StudyDescription",), _region_in)
    region: Region | None = _agreed("region", evidence, notes)
    return region


def _view(ds: Dataset, row: str | None, column: str | None, notes: list[str]) -> View | None:
    evidence = _evidence(ds, ("ViewPosition", "SeriesDescription", "ProtocolName"), _view_in)
    lateral: dict[str, View] = dict.fromkeys(words.LATERAL_CODES, "lateral")
    for claim in _coded(items(ds, "ViewCodeSequence"), lateral, _view_in):
        evidence["ViewCodeSequence"] = claim or "other"
    if not evidence:  # devices write a fixed PatientOrientation: it counts only if nothing else is stated
        sides = {row, column} - {None, "H", "F"}
        claim = "other" if sides & {"L", "R"} else "lateral" if sides else None
        evidence = {} if claim is None else {"PatientOrientation": claim}
    view: View | None = _agreed("view", evidence, notes)
    return view


def _directions(ds: Dataset, notes: list[str]) -> tuple[str | None, str | None]:
    """Return the directions in which rows and columns end, as principal letters of A, P, L, R, H, F, or None.

    The source is Patient Orientation (PS3.3 C.7.6.1.1.1), or else Image Orientation (Patient) if it is sagittal:
    converters write an axial one into any picture. If the two differ, both are ignored.
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
    """Return PixelSpacing, or else the detector's spacing over the magnification (PS3.3 10.7.1.3, C.8.11.7)."""
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


def patient_key(patient_id: str, issuer: str = "") -> str:
    """Return the keyed BLAKE2b hash of issuer and patient ID, which matches reports of one patient without a name.

    The key is the site's secret in the environment variable SPINESCORE_PATIENT_KEY, or else a fixed one. The fixed key
    keeps the ID out of sight; only a secret key also withstands a search through all possible IDs.
    """
    secret = os.environ.get(PATIENT_KEY_VARIABLE, "").encode() or _APPLICATION_KEY
    key = hashlib.blake2b(secret, digest_size=32).digest()
    message = f"{issuer}\0{patient_id}".encode("utf-8", "surrogatepass")
    return hashlib.blake2b(message, key=key, digest_size=16).hexdigest()
