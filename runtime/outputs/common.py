"""What the DICOM outputs share: who made them, their dates, writing them, and for two of them highdicom.

Dates. Content Date and Time, and their kin, say when the object was made, as the standard wants (PS3.3 C.17.2.1,
C.11.10, C.8.6.2): now, or `created` where the caller states it. They are no part of the UIDs. So a result that is made
twice has one UID and differs in its dates alone, and with the same `created` in no byte.
"""

from __future__ import annotations

import io
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spinescore.runtime.errors import OutputError
from spinescore.runtime.files import write_atomic
from spinescore.runtime.outputs.source import set_character_set
from spinescore.runtime.outputs.uids import software_version
from spinescore.runtime.scoring.report import BundleInfo, StudyReport
from spinescore.runtime.study import Region
from spinescore.runtime.warned import caught_warnings

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

__all__ = [
    "BODY_PARTS",
    "MANUFACTURER",
    "NOTICE",
    "contributing",
    "contribution",
    "equipment",
    "finished",
    "highdicom",
    "note_of",
    "write_dicom",
]

BODY_PARTS: dict[Region, str] = {"cervical": "CSPINE", "lumbar": "LSPINE"}
NOTICE = "Not a medical device."
MANUFACTURER = "spinescore"

_DATES = (
    ("InstanceCreationDate", "InstanceCreationTime"),
    ("ContentDate", "ContentTime"),
    ("PresentationCreationDate", "PresentationCreationTime"),
    ("DateOfSecondaryCapture", "TimeOfSecondaryCapture"),
)


def highdicom() -> Any:
    """The library that builds the objects. Raises OutputError with the line that installs it."""
    try:
        import highdicom as found
    except ModuleNotFoundError as error:
        raise OutputError(
            f"presentation states and secondary captures are made with {error.name}, which is missing: "
            'pip install "spinescore[results]"'
        ) from error
    return found


def note_of(bundle: BundleInfo) -> str:
    """The lines above an overlay."""
    return f"{NOTICE} {bundle.name} {bundle.version}. {bundle.intended_use}"


def _line(words: str, length: int = 64) -> str:
    """Text for an element of bounded length: one line without backslashes (PS3.5 6.2, LO and ST)."""
    return " ".join(words.replace("\\", "/").split())[:length]


def equipment(report: StudyReport) -> dict[str, Any]:
    """The General Equipment of a result: the bundle is the model, its hash the serial number (PS3.3 C.7.5.2)."""
    return {
        "manufacturer": MANUFACTURER,
        "manufacturer_model_name": _line(report.bundle.name) or MANUFACTURER,
        "software_versions": [_line(f"spinescore {software_version()}"), _line(f"bundle {report.bundle.version}")],
        "device_serial_number": _line(report.bundle.sha256),
    }


def contribution(report: StudyReport) -> str:
    """The Contribution Description (0018,A003): the algorithm and what it ran on."""
    device = report.device
    ran_on = f"mSASSS by bundle {report.bundle.name} {report.bundle.version}, SHA-256 {report.bundle.sha256}, "
    ran_on += f"{device.engine} {device.precision} on {device.kind} {device.name}. {NOTICE}"
    return _line(ran_on, 1024)


def contributing(report: StudyReport) -> list[Any]:
    """The item of Contributing Equipment (0018,A001) that names the algorithm and what it ran on, for highdicom."""
    from pydicom.sr.codedict import codes

    return [
        highdicom().ContributingEquipment(
            purpose_of_reference=codes.DCM.ProcessingEquipment,
            contribution_description=contribution(report),
            **equipment(report),
        )
    ]


def finished(
    ds: Dataset,
    source: Dataset,
    created: datetime | None,
    body_part: str | None = None,
    texts: Iterable[str] = (),
) -> Dataset:
    """Dates, and a character set that holds all text of `ds` and also `texts`, which will follow.

    `body_part` spares the Laterality of paired parts: it is required where Body Part Examined does not say that the
    part is unpaired (PS3.3 C.7.3.1).
    """
    when = created or datetime.now()
    date, time = when.strftime("%Y%m%d"), when.strftime("%H%M%S.%f")
    for date_keyword, time_keyword in _DATES:
        if date_keyword in ds:
            setattr(ds, date_keyword, date)
            setattr(ds, time_keyword, time)
    for item in ds.get("ContributingEquipmentSequence", ()):
        if "ContributionDateTime" in item:
            item.ContributionDateTime = date + time
    if body_part is not None:
        ds.BodyPartExamined = body_part
    set_character_set(ds, source, texts)
    return ds


def write_dicom(path: Path, ds: Dataset) -> Path:
    """Write a result as a DICOM file, whole or not at all. Raises OSError where the disk refuses."""
    from pydicom import dcmwrite

    buffer = io.BytesIO()
    with caught_warnings():  # of values that the source's header has
        dcmwrite(buffer, ds, enforce_file_format=True)
    return write_atomic(path, buffer.getvalue())
