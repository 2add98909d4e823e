"""Corrections by readers: grades and points that replace the computed ones, and regions that cannot be read.

A correction is applied to a report, without pixels and without the bundle. Totals, ranges, imputed values and expected
scores are computed again as scoring computes them (`msasss`, `expected`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from spinescore.runtime.arguments import check_kind
from spinescore.runtime.documents import document_of, read
from spinescore.runtime.fields import Keys, Length, OneOf
from spinescore.runtime.notices import findings_of, notice
from spinescore.runtime.scoring.applied import (
    LEVEL_NAMES,
    SITE_NAMES,
    AppliedCorrection,
    Comment,
    DiscPoints,
    Grade,
    GradeChange,
    PointsChange,
    Reader,
    check_words,
)
from spinescore.runtime.scoring.consistency import SAME_PX
from spinescore.runtime.scoring.expected import UNKNOWN, certain, total_distribution, with_prior
from spinescore.runtime.scoring.grading import MissingBecause
from spinescore.runtime.scoring.msasss import DEFAULT_MAX_IMPUTED, RegionScore, score_region
from spinescore.runtime.scoring.report import (
    CornerReport,
    DiscReport,
    RegionReport,
    RejectInfo,
    StudyReport,
    UntrustedPoints,
)
from spinescore.runtime.scoring.reporting import with_notices
from spinescore.runtime.scoring.totals import scored_region, total_report, unscored_region
from spinescore.runtime.study import LEVELS, REGIONS, SITES, Finding, Region

__all__ = ["Correction", "correct", "corrections_of", "keypoints_of", "left_behind"]


@dataclass(frozen=True)
class Correction:
    """The changes that one reader makes at one time. Its `repr` shows neither the reader nor the comment.

    `reader` is a name or initials, `at` a time in UTC such as 2026-11-29T15:04:05+00:00. `points` holds the centre and
    the anterior point of discs, by region and level, in source pixels as in `Scorer.score`. `grades` are 0 to 3 by
    site, or None for a corner that cannot be read. `unreadable` are regions that cannot be read.
    """

    reader: Reader = field(repr=False)
    at: Annotated[str, Length(1, 64)]
    points: Annotated[
        Mapping[Region, Annotated[Mapping[str, DiscPoints], Keys(*LEVEL_NAMES, least=0)]], Keys(*REGIONS, least=0)
    ] = field(default_factory=dict)
    grades: Annotated[Mapping[str, Grade | None], Keys(*SITE_NAMES, least=0)] = field(default_factory=dict)
    unreadable: Annotated[tuple[Annotated[Region, OneOf(*REGIONS)], ...], Length(0, len(REGIONS))] = ()
    comment: Comment | None = field(default=None, repr=False)

    def _check_fields(self, path: str) -> None:
        check_words(path, self.reader, self.at, self.comment)
        if not (any(self.points.values()) or self.grades or self.unreadable):
            raise ValueError(f"{path or 'correction'}: it changes nothing; give points, grades or unreadable regions")
        for region, levels in self.points.items():
            _check_points(path, region, levels)
        if len(set(self.unreadable)) < len(self.unreadable):
            raise ValueError(f"{_at(path, 'unreadable')}: a region stands there twice; name it once")
        for region in self.unreadable:
            lost = [site for site in SITES[region] if site in self.grades]
            if lost:
                raise ValueError(
                    f"{_at(path, f'grades.{lost[0]}')}: the {region} region is said to be unreadable, and cannot have "
                    "a grade; leave one of them out"
                )


def keypoints_of(corrections: Sequence[Correction]) -> dict[Region, dict[str, DiscPoints]]:
    """Return the points of all corrections as `keypoints` of `Scorer.score`; a later correction counts.

    Raises `ValueError` if a correction is not valid.
    """
    keypoints: dict[Region, dict[str, DiscPoints]] = {}
    for correction in _checked(corrections):
        for region, levels in correction.points.items():
            keypoints.setdefault(region, {}).update(levels)
    return keypoints


def corrections_of(report: StudyReport) -> tuple[Correction, ...]:
    """Return the corrections that a report holds, to apply them again."""
    return tuple(map(_correction_of, report.corrections))


def correct(
    report: StudyReport, corrections: Sequence[Correction], *, before: StudyReport | None = None
) -> StudyReport:
    """Return the report with the corrections applied in their order; one that it already holds changes nothing.

    If corrections have points, `report` must have been scored with `keypoints=keypoints_of(corrections)`. `before` is
    the report that the reader saw; its points stand in the result as those before the correction.

    Grades by a reader are certain in the expected scores. The other corner of such a disc then counts with its own
    probabilities. An older report does not say how many corners may be imputed; the default holds for it.

    Raises `TypeError` for arguments of other types. Raises `ValueError`, with the place and the next step, if a
    correction is not valid or does not fit the report.
    """
    check_kind("report", report, StudyReport)
    check_kind("before", before, StudyReport, optional=True)
    held = corrections_of(report)
    new = {n: correction for n, correction in enumerate(_checked(corrections)) if correction not in held}
    _check_scored_with(report, new)
    for number, correction in new.items():
        report = _corrected(report, correction, before, f"corrections[{number}]")
    return report


def left_behind(report: StudyReport, corrections: Sequence[Correction]) -> StudyReport:
    """Return the report with a warning: these corrections of an earlier revision do not count in it."""
    text = (
        "A radiograph came after a reader had corrected this study, and the study was scored again without the "
        f"corrections ({len(corrections)}); compare with the revision before, and correct this one if it is needed."
    )
    return with_notices(report, findings_of([notice("corrections-left-behind", text, corrections=len(corrections))]))


def _checked(corrections: Sequence[Correction]) -> list[Correction]:
    """Return the corrections as they are after writing and reading, which checks every field."""
    if isinstance(corrections, (str, bytes, Mapping)) or not isinstance(corrections, Sequence):
        raise TypeError("corrections must be a sequence of Correction; call correct(report, [correction])")
    for correction in corrections:
        check_kind("an item of corrections", correction, Correction, "correct(report, [Correction(...)])")
    return [read(Correction, document_of(one), f"corrections[{n}]") for n, one in enumerate(corrections)]


def _check_points(path: str, region: Region, levels: Mapping[str, DiscPoints]) -> None:
    for level, (centre, anterior) in levels.items():
        place = _at(path, f"points.{region}.{level}")
        if level not in LEVELS[region]:
            raise ValueError(f"{place}: the {region} region has no such level; it has {', '.join(LEVELS[region])}")
        if np.float32(centre[0]) == np.float32(anterior[0]) and np.float32(centre[1]) == np.float32(anterior[1]):
            raise ValueError(f"{place}: the centre and the anterior point are in the same place; move one of them")


def _check_scored_with(report: StudyReport, corrections: Mapping[int, Correction]) -> None:
    """Raise `ValueError` if the report was not scored with the points that count."""
    last = {(region, level): (f"corrections[{number}].points.{region}.{level}", pair)
            for number, correction in corrections.items()
            for region, levels in correction.points.items() for level, pair in levels.items()}  # fmt: skip
    for (region, level), (place, pair) in last.items():
        there = _points(report.regions[region], level)
        if there is None or np.abs(np.subtract(there, pair)).max() > SAME_PX:
            raise ValueError(
                f"{place}: the report was not scored with these points; score the study again with "
                "keypoints=keypoints_of(corrections), and correct that report"
            )


def _points(region: RegionReport, level: str) -> DiscPoints | None:
    """Return the points of a level, also in a rejected region."""
    discs: Sequence[DiscReport | UntrustedPoints] = region.discs or region.untrusted_points
    return next(((disc.centre_px, disc.anterior_px) for disc in discs if disc.level == level), None)


def _corrected(report: StudyReport, correction: Correction, before: StudyReport | None, path: str) -> StudyReport:
    applied = _applied(report, correction, before, path)
    discs = {
        region: [_graded(disc, correction.grades) for disc in report.regions[region].discs]
        for region in REGIONS
        if report.regions[region].status == "scored"
    }
    changed = [region for region in discs if any(site in correction.grades for site in SITES[region])]
    report = replace(report, corrections=(*report.corrections, applied))
    if changed:
        report = _with_grades(report, discs, changed)
    for region in (region for region in REGIONS if region in correction.unreadable):
        report = _taken_out(report, region)
    return report


def _applied(report: StudyReport, correction: Correction, before: StudyReport | None, path: str) -> AppliedCorrection:
    """Return what the correction changes; a correction that `before` already holds keeps its record."""
    _check_regions(report, correction, path)
    for record in () if before is None else before.corrections:
        if _correction_of(record) == correction:
            return record
    grades = {corner.site: corner.grade for corner in _corners(report)}
    earlier = {change.where: change.after for one in report.corrections for change in one.points}
    points = []
    for region, levels in correction.points.items():
        for level, pair in levels.items():
            seen = None if before is None else _points(before.regions[region], level)
            points.append(PointsChange(level, earlier.get(level, seen), pair))
    return AppliedCorrection(
        reader=correction.reader,
        at=correction.at,
        comment=correction.comment,
        grades=tuple(GradeChange(site, grades[site], grade) for site, grade in correction.grades.items()),
        points=tuple(points),
        unreadable=correction.unreadable,
    )


def _check_regions(report: StudyReport, correction: Correction, path: str) -> None:
    """Raise `ValueError` if the correction needs a region that has no grades, or no radiograph."""
    for region in REGIONS:
        status = report.regions[region].status
        graded = [site for site in SITES[region] if site in correction.grades]
        if graded and status != "scored":
            raise ValueError(
                f"{path}.grades.{graded[0]}: the {region} region is {status} and has no grades; leave it out, or give "
                "its points and score the study again"
            )
        if region in correction.unreadable and status == "missing":
            raise ValueError(
                f"{path}.unreadable: the study has no {region} radiograph to be read; leave the region out"
            )


def _correction_of(record: AppliedCorrection) -> Correction:
    points: dict[Region, dict[str, DiscPoints]] = {}
    for change in record.points:
        region = next(region for region in REGIONS if change.where in LEVELS[region])
        points.setdefault(region, {})[change.where] = change.after
    grades = {change.where: change.after for change in record.grades}
    return Correction(record.reader, record.at, points, grades, record.unreadable, record.comment)


def _corners(report: StudyReport) -> list[CornerReport]:
    return [corner for region in report.regions.values() for disc in region.discs for corner in disc.corners]


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


def _with_grades(
    report: StudyReport, discs: Mapping[Region, Sequence[DiscReport]], changed: Sequence[Region]
) -> StudyReport:
    """Return the report with the totals of these discs; a region that is not `changed` stays as it is."""
    regions = dict(report.regions)
    scores = {region: _score(report, region, discs[region]) for region in discs}
    distributions = {region: _distribution(discs[region]) for region in discs}
    for region in changed:
        radiograph = regions[region].radiograph
        regions[region] = scored_region(radiograph, discs[region], scores[region], distributions[region])
    return replace(report, regions=regions, total=total_report(scores, distributions))


def _score(report: StudyReport, region: Region, discs: Sequence[DiscReport]) -> RegionScore:
    most = report.max_imputed_per_region
    grades = [corner.grade for disc in discs for corner in disc.corners]
    return score_region(region, grades, DEFAULT_MAX_IMPUTED if most is None else most)


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


def _taken_out(report: StudyReport, region: Region) -> StudyReport:
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
    discs = {name: regions[name].discs for name in REGIONS if regions[name].discs}
    scores = {name: _score(report, name, discs[name]) for name in discs}
    finding = Finding(reject.code, "reject", message, region, source)
    return replace(
        report,
        regions=regions,
        total=total_report(scores, {name: _distribution(discs[name]) for name in discs}),
        rejects=tuple(dict.fromkeys((*report.rejects, reject))),
        findings=tuple(dict.fromkeys((*report.findings, finding))),
    )


def _at(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
