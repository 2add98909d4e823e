"""Parts that all DICOM results share: equipment, dates, the objects of each region, and writing a file.

Dates. Content Date and Time, and the other dates of `_DATES`, say when the object was made, as the standard asks
(PS3.3 C.17.2.1, C.11.10, C.8.6.2): now, or `created` if the caller gives it. They are no part of the UIDs. So a result
that is made twice has one UID and differs in its dates only, and with the same `created` in no byte.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from spinescore.runtime.arguments import check_kind
from spinescore.runtime.errors import OutputError
from spinescore.runtime.files import write_atomic
from spinescore.runtime.machine.packages import software_version
from spinescore.runtime.outputs.source import (
    check_references,
    scored_radiographs,
    set_character_set,
    source_of,
    study_of,
)
from spinescore.runtime.outputs.uids import content_name, stable_uid
from spinescore.runtime.outputs.words import NOTICE
from spinescore.runtime.scoring.intake import StudyInput
from spinescore.runtime.scoring.report import RegionReport, StudyReport
from spinescore.runtime.study import Radiograph, Region
from spinescore.runtime.warned import caught_warnings

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

__all__ = [
    "MANUFACTURER",
    "SERIES_NUMBERS",
    "MakeObject",
    "contributing",
    "contribution",
    "equipment",
    "finished",
    "highdicom",
    "objects_by_region",
    "write_dicom",
]

MANUFACTURER = "spinescore"
SERIES_NUMBERS = {"sr": 9101, "gsps": 9102, "sc": 9103}

_BODY_PARTS: dict[Region, str] = {"cervical": "CSPINE", "lumbar": "LSPINE"}
_DATES = (
    ("InstanceCreationDate", "InstanceCreationTime"),
    ("ContentDate", "ContentTime"),
    ("PresentationCreationDate", "PresentationCreationTime"),
    ("DateOfSecondaryCapture", "TimeOfSecondaryCapture"),
)

# Makes a region's object from its radiograph, its name, its report, the radiograph's header (`source_of`) and the
# arguments that all objects of highdicom share.
MakeObject = Callable[[Radiograph, Region, RegionReport, "Dataset", dict[str, Any]], "Dataset"]


def highdicom() -> Any:
    """Return the library that builds the objects. Raises OutputError with the line that installs it."""
    try:
        import highdicom as library
    except ModuleNotFoundError as error:
        raise OutputError(
            f"presentation states and secondary captures are made with {error.name}, which is missing: "
            'pip install "spinescore[results]"'
        ) from error
    return library


def objects_by_region(
    study: StudyInput, report: StudyReport, created: datetime | None, kind: Literal["gsps", "sc"], make: MakeObject
) -> list[Dataset]:
    """Return an object for each scored region, as instances of one new series of the radiographs' study.

    Raises OutputError if highdicom is missing, if the report belongs to another study, or if a radiograph has no header
    that a result can refer to.
    """
    highdicom()
    check_kind("created", created, datetime, optional=True)
    scored_study = study_of(study, report)
    check_references(report)
    name = content_name(report)
    objects: list[Dataset] = []
    with caught_warnings():  # about values of the source's header
        for region, radiograph, region_report in scored_radiographs(scored_study, report):
            source = source_of(radiograph, region_report.radiograph)
            shared = {
                "series_instance_uid": stable_uid(kind, "series", source.StudyInstanceUID, name),
                "series_number": SERIES_NUMBERS[kind],
                "sop_instance_uid": stable_uid(kind, "instance", region, name),
                "instance_number": len(objects) + 1,
                "contributing_equipment": contributing(report),
                **equipment(report),
            }
            dataset = make(radiograph, region, region_report, source, shared)
            objects.append(finished(dataset, source, created, _BODY_PARTS[region]))
    return objects


def _line(words: str, length: int = 64) -> str:
    """Return text for an element of bounded length: one line without backslashes (PS3.5 6.2, LO and ST)."""
    return " ".join(words.replace("\\", "/").split())[:length]


def equipment(report: StudyReport) -> dict[str, Any]:
    """Return the General Equipment (PS3.3 C.7.5.2): the bundle is the model, its hash the serial number."""
    return {
        "manufacturer": MANUFACTURER,
        "manufacturer_model_name": _line(report.bundle.name) or MANUFACTURER,
        "software_versions": [_line(f"spinescore {software_version()}"), _line(f"bundle {report.bundle.version}")],
        "device_serial_number": _line(report.bundle.sha256),
    }


def contribution(report: StudyReport) -> str:
    """Return the Contribution Description (0018,A003): the algorithm, and the device that ran it."""
    device = report.device
    ran_on = f"mSASSS by bundle {report.bundle.name} {report.bundle.version}, SHA-256 {report.bundle.sha256}, "
    ran_on += f"{device.engine} {device.precision} on {device.kind} {device.name}. {NOTICE}"
    return _line(ran_on, 1024)


def contributing(report: StudyReport) -> list[Any]:
    """Return Contributing Equipment (0018,A001) for highdicom: one item with `contribution`."""
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
    """Set the dates and the character set of `ds`, and return it.

    The character set holds all text of `ds`, and `texts`, which will be added later. `body_part` makes the Laterality
    of paired parts unnecessary: it is required unless Body Part Examined says that the part is unpaired (PS3.3
    C.7.3.1).
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
    """Write a result as a DICOM file, whole or not at all. Raises OSError if the disk refuses."""
    from pydicom import dcmwrite

    buffer = io.BytesIO()
    with caught_warnings():  # about values of the source's header
        dcmwrite(buffer, ds, enforce_file_format=True)
    return write_atomic(path, buffer.getvalue())
