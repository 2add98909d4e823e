"""A comparison as text for a terminal (ASCII, so that every console shows it)."""

from __future__ import annotations

from spinescore.runtime.followup.comparison import Comparison, CornerChange, TotalChange, UnitChange
from spinescore.runtime.output import table

__all__ = ["amount", "comparison_summary", "corner_event"]


def comparison_summary(comparison: Comparison) -> str:
    """The 24 corners of both studies, what happened at each, and the totals."""
    rows = [_row(unit, corner) for unit in comparison.unit_changes() for corner in unit.corners]
    parts = [table(rows, ["unit", "site", "baseline", "follow-up", "change", "what happened"])]
    parts.append("\n".join(_totals(comparison)))
    parts.append("\n".join(_events(comparison)))
    bundle = comparison.followup.bundle
    parts.append(f"Bundle {bundle.name} {bundle.version}: {bundle.intended_use}")
    return "\n\n".join(parts)


def corner_event(unit: UnitChange, corner: CornerChange) -> str:
    """What happened at a corner, in a few words; empty where its grade stayed."""
    if corner.change is None:
        return f"not comparable ({corner.not_comparable})"
    if corner.change == 0:
        return ""
    words = ["new syndesmophyte"] if corner.new_syndesmophyte else ["growth"] if corner.growth else []
    if unit.new_bridge:
        words.append("new bridge")
    return ", ".join(words) or ("erosion, sclerosis or squaring" if corner.change > 0 else "lower grade")


def amount(total: float | None) -> str:
    """A total as people read it, with a decimal where imputed corners gave it one."""
    return "no total" if total is None else f"{total:g}" if total == int(total) else f"{total:.1f}"


def _row(unit: UnitChange, corner: CornerChange) -> list[object]:
    change = "-" if corner.change is None else f"{corner.change:+d}" if corner.change else "0"
    grades = ("-" if grade is None else str(grade) for grade in (corner.baseline, corner.followup))
    return [unit.level, corner.site, *grades, change, corner_event(unit, corner)]


def _totals(comparison: Comparison) -> list[str]:
    named: dict[str, TotalChange] = {name: region.total for name, region in comparison.regions.items()}
    named["mSASSS"] = comparison.total
    lines = [f"{name:<9} {_change(total)}" for name, total in named.items()]
    found = comparison.progression
    if found.progressed is not None:
        verdict = "progression" if found.progressed else "no progression"
        others = "".join(f"; change <= {rule.units:g}: {'yes' if rule.met else 'no'}" for rule in found.no_progression)
        lines.append(f"{'':<9} {verdict} by >= {found.units:g} units{others}")
    if comparison.interval_days is not None:
        rate = "" if found.rate is None else f", {found.rate:+.2f} per {found.rate_years:g} years"
        lines.append(f"{'interval':<9} {comparison.interval_days} days{rate}")
    return lines


def _change(total: TotalChange) -> str:
    low, high = total.possible
    change = (
        "no change to give"
        if total.change is None
        else f"change {'' if total.change <= 0 else '+'}{amount(total.change)}"
    )
    open_ = "" if low == high else f", possible {low:+d} to {high:+d}"
    return f"{amount(total.baseline)} -> {amount(total.followup)}, {change}{open_}"


def _events(comparison: Comparison) -> list[str]:
    corners, units = comparison.corners, comparison.units
    return [
        f"corners   new syndesmophytes {corners.new_syndesmophytes}, growth {corners.growth}, lower {corners.lower}; "
        f"{corners.comparable} of 24 comparable, their change {corners.change:+d}",
        f"units     new syndesmophytes {units.new_syndesmophytes}, growth {units.growth}, "
        f"new bridges {units.new_bridges}; {12 - units.not_comparable} of 12 comparable",
    ]
