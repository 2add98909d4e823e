"""The errors that spinescore raises, as one tree.

SpineScoreError
├── InputRejected     a file, a radiograph or a study that cannot be scored; `code` says why
├── CheckpointError   trained weights that cannot be read, or do not fit the architecture
├── BundleError       a bundle whose manifest or files are not what they should be
├── EngineError       an inference engine that cannot be loaded or failed to run
│   └── SelfTestError     one that computes wrongly in this process
├── DeviceError       a device that is missing, full or lost
├── OutputError       a result that cannot be written in the format that was asked for
├── BudgetExceeded    a hard latency budget that was not kept; it says what was done by then
└── Cancelled         a study whose scoring was given up because its caller asked for that

Every message says what happened, with which object, and what to do next.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from spinescore.runtime.report import StudyReport

__all__ = [
    "CODES",
    "REJECT_CODES",
    "BudgetExceeded",
    "BundleError",
    "Cancelled",
    "CheckpointError",
    "Code",
    "DeviceError",
    "EngineError",
    "InputRejected",
    "OutputError",
    "SelfTestError",
    "SpineScoreError",
]

Severity = Literal["warning", "reject"]


@dataclass(frozen=True)
class Code:
    """What a code stands for: a warning or a reject, its meaning, and what to do next."""

    severity: Severity
    meaning: str
    next_step: str


# Every code of a reject or a finding. `codes.md` says the same for people; codes are added, never renamed.
CODES: dict[str, Code] = {
    # Files and headers that cannot be scored
    "not-dicom": Code("reject", "The file is not DICOM.", "give the original file from the modality or the archive"),
    "no-pixels": Code("reject", "The DICOM file holds no image.", "give the radiograph itself"),
    "corrupt-pixels": Code(
        "reject",
        "The image is truncated, or its decoder failed.",
        "send it again from the modality or the archive",
    ),
    "not-radiograph": Code(
        "reject",
        "The image is not a single grey-scale projection radiograph (CR, DX, RF or XA): another modality, colour, or "
        "several frames.",
        "give the radiograph as the modality made it",
    ),
    "not-lateral": Code(
        "reject",
        "The radiograph is stated to be another projection than lateral, AP for example.",
        "give the lateral one, or correct its view",
    ),
    "wrong-region": Code(
        "reject",
        "The radiograph shows neither the cervical nor the lumbar spine, or it cannot be told which.",
        "give the right radiograph, or name its region",
    ),
    "too-large": Code("reject", "The image is larger than the declared limit.", "export it again, or raise the limit"),
    "too-small": Code(
        "reject", "The image is too small to see vertebral corners.", "give the original, not a preview of it"
    ),
    "unsupported-syntax": Code(
        "reject",
        "No installed decoder reads the file's transfer syntax.",
        "install the decoders that the message names, or export the file uncompressed",
    ),
    "missing-file": Code(
        "reject",
        "Files that a DICOMDIR refers to are not there.",
        "copy the whole medium again, or give the folder that holds the images",
    ),
    "several-studies": Code(
        "reject",
        "The files belong to more than one study where one was asked for.",
        "give one study at a time",
    ),
    "two-patients": Code("reject", "The files belong to more than one patient.", "give one patient's files at a time"),
    "localizer-image": Code(
        "reject",
        "The header calls the image a localizer (scout), which is made for planning.",
        "give the diagnostic radiograph",
    ),
    "blank": Code(
        "reject",
        "The picture shows nothing but one grey, or noise.",
        "look at the original; it was not exposed, or was damaged on its way",
    ),
    # Regions that cannot be trusted
    "low-confidence": Code(
        "reject",
        "The localizer is not sure of the discs' positions.",
        "check that it is a lateral radiograph of that region, or give the points",
    ),
    "implausible-geometry": Code(
        "reject",
        "The points that were found cannot be a spine.",
        "check the picture and its orientation, or give the points",
    ),
    # What a latency budget left no time for
    "no-time": Code(
        "reject",
        "The header does not tell the region, or the side to which the patient looks, and the latency budget left no "
        "time to ask the picture.",
        "state them in the header, or give a larger budget",
    ),
    # What a header says of a radiograph's quality
    "secondary-capture": Code(
        "warning",
        "The image is a secondary capture: scanned, or saved again by a workstation, and no longer what the detector "
        "saw.",
        "give the modality's original image where there is one",
    ),
    "for-processing": Code(
        "warning",
        "The image is raw detector data (FOR PROCESSING), whose contrast is not that of a radiograph for reading.",
        "give the image that is FOR PRESENTATION",
    ),
    "burned-in-text": Code(
        "warning",
        "The header says that text is burned into the picture; it may name the patient, or cover a corner.",
        "look at the picture before it leaves the house, and give one without text where there is one",
    ),
    "lossy-compression": Code(
        "warning",
        "The image was compressed with loss so strongly that fine detail of corners may be gone.",
        "give the image as it was before compression",
    ),
    "no-spacing": Code(
        "warning",
        "The header states no pixel spacing that is understood, so that the size of what is found cannot be checked.",
        "export the image with its pixel spacing",
    ),
    "other-body-part": Code(
        "warning",
        "The header names a body part other than the cervical or lumbar spine.",
        "check that the picture shows the region that it was scored as, and correct its header",
    ),
    "not-neutral": Code(
        "warning",
        "The header names a view that the mSASSS is not defined on: flexion, extension, swimmer's, spot, oblique.",
        "give the lateral view in neutral posture that shows the whole region",
    ),
    # What the picture itself shows before it is scored
    "inverted": Code(
        "warning",
        "Air is bright and bone is dark, as where the photometric interpretation or the LUT is wrong.",
        "correct the photometric interpretation at its source",
    ),
    "saturated": Code(
        "warning",
        "A large part of the picture is white without detail.",
        "give a wider window, or the original image",
    ),
    "under-exposed": Code(
        "warning",
        "The picture's noise is strong against what it shows.",
        "check the corners by eye; the exposure was too low for small changes",
    ),
    # What shows after the points were found
    "cropped-spine": Code(
        "warning",
        "A disc, or the neighbourhood of its corners, lies at or beyond the picture's border.",
        "check the corners named by eye, or give a radiograph that shows the whole region",
    ),
    "unsure-points": Code(
        "warning",
        "The localizer found discs with less confidence than usual.",
        "check their points on the overlay, or give them",
    ),
    "level-shift": Code(
        "warning",
        "The discs that were found may be those one level above or below.",
        "count the levels on the overlay, and give the points where they are off",
    ),
    "not-upright": Code(
        "warning",
        "The picture seems to stand upside down or on its side, and its header does not say so.",
        "look at the overlay, and state the Patient Orientation in the header",
    ),
    "orientation-contradicts": Code(
        "warning",
        "The picture shows the patient mirrored or turned otherwise than its header states.",
        "look at the overlay, and correct the header's Patient Orientation",
    ),
    "implausible-spacing": Code(
        "warning",
        "By the header's pixel spacing the vertebrae would be larger or smaller than a person's.",
        "check the pixel spacing, and that the region is right",
    ),
    "obscured-corner": Code(
        "warning",
        "Metal or text seems to lie over or beside a corner.",
        "check the corners named by eye",
    ),
    "views-contradict": Code(
        "warning",
        "The two radiographs do not seem to belong together.",
        "check that both show the same patient on the same day",
    ),
    # What is not of a radiograph, and rejects no region where it is strict
    "engine-failed": Code(
        "warning",
        "An engine computed wrongly in this process: its self-test on the bundle's golden inputs failed, and another "
        "engine scored.",
        "run the acceptance gate again (spinescore bundle verify BUNDLE --device D), and report the engine's version",
    ),
    "engine-untested": Code(
        "warning",
        "The engine could not be tested in this process: the bundle has no golden inputs.",
        "export the bundle again",
    ),
}

REJECT_CODES: dict[str, str] = {name: code.meaning for name, code in CODES.items() if code.severity == "reject"}


class SpineScoreError(Exception):
    """Base of all errors raised by spinescore; `code` is stable and meant for machines."""

    code = "error"


class InputRejected(SpineScoreError):
    """Input that cannot be scored. `code` is one of `REJECT_CODES`."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        if code not in REJECT_CODES:
            raise ValueError(f"{code!r} is not a reject code; known are {', '.join(REJECT_CODES)}")
        self.code = code

    def __reduce__(self) -> tuple[type[InputRejected], tuple[str, str]]:
        return type(self), (self.code, str(self))


class CheckpointError(SpineScoreError):
    """Trained weights that cannot be read safely, or do not fit the architecture."""

    code = "checkpoint"


class BundleError(SpineScoreError):
    """A bundle that is missing, incomplete, altered or of an unknown schema."""

    code = "bundle"


class EngineError(SpineScoreError):
    """An inference engine that cannot be loaded, or failed while it ran."""

    code = "engine"


class SelfTestError(EngineError):
    """An engine that computed wrongly in this process, on golden inputs of the bundle. No grades of it were given out.

    `code` is that of the warning in reports if another engine takes its place.
    """

    code = "engine-failed"


class DeviceError(SpineScoreError):
    """A device that is missing, out of memory or lost."""

    code = "device"


class OutputError(SpineScoreError):
    """A result that cannot be written in the format asked for: no DICOM header to refer to, a library missing."""

    code = "output"


class BudgetExceeded(SpineScoreError):
    """A hard latency budget that was not kept, or could not be.

    `timings_ms` has each stage that was finished, in order, with the milliseconds that had passed by then; `report` is
    the study's report where all was done but late (a `StudyReport`), else None.
    """

    code = "budget"

    def __init__(
        self, message: str, timings_ms: Mapping[str, float] | None = None, report: StudyReport | None = None
    ) -> None:
        super().__init__(message)
        self.timings_ms: dict[str, float] = dict(timings_ms or {})
        self.report: StudyReport | None = report

    @property
    def stages(self) -> tuple[str, ...]:
        """What was finished, in order."""
        return tuple(self.timings_ms)

    def __reduce__(self) -> tuple[type[BudgetExceeded], tuple[str, dict[str, float], StudyReport | None]]:
        return type(self), (str(self), self.timings_ms, self.report)


class Cancelled(SpineScoreError):
    """Scoring was given up between two stages because its caller asked for that; the scorer stays as it is."""

    code = "cancelled"
