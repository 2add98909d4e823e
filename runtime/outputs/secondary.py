"""Secondary captures: each scored region's overlay as a colour image, for viewers that show nothing else.

The picture is the one of `overlay`: the radiograph made smaller, with points, crops, grades and a heading. It holds
nothing of the header. Burned In Annotation is YES, because text is burned in and because the radiograph's own pixels
may hold more of it than can be known here; Pixel Spacing is left out, so that nobody measures in it.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np

from spinescore.runtime.bundle import Bundle
from spinescore.runtime.outputs.common import BODY_PARTS, NOTICE, contributing, equipment, finished, highdicom
from spinescore.runtime.outputs.overlay import draw_overlay
from spinescore.runtime.outputs.source import IDENTITY, check_references, scored_radiographs, source_of
from spinescore.runtime.outputs.uids import content_name, stable_uid
from spinescore.runtime.report import StudyReport
from spinescore.runtime.study import Study
from spinescore.runtime.warned import caught_warnings

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

__all__ = ["secondary_captures"]

_SERIES_NUMBER = 9103


def secondary_captures(
    study: Study, report: StudyReport, bundle: Bundle, created: datetime | None = None
) -> list[Dataset]:
    """A secondary capture (RGB, uncompressed) for each scored region, ready to be written; all in one new series.

    `created` is now where it is None. Raises OutputError where a radiograph has no DICOM header to refer to, or where
    highdicom is missing.
    """
    hd, manifest = highdicom(), bundle.manifest
    check_references(report)
    name, note = content_name(report), f"{NOTICE} {manifest.name} {manifest.version}. {manifest.intended_use}"
    captures: list[Dataset] = []
    with caught_warnings():  # of values that the source's header has
        for region, radiograph, info in scored_radiographs(study, report):
            source = source_of(radiograph, info.radiograph)
            total = "no total" if info.total is None else f"{info.total:g} of 36"
            picture = draw_overlay(radiograph, info, manifest.grader, f"mSASSS {region}: {total}", note)
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
