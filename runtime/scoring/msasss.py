"""The mSASSS: 24 sites, totals per region and study, and the rule for corners that could not be scored.

A missing corner never counts as 0. If at most `max_imputed_per_region` of a region's 12 corners are missing, each is
replaced by the mean of the region's scored corners; otherwise the region has no total (common practice, see
`DEFAULT_MAX_IMPUTED`). The range of totals that the missing corners allow is always given. A missing corner may have
any grade in it, also if the other corner of its disc was scored.

A disc with its two corners is the vertebral unit of van der Heijde et al. 2008 (ASSERT).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from spinescore.runtime.study import REGIONS, SITES, Region

__all__ = [
    "DEFAULT_MAX_IMPUTED",
    "MAX_GRADE",
    "DiscScore",
    "RegionScore",
    "StudyScore",
    "score_region",
    "score_study",
]

MAX_GRADE = 3

# The practice of clinical trials with the mSASSS. It is a parameter, because no primary source was at hand.
DEFAULT_MAX_IMPUTED = 3


@dataclass(frozen=True)
class DiscScore:
    """A disc's total, 0 to 6, with its range. `total` is None if a corner is missing and not imputed."""

    total: float | None
    range: tuple[int, int]


@dataclass(frozen=True)
class RegionScore:
    """A region's total with its range. `total` is None if too many corners are missing."""

    total: float | None
    range: tuple[int, int]
    missing: int
    imputed: Mapping[str, float]  # site -> value that counts in the total
    discs: tuple[DiscScore, ...]  # from above; their totals add up to `total`


@dataclass(frozen=True)
class StudyScore:
    """The study's total. Status `imputed`: missing corners were replaced; `incomplete`: there is no total."""

    value: float | None
    range: tuple[int, int]
    status: Literal["complete", "imputed", "incomplete"]
    imputed_sites: tuple[str, ...]


def score_region(
    region: Region,
    grades: Sequence[int | None],
    max_imputed_per_region: int = DEFAULT_MAX_IMPUTED,
    *,
    fractional: bool = False,
) -> RegionScore:
    """Score a region's 12 corners, in the order of `SITES[region]`; None is a missing corner.

    With `fractional`, grades need not be whole numbers: readers give half points, and means of readers are fractions.
    Raises `ValueError` for another number of grades, or for an invalid one.
    """
    sites = SITES[region]
    scored = [grade for grade in grades if grade is not None]
    valid = all(0 <= grade <= MAX_GRADE if fractional else grade in range(MAX_GRADE + 1) for grade in scored)
    if len(grades) != len(sites) or not valid:
        raise ValueError(f"the {region} region has {len(sites)} grades, each 0, 1, 2, 3 or None; got {list(grades)}")
    missing = len(grades) - len(scored)
    imputed = {}
    if missing and scored and missing <= max_imputed_per_region:
        mean = sum(scored) / len(scored)
        imputed = {site: mean for site, grade in zip(sites, grades, strict=True) if grade is None}
    discs = tuple(_score_disc(sites[corner : corner + 2], grades[corner : corner + 2], imputed)
                  for corner in range(0, len(sites), 2))  # fmt: skip
    total = None if missing and not imputed else sum(scored) + sum(imputed.values())
    bounds = (sum(disc.range[0] for disc in discs), sum(disc.range[1] for disc in discs))
    return RegionScore(total, bounds, missing, imputed, discs)


def _score_disc(sites: Sequence[str], grades: Sequence[int | None], imputed: Mapping[str, float]) -> DiscScore:
    values = [imputed.get(site) if grade is None else grade for site, grade in zip(sites, grades, strict=True)]
    counted = [value for value in values if value is not None]
    least = sum(grade for grade in grades if grade is not None)
    total = sum(counted) if len(counted) == len(sites) else None
    return DiscScore(total, (least, least + MAX_GRADE * list(grades).count(None)))


def score_study(regions: Mapping[Region, RegionScore]) -> StudyScore:
    """Return the study's score; a region that is not in `regions` could not be scored."""
    unseen = {region: score_region(region, [None] * len(SITES[region])) for region in REGIONS if region not in regions}
    scores = [{**regions, **unseen}[region] for region in REGIONS]
    bounds = (sum(score.range[0] for score in scores), sum(score.range[1] for score in scores))
    imputed_sites = tuple(site for score in scores for site in score.imputed)
    totals = [score.total for score in scores if score.total is not None]
    if len(totals) < len(scores):
        return StudyScore(None, bounds, "incomplete", imputed_sites)
    return StudyScore(sum(totals), bounds, "imputed" if imputed_sites else "complete", imputed_sites)
