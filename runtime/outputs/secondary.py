"""Secondary captures: each scored region's overlay as a colour image, for viewers that show nothing else.

The picture is that of `overlay`: the radiograph made smaller, with points, crops, grades and a heading. It contains
nothing of the header. Burned In Annotation is YES, because text is burned in, and because the radiograph's own pixels
may contain more text than can be known here. Pixel Spacing is left out, so that nobody measures in the picture.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from spinescore.runtime.outputs.dicomobjects import highdicom, objects_by_region
from spinescore.runtime.outputs.source import IDENTITY, LOSSY, copy_elements
from spinescore.runtime.outputs.words import NOTICE, note_of, region_title
from spinescore.runtime.scoring.intake import StudyInput
from spinescore.runtime.scoring.report import RegionReport, StudyReport
from spinescore.runtime.study import Radiograph, Region

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

__all__ = ["secondary_captures"]


def secondary_captures(study: StudyInput, report: StudyReport, *, created: datetime | None = None) -> list[Dataset]:
    """Return a DICOM secondary capture for each scored region: its overlay as a colour image (RGB, uncompressed).

    The objects are Secondary Capture Images in one new series of the radiographs' study, in the order of the report's
    regions. A region that was not scored has none. `study` is the study that was scored, as it was given to
    `Scorer.score`. Its pixels and headers are needed (DICOM files have these; an array gets a header by
    `radiograph_from_array(.., header=)`). `created` is the date and time in the objects, now if it is None. The UIDs do
    not depend on it.

    Nothing is written or sent: save a dataset with `save_as(path, enforce_file_format=True)`, or use `write_results`.
    Needs the extra `results`. Raises OutputError if that is missing, if the report belongs to another study, or if a
    radiograph has no header that a result can refer to.
    """

    from spinescore.runtime.outputs.overlay import draw_overlay  # loads OpenCV

    def capture(
        radiograph: Radiograph, name: Region, region: RegionReport, source: Dataset, shared: dict[str, Any]
    ) -> Dataset:
        title, note = region_title(name, region), note_of(report.bundle)
        picture = draw_overlay(radiograph, region, report.bundle.rules, title, note)
        dataset: Dataset = highdicom().sc.SCImage(
            pixel_array=np.ascontiguousarray(picture[..., ::-1]),
            photometric_interpretation="RGB",
            bits_allocated=8,
            coordinate_system="PATIENT",
            study_instance_uid=source.StudyInstanceUID,
            patient_orientation=source.PatientOrientation or ("P", "F"),
            series_description="mSASSS overlay (not a medical device)",
            **shared,
        )
        _describe(dataset, source)
        return dataset

    return objects_by_region(study, report, created, "sc", capture)


def _describe(capture: Dataset, source: Dataset) -> None:
    """Set the identity, the reference to the radiograph, and the kind of picture (PS3.3 C.7.6.1, C.8.6.2)."""
    from pydicom.dataset import Dataset

    lossy = source.get("LossyImageCompression") == "01"  # an image stays lossy for ever (C.7.6.1.1.5)
    copy_elements(source, capture, (*IDENTITY, *(LOSSY if lossy else ())))
    reference = Dataset()
    reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = source.SOPClassUID, source.SOPInstanceUID
    capture.SourceImageSequence = [reference]
    capture.ConversionType, capture.BurnedInAnnotation = "WSD", "YES"
    capture.DerivationDescription = f"Overlay of mSASSS grades. {NOTICE}"
    capture.PatientOrientation = source.PatientOrientation
