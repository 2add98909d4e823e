"""The corrections of a report in words, as all results show them. An asterisk marks what a reader set."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from spinescore.runtime.scoring.applied import AppliedCorrection, DiscPoints, GradeChange
from spinescore.runtime.scoring.report import CornerReport, DiscReport, StudyReport, UntrustedPoints

__all__ = [
    "BY_READER",
    "STAR",
    "changes_in_words",
    "corrected_sites",
    "grades_before",
    "has_marks",
    "marked_level",
    "readers",
    "star_of",
    "when",
]

STAR = "*"
BY_READER = "set by a reader"


def readers(report: StudyReport) -> tuple[str, ...]:
    """Return the readers that corrected the report, each once, in the order of their first correction."""
    return tuple(dict.fromkeys(correction.reader for correction in report.corrections))


def corrected_sites(report: StudyReport) -> tuple[str, ...]:
    """Return the sites of scored regions that have their grade, or its absence, from a reader."""
    corners = (corner for region in report.regions.values() for disc in region.discs for corner in disc.corners)
    return tuple(corner.site for corner in corners if corner.grade_from == "reader")


def grades_before(report: StudyReport) -> dict[str, int | None]:
    """Return each corrected site's grade before its first correction."""
    changes = [change for correction in report.corrections for change in correction.grades]
    return {change.where: change.before for change in reversed(changes)}


def when(correction: AppliedCorrection) -> str:
    """Return the time of a correction as `2026-11-29 15:04:05 UTC`."""
    return f"{correction.at[:10]} {correction.at[11:19]} UTC"


def changes_in_words(correction: AppliedCorrection) -> Iterator[str]:
    """Yield each change of a correction, such as `C3-superior 1 to 2`."""
    for change in correction.grades:
        yield f"{change.where} {_grades(change)}"
    for points in correction.points:
        before = "unknown" if points.before is None else _place(points.before)
        yield f"points of {points.where} {before} to {_place(points.after)}"
    for region in correction.unreadable:
        yield f"{region} spine cannot be read"
    for region in correction.readable:
        yield f"{region} spine can be read again"


def star_of(corner: CornerReport) -> str:
    """Return the mark of a corner that a reader graded; nothing for another one."""
    return STAR if corner.grade_from == "reader" else ""


def marked_level(disc: DiscReport | UntrustedPoints) -> str:
    """Return the level, with a mark if a reader gave the points of a scored region's disc."""
    return disc.level + (STAR if isinstance(disc, DiscReport) and disc.points == "given" else "")


def has_marks(discs: Iterable[DiscReport | UntrustedPoints]) -> bool:
    """Return whether a grade or a level of these discs has a mark, so that its meaning must be shown."""
    return any(
        isinstance(disc, DiscReport) and (disc.points == "given" or any(map(star_of, disc.corners))) for disc in discs
    )


def _grades(change: GradeChange) -> str:
    before = "no grade" if change.before is None else str(change.before)
    return f"{before} to {'unreadable' if change.after is None else change.after}"


def _place(points: DiscPoints) -> str:
    return ", ".join(f"({x:.1f}, {y:.1f})" for x, y in points)
