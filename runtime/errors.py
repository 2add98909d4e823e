"""The errors that spinescore raises, as one tree.

SpineScoreError
├── InputRejected     a file, a radiograph or a study that cannot be scored; `code` says why
├── CheckpointError   trained weights that cannot be read, or do not fit the architecture
├── BundleError       a bundle whose manifest or files are not what they should be
├── EngineError       an inference engine that cannot be loaded or failed to run
├── DeviceError       a device that is missing, full or lost
├── OutputError       a result that cannot be written in the format that was asked for
└── BudgetExceeded    a hard latency budget that was not kept

Every message says what happened, with which object, and what to do next.
"""

from __future__ import annotations

__all__ = [
    "REJECT_CODES",
    "BudgetExceeded",
    "BundleError",
    "CheckpointError",
    "DeviceError",
    "EngineError",
    "InputRejected",
    "OutputError",
    "SpineScoreError",
]

REJECT_CODES: dict[str, str] = {
    "not-dicom": "The file is not DICOM.",
    "no-pixels": "The DICOM file holds no image.",
    "corrupt-pixels": "The image is truncated, or its decoder failed.",
    "not-radiograph": "The image is not a single grey-scale projection radiograph (CR, DX, RF or XA).",
    "not-lateral": "The radiograph is stated to be another projection than lateral.",
    "wrong-region": "The radiograph shows neither the cervical nor the lumbar spine, or it cannot be told which.",
    "too-large": "The image is larger than the declared limit.",
    "too-small": "The image is too small to see vertebral corners.",
    "unsupported-syntax": "No installed decoder reads the file's transfer syntax.",
    "several-studies": "The files belong to more than one study where one was asked for.",
    "two-patients": "The files belong to more than one patient.",
    "low-confidence": "The localizer is not sure of the discs' positions.",
    "implausible-geometry": "The points that were found cannot be a spine.",
}


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


class DeviceError(SpineScoreError):
    """A device that is missing, out of memory or lost."""

    code = "device"


class OutputError(SpineScoreError):
    """A result that cannot be written in the format asked for: no DICOM header to refer to, a library missing."""

    code = "output"


class BudgetExceeded(SpineScoreError):
    """A hard latency budget that was not kept."""

    code = "budget"
