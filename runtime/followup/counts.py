"""Counts of changed corners and units.

If a region has no comparable corner, its events are not known: they are None, never 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from spinescore.runtime.followup.comparison import CornerCounts, UnitChange, UnitCounts

__all__ = ["counts_of"]


def counts_of(regions: Sequence[Sequence[UnitChange]]) -> tuple[CornerCounts, UnitCounts]:
    """Return the counts of corners and of units, from the units of one region or of several."""
    units = [unit for region in regions for unit in region]
    corners = [corner for unit in units for corner in unit.corners]
    changes = [corner.change for corner in corners if corner.change is not None]
    is_known = all(any(corner.change is not None for unit in region for corner in unit.corners) for region in regions)

    def count(events: Iterable[bool | None]) -> int | None:
        return sum(event is True for event in events) if is_known else None

    return CornerCounts(
        comparable=len(changes),
        change=round(sum(changes), 3) if changes else None,
        new_syndesmophytes=count(corner.new_syndesmophyte for corner in corners),
        growth=count(corner.growth for corner in corners),
        lower=count(change < 0 for change in changes),
        not_comparable=len(corners) - len(changes),
    ), UnitCounts(
        new_syndesmophytes=count(unit.new_syndesmophyte for unit in units),
        growth=count(unit.growth for unit in units),
        new_bridges=count(unit.new_bridge for unit in units),
        not_comparable=sum(any(corner.not_comparable for corner in unit.corners) for unit in units),
    )
