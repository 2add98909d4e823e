"""Check that the parts of a report that was read fit each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from spinescore.runtime.fields import shown
from spinescore.runtime.scoring.applied import unread_regions
from spinescore.runtime.scoring.msasss import MAX_GRADE
from spinescore.runtime.study import ALL_SITES, LEVELS, SITES, Region, sites_of

if TYPE_CHECKING:
    from spinescore.runtime.scoring.expected import Expected
    from spinescore.runtime.scoring.report import CornerReport, DiscReport, RegionReport, StudyReport

__all__ = ["SAME_PX", "check_consistency"]

SAME_PX = 0.01  # a report's points are rounded, and those of a correction are not
_ROUNDING = 0.02  # of a total; its imputed grades have three decimals each
_OUTSIDE = 0.025  # of the probability lies at most on either side of an interval


def check_consistency(report: StudyReport) -> None:
    """Raise `ValueError` if levels, sites and grades do not fit each other, or a total is not that of the grades."""
    for name, region in report.regions.items():
        _check_region(name, region, report.max_imputed_per_region)
    totals = [region.total for region in report.regions.values()]
    if (report.total.value is None) != (None in totals):
        there = "a region has no total" if None in totals else "all regions have totals"
        raise ValueError(f"total.value: it is {shown(report.total.value)}, but {there}")
    _check_sum("total.value", report.total.value, totals, "the regions' totals")
    _check_total(report)
    _check_corrections(report)


def _check_region(name: Region, region: RegionReport, most_imputed: int | None) -> None:
    place, levels = f"regions.{name}", LEVELS[name]
    present = tuple(disc.level for disc in region.discs)
    if present != (levels if region.status == "scored" else ()):
        raise ValueError(f"{place}.discs: the region is {region.status}, but its levels are {shown(present)}")
    if (region.reject is None) == (region.status == "rejected"):
        raise ValueError(f"{place}.reject: the region is {region.status}, but has {_one(region.reject, 'reject')}")
    if (region.status == "scored" and region.radiograph is None) or (region.status == "missing" and region.radiograph):
        radiograph = _one(region.radiograph, "radiograph")
        raise ValueError(f"{place}.radiograph: the region is {region.status}, but has {radiograph}")
    for number, disc in enumerate(region.discs):
        for side, site in enumerate(sites_of(disc.level)):
            corner, path = disc.corners[side], f"{place}.discs[{number}].corners[{side}]"
            if corner.site != site:
                raise ValueError(f"{path}.site: expected {site}, found {shown(corner.site)}")
            if (corner.grade is None) != (corner.status != "scored"):
                raise ValueError(f"{path}.grade: {site} is {corner.status}, but its grade is {corner.grade}")
            if corner.probabilities is not None and abs(sum(corner.probabilities) - 1.0) > _ROUNDING:
                raise ValueError(f"{path}.probabilities: they add up to {sum(corner.probabilities):g}, not to 1")
        _check_sum(f"{place}.discs[{number}].total", disc.total, _counts(disc), "the grades")
        if disc.range is not None:
            _check_range(f"{place}.discs[{number}].range", disc.range, [corner.grade for corner in disc.corners])
    if region.total is not None and not region.discs:
        raise ValueError(f"{place}.total: it is {region.total:g}, but the region is {region.status}")
    counts = [count for disc in region.discs for count in _counts(disc)]
    _check_sum(f"{place}.total", region.total, counts, "the grades")
    grades = [corner.grade for disc in region.discs for corner in disc.corners] or [None] * len(SITES[name])
    if region.missing != grades.count(None):
        raise ValueError(f"{place}.missing: it is {region.missing}, but {grades.count(None)} corners have no grade")
    has_total = region.missing <= (most_imputed or 0) and region.missing < len(grades)
    if (most_imputed is not None or has_total) and has_total != (region.total is not None):
        limit = "" if most_imputed is None else f", {most_imputed} may be imputed"
        text = f"it is {shown(region.total)}, but {region.missing} corners have no grade{limit}"
        raise ValueError(f"{place}.total: {text}")
    _check_range(f"{place}.range", region.range, grades)
    _check_expected(place, region.expected, MAX_GRADE * len(grades))


def _check_total(report: StudyReport) -> None:
    """Raise `ValueError` if the range, the status or the imputed sites of the total are not those of the regions."""
    total, regions = report.total, report.regions.values()
    span = (sum(region.range[0] for region in regions), sum(region.range[1] for region in regions))
    if total.range != span:
        raise ValueError(f"total.range: it is {list(total.range)}, but the regions' ranges add up to {list(span)}")
    _check_expected("total", total.expected, MAX_GRADE * len(ALL_SITES))
    corners = [corner for region in regions for disc in region.discs for corner in disc.corners]
    imputed = {corner.site for corner in corners if corner.status == "imputed"}
    named = set(total.imputed_sites)
    if not named <= imputed or (total.value is not None and named != imputed):
        raise ValueError(f"total.imputed_sites: they are not the sites that are imputed ({', '.join(sorted(imputed))})")
    expected = "incomplete" if total.value is None else "imputed" if imputed else "complete"
    if total.status != expected:
        raise ValueError(f"total.status: it is {total.status}, but the total is {expected}")


def _check_corrections(report: StudyReport) -> None:
    """Raise `ValueError` if grades and points are not those of the last correction, or no correction has them."""
    grades = {change.where: change.after for one in report.corrections for change in one.grades}
    points = {change.where: change.after for one in report.corrections for change in one.points}
    taken_out = unread_regions(report.corrections)
    for name, region in report.regions.items():
        if (name in taken_out) != (region.reject is not None and region.reject.code == "reader-unreadable"):
            said = f"a reader could not read the region, but it is {region.status}"
            said = said if name in taken_out else "no correction says that the region cannot be read"
            raise ValueError(f"regions.{name}.status: {said}")
        for number, disc in enumerate(region.discs):
            place = f"regions.{name}.discs[{number}]"
            there = (disc.centre_px, disc.anterior_px)
            if disc.level in points and not _same_points(points[disc.level], there):
                raise ValueError(f"{place}: the points of {disc.level} are not those of the last correction")
            for side, corner in enumerate(disc.corners):
                _check_origin(f"{place}.corners[{side}]", corner, grades)


def _check_origin(place: str, corner: CornerReport, grades: Mapping[str, int | None]) -> None:
    by_reader = corner.grade_from == "reader"
    if by_reader != (corner.site in grades):
        there = "no correction has its grade" if by_reader else "a correction has its grade"
        raise ValueError(f"{place}.grade_from: {corner.site} is {shown(corner.grade_from)}, but {there}")
    if by_reader and corner.grade != grades[corner.site]:
        raise ValueError(
            f"{place}.grade: {corner.site} is {corner.grade}, but the last correction set {grades[corner.site]}"
        )
    if corner.missing_because is not None and corner.status not in ("imputed", corner.missing_because):
        raise ValueError(f"{place}.missing_because: {corner.site} is {corner.status}, not {corner.missing_because}")


def _same_points(first: Sequence[Sequence[float]], second: Sequence[Sequence[float]]) -> bool:
    pairs = zip(first, second, strict=True)
    return all(abs(a - b) <= SAME_PX for one, other in pairs for a, b in zip(one, other, strict=True))


def _counts(disc: DiscReport) -> list[float | None]:
    return [corner.imputed if corner.grade is None else corner.grade for corner in disc.corners]


def _check_range(name: str, span: tuple[int, int], grades: Sequence[int | None]) -> None:
    """Check a range of totals: a missing corner counts from 0 to 3 in it."""
    least = sum(grade for grade in grades if grade is not None)
    most = least + MAX_GRADE * grades.count(None)
    if not least <= span[0] <= span[1] <= most:
        raise ValueError(f"{name}: it is {list(span)}, but the grades leave {least} to {most}")


def _check_expected(name: str, expected: Expected | None, most: int) -> None:
    """Check an expected total of at most `most`: the interval leaves little of the probability outside."""
    if expected is None:
        return
    low, high = expected.interval
    if not low <= high <= most:
        raise ValueError(f"{name}.expected.interval: {[low, high]} ends before it begins, or beyond {most}")
    inside = low * (1 - _OUTSIDE), high + (most - high) * _OUTSIDE
    if not inside[0] - _ROUNDING <= expected.mean <= inside[1] + _ROUNDING:
        raise ValueError(f"{name}.expected.mean: it is {expected.mean:g}, but the interval is {[low, high]}")


def _one(part: object, name: str) -> str:
    return f"no {name}" if part is None else f"a {name}"


def _check_sum(name: str, total: float | None, parts: Sequence[float | None], of: str) -> None:
    """Check a total if all its parts are stated; in older reports imputed grades are not."""
    stated = [part for part in parts if part is not None]
    if total is not None and len(stated) == len(parts) and abs(total - sum(stated)) > _ROUNDING:
        raise ValueError(f"{name}: it is {total:g}, but {of} add up to {sum(stated):g}")
