"""Change between two studies of one patient, by the rules that are in use with the mSASSS.

- Comparable: a corner with a grade in both studies. A grade that a reader corrected counts as any other. A corner
  without one has a reason, and never counts as no change.
- Change of a region: 12 / n times the sum over its n comparable corners; none if more than 3 of 12 are not comparable.
  Totals with imputed corners are reported too, but the change does not use them: a mean that is imputed in one study
  only would itself be a change. The change of the total is the sum of the regions' changes.
- Possible changes: the range that missing corners leave open, if each may be from 0 to 3. The change itself may lie
  outside of it: a missing corner that was 3 before cannot grow with the others.
- Progression and its time: `Rules`.
- New syndesmophyte: a corner that goes from below 2 to 2 or 3 (the definite change of Baraliakos et al. 2007,
  doi 10.1136/ard.2006.066415). Growth: a corner of 2 or more that goes to 3.
- Vertebral unit: a disc with its two corners. An event of a corner is an event of its unit (van der Heijde et al. 2008,
  ASSERT).
- New bridge: a unit whose corners are both 3 now and were not before.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import date

from spinescore.runtime.arguments import check_kind
from spinescore.runtime.errors import InputRejected
from spinescore.runtime.followup.comparison import (
    ComparedStudy,
    Comparison,
    CornerChange,
    RegionChange,
    Rules,
    TotalChange,
    UnitChange,
)
from spinescore.runtime.followup.counts import counts_of
from spinescore.runtime.followup.days import day_of
from spinescore.runtime.followup.expectedchange import expected_change, region_distribution
from spinescore.runtime.followup.verdict import progression_of
from spinescore.runtime.notices import findings_of, notice
from spinescore.runtime.outputs.words import bundle_name
from spinescore.runtime.scoring.msasss import MAX_GRADE
from spinescore.runtime.scoring.report import BundleInfo, CornerReport, RegionReport, StudyReport
from spinescore.runtime.study import LEVELS, REGIONS, Region, sites_of

__all__ = ["SYNDESMOPHYTE", "compare", "is_bridge", "scored_by", "study_date", "unit_score"]

SYNDESMOPHYTE = 2  # the lowest grade of a corner with a syndesmophyte


def compare(baseline: StudyReport, followup: StudyReport, rules: Rules | None = None) -> Comparison:
    """Return the comparison of two studies of one patient, in the given order.

    Dates out of order give a warning. So does a reader's study that names another patient than a report, because
    readers name patients in their own way. Without `rules.sdc` the smallest detectable change is that of the bundle, if
    both studies were scored with one bundle that states it. Raises `InputRejected` (two-patients) if two reports, or
    two readers' studies, name different patients.
    """
    check_kind("baseline", baseline, StudyReport)
    check_kind("followup", followup, StudyReport)
    check_kind("rules", rules, Rules, optional=True)
    rules = rules or Rules()
    same_bundle = scored_by(baseline.bundle) == scored_by(followup.bundle)
    if rules.sdc is None and same_bundle:
        rules = replace(rules, sdc=baseline.bundle.smallest_detectable_change)
    patient_key = _patient_key(baseline, followup)
    pairs = {region: (baseline.regions[region], followup.regions[region]) for region in REGIONS}
    regions = {region: _region(region, *pair, rules) for region, pair in pairs.items()}
    total = _total(baseline, followup, regions)
    first, second = study_date(baseline), study_date(followup)
    days = None if first is None or second is None else (second - first).days
    warnings = tuple(_warnings(baseline, followup, days))
    corners, units = counts_of([region.units for region in regions.values()])
    return Comparison(
        patient_key=patient_key,
        baseline=_study(baseline),
        followup=_study(followup),
        interval_days=days,
        total=total,
        regions=regions,
        progression=progression_of(total, days, rules),
        corners=corners,
        units=units,
        warnings=warnings,
        same_bundle=same_bundle,
        notices=findings_of(warnings),
    )


def study_date(report: StudyReport) -> date | None:
    """Return the day of the study; None if the report states none, or no real day."""
    return day_of(report.study.study_date or "")


def scored_by(bundle: BundleInfo) -> str:
    """Return the identity of the bundle or reader: the hash of the bundle's manifest, or the reader's name."""
    return bundle.sha256 or f"reader {bundle.name}"


def unit_score(corners: Sequence[CornerReport | str]) -> tuple[float | None, tuple[float, float]]:
    """Return a vertebral unit's total, with imputed corners, and its range.

    A corner of a region that was not scored is given as text. Older reports do not state a unit's total, so it is
    computed from the corners.
    """
    seen = [None if isinstance(corner, str) else corner for corner in corners]
    grades = [None if corner is None else corner.grade for corner in seen]
    imputed = [corner.imputed for corner in seen if corner is not None and corner.grade is None]
    scored = [grade for grade in grades if grade is not None]
    counted = [*scored, *(value for value in imputed if value is not None)]
    total = round(sum(counted), 3) if len(counted) == len(grades) else None
    return total, (sum(scored), sum(scored) + MAX_GRADE * grades.count(None))


def is_bridge(grades: Sequence[float | None]) -> bool | None:
    """Return whether both corners of a unit are 3; None if that is not known."""
    if any(grade is not None and grade < MAX_GRADE for grade in grades):
        return False
    return None if None in grades else True


def _study(report: StudyReport) -> ComparedStudy:
    return ComparedStudy(report.study.study_instance_uid, report.study.study_date, report.bundle)


def _patient_key(baseline: StudyReport, followup: StudyReport) -> str | None:
    keys = {report.study.patient_key for report in (baseline, followup)} - {None}
    if len(keys) > 1 and bool(baseline.bundle.sha256) == bool(followup.bundle.sha256):
        raise InputRejected(
            "two-patients",
            "the two reports are of different patients (or SPINESCORE_PATIENT_KEY was not the same when they were "
            "made); give two studies of one patient",
        )
    return baseline.study.patient_key if baseline.study.patient_key is not None else followup.study.patient_key


def _total(baseline: StudyReport, followup: StudyReport, regions: Mapping[Region, RegionChange]) -> TotalChange:
    changes = [region.total.change for region in regions.values() if region.total.change is not None]
    change, expected = None, None
    if len(changes) == len(regions):
        change = round(sum(changes), 3)
        pairs = ((baseline.regions[name], followup.regions[name], 2 * len(LEVELS[name])) for name in regions)
        expected = expected_change([region_distribution(*pair) for pair in pairs])
    possible = _bounds(baseline.total.range, followup.total.range)
    return TotalChange(baseline.total.value, followup.total.value, change, possible, expected)


def _bounds(before: tuple[float, float], after: tuple[float, float]) -> tuple[float, float]:
    return round(after[0] - before[1], 3), round(after[1] - before[0], 3)


def _region(region: Region, baseline: RegionReport, followup: RegionReport, rules: Rules) -> RegionChange:
    units = tuple(
        _unit(level, _corners(level, number, baseline), _corners(level, number, followup))
        for number, level in enumerate(LEVELS[region])
    )
    corners, unit_counts = counts_of([units])
    whole = corners.comparable + corners.not_comparable
    change, expected = None, None
    if corners.change is not None and corners.not_comparable <= rules.max_not_comparable:
        scaled = round(corners.change * whole / corners.comparable, 3)
        change = scaled if corners.not_comparable else corners.change  # whole grades stay whole numbers
        expected = expected_change([region_distribution(baseline, followup, whole)])
    possible = _bounds(baseline.range, followup.range)
    total = TotalChange(baseline.total, followup.total, change, possible, expected)
    return RegionChange(total, units, corners, unit_counts)


# A corner of one study: its report, or the reason why its region has none.
_Seen = CornerReport | str


def _corners(level: str, number: int, region: RegionReport) -> tuple[_Seen, _Seen]:
    if region.status == "scored":
        return region.discs[number].corners
    why = f"region {region.status}" + (f" ({region.reject.code})" if region.reject else "")
    return why, why


def _unit(level: str, before: tuple[_Seen, _Seen], after: tuple[_Seen, _Seen]) -> UnitChange:
    upper, lower = map(_corner, sites_of(level), before, after)
    bridged = [is_bridge((upper.baseline, lower.baseline)), is_bridge((upper.followup, lower.followup))]
    new_bridge = False if bridged[0] or bridged[1] is False else None if None in bridged else True
    return UnitChange(
        level,
        _unit_total(before, after, (upper, lower)),
        _either(upper.new_syndesmophyte, lower.new_syndesmophyte),
        _either(upper.growth, lower.growth),
        new_bridge,
        (upper, lower),
    )


def _unit_total(
    before: tuple[_Seen, _Seen], after: tuple[_Seen, _Seen], corners: tuple[CornerChange, CornerChange]
) -> TotalChange:
    (first, least), (second, most) = unit_score(before), unit_score(after)
    changes = [corner.change for corner in corners if corner.change is not None]
    change = round(sum(changes), 3) if len(changes) == len(corners) else None
    return TotalChange(first, second, change, _bounds(least, most))


def _corner(site: str, before: _Seen, after: _Seen) -> CornerChange:
    first, second = (None if isinstance(seen, str) else seen.grade for seen in (before, after))
    if first is None or second is None:
        missing = [("baseline", before)] * (first is None) + [("follow-up", after)] * (second is None)
        reasons = (f"{study}: {seen if isinstance(seen, str) else seen.status}" for study, seen in missing)
        return CornerChange(site, first, second, None, None, None, "; ".join(reasons))
    new = first < SYNDESMOPHYTE <= second
    growth = SYNDESMOPHYTE <= first < second == MAX_GRADE
    return CornerChange(site, first, second, round(second - first, 9), new, growth, None)


def _either(upper: bool | None, lower: bool | None) -> bool | None:
    return True if upper or lower else None if upper is None or lower is None else False


def _warnings(baseline: StudyReport, followup: StudyReport, days: int | None) -> Iterable[str]:
    keys = (baseline.study.patient_key, followup.study.patient_key)
    if None in keys:
        yield notice("patient-unknown", "a report names no patient, so the two studies may be of different patients")
    elif keys[0] != keys[1]:
        sentence = "the reading names another patient than the report; check that both are of the same patient"
        yield notice("patients-contradict", sentence, patients=list(keys))
    if baseline.study.study_instance_uid is not None and baseline.study == followup.study:
        yield notice("same-study", "both reports are of the same study")
    yield from _warnings_about_bundles(baseline.bundle, followup.bundle)
    if days is None:
        yield notice("no-study-date", "a study has no date, so there is no rate and no verdict")
    elif days == 0:
        sentence = "both studies are of one day, a repeat and no follow-up, so there is no rate and no verdict"
        yield notice("same-day", sentence)
    elif days < 0:
        sentence = "the follow-up is not later than the baseline, so there is no rate and no verdict; exchange the two"
        yield notice("dates-out-of-order", sentence, days=days)
    for name, report in (("baseline", baseline), ("follow-up", followup)):
        if report.total.status == "imputed":
            sites = report.total.imputed_sites
            sentence = f"the total of the {name} counts the region's mean for {', '.join(sites)}; the change does not"
            yield notice("imputed-total", sentence, study=name, sites=list(sites))


def _warnings_about_bundles(baseline: BundleInfo, followup: BundleInfo) -> Iterable[str]:
    names = [bundle_name(bundle) for bundle in (baseline, followup)]
    if scored_by(baseline) != scored_by(followup):
        if not baseline.sha256 or not followup.sha256:
            kind, words = "reader", "read by different readers ({}), which may explain a change"
        else:
            kind, words = "bundle", "scored with different bundles ({}); score both with one bundle to compare them"
    elif baseline.localizer != followup.localizer:
        names = [bundle.localizer or "its own" for bundle in (baseline, followup)]
        words = "scored with different localizers of the bundle ({}); score both with one localizer to compare them"
        kind = "localizer"
    else:
        return
    yield notice("different-scorers", f"the studies were {words.format(', '.join(names))}", kind=kind, names=names)
