"""Whole studies for the acceptance gate: scored with an engine as any other, their grades beside the reference's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from spinescore.runtime.acceptance import StudyFigures
from spinescore.runtime.bundle import Bundle
from spinescore.runtime.devices import Device
from spinescore.runtime.reading.studies import load_studies
from spinescore.runtime.scoring.studyscorer import StudyScorer
from spinescore.runtime.study import SITES, Study

__all__ = ["Grades", "compare_studies", "grades_of", "places_of"]

Grades = Mapping[str, int | None]  # of one study, by site


def places_of(paths: Sequence[Path]) -> list[Path]:
    """Where single studies lie: the folders in each path that is a folder of folders, else the path itself."""
    found: list[Path] = []
    for path in paths:
        inside = sorted(entry for entry in path.iterdir() if entry.is_dir()) if path.is_dir() else []
        found += inside or [path]
    return found


def grades_of(bundle: Bundle, device: Device[Any], places: Sequence[Path]) -> list[Grades]:
    """The grades of every study in `places`, one place in memory at a time. Owns the device, and closes it.

    Without the bundle's budget: what a slower engine would skip for it is no fault of its arithmetic.
    """
    with StudyScorer(bundle, device) as scorer:
        scorer.test()
        return [_grades(scorer, study) for place in places for study in load_studies([place])]


def compare_studies(reference: Sequence[Grades], found: Sequence[Grades]) -> StudyFigures:
    """A corner that only one of the two graded counts as one whose grade flips."""
    pairs = [(one[site], other[site]) for one, other in zip(reference, found, strict=True) for site in one]
    graded = [pair for pair in pairs if pair != (None, None)]
    return StudyFigures(len(reference), len(graded), sum(one != other for one, other in graded))


def _grades(scorer: StudyScorer, study: Study) -> Grades:
    report = scorer.score(study).report
    discs = [disc for region in report.regions.values() for disc in region.discs]
    found = {corner.site: corner.grade for disc in discs for corner in disc.corners}
    return {site: found.get(site) for sites in SITES.values() for site in sites}
