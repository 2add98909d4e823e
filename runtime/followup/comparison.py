"""What a comparison of two studies gives, as frozen dataclasses, and to JSON (`spinescore.comparison/1`).

The published JSON Schema stands beside this file (`comparison.schema.json`). Fields may be added, never changed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from spinescore.runtime.scoring.report import BundleInfo
from spinescore.runtime.study import Region

__all__ = [
    "SCHEMA",
    "ComparedStudy",
    "Comparison",
    "CornerChange",
    "CornerCounts",
    "ExpectedChange",
    "NoProgression",
    "Progression",
    "RegionChange",
    "Rules",
    "TotalChange",
    "UnitChange",
    "UnitCounts",
    "Verdict",
    "comparison_schema",
]

SCHEMA = "spinescore.comparison/1"


@dataclass(frozen=True)
class Rules:
    """The rules of change and progression. Units are those of the mSASSS.

    `progression_units`: a progression from here on, in `rate_years` (2 in 2 years: Machado et al., SCQM).
    `no_progression_units`: changes up to which trials call it none (0: MEASURE 1; 0.5: SURPASS). Both hold for
    intervals within `window`: `window_years`, or a quarter of `rate_years` on either side of them. Two years are what
    van der Heijde et al. 2018 (doi 10.1093/rheumatology/key128) ask for; the quarter is our choice. Other intervals get
    no verdict, or with `judge_by_rate` one by the change per `rate_years`. No rate is given below `min_rate_years` (our
    choice too): it would mostly enlarge the error of reading. A region has a change if at most `max_not_comparable` of
    its 12 corners are not comparable. `sdc` is the smallest detectable change, if it is known.
    """

    progression_units: float = 2.0
    no_progression_units: tuple[float, ...] = (0.0, 0.5)
    rate_years: float = 2.0
    window_years: tuple[float, float] | None = None
    judge_by_rate: bool = False
    min_rate_years: float = 1.0
    max_not_comparable: int = 3
    sdc: float | None = None

    @property
    def window(self) -> tuple[float, float]:
        """The least and the greatest number of years between two studies that get a verdict by their change."""
        return self.window_years or (0.75 * self.rate_years, 1.25 * self.rate_years)


@dataclass(frozen=True)
class ComparedStudy:
    study_instance_uid: str | None
    study_date: str | None  # YYYYMMDD
    bundle: BundleInfo


@dataclass(frozen=True)
class ExpectedChange:
    """The change that the network's own probabilities expect; `interval` holds at least 95 % of the probability."""

    mean: float
    sd: float
    interval: tuple[float, float]


@dataclass(frozen=True)
class TotalChange:
    """Totals of both studies, and the change at the corners that are comparable.

    A total may count imputed corners, the change never does: it need not be the difference of the totals. `possible`
    bounds the change, whatever the missing corners are. `expected` is None without probabilities, and of a unit.
    """

    baseline: float | None
    followup: float | None
    change: float | None
    possible: tuple[float, float]
    expected: ExpectedChange | None = None


@dataclass(frozen=True)
class CornerChange:
    """One site. `not_comparable` says why there is no change; then all but the grades is None.

    Grades of readers may be half points, and means of several readers.
    """

    site: str
    baseline: float | None
    followup: float | None
    change: float | None
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
class CornerCounts:
    """Of a region's 12 or a study's 24 corners. `change` is summed over the `comparable` ones alone.

    `lower` are those with a lower grade now. Where a region has no comparable corner, its events are not known, nor
    those of the study: they are None.
    """

    comparable: int
    change: float | None
    new_syndesmophytes: int | None
    growth: int | None
    lower: int | None
    not_comparable: int


@dataclass(frozen=True)
class UnitCounts:
    """Of a region's 6 or a study's 12 vertebral units, as `CornerCounts`. `not_comparable`: a corner is not."""

    new_syndesmophytes: int | None
    growth: int | None
    new_bridges: int | None
    not_comparable: int


@dataclass(frozen=True)
class RegionChange:
    total: TotalChange
    units: tuple[UnitChange, ...]
    corner_counts: CornerCounts
    unit_counts: UnitCounts


@dataclass(frozen=True)
class NoProgression:
    """Whether the change is at most `units`; None where there is no verdict, or the missing corners decide."""

    units: float
    met: bool | None


Verdict = Literal["progression", "no progression", "undecided"]


@dataclass(frozen=True)
class Progression:
    """The verdict of the rules.

    `verdict` is None where the rules cannot be asked, and `reason` says why, or why it is undecided. `basis` is what
    was held against the thresholds. `rate` is the change per `rate_years` years. `beyond_error` says whether the
    change is larger than the smallest detectable change `sdc`; None if that is not known.
    """

    units: float
    progressed: bool | None
    no_progression: tuple[NoProgression, ...]
    rate_years: float
    rate: float | None
    verdict: Verdict | None = None
    reason: str | None = None
    basis: Literal["change", "rate"] | None = None
    window_years: tuple[float, float] = (1.5, 2.5)
    sdc: float | None = None
    beyond_error: bool | None = None


@dataclass(frozen=True)
class Comparison:
    """A patient's follow-up study against the baseline. Units of the mSASSS; `interval_days` may be negative.

    `same_bundle` says whether both studies were scored with one bundle, or read by one reader.
    """

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
    same_bundle: bool = True
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
