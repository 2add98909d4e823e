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
from typing import TYPE_CHECKING

from spinescore.runtime.codes import CODES, REJECT_CODES, Code

if TYPE_CHECKING:
    from spinescore.runtime.scoring.report import StudyReport

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
    """An engine that computed wrongly in this process, on golden inputs of the bundle. It gave out no grades.

    `code` is that of the warning in reports if another engine takes its place.
    """

    code = "engine-failed"


class DeviceError(SpineScoreError):
    """A device that is missing, out of memory or lost."""

    code = "device"


class OutputError(SpineScoreError):
    """A result that cannot be written in this format: there is no DICOM header to refer to, or a library is missing."""

    code = "output"


class BudgetExceeded(SpineScoreError):
    """A hard latency budget that was not kept, or that cannot be kept.

    `timings_ms` has each finished stage, in order, with the milliseconds since the start. `report` is the
    study's `StudyReport` if all of it was done, but too late; else None.
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
        """The names of the finished stages, in order."""
        return tuple(self.timings_ms)

    def __reduce__(self) -> tuple[type[BudgetExceeded], tuple[str, dict[str, float], StudyReport | None]]:
        return type(self), (str(self), self.timings_ms, self.report)


class Cancelled(SpineScoreError):
    """Scoring or opening was given up between two steps, because its caller asked for that.

    A scorer that is open stays as it is.
    """

    code = "cancelled"
