"""The rules of change between two studies of one patient, each as it is used with the mSASSS.

- change of the total, and the range of changes that the missing corners of both studies leave open; without both totals
  there is none;
- progression: a change of at least 2 units (the smallest detectable change; PMC7083308, PMC1955120), and what trials
  call no progression, a change of at most 0 (MEASURE 1) or 0.5 (SURPASS); the rate takes the change as linear in time;
- a new syndesmophyte: a corner that goes from 0 or 1 to 2 or 3 (the definite change of Baraliakos et al. 2007,
  doi 10.1136/ard.2006.066415); growth of one: a corner that goes from 2 to 3;
- the vertebral unit, a disc with its two corners, has what one of its corners has (van der Heijde et al. 2008, ASSERT);
- a new bridge: a unit whose corners are both 3, and were not.

A corner that has no grade in one of the studies is not comparable, says why, and counts as no change nowhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import date

from spinescore.runtime.errors import InputRejected
from spinescore.runtime.followup.comparison import (
    ComparedStudy,
    Comparison,
    CornerChange,
    CornerCounts,
    NoProgression,
    Progression,
    RegionChange,
    Rules,
    TotalChange,
    UnitChange,
    UnitCounts,
)
from spinescore.runtime.msasss import MAX_GRADE
from spinescore.runtime.report import CornerReport, RegionReport, StudyReport
from spinescore.runtime.study import LEVELS, REGIONS, Region, sites_of

__all__ = ["compare", "is_bridge", "study_date", "unit_score"]

_SYNDESMOPHYTE = 2
_DAYS_PER_YEAR = 365.25


def compare(baseline: StudyReport, followup: StudyReport, rules: Rules | None = None) -> Comparison:
    """Compare two studies of one patient, in the order in which they are given (dates out of order are a warning).

    Raises `InputRejected` (two-patients) where the reports' patient keys differ.
    """
    keys = {report.study.patient_key for report in (baseline, followup)} - {None}
    if len(keys) > 1:
        raise InputRejected(
            "two-patients",
            "the two reports are of different patients (or SPINESCORE_PATIENT_KEY was not the same when they were "
            "made); give two studies of one patient",
        )
    regions = {region: _region(region, baseline.regions[region], followup.regions[region]) for region in REGIONS}
    total = _total(baseline.total.value, baseline.total.range, followup.total.value, followup.total.range)
    days = _interval_days(baseline, followup)
    units = [unit for region in regions.values() for unit in region.units]
    return Comparison(
        patient_key=next(iter(keys), None),
        baseline=_study(baseline),
        followup=_study(followup),
        interval_days=days,
        total=total,
        regions=regions,
        progression=_progression(total.change, days, rules or Rules()),
        corners=_corner_counts([corner for unit in units for corner in unit.corners]),
        units=_unit_counts(units),
        warnings=tuple(_warnings(baseline, followup, days)),
    )


def study_date(report: StudyReport) -> date | None:
    """The day of the study; None where the report states none, or none that there is."""
    text = report.study.study_date or ""
    try:
        return date(int(text[:4]), int(text[4:6]), int(text[6:])) if len(text) == 8 else None
    except ValueError:
        return None


def unit_score(corners: Sequence[CornerReport | str]) -> tuple[float | None, tuple[int, int]]:
    """A vertebral unit's total, imputed corners with what they count, and its range.

    A corner of a region that was not scored is text. Taken from the corners, as older reports do not state it.
    """
    found = [None if isinstance(corner, str) else corner for corner in corners]
    grades = [None if corner is None else corner.grade for corner in found]
    imputed = [corner.imputed for corner in found if corner is not None and corner.grade is None]
    scored = [grade for grade in grades if grade is not None]
    counted = [*scored, *(value for value in imputed if value is not None)]
    total = round(sum(counted), 3) if len(counted) == len(grades) else None
    return total, (sum(scored), sum(scored) + MAX_GRADE * grades.count(None))


def is_bridge(grades: Sequence[int | None]) -> bool | None:
    """Whether a unit's corners are both 3; None where that is not known."""
    if any(grade is not None and grade < MAX_GRADE for grade in grades):
        return False
    return None if None in grades else True


def _study(report: StudyReport) -> ComparedStudy:
    return ComparedStudy(report.study.study_instance_uid, report.study.study_date, report.bundle)


def _interval_days(baseline: StudyReport, followup: StudyReport) -> int | None:
    first, second = study_date(baseline), study_date(followup)
    return None if first is None or second is None else (second - first).days


def _total(
    baseline: float | None, before: tuple[int, int], followup: float | None, after: tuple[int, int]
) -> TotalChange:
    change = None if baseline is None or followup is None else round(followup - baseline, 3)
    return TotalChange(baseline, followup, change, (after[0] - before[1], after[1] - before[0]))


def _region(region: Region, baseline: RegionReport, followup: RegionReport) -> RegionChange:
    units = tuple(
        _unit(level, _corners(level, number, baseline), _corners(level, number, followup))
        for number, level in enumerate(LEVELS[region])
    )
    return RegionChange(_total(baseline.total, baseline.range, followup.total, followup.range), units)


# A corner of one study: its report, or why its region has none.
_Seen = CornerReport | str


def _corners(level: str, number: int, region: RegionReport) -> tuple[_Seen, _Seen]:
    if region.status == "scored":
        return region.discs[number].corners
    why = f"region {region.status}" + (f" ({region.reject.code})" if region.reject else "")
    return why, why


def _unit(level: str, before: tuple[_Seen, _Seen], after: tuple[_Seen, _Seen]) -> UnitChange:
    upper, lower = (
        _corner(site, first, second) for site, first, second in zip(sites_of(level), before, after, strict=True)
    )
    bridged = [is_bridge((upper.baseline, lower.baseline)), is_bridge((upper.followup, lower.followup))]
    new_bridge = False if bridged[0] or bridged[1] is False else None if None in bridged else True
    return UnitChange(
        level,
        _total(*unit_score(before), *unit_score(after)),
        _either(upper.new_syndesmophyte, lower.new_syndesmophyte),
        _either(upper.growth, lower.growth),
        new_bridge,
        (upper, lower),
    )


def _corner(site: str, before: _Seen, after: _Seen) -> CornerChange:
    first, second = (None if isinstance(seen, str) else seen.grade for seen in (before, after))
    if first is None or second is None:
        seen = (("baseline", first, before), ("follow-up", second, after))
        why = [
            f"{study}: {found if isinstance(found, str) else found.status}"
            for study, grade, found in seen
            if grade is None
        ]
        return CornerChange(site, first, second, None, None, None, "; ".join(why))
    new = first < _SYNDESMOPHYTE <= second
    return CornerChange(site, first, second, second - first, new, first == _SYNDESMOPHYTE < second, None)


def _either(upper: bool | None, lower: bool | None) -> bool | None:
    return True if upper or lower else None if upper is None or lower is None else False


def _progression(change: float | None, days: int | None, rules: Rules) -> Progression:
    rate = None
    if change is not None and days is not None and days > 0:
        rate = round(change * rules.rate_years * _DAYS_PER_YEAR / days, 3)
    return Progression(
        rules.progression_units,
        None if change is None else change >= rules.progression_units,
        tuple(NoProgression(units, None if change is None else change <= units)
              for units in rules.no_progression_units),
        rules.rate_years,
        rate,
    )  # fmt: skip


def _corner_counts(corners: list[CornerChange]) -> CornerCounts:
    changes = [corner.change for corner in corners if corner.change is not None]
    return CornerCounts(
        comparable=len(changes),
        change=sum(changes),
        new_syndesmophytes=_count(corner.new_syndesmophyte for corner in corners),
        growth=_count(corner.growth for corner in corners),
        lower=sum(change < 0 for change in changes),
        not_comparable=len(corners) - len(changes),
    )


def _unit_counts(units: list[UnitChange]) -> UnitCounts:
    return UnitCounts(
        new_syndesmophytes=_count(unit.new_syndesmophyte for unit in units),
        growth=_count(unit.growth for unit in units),
        new_bridges=_count(unit.new_bridge for unit in units),
        not_comparable=sum(any(corner.not_comparable for corner in unit.corners) for unit in units),
    )


def _count(events: Iterable[bool | None]) -> int:
    return sum(event is True for event in events)


def _warnings(baseline: StudyReport, followup: StudyReport, days: int | None) -> Iterable[str]:
    if None in (baseline.study.patient_key, followup.study.patient_key):
        yield "a report names no patient, so that both are of the same one could not be checked"
    if baseline.study.study_instance_uid is not None and baseline.study == followup.study:
        yield "both reports are of the same study"
    if baseline.bundle.sha256 != followup.bundle.sha256:
        first, second = (f"{report.bundle.name} {report.bundle.version}" for report in (baseline, followup))
        yield f"the studies were scored with different bundles ({first}, {second}); score both with one to compare them"
    elif baseline.bundle.localizer != followup.bundle.localizer:
        first, second = (report.bundle.localizer or "its own" for report in (baseline, followup))
        yield f"the bundle's localizer was not the same ({first}, {second}); score both with one to compare them"
    if days is None:
        yield "a study has no date, so there is no rate"
    elif days <= 0:
        yield "the follow-up is not later than the baseline, so there is no rate; check the order of the two"
    for name, report in (("baseline", baseline), ("follow-up", followup)):
        if report.total.status == "imputed":
            sites = ", ".join(report.total.imputed_sites)
            yield f"the total of the {name} counts the region's mean for {sites}"
