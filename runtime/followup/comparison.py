"""The result of a comparison of two studies, as frozen dataclasses and as JSON (`spinescore.comparison/1`).

The published JSON Schema is `comparison.schema.json` beside this file. Fields may be added, never changed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from spinescore.runtime.arguments import check_number, check_pair, check_whole
from spinescore.runtime.scoring.report import BundleInfo
from spinescore.runtime.study import Finding, Region

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

_FROM_0 = "a number from 0 on"


@dataclass(frozen=True)
class Rules:
    """The rules of change and progression, in units of the mSASSS.

    `progression_units` is the smallest change in `rate_years` that is progression (2 in 2 years: Machado et al., SCQM).
    `no_progression_units` are the largest changes that trials call no progression (0: MEASURE 1; 0.5: SURPASS). Both
    apply to intervals within `window`: `window_years`, or `rate_years` less and plus a quarter. Van der Heijde et al.
    2018 (doi 10.1093/rheumatology/key128) ask for two years; the quarter is our choice. Other intervals get no verdict,
    or with `judge_by_rate` a verdict by the change per `rate_years`. Intervals below `min_rate_years` (our choice too)
    get no rate, because it would mostly enlarge the reading error. A region has a change if at most
    `max_not_comparable` of its 12 corners are not comparable. `sdc` is the smallest detectable change, if it is known.
    """

    progression_units: float = 2.0
    no_progression_units: tuple[float, ...] = (0.0, 0.5)
    rate_years: float = 2.0
    window_years: tuple[float, float] | None = None
    judge_by_rate: bool = False
    min_rate_years: float = 1.0
    max_not_comparable: int = 3
    sdc: float | None = None

    def __post_init__(self) -> None:
        """Raise `TypeError` or `ValueError` for a rule by which nothing can be judged."""
        for units in (self.progression_units, *self.no_progression_units):
            check_number("progression_units and no_progression_units", units, "numbers of units", above=-math.inf)
        check_number("rate_years", self.rate_years, "a number of years above 0")
        check_whole("max_not_comparable", self.max_not_comparable, 0, 11)
        for name in ("min_rate_years", "sdc"):
            if (number := getattr(self, name)) is not None and check_number(name, number, _FROM_0, above=-math.inf) < 0:
                raise ValueError(f"{name} must be {_FROM_0}, got {number:g}")
        least, most = check_pair("window_years", self.window, "the least and the greatest number of years")
        if not 0 <= least <= most:
            raise ValueError(f"window_years must be from 0 on, the least first, got {least:g} and {most:g}")

    @property
    def window(self) -> tuple[float, float]:
        """Return the least and the greatest number of years between two studies that get a verdict by their change."""
        return self.window_years or (0.75 * self.rate_years, 1.25 * self.rate_years)


@dataclass(frozen=True)
class ComparedStudy:
    study_instance_uid: str | None
    study_date: str | None  # YYYYMMDD
    bundle: BundleInfo


@dataclass(frozen=True)
class ExpectedChange:
    """The change expected by the network's own probabilities; `interval` holds at least 95 % of the probability."""

    mean: float
    sd: float
    interval: tuple[float, float]


@dataclass(frozen=True)
class TotalChange:
    """Totals of both studies, and the change of the comparable corners.

    A total may include imputed corners; the change never does, so it may differ from the difference of the totals.
    `possible` are the bounds of the change for all grades that missing corners may have. `expected` is None for a unit,
    or without probabilities.
    """

    baseline: float | None
    followup: float | None
    change: float | None
    possible: tuple[float, float]
    expected: ExpectedChange | None = None


@dataclass(frozen=True)
class CornerChange:
    """One site. `not_comparable` is the reason if there is no change; all fields but the grades are then None.

    Grades of readers may be half points, or means of several readers.
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
    """One disc with its two corners. An event is None if no corner shows it and not both exclude it."""

    level: str
    total: TotalChange
    new_syndesmophyte: bool | None
    growth: bool | None
    new_bridge: bool | None
    corners: tuple[CornerChange, CornerChange]


@dataclass(frozen=True)
class CornerCounts:
    """Counts of a region's 12 or a study's 24 corners. `change` is the sum over the `comparable` corners only.

    `lower` counts corners with a lower grade now. If a region has no comparable corner, its events and those of the
    study are not known: they are None.
    """

    comparable: int
    change: float | None
    new_syndesmophytes: int | None
    growth: int | None
    lower: int | None
    not_comparable: int


@dataclass(frozen=True)
class UnitCounts:
    """Counts of a region's 6 or a study's 12 vertebral units, as in `CornerCounts`.

    `not_comparable` counts units of which a corner is not comparable.
    """

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
    """Whether the change is at most `units`; None if there is no verdict, or if missing corners leave it open."""

    units: float
    met: bool | None


Verdict = Literal["progression", "no progression", "undecided"]


@dataclass(frozen=True)
class Progression:
    """The verdict of the rules.

    `verdict` is None if the rules do not apply. `reason` says why it is None or undecided. `basis` is the number that
    was compared with the thresholds. `rate` is the change per `rate_years` years. `beyond_error` says whether the
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
    """A patient's follow-up study compared with the baseline, in units of the mSASSS.

    `interval_days` is negative if the follow-up is older. `same_bundle` says whether both studies were scored with one
    bundle, or read by one reader. `notices` has each of the `warnings` with its code and values.
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
    notices: tuple[Finding, ...] = ()
    schema: str = SCHEMA

    def to_dict(self) -> dict[str, Any]:
        document = asdict(self)
        return {"schema": document.pop("schema"), **document}

    def to_json(self, indent: int | None = 2) -> str:
        """Return the comparison as JSON text (one line if `indent` is None); equal comparisons give equal text."""
        return json.dumps(self.to_dict(), indent=indent, ensure_ascii=False, allow_nan=False)

    def unit_changes(self) -> tuple[UnitChange, ...]:
        """Return the 12 units from above."""
        return tuple(unit for region in self.regions.values() for unit in region.units)

    def corner_changes(self) -> tuple[CornerChange, ...]:
        """Return the 24 corners from above."""
        return tuple(corner for unit in self.unit_changes() for corner in unit.corners)


def comparison_schema() -> dict[str, Any]:
    """Return the published JSON Schema (2020-12) of comparisons."""
    schema: dict[str, Any] = json.loads((Path(__file__).parent / "comparison.schema.json").read_text(encoding="utf-8"))
    return schema
