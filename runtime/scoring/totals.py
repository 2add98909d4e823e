"""The totals of a report: of discs, regions and the study, from the grades and the probabilities of their corners."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from spinescore.runtime.scoring.expected import Expected, expected_score
from spinescore.runtime.scoring.msasss import DiscScore, RegionScore, score_region, score_study
from spinescore.runtime.scoring.report import (
    DiscReport,
    RadiographInfo,
    RegionReport,
    RejectInfo,
    TotalReport,
    UntrustedPoints,
)
from spinescore.runtime.study import REGIONS, SITES, Region

__all__ = ["scored_region", "total_report", "unscored_region"]


def scored_region(
    radiograph: RadiographInfo | None,
    discs: Sequence[DiscReport],
    score: RegionScore,
    distribution: NDArray[np.float64],
) -> RegionReport:
    """Return a scored region. The totals of `discs` and the imputed values of their corners come from `score`."""
    return RegionReport(
        status="scored",
        reject=None,
        radiograph=radiograph,
        discs=tuple(_with_total(disc, scored, score.imputed) for disc, scored in zip(discs, score.discs, strict=True)),
        total=_shown(score.total),
        range=score.range,
        missing=score.missing,
        expected=_expected(distribution),
    )


def unscored_region(
    region: Region,
    reject: RejectInfo | None,
    radiograph: RadiographInfo | None,
    untrusted_points: tuple[UntrustedPoints, ...],
) -> RegionReport:
    """Return a region without a score: rejected, or missing if there is no `reject`."""
    empty = score_region(region, [None] * len(SITES[region]))
    return RegionReport(
        status="missing" if reject is None else "rejected",
        reject=reject,
        radiograph=radiograph,
        discs=(),
        total=None,
        range=empty.range,
        missing=empty.missing,
        untrusted_points=untrusted_points,
    )


def total_report(
    scores: Mapping[Region, RegionScore], distributions: Mapping[Region, NDArray[np.float64]]
) -> TotalReport:
    """Return the study's total from the scored regions; `distributions` are those of their totals."""
    total = score_study(scores)
    both = reduce(np.convolve, distributions.values()) if len(distributions) == len(REGIONS) else None
    expected = None if both is None else _expected(both)
    return TotalReport(_shown(total.value), total.range, total.status, total.imputed_sites, expected)


def _with_total(disc: DiscReport, score: DiscScore, imputed: Mapping[str, float]) -> DiscReport:
    upper, lower = (
        replace(
            corner,
            status="imputed" if corner.site in imputed else corner.missing_because or "scored",
            imputed=_shown(imputed.get(corner.site)),
        )
        for corner in disc.corners
    )
    return replace(disc, corners=(upper, lower), total=_shown(score.total), range=score.range)


def _expected(distribution: NDArray[np.float64]) -> Expected:
    """Return the expected score of a total with this `distribution`, with three decimals."""
    expected = expected_score(distribution)
    return Expected(round(expected.mean, 3), round(expected.sd, 3), expected.interval)


def _shown(value: float | None) -> float | None:
    """Return a score with three decimals; one without imputed corners stays a whole number."""
    return value if value is None or isinstance(value, int) else round(value, 3)
