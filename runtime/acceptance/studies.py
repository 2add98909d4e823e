"""Whole studies for the acceptance gate: scored on an engine as usual, and compared with the reference's grades."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from spinescore.runtime.acceptance import StudyFigures
from spinescore.runtime.bundle import Bundle
from spinescore.runtime.devices import Device
from spinescore.runtime.reading.studies import load_studies
from spinescore.runtime.scoring.studyscorer import StudyScorer
from spinescore.runtime.study import ALL_SITES, Study

__all__ = ["Grades", "compare_studies", "grades_of", "places_of"]

Grades = Mapping[str, int | None]  # of one study, by site


def places_of(paths: Sequence[Path]) -> list[Path]:
    """Return the paths of single studies: the folders inside a path that is a folder of folders, else the path."""
    places: list[Path] = []
    for path in paths:
        inside = sorted(entry for entry in path.iterdir() if entry.is_dir()) if path.is_dir() else []
        places += inside or [path]
    return places


def grades_of(bundle: Bundle, device: Device[Any], places: Sequence[Path]) -> list[Grades]:
    """Return the grades of every study in `places`, with one place in memory at a time, and close the device.

    The bundle's budget does not apply: what a slower engine skips for it is no fault of its arithmetic.
    """
    with StudyScorer(bundle, device) as scorer:
        scorer.test()
        return [_grades(scorer, study) for place in places for study in load_studies([place])]


def compare_studies(reference: Sequence[Grades], other: Sequence[Grades]) -> StudyFigures:
    """Count the corners and the flips; a corner that only one of the two graded counts as a flip."""
    pairs = [(first[site], second[site]) for first, second in zip(reference, other, strict=True) for site in first]
    graded = [pair for pair in pairs if pair != (None, None)]
    return StudyFigures(len(reference), len(graded), sum(first != second for first, second in graded))


def _grades(scorer: StudyScorer, study: Study) -> Grades:
    report = scorer.score(study).report
    discs = [disc for region in report.regions.values() for disc in region.discs]
    grades = {corner.site: corner.grade for disc in discs for corner in disc.corners}
    return {site: grades.get(site) for site in ALL_SITES}
