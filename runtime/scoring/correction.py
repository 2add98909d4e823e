"""Corrections by readers: grades and points that replace the computed ones, and regions that cannot be read.

A correction is applied to a report, without pixels and without the bundle; `regrading` computes its totals again.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated

import numpy as np

from spinescore.runtime.arguments import check_kind, shown
from spinescore.runtime.documents import document_of, read
from spinescore.runtime.fields import OPTIONAL, Keys, Length
from spinescore.runtime.notices import findings_of, notice
from spinescore.runtime.scoring.applied import (
    AppliedCorrection,
    Comment,
    DiscPoints,
    Grade,
    GradeChange,
    PointsChange,
    Reader,
    Regions,
    check_words,
    unread_regions,
)
from spinescore.runtime.scoring.consistency import SAME_PX
from spinescore.runtime.scoring.regrading import taken_out, with_grades
from spinescore.runtime.scoring.report import CornerReport, DiscReport, RegionReport, StudyReport, UntrustedPoints
from spinescore.runtime.scoring.reporting import with_notices
from spinescore.runtime.study import ALL_LEVELS, ALL_SITES, LEVELS, REGIONS, SITES, Region

__all__ = ["Correction", "check_regions", "correct", "corrections_of", "keypoints_of", "left_behind"]


@dataclass(frozen=True)
class Correction:
    """The changes that one reader makes at one time. Its `repr` shows neither the reader nor the comment.

    `reader` is a name or initials, `at` a time in UTC such as 2026-11-29T15:04:05+00:00. `points` holds the centre and
    the anterior point of discs, by region and level, in source pixels as in `Scorer.score`. `grades` are 0 to 3 by
    site, or None for a corner that cannot be read. `unreadable` are regions that cannot be read.

    Corrections count in their order. A region is taken out if the last correction that speaks of it says `unreadable`.
    `readable` takes that back: the region can be read, and the grades and points of earlier corrections count again. A
    correction that gives grades or points of a region that was taken out has to name it in `readable`.
    """

    reader: Reader = field(repr=False)
    at: Annotated[str, Length(1, 64)]
    points: Annotated[
        Mapping[Region, Annotated[Mapping[str, DiscPoints], Keys(*ALL_LEVELS, least=0)]], Keys(*REGIONS, least=0)
    ] = field(default_factory=dict)
    grades: Annotated[Mapping[str, Grade | None], Keys(*ALL_SITES, least=0)] = field(default_factory=dict)
    unreadable: Regions = ()
    comment: Comment | None = field(default=None, repr=False)
    readable: Annotated[Regions, OPTIONAL] = ()

    def _check_fields(self, path: str) -> None:
        check_words(path, self.reader, self.at, self.comment)
        if not (any(self.points.values()) or self.grades or self.unreadable or self.readable):
            raise ValueError(
                f"{path or 'correction'}: it changes nothing; give points, grades, unreadable or readable regions"
            )
        for region, levels in self.points.items():
            _check_points(path, region, levels)
        for name, regions in (("unreadable", self.unreadable), ("readable", self.readable)):
            if len(set(regions)) < len(regions):
                raise ValueError(f"{_at(path, name)}: a region stands there twice; name it once")
        for region in self.unreadable:
            if region in self.readable:
                raise ValueError(
                    f"{_at(path, 'readable')}: the {region} region is said to be unreadable, too; leave one of them out"
                )
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
    """Return the corrections that a report holds, to apply them again. Raises `TypeError` for anything else."""
    check_kind("report", report, StudyReport)
    return tuple(map(_correction_of, report.corrections))


def correct(
    report: StudyReport, corrections: Sequence[Correction], *, before: StudyReport | None = None
) -> StudyReport:
    """Return the report with the corrections applied in their order, each once; one that it holds changes nothing.

    If corrections have points, `report` must have been scored with `keypoints=keypoints_of(corrections)`. A report
    that was corrected has lost the discs of regions that were taken out: for one that is `readable`, score the study
    again with the points of all corrections, and give that report and all corrections, those of
    `corrections_of(corrected)` first. `before` is the report that the reader saw; its points stand in the result as
    those before the correction.

    Grades by a reader are certain in the expected scores. The other corner of such a disc then counts with its own
    probabilities. An older report does not say how many corners may be imputed: the default holds for it, unless its
    regions show another number.

    Raises `TypeError` for arguments of other types. Raises `ValueError`, with the place and the next step, if a
    correction is not valid or does not fit the report.
    """
    check_kind("report", report, StudyReport)
    check_kind("before", before, StudyReport, optional=True)
    if before is not None and before.study.study_instance_uid != report.study.study_instance_uid:
        raise ValueError("before is a report of another study; give the report of this study that the reader saw")
    known, new = list(corrections_of(report)), {}
    for number, correction in enumerate(_checked(corrections)):
        if correction not in known:
            known.append(correction)
            new[number] = correction
    _check_scored_with(report, new)
    for number, correction in new.items():
        taken_back = {region for later, other in new.items() if later > number for region in other.readable}
        lost = [region for region in REGIONS if region in correction.unreadable and region not in taken_back]
        report = _corrected(report, correction, before, f"corrections[{number}]")
        for region in lost:
            report = taken_out(report, region)
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
        raise TypeError(
            f"corrections must be a sequence of Correction, got {shown(corrections)}; call correct(report, [one])"
        )
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
    """Raise `ValueError` if the report was not scored with the points that count, or has lost a region of them."""
    lost = unread_regions(report.corrections)
    for number, correction in corrections.items():
        for region in (region for region in correction.readable if region in lost):
            raise ValueError(
                f"corrections[{number}].readable: the report has no discs of the {region} region any more; score the "
                "study again with keypoints=keypoints_of(corrections), and correct that report with all corrections, "
                "those of corrections_of(report) first"
            )
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
    return with_grades(replace(report, corrections=(*report.corrections, applied)), correction.grades)


def _applied(report: StudyReport, correction: Correction, before: StudyReport | None, path: str) -> AppliedCorrection:
    """Return what the correction changes; a correction that `before` already holds keeps its record."""
    check_regions(report, correction, path)
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
        readable=correction.readable,
    )


def check_regions(
    report: StudyReport, correction: Correction, path: str = "", *, again: Collection[Region] = ()
) -> None:
    """Raise `ValueError` if the correction needs a region that has no grades or no radiograph, or is taken out.

    The regions in `again` are to be scored before the correction is applied.
    """
    out = unread_regions(report.corrections)
    for region in REGIONS:
        status, is_readable = report.regions[region].status, region in correction.readable
        points = [f"points.{region}"] if correction.points.get(region) else []
        grades = [f"grades.{site}" for site in SITES[region] if site in correction.grades]
        if is_readable and region not in out:
            raise ValueError(
                f"{_at(path, 'readable')}: no correction before this one says that the {region} region cannot be read; "
                "leave it out"
            )
        if (points or grades) and region in out and not is_readable:
            raise ValueError(
                f"{_at(path, (*points, *grades)[0])}: a reader could not read the {region} region; leave it out, or "
                "name it in readable, too"
            )
        if points and report.regions[region].radiograph is None:
            raise ValueError(f"{_at(path, points[0])}: the study has no {region} radiograph; leave the region out")
        if grades and status != "scored" and region not in again:
            raise ValueError(
                f"{_at(path, grades[0])}: the {region} region is {status} and has no grades; leave it out, or give "
                "its points and score the study again"
            )
        if region in correction.unreadable and status == "missing":
            raise ValueError(
                f"{_at(path, 'unreadable')}: the study has no {region} radiograph to be read; leave the region out"
            )


def _correction_of(record: AppliedCorrection) -> Correction:
    points: dict[Region, dict[str, DiscPoints]] = {}
    for change in record.points:
        region = next(region for region in REGIONS if change.where in LEVELS[region])
        points.setdefault(region, {})[change.where] = change.after
    grades = {change.where: change.after for change in record.grades}
    return Correction(record.reader, record.at, points, grades, record.unreadable, record.comment, record.readable)


def _corners(report: StudyReport) -> list[CornerReport]:
    return [corner for region in report.regions.values() for disc in region.discs for corner in disc.corners]


def _at(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
