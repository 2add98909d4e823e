"""Right use of the public door, as users write it: mypy and pyright find nothing in it. Never run."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spinescore.runtime import (
    CODES,
    BudgetExceeded,
    BuildMode,
    Code,
    DeviceName,
    EngineName,
    Facing,
    Finding,
    InputRejected,
    Keypoints,
    PrecisionName,
    Radiograph,
    Region,
    Scorer,
    Study,
    StudyInput,
    StudyReport,
    anonymous,
    load_radiograph,
    load_studies,
    load_study,
    radiograph_from_array,
)

uint16 = np.zeros((300, 300), np.uint16)
int8: NDArray[np.int8] = np.zeros((300, 300), np.int8)
anything: NDArray[Any] = np.zeros((300, 300), np.uint8)


def arrays(scorer: Scorer, radiograph: Radiograph) -> StudyReport:
    """A mapping is taken whatever its values are, written in the call or kept in a variable."""
    scorer.score({"cervical": uint16, "lumbar": uint16})
    scorer.score({"cervical": uint16, "lumbar": int8})
    scorer.score({"cervical": anything, "lumbar": radiograph})
    scorer.score({name: uint16 for name in ("cervical", "lumbar")})  # noqa: C420
    scorer.score(dict(cervical=uint16))  # noqa: C408
    both = {"cervical": uint16, "lumbar": uint16}
    scorer.score(both)
    by_name: dict[str, Radiograph] = {"cervical": radiograph}
    scorer.score(by_name, 250, strict=True)
    by_region: dict[Region, NDArray[np.uint16]] = {"lumbar": uint16}
    scorer.score(by_region, budget_ms=250.0, hard=True)
    mixed: Mapping[str, Radiograph | NDArray[np.uint8]] = by_name
    return scorer.score(mixed)


def radiographs(scorer: Scorer, found: list[Radiograph], by_region: dict[Region, Radiograph]) -> StudyReport | None:
    scorer.score(found[0])
    scorer.score(found)
    scorer.score((found[0], found[1]))
    scorer.score(image for image in found)
    scorer.score(by_region.values())
    return scorer.try_score(Study(tuple(found)))


def keypoints(scorer: Scorer, study: StudyInput, array: NDArray[np.float64]) -> None:
    scorer.score(study, keypoints={"cervical": {"C2/C3": ((812.5, 640.0), (731.0, 655.5))}})
    scorer.score(study, keypoints={"cervical": {"C2/C3": [[812, 640], [731, 655]]}, "lumbar": {}})
    scorer.score(study, keypoints={"cervical": {"C2/C3": array}})
    by_region: dict[Region, dict[str, list[list[float]]]] = {"lumbar": {"L1/L2": [[1.0, 2.0], [3.0, 4.0]]}}
    points: Keypoints = by_region
    scorer.crops(study, points)


def options(
    device: DeviceName, engine: EngineName | None, precision: PrecisionName, build: BuildMode
) -> Iterator[Scorer]:
    yield Scorer.open()
    yield Scorer.open("phantom-reference", "cpu", threads=2, plan=None)
    yield Scorer.open(Path("bundle"), device, engine=engine, precision=precision, build=build, progress=print)


def reading(folder: Path, side: Facing) -> Study:
    array = radiograph_from_array(uint16, region="cervical", spacing_mm=0.15, facing=side)
    radiograph_from_array(anything, spacing_mm=(0.15, 0.14))
    load_radiograph(folder / "neck.dcm", window="BONE")
    load_radiograph(b"DICM")
    study = load_study(folder, "back.dcm", io.BytesIO(b""))
    load_studies([folder])[0].radiographs[0].pixels.astype(np.float32)
    return anonymous(Study((*study.radiographs, array)))


def results(scorer: Scorer, study: Study) -> dict[str, int | None]:
    try:
        report = scorer.score(study)
    except BudgetExceeded as fault:
        if fault.report is None:
            return {}
        return {"mSASSS": fault.report.total.range[0], **{stage: int(ms) for stage, ms in fault.timings_ms.items()}}
    except InputRejected as fault:
        raise SystemExit(fault.code) from fault
    grades = {
        corner.site: corner.grade
        for region in report.regions.values()
        for disc in region.discs
        for corner in disc.corners
    }
    cervical = report.regions["cervical"]
    if cervical.reject is not None:
        print(cervical.reject.code, [finding.code for finding in report.findings])
    StudyReport.from_json(report.to_json(indent=None))
    return grades


def warnings_with_codes(report: StudyReport) -> dict[Finding, Code]:
    """The codes of warnings, and their names, can be written down as types."""
    notices: tuple[Finding, ...] = report.notices
    codes: Mapping[str, Code] = CODES
    return {notice: codes[notice.code] for notice in notices if notice.severity == "warning"}
