"""Score lateral spine studies with the mSASSS.

    from spinescore.runtime import Scorer, load_study

    with Scorer.open(bundle="phantom-reference", device="auto") as scorer:
        report = scorer.score(load_study("study/"))

A study and its report give DICOM objects (`structured_report`, `secondary_captures`, `presentation_states`), a page
(`html`) and files (`write_results`).

Importing this package loads numpy at most; OpenCV, pydicom and the inference engine come with their first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from spinescore.runtime import silence  # noqa: F401  # before any engine is imported

if TYPE_CHECKING:
    from spinescore.runtime.codes import CODES, Code
    from spinescore.runtime.errors import (
        BudgetExceeded,
        BundleError,
        Cancelled,
        CheckpointError,
        DeviceError,
        EngineError,
        InputRejected,
        OutputError,
        SelfTestError,
        SpineScoreError,
    )
    from spinescore.runtime.machine.processes import freeze_support
    from spinescore.runtime.names import BuildMode, DeviceName, EngineName, PrecisionName
    from spinescore.runtime.outputs.html import html
    from spinescore.runtime.outputs.presentation import presentation_states
    from spinescore.runtime.outputs.results import write_results
    from spinescore.runtime.outputs.secondary import secondary_captures
    from spinescore.runtime.outputs.structured import structured_report
    from spinescore.runtime.reading.anonymous import anonymous
    from spinescore.runtime.reading.arrays import radiograph_from_array
    from spinescore.runtime.reading.studies import load_radiograph, load_studies, load_study
    from spinescore.runtime.scorer import Scorer
    from spinescore.runtime.scoring.correction import Correction, correct, corrections_of, keypoints_of
    from spinescore.runtime.scoring.intake import Keypoints, StudyInput
    from spinescore.runtime.scoring.report import StudyReport
    from spinescore.runtime.study import Facing, Finding, Radiograph, Region, Study

    __version__: str

__all__ = [
    "CODES",
    "BudgetExceeded",
    "BuildMode",
    "BundleError",
    "Cancelled",
    "CheckpointError",
    "Code",
    "Correction",
    "DeviceError",
    "DeviceName",
    "EngineError",
    "EngineName",
    "Facing",
    "Finding",
    "InputRejected",
    "Keypoints",
    "OutputError",
    "PrecisionName",
    "Radiograph",
    "Region",
    "Scorer",
    "SelfTestError",
    "SpineScoreError",
    "Study",
    "StudyInput",
    "StudyReport",
    "anonymous",
    "correct",
    "corrections_of",
    "freeze_support",
    "html",
    "keypoints_of",
    "load_radiograph",
    "load_studies",
    "load_study",
    "presentation_states",
    "radiograph_from_array",
    "secondary_captures",
    "structured_report",
    "write_results",
]

_HOMES = {
    "BuildMode": "names",
    "CODES": "codes",
    "Code": "codes",
    "Correction": "scoring.correction",
    "DeviceName": "names",
    "EngineName": "names",
    "Facing": "study",
    "Finding": "study",
    "Keypoints": "scoring.intake",
    "PrecisionName": "names",
    "Radiograph": "study",
    "Region": "study",
    "Scorer": "scorer",
    "Study": "study",
    "StudyInput": "scoring.intake",
    "StudyReport": "scoring.report",
    "anonymous": "reading.anonymous",
    "correct": "scoring.correction",
    "corrections_of": "scoring.correction",
    "html": "outputs.html",
    "freeze_support": "machine.processes",
    "keypoints_of": "scoring.correction",
    "load_radiograph": "reading.studies",
    "load_studies": "reading.studies",
    "load_study": "reading.studies",
    "presentation_states": "outputs.presentation",
    "radiograph_from_array": "reading.arrays",
    "secondary_captures": "outputs.secondary",
    "structured_report": "outputs.structured",
    "write_results": "outputs.results",
}

if not TYPE_CHECKING:  # to a type checker a name that is not in `__all__` is an error

    def __getattr__(name: str) -> Any:
        if name == "__version__":  # of the package, from its metadata
            from spinescore.runtime.machine.packages import software_version

            return software_version()
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(f"{__name__}.{_HOMES.get(name, 'errors')}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
