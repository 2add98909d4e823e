"""What a comparison of two studies gives, as frozen dataclasses, and to JSON (`spinescore.comparison/1`).

The published JSON Schema stands beside this file (`comparison.schema.json`). Fields may be added, never changed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from spinescore.runtime.report import BundleInfo
from spinescore.runtime.study import Region

__all__ = [
    "SCHEMA",
    "ComparedStudy",
    "Comparison",
    "CornerChange",
    "CornerCounts",
    "NoProgression",
    "Progression",
    "RegionChange",
    "Rules",
    "TotalChange",
    "UnitChange",
    "UnitCounts",
    "comparison_schema",
]

SCHEMA = "spinescore.comparison/1"


@dataclass(frozen=True)
class Rules:
    """Units of the mSASSS that make a progression, those up to which there is none, and the years of the rate."""

    progression_units: float = 2.0
    no_progression_units: tuple[float, ...] = (0.0, 0.5)
    rate_years: float = 2.0


@dataclass(frozen=True)
class ComparedStudy:
    study_instance_uid: str | None
    study_date: str | None  # YYYYMMDD
    bundle: BundleInfo


@dataclass(frozen=True)
class TotalChange:
    """Totals of both studies and their difference, None where one is missing; `possible` bounds the difference."""

    baseline: float | None
    followup: float | None
    change: float | None
    possible: tuple[int, int]


@dataclass(frozen=True)
class CornerChange:
    """One site. `not_comparable` says why there is no change; then all but the grades is None."""

    site: str
    baseline: int | None
    followup: int | None
    change: int | None
    new_syndesmophyte: bool | None
    growth: bool | None
    not_comparable: str | None


@dataclass(frozen=True)
class UnitChange:
    """One disc with its two corners. An event is None where neither a corner shows it nor both exclude it."""

    level: str
    total: TotalChange
    new_syndesmophyte: bool | None
    growth: bool | None
    new_bridge: bool | None
    corners: tuple[CornerChange, CornerChange]


@dataclass(frozen=True)
class RegionChange:
    total: TotalChange
    units: tuple[UnitChange, ...]


@dataclass(frozen=True)
class CornerCounts:
    """Of 24 corners. `change` is summed over the `comparable` ones alone; `lower`: those with a lower grade now."""

    comparable: int
    change: int
    new_syndesmophytes: int
    growth: int
    lower: int
    not_comparable: int


@dataclass(frozen=True)
class UnitCounts:
    """Of 12 vertebral units. `not_comparable`: those of which a corner is not."""

    new_syndesmophytes: int
    growth: int
    new_bridges: int
    not_comparable: int


@dataclass(frozen=True)
class NoProgression:
    """Whether the change is at most `units`; None where there is no change of the total."""

    units: float
    met: bool | None


@dataclass(frozen=True)
class Progression:
    """What the rules say. `rate` is the change per `rate_years` years; None without dates, or without time between."""

    units: float
    progressed: bool | None
    no_progression: tuple[NoProgression, ...]
    rate_years: float
    rate: float | None


@dataclass(frozen=True)
class Comparison:
    """A patient's follow-up study against the baseline. Units of the mSASSS; `interval_days` may be negative."""

    patient_key: str | None
    baseline: ComparedStudy
    followup: ComparedStudy
    interval_days: int | None
    total: TotalChange
    regions: Mapping[Region, RegionChange]
    progression: Progression
    corners: CornerCounts
    units: UnitCounts
    warnings: tuple[str, ...]
    schema: str = SCHEMA

    def to_dict(self) -> dict[str, Any]:
        document = asdict(self)
        return {"schema": document.pop("schema"), **document}

    def to_json(self, indent: int | None = 2) -> str:
        """The comparison as JSON text (one line where `indent` is None); equal comparisons give equal text."""
        return json.dumps(self.to_dict(), indent=indent, ensure_ascii=False, allow_nan=False)

    def unit_changes(self) -> tuple[UnitChange, ...]:
        """The 12 units from above."""
        return tuple(unit for region in self.regions.values() for unit in region.units)

    def corner_changes(self) -> tuple[CornerChange, ...]:
        """The 24 corners from above."""
        return tuple(corner for unit in self.unit_changes() for corner in unit.corners)


def comparison_schema() -> dict[str, Any]:
    """The published JSON Schema (2020-12) of comparisons."""
    schema: dict[str, Any] = json.loads((Path(__file__).parent / "comparison.schema.json").read_text(encoding="utf-8"))
    return schema
