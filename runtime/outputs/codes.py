"""The codes of the structured report, all in one place.

Anatomy and everything else that has a standard code is coded by SNOMED CT (`SCT`) and DICOM (`DCM`, PS3.16 Annex D).
The mSASSS has no standard codes. The codes of `PRIVATE` are ours, with the coding scheme designator `99SPINESCORE`
(PS3.16 section 8 leaves designators that begin with 99 to private use). A code never changes its meaning. A reject
has its reject code (`codes.REJECT_CODES`), and the same words as meaning.

| code | codes | unit or values |
|---|---|---|
| MSASSS | the measurement method, and the study's total | 0 to 72 |
| REGION-TOTAL, DISC-TOTAL | the total of a region or a disc | 0 to 36, 0 to 6 |
| GRADE | a corner's grade, if it was scored | 0 to 3 |
| GRADE as a qualitative evaluation | why a corner has no grade | ABSTAINED, IMPUTED, or 114006 DCM if it is unreadable |
| TOTAL-STATUS, REGION-STATUS | how the total was reached, or why there is none | COMPLETE, IMPUTED, INCOMPLETE; SCORED, REJECTED, MISSING |
| P0 .. P3 | the probability of each grade of a corner | 0 to 1 |
| LOWEST, HIGHEST | the lowest and highest total that missing corners leave possible | as the total |
| EXPECTED, EXPECTED-LOW, EXPECTED-HIGH | the total expected by the probabilities, and its 95 % interval | as the total |
| UNSCORED | the number of a region's corners without a grade | 0 to 12 |
| CONFIDENCE, ROTATION | the confidence of a disc's points; the angle of its axis to the horizontal | 0 to 1; degrees |
| GRADE-ORIGIN, POINTS-ORIGIN | there if a reader set the grade (or said that the corner cannot be read), or gave a disc's points | READER |
| GRADE-BEFORE | a corner's grade before a reader's first correction, if it had one | 0 to 3 |
| CORNER, DISC | the type of finding: one anterior vertebral corner, or one disc | |
| REJECT | why a region was not scored | a reject code |
"""  # noqa: E501

from __future__ import annotations

from spinescore.runtime.study import LEVELS, Region

__all__ = [
    "ANTERIOR",
    "DISCS",
    "ENDPLATES",
    "MODALITIES",
    "PRIVATE",
    "PRIVATE_SCHEME",
    "REGION_SITES",
    "SPINE",
    "VERTEBRAE",
    "Triple",
    "corner_site",
    "private",
    "reject_code",
    "scale",
]

Triple = tuple[str, str, str]  # code value, coding scheme designator, code meaning

PRIVATE_SCHEME = "99SPINESCORE"

PRIVATE: dict[str, str] = {
    "MSASSS": "Modified Stoke Ankylosing Spondylitis Spinal Score",
    "REGION-TOTAL": "mSASSS of a region",
    "DISC-TOTAL": "mSASSS of a disc",
    "GRADE": "mSASSS grade of a vertebral corner",
    **{f"P{grade}": f"Probability of mSASSS grade {grade}" for grade in range(4)},
    "LOWEST": "Least total that is possible",
    "HIGHEST": "Greatest total that is possible",
    "EXPECTED": "Expected total",
    "EXPECTED-LOW": "Lower end of the expected total's 95 % interval",
    "EXPECTED-HIGH": "Upper end of the expected total's 95 % interval",
    "UNSCORED": "Number of vertebral corners without a grade",
    "CONFIDENCE": "Localizer's confidence",
    "ROTATION": "Rotation of the disc's axis",
    "CORNER": "Anterior vertebral corner",
    "DISC": "Intervertebral disc with its two corners",
    "TOTAL-STATUS": "Status of the total",
    "REGION-STATUS": "Status of the region",
    "REJECT": "Reason for which the region was rejected",
    "COMPLETE": "Complete",
    "INCOMPLETE": "Incomplete, no total",
    "SCORED": "Scored",
    "ABSTAINED": "Abstained, no grade",
    "IMPUTED": "Imputed, counts as its region's mean",
    "GRADE-ORIGIN": "Origin of the grade",
    "GRADE-BEFORE": "mSASSS grade before the reader's correction",
    "POINTS-ORIGIN": "Origin of the disc's points",
    "READER": "Set by a reader",
    "REJECTED": "Rejected, not scored",
    "MISSING": "No radiograph",
}

SPINE: Triple = ("421060004", "SCT", "Spine")
REGION_SITES: dict[Region, Triple] = {
    "cervical": ("122494005", "SCT", "Cervical spine"),
    "lumbar": ("122496007", "SCT", "Lumbar spine"),
}

_DISC_VALUES = {
    "cervical": ("1078209008", "58820006", "49400002", "73959003", "75095006", "37414007"),
    "lumbar": ("76206002", "80064006", "67459009", "62551000", "84020006", "715056000"),
}
DISCS: dict[str, Triple] = {
    level: (value, "SCT", f"{level} disc")
    for region, levels in LEVELS.items()
    for level, value in zip(levels, _DISC_VALUES[region], strict=True)
}

_VERTEBRA_VALUES = {
    "cervical": ("39976000", "113205007", "5329002", "36978003", "36054005", "87391001", "64864005"),
    "lumbar": ("23215003", "66794005", "14293000", "36470004", "11994002", "49668003", "54735007"),
}
VERTEBRAE: dict[str, Triple] = {
    name: (value, "SCT", "Sacrum" if name == "S1" else f"{name} vertebra")
    for region, levels in LEVELS.items()
    for name, value in zip(
        dict.fromkeys(end for level in levels for end in level.split("/")), _VERTEBRA_VALUES[region], strict=True
    )
}
ENDPLATES: dict[str, Triple] = {
    "superior": ("264217000", "SCT", "Superior"),
    "inferior": ("261089000", "SCT", "Inferior"),
}
MODALITIES: dict[str, Triple] = {  # by SOP class, as CID 29 has them
    "1.2.840.10008.5.1.4.1.1.1": ("CR", "DCM", "Computed Radiography"),
    "1.2.840.10008.5.1.4.1.1.1.1": ("DX", "DCM", "Digital Radiography"),
    "1.2.840.10008.5.1.4.1.1.1.1.1": ("DX", "DCM", "Digital Radiography"),
    "1.2.840.10008.5.1.4.1.1.7": ("OT", "DCM", "Other"),
    "1.2.840.10008.5.1.4.1.1.12.1": ("XA", "DCM", "X-Ray Angiography"),
    "1.2.840.10008.5.1.4.1.1.12.2": ("RF", "DCM", "Radiofluoroscopy"),
}
ANTERIOR: Triple = ("255549009", "SCT", "Anterior")


def corner_site(site: str) -> tuple[Triple, Triple]:
    """Return the vertebra and the endplate of a site: `C2-inferior` is the inferior endplate of C2."""
    vertebra, endplate = site.split("-")
    return VERTEBRAE[vertebra], ENDPLATES[endplate]


def private(code: str) -> Triple:
    return code, PRIVATE_SCHEME, PRIVATE[code]


def reject_code(code: str) -> Triple:
    """Return a reject's code as a concept; more than 16 characters are a long code value (PS3.3 8.1)."""
    return code, PRIVATE_SCHEME, code.replace("-", " ")


def scale(highest: int) -> Triple:
    """Return the unit of a score from 0 to `highest`: a UCUM annotation, as PS3.16 writes ranges."""
    return f"{{0:{highest}}}", "UCUM", f"range: 0:{highest}"
