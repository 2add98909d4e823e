"""Radiographs and studies, and the names of regions, levels and sites.

The mSASSS grades 24 anterior vertebral corners: the two that face each of the discs C2/C3 .. C7/T1 and T12/L1 .. L5/S1
(Creemers et al. 2005, doi 10.1136/ard.2004.020503).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "ALL_LEVELS",
    "ALL_SITES",
    "FROM_LIBRARY",
    "LEVELS",
    "REGIONS",
    "SITES",
    "Facing",
    "Finding",
    "Radiograph",
    "Region",
    "Reject",
    "Study",
    "Turn",
    "sites_of",
]

Region = Literal["cervical", "lumbar"]
Facing = Literal["left", "right"]
Turn = Literal[0, 90, 180, 270]  # degrees clockwise

REGIONS: tuple[Region, ...] = ("cervical", "lumbar")

LEVELS: dict[Region, tuple[str, ...]] = {
    "cervical": ("C2/C3", "C3/C4", "C4/C5", "C5/C6", "C6/C7", "C7/T1"),
    "lumbar": ("T12/L1", "L1/L2", "L2/L3", "L3/L4", "L4/L5", "L5/S1"),
}


def sites_of(level: str) -> tuple[str, str]:
    """Return the two sites at the disc `level`, upper one first: `C2/C3` has `C2-inferior` and `C3-superior`."""
    upper, lower = level.split("/")
    return f"{upper}-inferior", f"{lower}-superior"


SITES: dict[Region, tuple[str, ...]] = {
    region: tuple(site for level in levels for site in sites_of(level)) for region, levels in LEVELS.items()
}

# Of both regions, from above.
ALL_LEVELS: tuple[str, ...] = tuple(level for levels in LEVELS.values() for level in levels)
ALL_SITES: tuple[str, ...] = tuple(site for sites in SITES.values() for site in sites)


# The beginning of warnings from a library, which may quote the content of a file.
FROM_LIBRARY = "pydicom: "


@dataclass(frozen=True)
class Finding:
    """A warning or a reject, for example about a radiograph's quality. `code` is one of `codes.CODES`.

    A `reject` prevents the score of its region; a `warning` does not, unless the caller asks for that (see
    `Scorer.score`). `values` holds the numbers and names in `message` (text, numbers, None, or lists of these), by the
    names in `Code.values`.
    """

    code: str
    severity: Literal["warning", "reject"]
    message: str
    region: Region | None = None
    source: str | None = None  # the name of the radiograph: its `source`
    values: Mapping[str, Any] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, eq=False, repr=False)
class Radiograph:
    """One projection radiograph as it was acquired, with the facts in its header. A fact is None if it is not stated.

    Its `repr` names neither the patient nor the file.

    `pixels` holds the stored values (H x W, uint8, uint16, int8 or int16) after decoding and before any table.
    `table` maps them to grey in [0, 1], 1 brightest: `grey = table[pixels - stored_min]` (float32, 2**bits_stored
    entries, which cover every value in `pixels`). `has_window` is false if the header states no VOI transformation and
    the table's contrast was taken from the pixels. Pixels outside a Display Shutter all have one stored value, which
    the table maps to the shutter's grey. `turn_deg` is the clockwise turn that brings the stored picture upright, and
    `facing` is the side of the upright picture towards which the patient looks.
    """

    pixels: NDArray[np.integer[Any]]
    table: NDArray[np.float32]
    stored_min: int = 0
    has_window: bool = True
    padding: tuple[int, int] | None = None  # inclusive range of stored values that are no exposure; their grey is 0
    occluded: tuple[int, float | None] | None = None  # pixels outside a shutter: their stored value and grey
    spacing_mm: tuple[float, float] | None = None  # between rows, between columns
    region: Region | None = None
    view: Literal["lateral", "other"] | None = None
    facing: Facing | None = None
    turn_deg: Turn | None = None
    modality: str | None = None
    sop_instance_uid: str | None = None
    study_instance_uid: str | None = None
    study_date: str | None = None  # YYYYMMDD, as in DICOM
    patient_key: str | None = None  # keyed hash of issuer and patient ID
    decoder: str = "none"
    source: str = ""  # a name for messages, never a full path
    header: Any = None  # the pydicom Dataset before the pixels, for DICOM results; None without one
    warnings: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()  # about the picture's quality, from the header
    facing_from: Literal["header", "user", "program"] = "header"  # user: an option or a list; program: an argument

    def __repr__(self) -> str:
        parts = [str(self.region or "region not stated"), f"{self.rows} x {self.columns} {self.pixels.dtype}"]
        parts += [f"facing {self.facing}"] if self.facing else []
        parts += ["{:g} x {:g} mm".format(*self.spacing_mm)] if self.spacing_mm else []
        return f"<Radiograph: {', '.join(parts)}>"

    @property
    def rows(self) -> int:
        return int(self.pixels.shape[0])

    @property
    def columns(self) -> int:
        return int(self.pixels.shape[1])


@dataclass(frozen=True)
class Reject:
    """The reason why a file, or a region of a study, was not scored. `code` is one of `codes.CODES`."""

    code: str
    message: str
    source: str = ""
    region: Region | None = None


@dataclass(frozen=True, eq=False, repr=False)
class Study:
    """One study: its radiographs in the order of their SOP instance UIDs, and its refused files.

    Its `repr` names neither the patient nor the study.
    """

    radiographs: tuple[Radiograph, ...]
    rejects: tuple[Reject, ...] = ()
    study_instance_uid: str | None = None
    study_date: str | None = None
    patient_key: str | None = None
    warnings: tuple[str, ...] = ()
    read_ms: float | None = None

    def __repr__(self) -> str:
        refused = ", ".join(reject.code for reject in self.rejects) or "none"
        return f"<Study: {', '.join(map(repr, self.radiographs)) or 'no radiograph'}; refused: {refused}>"
