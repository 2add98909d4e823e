"""Counts of changed corners and units.

If a region has no comparable corner, its events are not known: they are None, never 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from spinescore.runtime.followup.comparison import CornerChange, CornerCounts, UnitChange, UnitCounts

__all__ = ["added_corners", "added_units", "counted_corners", "counted_units"]


def counted_corners(corners: Sequence[CornerChange]) -> CornerCounts:
    """Return the counts of a region's corners."""
    changes = [corner.change for corner in corners if corner.change is not None]
    is_comparable = bool(changes)
    return CornerCounts(
        comparable=len(changes),
        change=round(sum(changes), 3) if is_comparable else None,
        new_syndesmophytes=_count(is_comparable, (corner.new_syndesmophyte for corner in corners)),
        growth=_count(is_comparable, (corner.growth for corner in corners)),
        lower=_count(is_comparable, (change < 0 for change in changes)),
        not_comparable=len(corners) - len(changes),
    )


def counted_units(units: Sequence[UnitChange], is_comparable: bool) -> UnitCounts:
    """Return the counts of a region's units; `is_comparable` says whether the region has a comparable corner."""
    return UnitCounts(
        new_syndesmophytes=_count(is_comparable, (unit.new_syndesmophyte for unit in units)),
        growth=_count(is_comparable, (unit.growth for unit in units)),
        new_bridges=_count(is_comparable, (unit.new_bridge for unit in units)),
        not_comparable=sum(any(corner.not_comparable for corner in unit.corners) for unit in units),
    )


def _count(is_comparable: bool, events: Iterable[bool | None]) -> int | None:
    """Return the number of events; None if nothing could be compared."""
    return sum(event is True for event in events) if is_comparable else None


def added_corners(regions: Sequence[CornerCounts]) -> CornerCounts:
    """Return the counts of a study's corners; the change is that of all comparable corners."""
    changes = [region.change for region in regions if region.change is not None]
    return CornerCounts(
        comparable=sum(region.comparable for region in regions),
        change=round(sum(changes), 3) if changes else None,
        new_syndesmophytes=_sum(region.new_syndesmophytes for region in regions),
        growth=_sum(region.growth for region in regions),
        lower=_sum(region.lower for region in regions),
        not_comparable=sum(region.not_comparable for region in regions),
    )


def added_units(regions: Sequence[UnitCounts]) -> UnitCounts:
    """Return the counts of a study's units."""
    return UnitCounts(
        new_syndesmophytes=_sum(region.new_syndesmophytes for region in regions),
        growth=_sum(region.growth for region in regions),
        new_bridges=_sum(region.new_bridges for region in regions),
        not_comparable=sum(region.not_comparable for region in regions),
    )


def _sum(counts: Iterable[int | None]) -> int | None:
    total = 0
    for count in counts:
        if count is None:
            return None
        total += count
    return total
