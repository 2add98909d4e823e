"""Rows of change: between two studies, at each vertebral unit and at each corner; and who is left out of them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from spinescore.runtime.followup.change import SYNDESMOPHYTE, study_date
from spinescore.runtime.followup.cohort import Change, LeftOut
from spinescore.runtime.followup.comparison import CornerChange, UnitChange
from spinescore.runtime.followup.summary import source_name
from spinescore.runtime.scoring.msasss import MAX_GRADE

__all__ = ["change_row", "corner_change_rows", "left_out_row", "unit_change_rows"]

Row = dict[str, Any]


def change_row(change: Change) -> Row:
    """The row of a change between two studies."""
    found, baseline, followup = change.comparison, change.baseline, change.followup
    expected = found.total.expected
    return {
        "patient_key": found.patient_key,
        "bundle_sha256": found.baseline.bundle.sha256 or None,
        "baseline_report": baseline.name,
        "followup_report": followup.name,
        "baseline_date": study_date(baseline.report),
        "followup_date": study_date(followup.report),
        "interval_days": found.interval_days,
        "baseline_total": found.total.baseline,
        "followup_total": found.total.followup,
        "change": found.total.change,
        "change_low": math.floor(found.total.possible[0]),
        "change_high": math.ceil(found.total.possible[1]),
        "rate": found.progression.rate,
        "rate_years": found.progression.rate_years,
        "progressed": found.progression.progressed,
        "progression_units": found.progression.units,
        **{f"{name}_change": region.total.change for name, region in found.regions.items()},
        "comparable_corners": found.corners.comparable,
        "comparable_change": _whole(found.corners.change),
        "new_syndesmophyte_corners": found.corners.new_syndesmophytes,
        "growth_corners": found.corners.growth,
        "lower_corners": found.corners.lower,
        "comparable_units": 12 - found.units.not_comparable,
        "new_syndesmophyte_units": found.units.new_syndesmophytes,
        "growth_units": found.units.growth,
        "new_bridges": found.units.new_bridges,
        **_studies(change),
        **_verdict(change),
        "expected_change": expected.mean if expected else None,
        "expected_change_low": expected.interval[0] if expected else None,
        "expected_change_high": expected.interval[1] if expected else None,
        **{f"{name}_comparable_corners": region.corner_counts.comparable for name, region in found.regions.items()},
        "scored_by": source_name(found.baseline.bundle),
    }


def unit_change_rows(change: Change) -> Iterator[Row]:
    """A row for each of the 12 vertebral units, a disc with its two corners (van der Heijde et al. 2008, ASSERT)."""
    for region, parts in change.comparison.regions.items():
        for unit in parts.units:
            upper, lower = unit.corners
            comparable = all(corner.change is not None for corner in unit.corners)
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
                "at_risk": _of_unit(unit, MAX_GRADE) if comparable else None,
                "free_at_baseline": _is_free(unit.corners) if comparable else None,
                "new_syndesmophyte": unit.new_syndesmophyte,
                "growth": unit.growth,
                "new_bridge": unit.new_bridge,
            }


def corner_change_rows(change: Change) -> Iterator[Row]:
    """A row for each of the 24 corners; a new bridge is that of the corner's unit."""
    for region, parts in change.comparison.regions.items():
        for unit in parts.units:
            for corner in unit.corners:
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
    """The row of studies that have no part in the changes from first to last study."""
    return {
        "patient_key": left.patient_key,
        "bundle_sha256": left.bundle.sha256 or None,
        "scored_by": source_name(left.bundle),
        "studies": len(left.reports),
        "reports": " ".join(left.reports),
        "reason": left.reason,
    }


def _key(change: Change) -> Row:
    found = change.comparison
    return {
        "patient_key": found.patient_key,
        "bundle_sha256": found.baseline.bundle.sha256 or None,
        **_studies(change),
        "baseline_date": study_date(change.baseline.report),
        "followup_date": study_date(change.followup.report),
        "interval_days": found.interval_days,
    }


def _studies(change: Change) -> Row:
    return {
        "baseline_study_instance_uid": change.comparison.baseline.study_instance_uid,
        "followup_study_instance_uid": change.comparison.followup.study_instance_uid,
    }


def _verdict(change: Change) -> Row:
    found = change.comparison.progression
    met = ("" if rule.met is None else str(rule.met).lower() for rule in found.no_progression)
    return {
        "verdict": found.verdict,
        "verdict_reason": found.reason,
        "verdict_basis": found.basis,
        "no_progression_units": ";".join(f"{rule.units:g}" for rule in found.no_progression),
        "no_progression_met": ";".join(met),
        "sdc": found.sdc,
        "beyond_error": found.beyond_error,
    }


def _of_unit(unit: UnitChange, grade: int) -> bool:
    return any(_below(corner, grade) for corner in unit.corners)


def _is_free(corners: tuple[CornerChange, CornerChange]) -> bool:
    return all(_below(corner, SYNDESMOPHYTE) for corner in corners)


def _below(corner: CornerChange, grade: int) -> bool:
    return corner.baseline is not None and corner.baseline < grade


def _whole(change: float | None) -> int | None:
    """The sum of whole grades; readers' half points have none."""
    return int(change) if change is not None and change == int(change) else None
