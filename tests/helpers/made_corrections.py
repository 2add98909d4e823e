"""Corrections of made reports, and the parts of a report that a correction leaves alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from helpers.made_reports import NORMAL, made_report
from spinescore.runtime import Correction
from spinescore.runtime.scoring.expected import (
    UNKNOWN,
    total_distribution,
    with_prior,
)
from spinescore.runtime.scoring.msasss import score_region
from spinescore.runtime.scoring.totals import scored_region, total_report
from spinescore.runtime.study import LEVELS, REGIONS

AT = "2026-11-29T15:04:05+00:00"


def correction(at=AT, reader="AB", **changes):
    return Correction(reader, at, **changes)


def as_scored(report):
    """The report with the fields and the rounding that scoring gives it."""
    regions, scores, distributions = dict(report.regions), {}, {}
    for name, region in report.regions.items():
        if region.discs:
            made = [corner for disc in region.discs for corner in disc.corners]
            scores[name] = score_region(name, [corner.grade for corner in made])
            p = with_prior(
                np.array([corner.probabilities or UNKNOWN for corner in made]),
                np.array([corner.probabilities is not None for corner in made]),
            )
            distributions[name] = total_distribution(p)
            discs = [
                replace(disc, corners=tuple(map(_by_network, disc.corners)), points="found") for disc in region.discs
            ]
            regions[name] = scored_region(region.radiograph, discs, scores[name], distributions[name])
    total = total_report(scores, distributions)
    return replace(report, regions=regions, total=total, max_imputed_per_region=3)


def _by_network(corner):
    return replace(corner, grade_from="network", missing_because=None if corner.grade is not None else "unreadable")


def of_grades(cervical=NORMAL, lumbar=NORMAL):
    return as_scored(made_report({"cervical": cervical, "lumbar": lumbar}))


def moved(report, level, pair, points="given"):
    """The report as if it had been scored with these points."""
    region = next(region for region in REGIONS if level in LEVELS[region])
    discs = tuple(
        replace(disc, centre_px=pair[0], anterior_px=pair[1], points=points) if disc.level == level else disc
        for disc in report.regions[region].discs
    )
    return replace(report, regions={**report.regions, region: replace(report.regions[region], discs=discs)})


def corners(report):
    return {
        corner.site: corner for region in report.regions.values() for disc in region.discs for corner in disc.corners
    }
