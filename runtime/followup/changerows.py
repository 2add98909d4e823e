"""Rows of the tables of change: of studies, vertebral units and corners, and of studies that were left out."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from spinescore.runtime.followup.change import SYNDESMOPHYTE, study_date
from spinescore.runtime.followup.cohort import Change, LeftOut
from spinescore.runtime.followup.comparison import CornerChange
from spinescore.runtime.outputs.words import bundle_name
from spinescore.runtime.scoring.msasss import MAX_GRADE

__all__ = ["change_row", "corner_change_rows", "left_out_row", "unit_change_rows"]

Row = dict[str, Any]


def change_row(change: Change) -> Row:
    """Return the row of a change between two studies."""
    comparison, baseline, followup = change.comparison, change.baseline, change.followup
    expected, regions = comparison.total.expected, comparison.regions
    return {
        "patient_key": comparison.patient_key,
        "bundle_sha256": comparison.baseline.bundle.sha256 or None,
        "baseline_report": baseline.name,
        "followup_report": followup.name,
        "baseline_date": study_date(baseline.report),
        "followup_date": study_date(followup.report),
        "interval_days": comparison.interval_days,
        "baseline_total": comparison.total.baseline,
        "followup_total": comparison.total.followup,
        "change": comparison.total.change,
        "change_low": math.floor(comparison.total.possible[0]),
        "change_high": math.ceil(comparison.total.possible[1]),
        "rate": comparison.progression.rate,
        "rate_years": comparison.progression.rate_years,
        "progressed": comparison.progression.progressed,
        "progression_units": comparison.progression.units,
        **{f"{name}_change": region.total.change for name, region in regions.items()},
        "comparable_corners": comparison.corners.comparable,
        "comparable_change": _whole(comparison.corners.change),
        "new_syndesmophyte_corners": comparison.corners.new_syndesmophytes,
        "growth_corners": comparison.corners.growth,
        "lower_corners": comparison.corners.lower,
        "comparable_units": 12 - comparison.units.not_comparable,
        "new_syndesmophyte_units": comparison.units.new_syndesmophytes,
        "growth_units": comparison.units.growth,
        "new_bridges": comparison.units.new_bridges,
        **_studies(change),
        **_verdict(change),
        "expected_change": expected.mean if expected else None,
        "expected_change_low": expected.interval[0] if expected else None,
        "expected_change_high": expected.interval[1] if expected else None,
        **{f"{name}_comparable_corners": region.corner_counts.comparable for name, region in regions.items()},
        "scored_by": bundle_name(comparison.baseline.bundle),
    }


def unit_change_rows(change: Change) -> Iterator[Row]:
    """Yield a row for each of the 12 vertebral units: a disc with its corners (van der Heijde et al. 2008, ASSERT)."""
    for region, parts in change.comparison.regions.items():
        for unit in parts.units:
            upper, lower = unit.corners
            comparable = all(corner.change is not None for corner in unit.corners)
            at_risk, free = ([_below(corner, most) for corner in unit.corners] for most in (MAX_GRADE, SYNDESMOPHYTE))
            yield {
                **_key(change),
                "region": region,
                "level": unit.level,
                "baseline_upper": upper.baseline,
                "baseline_lower": lower.baseline,
                "followup_upper": upper.followup,
                "followup_lower": lower.followup,
                "change": unit.total.change,
                "comparable": comparable,
                "at_risk": any(at_risk) if comparable else None,
                "free_at_baseline": all(free) if comparable else None,
                "new_syndesmophyte": unit.new_syndesmophyte,
                "growth": unit.growth,
                "new_bridge": unit.new_bridge,
            }


def corner_change_rows(change: Change) -> Iterator[Row]:
    """Yield a row for each of the 24 corners; a new bridge is that of the corner's unit."""
    for region, parts in change.comparison.regions.items():
        for unit, corner in ((disc, corner) for disc in parts.units for corner in disc.corners):
            comparable = corner.change is not None
            yield {
                **_key(change),
                "region": region,
                "level": unit.level,
                "site": corner.site,
                "baseline_grade": corner.baseline,
                "followup_grade": corner.followup,
                "change": corner.change,
                "comparable": comparable,
                "not_comparable": corner.not_comparable,
                "at_risk": _below(corner, MAX_GRADE) if comparable else None,
                "free_at_baseline": _below(corner, SYNDESMOPHYTE) if comparable else None,
                "new_syndesmophyte": corner.new_syndesmophyte,
                "growth": corner.growth,
                "new_bridge": unit.new_bridge,
            }


def left_out_row(left: LeftOut) -> Row:
    """Return the row of studies that are no part of a change from first to last study."""
    return {
        "patient_key": left.patient_key,
        "bundle_sha256": left.bundle.sha256 or None,
        "scored_by": bundle_name(left.bundle),
        "studies": len(left.reports),
        "reports": " ".join(left.reports),
        "reason": left.reason,
    }


def _key(change: Change) -> Row:
    comparison = change.comparison
    return {
        "patient_key": comparison.patient_key,
        "bundle_sha256": comparison.baseline.bundle.sha256 or None,
        **_studies(change),
        "baseline_date": study_date(change.baseline.report),
        "followup_date": study_date(change.followup.report),
        "interval_days": comparison.interval_days,
    }


def _studies(change: Change) -> Row:
    return {
        "baseline_study_instance_uid": change.comparison.baseline.study_instance_uid,
        "followup_study_instance_uid": change.comparison.followup.study_instance_uid,
    }


def _verdict(change: Change) -> Row:
    progression = change.comparison.progression
    met = ("" if rule.met is None else str(rule.met).lower() for rule in progression.no_progression)
    return {
        "verdict": progression.verdict,
        "verdict_reason": progression.reason,
        "verdict_basis": progression.basis,
        "no_progression_units": ";".join(f"{rule.units:g}" for rule in progression.no_progression),
        "no_progression_met": ";".join(met),
        "sdc": progression.sdc,
        "beyond_error": progression.beyond_error,
    }


def _below(corner: CornerChange, grade: int) -> bool:
    return corner.baseline is not None and corner.baseline < grade


def _whole(change: float | None) -> int | None:
    """Return the sum if it is whole; None for readers' half points."""
    return int(change) if change is not None and change == int(change) else None
