"""Secondary captures: each scored region's overlay as a colour image, for viewers that show nothing else.

The picture is the one of `overlay`: the radiograph made smaller, with points, crops, grades and a heading. It holds
nothing of the header. Burned In Annotation is YES, because text is burned in and because the radiograph's own pixels
may hold more of it than can be known here; Pixel Spacing is left out, so that nobody measures in it.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np

from spinescore.runtime.outputs.common import BODY_PARTS, NOTICE, contributing, equipment, finished, highdicom, note_of
from spinescore.runtime.outputs.overlay import draw_overlay
from spinescore.runtime.outputs.source import IDENTITY, check_references, scored_radiographs, source_of, study_of
from spinescore.runtime.outputs.uids import content_name, stable_uid
from spinescore.runtime.scoring.intake import StudyInput
from spinescore.runtime.scoring.report import StudyReport
from spinescore.runtime.warned import caught_warnings

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

__all__ = ["secondary_captures"]

_SERIES_NUMBER = 9103


def secondary_captures(study: StudyInput, report: StudyReport, *, created: datetime | None = None) -> list[Dataset]:
    """Return a DICOM secondary capture for each scored region: its overlay as a colour image (RGB, uncompressed).

    They are Secondary Capture Images in one new series of the radiographs' study, in the order of the report's
    regions; a region that was not scored has none. `study` is what was scored, as `Scorer.score` took it; needed of it
    are pixels and headers (DICOM files have these; arrays are given one with `radiograph_from_array(.., header=)`).
    `created` is the date and time in them, now if it is None; the UIDs do not depend on it.

    Nothing is written or sent: save a dataset with `save_as(path, enforce_file_format=True)`, or use `write_results`.
    Needs the extra `results`. Raises OutputError if it is missing, if the report is of another study, or if a
    radiograph has no header or none that a result can refer to.
    """
    hd, found = highdicom(), study_of(study, report)
    check_references(report)
    name, note = content_name(report), note_of(report.bundle)
    captures: list[Dataset] = []
    with caught_warnings():  # of values that the source's header has
        for region, radiograph, info in scored_radiographs(found, report):
            source = source_of(radiograph, info.radiograph)
            total = "no total" if info.total is None else f"{info.total:g} of 36"
            picture = draw_overlay(radiograph, info, report.bundle.rules, f"mSASSS {region}: {total}", note)
            capture = hd.sc.SCImage(
                pixel_array=np.ascontiguousarray(picture[..., ::-1]),
                photometric_interpretation="RGB",
                bits_allocated=8,
                coordinate_system="PATIENT",
                study_instance_uid=source.StudyInstanceUID,
                series_instance_uid=stable_uid("sc", "series", source.StudyInstanceUID, name),
                series_number=_SERIES_NUMBER,
                sop_instance_uid=stable_uid("sc", "instance", region, name),
                instance_number=len(captures) + 1,
                patient_orientation=source.PatientOrientation or ("P", "F"),
                series_description="mSASSS overlay (not a medical device)",
                contributing_equipment=contributing(report),
                **equipment(report),
            )
            _describe(capture, source)
            captures.append(finished(capture, source, created, BODY_PARTS[region]))
    return captures


def _describe(capture: Dataset, source: Dataset) -> None:
    """Identity, the reference to the radiograph, and what kind of picture it is (PS3.3 C.7.6.1, C.8.6.2)."""
    from pydicom.dataset import Dataset

    for keyword in IDENTITY:
        if keyword in source:
            setattr(capture, keyword, source[keyword].value)
    reference = Dataset()
    reference.ReferencedSOPClassUID = source.SOPClassUID
    reference.ReferencedSOPInstanceUID = source.SOPInstanceUID
    capture.SourceImageSequence = [reference]
    capture.ConversionType = "WSD"
    capture.BurnedInAnnotation = "YES"
    capture.DerivationDescription = f"Overlay of mSASSS grades. {NOTICE}"
    capture.PatientOrientation = source.PatientOrientation
    if source.get("LossyImageCompression") == "01":  # once lossy, always lossy (C.7.6.1.1.5)
        for keyword in ("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod"):
            if keyword in source:
                setattr(capture, keyword, source[keyword].value)
