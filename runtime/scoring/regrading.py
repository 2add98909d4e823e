"""A report with the grades of a reader, or without a region that a reader cannot read: its totals computed again.

Totals, ranges, imputed values and expected scores follow from the report alone, as scoring computes them (`msasss`,
`expected`, `totals`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spinescore.runtime.scoring.expected import UNKNOWN, certain, total_distribution, with_prior
from spinescore.runtime.scoring.grading import MissingBecause
from spinescore.runtime.scoring.msasss import DEFAULT_MAX_IMPUTED, RegionScore, score_region
from spinescore.runtime.scoring.report import (
    CornerReport,
    DiscReport,
    RejectInfo,
    StudyReport,
    UntrustedPoints,
)
from spinescore.runtime.scoring.totals import scored_region, total_report, unscored_region
from spinescore.runtime.study import REGIONS, SITES, Finding, Region

__all__ = ["taken_out", "with_grades"]


def with_grades(report: StudyReport, grades: Mapping[str, int | None]) -> StudyReport:
    """Return the report with a reader's grades by site, and its totals; a region without one stays as it is.

    None: the corner cannot be read. The regions of these sites must be scored.
    """
    changed = [region for region in REGIONS if any(site in grades for site in SITES[region])]
    regions = dict(report.regions)
    for region in changed:
        discs = [_graded(disc, grades) for disc in regions[region].discs]
        score, distribution = _score(report, region, discs), _distribution(discs)
        regions[region] = scored_region(regions[region].radiograph, discs, score, distribution)
    return _with_total(replace(report, regions=regions), report) if changed else report


def taken_out(report: StudyReport, region: Region) -> StudyReport:
    """Return the report with a region rejected because it cannot be read."""
    old = report.regions[region]
    source = (old.radiograph.source or None) if old.radiograph else None
    message = f"{source or 'The radiograph'}: a reader could not read the {region} spine; repeat the radiograph."
    points = old.untrusted_points or tuple(
        UntrustedPoints(disc.level, disc.centre_px, disc.anterior_px, disc.confidence, disc.points or "found")
        for disc in old.discs
    )
    reject = RejectInfo("reader-unreadable", message, source, region)
    regions = {**report.regions, region: unscored_region(region, reject, old.radiograph, points)}
    finding = Finding(reject.code, "reject", message, region, source)
    changed = replace(
        report,
        regions=regions,
        rejects=tuple(dict.fromkeys((*report.rejects, reject))),
        findings=tuple(dict.fromkeys((*report.findings, finding))),
    )
    return _with_total(changed, report)


def _with_total(report: StudyReport, old: StudyReport) -> StudyReport:
    """Return the report with the total of its regions. The `old` report shows how many corners may be imputed."""
    discs = {region: report.regions[region].discs for region in REGIONS if report.regions[region].status == "scored"}
    scores = {region: _score(old, region, discs[region]) for region in discs}
    return replace(report, total=total_report(scores, {region: _distribution(discs[region]) for region in discs}))


def _graded(disc: DiscReport, grades: Mapping[str, int | None]) -> DiscReport:
    """Return the disc with the reader's grades."""
    upper, lower = (
        replace(
            corner,
            grade=grades[corner.site],
            grade_from="reader",
            missing_because="unreadable" if grades[corner.site] is None else None,
        )
        if corner.site in grades
        else replace(corner, missing_because=_missing_because(corner))
        for corner in disc.corners
    )
    return replace(disc, corners=(upper, lower))


def _missing_because(corner: CornerReport) -> MissingBecause | None:
    """Return why a corner has no grade; an older report does not say it for an imputed one."""
    if corner.grade is not None or corner.missing_because is not None:
        return corner.missing_because
    if corner.status == "imputed":
        return "unreadable" if corner.probabilities is None else "abstained"
    return "abstained" if corner.status == "abstained" else "unreadable"


def _score(report: StudyReport, region: Region, discs: Sequence[DiscReport]) -> RegionScore:
    grades = [corner.grade for disc in discs for corner in disc.corners]
    return score_region(region, grades, _most_imputed(report))


def _most_imputed(report: StudyReport) -> int:
    if report.max_imputed_per_region is not None:
        return report.max_imputed_per_region
    scored = [region for region in report.regions.values() if region.status == "scored"]
    imputed = [region.missing for region in scored if region.total is not None]
    too_many = [region.missing for region in scored if region.total is None]
    return min(max(DEFAULT_MAX_IMPUTED, *imputed, 0), *(missing - 1 for missing in too_many), len(SITES["cervical"]))


def _distribution(discs: Sequence[DiscReport]) -> NDArray[np.float64]:
    """Return the distribution of a region's total; a reader's grade is certain."""
    corners = [corner for disc in discs for corner in disc.corners]
    by_reader = [corner.grade_from == "reader" and corner.grade is not None for corner in corners]
    rows: list[Any] = [
        certain(corner.grade) if by_reader[n] and corner.grade is not None else corner.probabilities or UNKNOWN
        for n, corner in enumerate(corners)
    ]
    readable = [
        by_reader[n] or (_missing_because(corner) != "unreadable" and corner.probabilities is not None)
        for n, corner in enumerate(corners)
    ]
    believed = with_prior(np.array(rows, np.float64), np.array(readable)).reshape(-1, 2, len(UNKNOWN))
    return total_distribution(believed, [n for n in range(len(discs)) if any(by_reader[2 * n : 2 * n + 2])])
