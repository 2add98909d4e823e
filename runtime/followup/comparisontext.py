"""A comparison as text for a terminal (ASCII, so that every console shows it)."""

from __future__ import annotations

from spinescore.runtime.followup.comparison import (
    Comparison,
    CornerChange,
    CornerCounts,
    Progression,
    TotalChange,
    UnitChange,
    UnitCounts,
)
from spinescore.runtime.outputs.words import bundle_name
from spinescore.runtime.scoring.report import BundleInfo
from spinescore.runtime.text import lines, table

__all__ = ["amount", "comparison_summary", "corner_event", "signed", "source_line", "verdict_words"]


def comparison_summary(comparison: Comparison) -> str:
    """Return the 24 corners of both studies with the event at each, and the totals, as text."""
    rows = [_row(unit, corner) for unit in comparison.unit_changes() for corner in unit.corners]
    parts = [table(rows, ["unit", "site", "baseline", "follow-up", "change", "what happened"])]
    parts.append("\n".join(_totals(comparison)))
    parts.append("\n".join(_events(comparison)))
    bundles = dict.fromkeys((comparison.baseline.bundle, comparison.followup.bundle))
    parts.append(lines(map(source_line, bundles)))
    return "\n\n".join(parts)


def source_line(bundle: BundleInfo) -> str:
    """Return the bundle of a study with its intended use, or its reader, in words."""
    name = bundle_name(bundle)
    return f"{f'Bundle {name}' if bundle.sha256 else name[:1].upper() + name[1:]}: {bundle.intended_use}"


def corner_event(unit: UnitChange, corner: CornerChange) -> str:
    """Return the event at a corner in a few words; empty if its grade stayed the same."""
    if corner.change is None:
        return f"not comparable ({corner.not_comparable})"
    if corner.change == 0:
        return ""
    words = ["new syndesmophyte"] if corner.new_syndesmophyte else ["growth"] if corner.growth else []
    if unit.new_bridge:
        words.append("new bridge")
    return ", ".join(words) or ("erosion, sclerosis or squaring" if corner.change > 0 else "lower grade")


def amount(total: float | None) -> str:
    """Return a total in the usual form, with one decimal if it is not whole."""
    return "no total" if total is None else f"{total:g}" if total == int(total) else f"{total:.1f}"


def signed(change: float) -> str:
    """Return a change in the usual form: +2, -0.5, 0."""
    return f"{'' if change <= 0 else '+'}{amount(change)}"


def verdict_words(progression: Progression) -> str:
    """Return the verdict in a sentence, with its definition, and with the reason if there is none."""
    units, (least, most) = f"{progression.units:g} units or more", progression.window_years
    per_years = f"per {progression.rate_years:g} years"
    within = f"in {least:g} to {most:g} years" if progression.basis == "change" else f"{per_years}, by the rate"
    if progression.verdict is None:
        return f"no verdict on a progression of {units}: {progression.reason}"
    if progression.verdict == "undecided":
        return f"undecided whether there is a progression of {units} {within}: {progression.reason}"
    return f"{progression.verdict} of {units} {within}"


def _row(unit: UnitChange, corner: CornerChange) -> list[object]:
    change = "-" if corner.change is None else signed(corner.change)
    grades = ("-" if grade is None else f"{grade:.3g}" for grade in (corner.baseline, corner.followup))
    return [unit.level, corner.site, *grades, change, corner_event(unit, corner)]


def _totals(comparison: Comparison) -> list[str]:
    lines = [_line(name, region.total) for name, region in comparison.regions.items()]
    lines.append(_line("mSASSS", comparison.total))
    if (expected := comparison.total.expected) is not None:
        low, high = expected.interval
        lines.append(
            f"{'expected':<9} change {expected.mean:+.1f}, 95 % interval {_bound(low)} to {_bound(high)} "
            "by the network's own probabilities"
        )
    progression = comparison.progression
    if comparison.interval_days is not None:
        rate = "" if progression.rate is None else f", {progression.rate:+.2f} per {progression.rate_years:g} years"
        lines.append(f"{'interval':<9} {comparison.interval_days} days{rate}")
    lines.append(f"{'verdict':<9} {verdict_words(progression)}")
    if progression.verdict is not None and progression.no_progression:
        above = {True: "no", False: "yes", None: "undecided"}
        rules = "; ".join(f"above {rule.units:g}: {above[rule.met]}" for rule in progression.no_progression)
        lines.append(f"{'':<9} change {rules}")
    lines.append(f"{'error':<9} {_error(progression, comparison.total.change)}")
    return lines


def _error(progression: Progression, change: float | None) -> str:
    if progression.sdc is None:
        return "the smallest detectable change is not known; state it with --sdc UNITS"
    text = f"smallest detectable change {progression.sdc:g}"
    if change is None or progression.beyond_error is None:
        return text
    return f"{text}: {signed(change)} is {'beyond' if progression.beyond_error else 'within'} the error of measurement"


def _line(name: str, total: TotalChange) -> str:
    low, high = total.possible
    change = "no change to give" if total.change is None else f"change {signed(total.change)}"
    open_ = "" if low == high else f", possible {_bound(low)} to {_bound(high)}"
    return f"{name:<9} {amount(total.baseline)} -> {amount(total.followup)}, {change}{open_}"


def _bound(change: float) -> str:
    return f"{change:+g}" if change == int(change) else f"{change:+.1f}"


def _events(comparison: Comparison) -> list[str]:
    """Return the study's events; by region if a region has none to count."""
    lines = []
    for name, region in comparison.regions.items() if comparison.corners.new_syndesmophytes is None else ():
        if region.corner_counts.comparable:
            lines.append(f"{name:<9} corners: {_corners(region.corner_counts, 12)}")
            lines.append(f"{'':<9} units: {_units(region.unit_counts, 6)}")
        else:
            lines.append(f"{name:<9} none to compare")
    lines.append(f"{'corners':<9} {_corners(comparison.corners, 24)}")
    lines.append(f"{'units':<9} {_units(comparison.units, 12)}")
    return lines


def _corners(corners: CornerCounts, of: int) -> str:
    change = "" if corners.change is None else f", their change {_bound(corners.change)}"
    return f"{_counted(corners, f'lower {corners.lower}')}{corners.comparable} of {of} comparable{change}"


def _units(units: UnitCounts, of: int) -> str:
    return f"{_counted(units, f'new bridges {units.new_bridges}')}{of - units.not_comparable} of {of} comparable"


def _counted(counts: CornerCounts | UnitCounts, last: str) -> str:
    if counts.new_syndesmophytes is None:
        return ""
    return f"new syndesmophytes {counts.new_syndesmophytes}, growth {counts.growth}, {last}; "
