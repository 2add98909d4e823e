"""Reports built by hand from grades, as scoring would have made them."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spinescore.runtime.scoring.expected import UNKNOWN, Expected, expected_score, total_distribution, with_prior
from spinescore.runtime.scoring.msasss import RegionScore, score_region, score_study
from spinescore.runtime.scoring.report import (
    BundleInfo,
    CornerReport,
    DeviceInfo,
    DiscReport,
    RadiographInfo,
    RegionReport,
    RejectInfo,
    StudyInfo,
    StudyReport,
    TimingsMs,
    TotalReport,
)
from spinescore.runtime.study import LEVELS, REGIONS, Region, sites_of

Grades = Sequence[int | None]
NORMAL: Grades = (0,) * 12


def made_report(
    grades: Mapping[str, Grades | None],
    uid: str = "1.2.3",
    day: str | None = "20240110",
    patient: str | None = "a" * 32,
    sha256: str = "b" * 64,
    localizer: str | None = None,
) -> StudyReport:
    """A report; `grades` by region from above, None for a missing corner; a region that is None was rejected."""
    scores = {region: score_region(region, found) for region in REGIONS if (found := grades.get(region)) is not None}
    total = score_study(scores)
    regions = {region: _region(region, grades[region], scores.get(region)) for region in REGIONS}
    return StudyReport(
        study=StudyInfo(uid, day, patient),
        bundle=BundleInfo("tiny", "1", sha256, "Tests of spinescore.", localizer),
        device=DeviceInfo("cpu", "CPU", "onnxruntime 1", "fp32"),
        regions=regions,
        total=TotalReport(total.value, total.range, total.status, total.imputed_sites),
        timings_ms=TimingsMs(None, None, None, None, None),
        budget_ms=None,
        within_budget=None,
        warnings=(),
    )


def write_report(path: Path, *reports: StudyReport) -> Path:
    """One report as JSON, several as JSON Lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [report.to_json(indent=2 if len(reports) == 1 else None) for report in reports]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def close_folder(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Let the system refuse to list folders of this name, as it does for a user without a right to read them."""
    scan = os.scandir

    def refuse(path: Any = ".") -> Any:
        if Path(path).name == name:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)


def changed(grades: Grades, **changes: int | None) -> list[int | None]:
    """The grades with others at the given places: `changed(NORMAL, at3=2)`."""
    found = list(grades)
    for place, grade in changes.items():
        found[int(place.removeprefix("at"))] = grade
    return found


def _region(region: Region, grades: Grades | None, score: RegionScore | None) -> RegionReport:
    if grades is None or score is None:
        return RegionReport("rejected", RejectInfo("low-confidence", "Not sure."), None, (), None, (0, 36), 12)
    discs = [_disc(level, grades[2 * n : 2 * n + 2], score) for n, level in enumerate(LEVELS[region])]
    p = np.array([[corner.probabilities or UNKNOWN for corner in disc.corners] for disc in discs])
    p = with_prior(p, np.array([[corner.probabilities is not None for corner in disc.corners] for disc in discs]))
    image = RadiographInfo("1.2.3.4", 2000, 1500, (0.15, 0.15), "left", "none")
    expected = expected_score(total_distribution(p))
    return RegionReport("scored", None, image, tuple(discs), score.total, score.range, score.missing, expected)


def _disc(level: str, grades: Grades, score: RegionScore) -> DiscReport:
    corners: Any = tuple(
        _corner(site, grade, score.imputed.get(site)) for site, grade in zip(sites_of(level), grades, strict=True)
    )
    return DiscReport(level, (100.0, 200.0), (50.0, 210.0), 0.875, 10.5, corners)


def _corner(site: str, grade: int | None, imputed: float | None) -> CornerReport:
    if grade is None:
        return CornerReport(site, None, None, "unreadable" if imputed is None else "imputed", imputed)
    return CornerReport(site, grade, tuple(0.7 if index == grade else 0.1 for index in range(4)), "scored")


def _example_disc(level: str) -> DiscReport:
    upper, lower = sites_of(level)
    corners = (
        CornerReport(upper, 2, (0.1, 0.2, 0.6, 0.1), "scored"),
        CornerReport(lower, None, None, "imputed", 2.0),
    )
    return DiscReport(level, (100.25, 200.5), (50.0, 210.125), 0.875, 10.5, corners, 4.0, (2, 5))


# A report with a value in each of its fields.
REPORT = StudyReport(
    study=StudyInfo("1.2.3", "20260102", None),
    bundle=BundleInfo("tiny", "1", "a" * 64, "Tests."),
    device=DeviceInfo("cpu", "CPU \N{GREEK SMALL LETTER MU}", "onnxruntime 1", "fp32"),
    regions={
        "cervical": RegionReport(
            "scored",
            None,
            RadiographInfo("1.2.3.4", 2000, 1500, (0.15, 0.15), "left", "none"),
            tuple(_example_disc(level) for level in LEVELS["cervical"]),
            None,
            (12, 30),
            6,
            Expected(20.5, 2.25, (16, 25)),
        ),
        "lumbar": RegionReport(
            "rejected", RejectInfo("low-confidence", "Not sure.", "a.dcm"), None, (), None, (0, 36), 12
        ),
    },
    total=TotalReport(None, (12, 66), "incomplete", ("C3-superior",)),
    timings_ms=TimingsMs(None, 1.5, 0.25, 3.0, 5.0),
    budget_ms=100.0,
    within_budget=True,
    warnings=("Something.",),
    rejects=(RejectInfo("not-dicom", "No.", None),),
)
