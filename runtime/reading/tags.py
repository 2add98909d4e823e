"""What a DICOM header says of a radiograph: region, view, facing, spacing, identity.

In DX, BodyPartExamined and ViewPosition may be absent, in CR they may be empty, and devices write free text. So every
statement is taken as evidence: agreeing evidence is used, contradictory evidence gives None and a warning.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal

from spinescore.runtime.study import Facing, Region

if TYPE_CHECKING:
    from pydicom.dataset import Dataset
    from pydicom.tag import BaseTag

__all__ = ["PATIENT_KEY_VARIABLE", "Facts", "number", "read_facts", "text", "value"]

View = Literal["lateral", "other"]

PATIENT_KEY_VARIABLE = "SPINESCORE_PATIENT_KEY"
_MAX_BYTES = 1 << 16  # of an element: pydicom takes microseconds and some 100 bytes for each of its values
_MAX_ITEMS = 16  # of a code sequence
_APPLICATION_KEY = b"spinescore.patient-key/1"

# SNOMED CT, and the SNOMED RT codes that older devices write (PS3.16 CID 4031; lumbosacral has no RT code here).
_REGION_CODES: dict[str, Region] = {
    "122494005": "cervical",
    "T-11501": "cervical",
    "122496007": "lumbar",
    "T-11503": "lumbar",
    "1217253001": "lumbar",
}
# PS3.16 CID 4010: lateral, left lateral, right lateral, sagittal.
_LATERAL_CODES = {"399067008", "399173006", "399198007", "30730003", "R-102CD", "R-10236", "R-10232", "G-A145"}

_CERVICAL = re.compile(r"(?<!O)\bCERVI[CK]AL|\bC[ ._-]*SP(INE)?\b|\bHWS\b")
_LUMBAR = re.compile(r"\bLUMB|\bLOMB|\bL[ ._/-]*(S[ ._-]*)?SP(INE)?\b|\bLWS\b")
_LATERAL = re.compile(r"\b(LAT(ERAL)?|LL|RL|LLD|RLD|SEITLICH|PROFIL)\b")
_OTHER_VIEW = re.compile(
    r"\b(AP|PA|A\.P|P\.A|FRONTAL|OBL(IQUE)?|[LR]AO|[LR]PO|[LR]LO|ODONTOID|DENS|OPEN[ -]?MOUTH|AXIAL)\b"
)


@dataclass(frozen=True)
class Facts:
    """The tags that matter; what the header does not say, or says in contradiction, is None."""

    modality: str | None = None
    region: Region | None = None
    view: View | None = None
    facing: Facing | None = None
    spacing_mm: tuple[float, float] | None = None
    sop_instance_uid: str | None = None
    study_instance_uid: str | None = None
    study_date: str | None = None
    patient_key: str | None = None
    notes: list[str] = field(default_factory=list)


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


def number(ds: Dataset, keyword: str, index: int = 0) -> float | None:
    """One value of an element as a finite number."""
    try:
        found = float(text(ds, keyword, index) or "nan")
    except ValueError:
        return None
    return found if math.isfinite(found) else None


def read_facts(ds: Dataset) -> Facts:
    """Read all facts. Never raises for what a header may hold."""
    notes: list[str] = []
    view = _view(ds, notes)
    return Facts(
        modality=(text(ds, "Modality") or "").upper() or None,
        region=_region(ds, notes),
        view=view,
        facing=_facing(ds),
        spacing_mm=_spacing_mm(ds),
        sop_instance_uid=text(ds, "SOPInstanceUID"),
        study_instance_uid=text(ds, "StudyInstanceUID"),
        study_date=_date(ds),
        patient_key=_patient_key(ds),
        notes=notes,
    )


def _region_in(words: str) -> Region | None:
    cervical, lumbar = _CERVICAL.search(words), _LUMBAR.search(words)
    if bool(cervical) == bool(lumbar):
        return None
    return "cervical" if cervical else "lumbar"


def _view_in(words: str) -> View | None:
    lateral, other = _LATERAL.search(words), _OTHER_VIEW.search(words)
    if bool(lateral) == bool(other):
        return None
    return "lateral" if lateral else "other"


def _evidence(ds: Dataset, keywords: tuple[str, ...], reader: Callable[[str], Any]) -> dict[str, Any]:
    found = {keyword: reader((text(ds, keyword) or "").upper()) for keyword in keywords}
    return {keyword: what for keyword, what in found.items() if what is not None}


def _codes(ds: Dataset, keyword: str) -> list[tuple[str, str]]:
    """(code value, upper-case meaning) of the items of a code sequence."""
    try:
        return [
            (text(item, "CodeValue") or "", (text(item, "CodeMeaning") or "").upper())
            for item in value(ds, keyword)[:_MAX_ITEMS]
        ]
    except Exception:
        return []


def _agreed(what: str, evidence: dict[str, Any], notes: list[str]) -> Any:
    """The one thing that all evidence says; None where there is none, or with a note where it disagrees."""
    said = set(evidence.values())
    if len(said) > 1:
        listed = ", ".join(f"{source} says {claim}" for source, claim in evidence.items())
        notes.append(f"the header contradicts itself about the {what} ({listed}); its tags were not used for it")
    return said.pop() if len(said) == 1 else None


def _region(ds: Dataset, notes: list[str]) -> Region | None:
    evidence = _evidence(ds, ("BodyPartExamined", "SeriesDescription", "ProtocolName"), _region_in)
    for code, meaning in _codes(ds, "AnatomicRegionSequence"):
        said = _REGION_CODES.get(code) or _region_in(meaning)
        if said is not None:
            evidence["AnatomicRegionSequence"] = said
    if not evidence:  # a study often covers both regions: its description counts only where nothing else speaks
        evidence = _evidence(ds, ("StudyDescription",), _region_in)
    region: Region | None = _agreed("region", evidence, notes)
    return region


def _view(ds: Dataset, notes: list[str]) -> View | None:
    evidence = _evidence(ds, ("ViewPosition", "SeriesDescription", "ProtocolName"), _view_in)
    for code, meaning in _codes(ds, "ViewCodeSequence"):
        evidence["ViewCodeSequence"] = "lateral" if code in _LATERAL_CODES else _view_in(meaning) or "other"
    if not evidence:  # devices write a fixed PatientOrientation: it counts only where nothing else speaks
        side = _row_direction(ds)[:1]
        said = "lateral" if side in ("A", "P") else "other" if side in ("L", "R") else None
        evidence = {} if said is None else {"PatientOrientation": said}
    view: View | None = _agreed("view", evidence, notes)
    return view


def _row_direction(ds: Dataset) -> str:
    """Where the end of a row points, as letters of A, P, L, R, H, F (PS3.3 C.7.6.1.1.1)."""
    return (text(ds, "PatientOrientation") or "").upper()


def _facing(ds: Dataset) -> Facing | None:
    """A row that ends anterior means that the right side of the image is anterior."""
    sides: dict[str, Facing] = {"A": "right", "P": "left"}
    return sides.get(_row_direction(ds)[:1])


def _spacing_mm(ds: Dataset) -> tuple[float, float] | None:
    """PixelSpacing, else the detector's spacing divided by the magnification (PS3.3 10.7.1.3, C.8.11.7)."""
    spacing = _pair(ds, "PixelSpacing")
    if spacing is None and (spacing := _pair(ds, "ImagerPixelSpacing")) is not None:
        factor = number(ds, "EstimatedRadiographicMagnificationFactor") or 1.0
        if factor > 0:
            spacing = spacing[0] / factor, spacing[1] / factor
    return spacing


def _pair(ds: Dataset, keyword: str) -> tuple[float, float] | None:
    try:
        rows_mm, columns_mm = (float(part) for part in value(ds, keyword))
    except (TypeError, ValueError):
        return None
    good = math.isfinite(rows_mm) and math.isfinite(columns_mm) and rows_mm > 0 and columns_mm > 0
    return (rows_mm, columns_mm) if good else None


def _date(ds: Dataset) -> str | None:
    """YYYYMMDD; the separators of the ACR-NEMA form are dropped."""
    digits = re.sub(r"[.\-/]", "", text(ds, "StudyDate") or "")
    return digits if re.fullmatch(r"[0-9]{8}", digits) else None


def _patient_key(ds: Dataset) -> str | None:
    """Keyed BLAKE2b of issuer and patient ID, so that reports of one patient can be matched without naming them.

    The key is the site's secret in the environment variable SPINESCORE_PATIENT_KEY, else a fixed one. The fixed one
    keeps the ID out of sight; only a secret one also withstands a search through all possible IDs.
    """
    patient = text(ds, "PatientID")
    if patient is None:
        return None
    secret = os.environ.get(PATIENT_KEY_VARIABLE, "").encode() or _APPLICATION_KEY
    key = hashlib.blake2b(secret, digest_size=32).digest()
    message = f"{text(ds, 'IssuerOfPatientID') or ''}\0{patient}".encode("utf-8", "surrogatepass")
    return hashlib.blake2b(message, key=key, digest_size=16).hexdigest()
