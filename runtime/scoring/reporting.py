"""Build the report of a study from the results of its regions: totals, warnings, rejects and times."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spinescore.runtime.bundle import Bundle
from spinescore.runtime.bundle.provenance import unchecked_note
from spinescore.runtime.machine.packages import software_version
from spinescore.runtime.notices import findings_of
from spinescore.runtime.scoring.budget import Budget
from spinescore.runtime.scoring.bundleinfo import bundle_info
from spinescore.runtime.scoring.expected import UNKNOWN, total_distribution, with_prior
from spinescore.runtime.scoring.geometry import rotation_deg
from spinescore.runtime.scoring.grading import CornerGrade
from spinescore.runtime.scoring.judgement import RegionResult
from spinescore.runtime.scoring.msasss import RegionScore, score_region
from spinescore.runtime.scoring.pixelidentity import pixels_digest
from spinescore.runtime.scoring.report import (
    CornerReport,
    DeviceInfo,
    DiscReport,
    RadiographInfo,
    RegionReport,
    RejectInfo,
    StudyInfo,
    StudyReport,
    TimingsMs,
    UntrustedPoints,
)
from spinescore.runtime.scoring.selection import Chosen, Selection
from spinescore.runtime.scoring.totals import scored_region, total_report, unscored_region
from spinescore.runtime.study import LEVELS, REGIONS, Finding, Region, Reject, Study, sites_of

__all__ = ["study_report", "timed", "with_findings", "with_notices"]


def study_report(
    study: Study,
    bundle: Bundle,
    device: DeviceInfo,
    selection: Selection,
    results: Mapping[Region, RegionResult],
    max_imputed: int,
) -> StudyReport:
    """Return the report of one study, without times; regions without a result are rejected or missing."""
    scores = {
        region: score_region(region, [corner.grade for disc in result.grades for corner in disc], max_imputed)
        for region, result in results.items()
        if result.reject is None
    }
    distributions = {region: total_distribution(_believed(results[region])) for region in scores}
    refused = _refused(selection, results)
    found = [*selection.rejects, *(result.reject for result in results.values() if result.reject is not None)]
    rejects = tuple(dict.fromkeys(map(_reject_info, found)))
    rejected = tuple(Finding(one.code, "reject", one.message, one.region, one.source) for one in rejects)
    report = StudyReport(
        study=StudyInfo(study.study_instance_uid, study.study_date, study.patient_key),
        bundle=bundle_info(bundle),
        device=device,
        regions={
            region: _region(region, results.get(region) or refused.get(region), scores.get(region), distributions)
            for region in REGIONS
        },
        total=total_report(scores, distributions),
        timings_ms=TimingsMs(None, None, None, None, None),
        budget_ms=None,
        within_budget=None,
        warnings=(),
        rejects=rejects,
        findings=(*rejected, *selection.findings),
        software_version=software_version(),
        max_imputed_per_region=max_imputed,
    )
    unchecked = findings_of(unchecked_note(bundle.manifest))
    return with_notices(report, (*findings_of(selection.warnings), *selection.findings, *unchecked))


def timed(report: StudyReport, read_ms: float | None, budget: Budget) -> StudyReport:
    """Return the report with its times up to now, the skipped steps, and whether the budget was kept."""
    spent_ms = round(budget.finish(), 3)
    total_ms = round(spent_ms + (read_ms or 0.0) - budget.read_ms, 3)
    parts = {stage: round(value, 3) for stage, value in budget.stages_ms.items()}
    read = None if read_ms is None else round(read_ms, 3)
    report = with_notices(report, findings_of(budget.warnings))
    return replace(
        report,
        timings_ms=TimingsMs(read, parts.get("localize"), parts.get("crop"), parts.get("grade"), total_ms),
        budget_ms=budget.ms,
        within_budget=None if budget.ms is None else spent_ms <= budget.ms,
        skipped=budget.skipped,
    )


def with_findings(report: StudyReport, findings: Sequence[Finding]) -> StudyReport:
    """Return the report with findings that belong to no radiograph, and with their sentences."""
    return with_notices(replace(report, findings=(*report.findings, *findings)), findings)


def with_notices(report: StudyReport, more: Sequence[Finding]) -> StudyReport:
    """Return the report with more warnings and their sentences, each once."""
    notices = tuple(dict.fromkeys((*report.notices, *more)))
    return replace(report, notices=notices, warnings=tuple(dict.fromkeys(one.message for one in notices)))


def _refused(selection: Selection, results: Mapping[Region, RegionResult]) -> dict[Region, Reject]:
    """Return the reject to show for each region without a result.

    A refused file that does not state its region may show any region that has no radiograph. Such files are taken in
    order, one for each region; the last one is shown for all regions that are left.
    """
    nameless = [reject for reject in selection.rejects if reject.region is None]
    refused = {}
    for region in (region for region in REGIONS if region not in results):
        own = [reject for reject in selection.rejects if reject.region == region]
        if own:
            refused[region] = own[0]
        elif nameless:
            refused[region] = nameless.pop(0) if len(nameless) > 1 else nameless[0]
    return refused


def _region(
    region: Region,
    found: RegionResult | Reject | None,
    score: RegionScore | None,
    distributions: Mapping[Region, NDArray[np.float64]],
) -> RegionReport:
    """Return the report of a region from its result, or from the reject of its radiograph."""
    if not isinstance(found, RegionResult):
        return unscored_region(region, None if found is None else _reject_info(found), None, ())
    radiograph = _radiograph_info(found.chosen)
    if score is not None:
        return scored_region(radiograph, _discs(found), score, distributions[region])
    reject = None if found.reject is None else _reject_info(found.reject)
    return unscored_region(region, reject, radiograph, _untrusted_points(found))


def _places(result: RegionResult) -> list[dict[str, Any]]:
    """Return the fields that discs of scored and rejected regions share."""
    found = zip(LEVELS[result.region], result.centre, result.anterior, result.confidence.tolist(), strict=True)
    return [
        {
            "level": level,
            "centre_px": _xy(centre),
            "anterior_px": _xy(anterior),
            "confidence": round(confidence, 4),
            "points": "given" if disc in result.given else "found",
        }
        for disc, (level, centre, anterior, confidence) in enumerate(found)
    ]


def _xy(point: NDArray[np.float64]) -> tuple[float, float]:
    x, y = point.tolist()
    return round(x, 3), round(y, 3)


def _untrusted_points(result: RegionResult) -> tuple[UntrustedPoints, ...]:
    """Return the points of a rejected region, without the discs that have none."""
    there = (result.confidence > 0) & np.isfinite([result.centre, result.anterior]).all(axis=(0, 2))
    return tuple(UntrustedPoints(**place) for place, is_there in zip(_places(result), there, strict=True) if is_there)


def _discs(result: RegionResult) -> list[DiscReport]:
    """Return the discs of a region without their totals and without imputed values."""
    rotations, discs = rotation_deg(*result.upright, result.chosen.facing).tolist(), []
    for place, rotation, grades in zip(_places(result), rotations, result.grades, strict=True):
        upper, lower = (_corner(site, grade) for site, grade in zip(sites_of(place["level"]), grades, strict=True))
        discs.append(DiscReport(rotation_deg=round(rotation, 3), corners=(upper, lower), **place))
    return discs


def _believed(result: RegionResult) -> NDArray[np.float64]:
    """Return p0 .. p3 (6, 2, 4); the probabilities of an unreadable corner do not count."""
    probabilities = np.array([[corner.probabilities or UNKNOWN for corner in disc] for disc in result.grades])
    readable = [
        [corner.status != "unreadable" and bool(corner.probabilities) for corner in disc] for disc in result.grades
    ]
    return with_prior(probabilities, np.array(readable))


def _corner(site: str, grade: CornerGrade) -> CornerReport:
    probabilities = None if grade.probabilities is None else tuple(round(p, 6) for p in grade.probabilities)
    missing_because = None if grade.status == "scored" else grade.status
    return CornerReport(site, grade.grade, probabilities, grade.status, None, "network", missing_because)


def _radiograph_info(chosen: Chosen) -> RadiographInfo:
    radiograph = chosen.radiograph
    return RadiographInfo(
        radiograph.sop_instance_uid,
        radiograph.rows,
        radiograph.columns,
        radiograph.spacing_mm,
        chosen.facing,
        radiograph.decoder,
        radiograph.source,
        chosen.turn_deg,
        pixels_digest(radiograph.pixels),
    )


def _reject_info(reject: Reject) -> RejectInfo:
    return RejectInfo(reject.code, reject.message, reject.source or None, reject.region)
