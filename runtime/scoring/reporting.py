"""Build the report of a study from the results of its regions: totals, warnings, rejects and times."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

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
from spinescore.runtime.scoring.msasss import score_region
from spinescore.runtime.scoring.pixelidentity import pixels_digest
from spinescore.runtime.scoring.report import (
    CornerReport,
    DeviceInfo,
    DiscReport,
    PointsOrigin,
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
    manifest = bundle.manifest
    refused, rejected = _refused(selection, results), _rejected(selection, results)
    report = StudyReport(
        study=StudyInfo(study.study_instance_uid, study.study_date, study.patient_key),
        bundle=bundle_info(bundle),
        device=device,
        regions={
            region: scored_region(
                _radiograph_info(results[region].chosen), _discs(results[region]), scores[region], distributions[region]
            )
            if region in scores
            else _unscored(region, results.get(region), refused.get(region))
            for region in REGIONS
        },
        total=total_report(scores, distributions),
        timings_ms=TimingsMs(None, None, None, None, None),
        budget_ms=None,
        within_budget=None,
        warnings=(),
        rejects=tuple(RejectInfo(one.code, one.message, one.source, one.region) for one in rejected),
        findings=(*rejected, *selection.findings),
        software_version=software_version(),
        max_imputed_per_region=max_imputed,
    )
    notices = (*findings_of(selection.warnings), *selection.findings, *findings_of(unchecked_note(manifest)))
    return with_notices(report, notices)


def timed(report: StudyReport, read_ms: float | None, stages_ms: Mapping[str, float], budget: Budget) -> StudyReport:
    """Return the report with its times up to now, the skipped steps, and whether the budget was kept."""
    spent_ms = round(budget.finish(), 3)
    total_ms = round(spent_ms + (read_ms or 0.0) - budget.read_ms, 3)
    parts = {stage: round(value, 3) for stage, value in stages_ms.items()}
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


def _rejected(selection: Selection, results: Mapping[Region, RegionResult]) -> tuple[Finding, ...]:
    """Return the rejects as findings, each once."""
    rejects = [*selection.rejects, *(result.reject for result in results.values() if result.reject is not None)]
    findings = (Finding(one.code, "reject", one.message, one.region, one.source or None) for one in rejects)
    return tuple(dict.fromkeys(findings))


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


def _unscored(region: Region, result: RegionResult | None, refused: Reject | None) -> RegionReport:
    reject = result.reject if result is not None else refused
    return unscored_region(
        region,
        None if reject is None else _reject_info(reject),
        None if result is None else _radiograph_info(result.chosen),
        () if result is None else _untrusted_points(result),
    )


def _untrusted_points(result: RegionResult) -> tuple[UntrustedPoints, ...]:
    """Return the points of a rejected region, without the discs that have none."""
    discs = zip(LEVELS[result.region], result.centre, result.anterior, result.confidence.tolist(), strict=True)
    return tuple(
        UntrustedPoints(level, _xy(centre), _xy(anterior), round(confidence, 4), _origin(result, level))
        for level, centre, anterior, confidence in discs
        if confidence > 0 and np.isfinite([*centre, *anterior]).all()
    )


def _xy(point: NDArray[np.float64]) -> tuple[float, float]:
    x, y = point.tolist()
    return round(x, 3), round(y, 3)


def _discs(result: RegionResult) -> tuple[DiscReport, ...]:
    """Return the discs of a region without their totals and without imputed values."""
    rotations = rotation_deg(*result.upright, result.chosen.facing)
    points = zip(result.centre, result.anterior, strict=True)
    figures = zip(points, result.confidence.tolist(), rotations.tolist(), strict=True)
    discs = []
    for level, ((centre, anterior), confidence, rotation), grades in zip(
        LEVELS[result.region], figures, result.grades, strict=True
    ):
        upper, lower = (_corner(site, grade) for site, grade in zip(sites_of(level), grades, strict=True))
        discs.append(
            DiscReport(
                level=level,
                centre_px=_xy(centre),
                anterior_px=_xy(anterior),
                confidence=round(confidence, 4),
                rotation_deg=round(rotation, 3),
                corners=(upper, lower),
                points=_origin(result, level),
            )
        )
    return tuple(discs)


def _origin(result: RegionResult, level: str) -> PointsOrigin:
    return "given" if LEVELS[result.region].index(level) in result.given else "found"


def _believed(result: RegionResult) -> NDArray[np.float64]:
    """Return p0 .. p3 (6, 2, 4); the probabilities of an unreadable corner do not count."""
    probabilities = np.array([[corner.probabilities or UNKNOWN for corner in disc] for disc in result.grades])
    readable = [
        [corner.status != "unreadable" and corner.probabilities is not None for corner in disc]
        for disc in result.grades
    ]
    return with_prior(probabilities, np.array(readable))


def _corner(site: str, grade: CornerGrade) -> CornerReport:
    probabilities = None if grade.probabilities is None else tuple(round(p, 6) for p in grade.probabilities)
    missing_because = None if grade.status == "scored" else grade.status
    return CornerReport(
        site, grade.grade, probabilities, grade.status, grade_from="network", missing_because=missing_because
    )


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
