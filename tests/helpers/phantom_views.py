"""Small phantom views as radiographs, with their true points as a localizer would have found them."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np

from spinescore.benchmarks.spoiled import Truth
from spinescore.runtime.phantom.study import draw_view
from spinescore.runtime.scoring.grading import CornerGrade
from spinescore.runtime.scoring.judgement import RegionResult
from spinescore.runtime.scoring.selection import Chosen
from spinescore.runtime.study import REGIONS, Radiograph, Region

SEED = 1_000_003
SCALE = 0.35


@cache
def radiograph(region: Region, seed: int = SEED) -> Radiograph:
    """The view, windowed as its header says or over all that is stored."""
    view = draw_view(seed, region, SCALE)
    stored = np.arange(2**view.image.bits, dtype=np.float64)
    centre, width = view.image.window or (stored.mean(), stored.size)
    grey = np.clip((stored - centre) / width + 0.5, 0, 1)
    table = (1 - grey if view.image.inverted else grey).astype(np.float32)
    return Radiograph(
        view.image.pixels,
        table,
        spacing_mm=(view.pixel_mm, view.pixel_mm),
        region=region,
        facing=view.facing,
        source=f"{region}.dcm",
    )


@cache
def truth(region: Region, seed: int = SEED) -> Truth:
    view = draw_view(seed, region, SCALE)
    return Truth(view.centres_px, view.anteriors_px, tuple(int(grade) for grade in view.grades.ravel()))


def result(region: Region, image: Radiograph | None = None, **changes: Any) -> RegionResult:
    """What scoring would have found: the true points with confidence 0.9; `changes` replace fields."""
    shown = image or radiograph(region)
    known = truth(region)
    grades = [tuple(CornerGrade(grade, None, "scored") for grade in known.grades[i : i + 2]) for i in range(0, 12, 2)]
    chosen = Chosen(shown, radiograph(region).facing or "left")
    found = RegionResult(region, chosen, known.centre, known.anterior, np.full(6, 0.9), np.ones(6, bool), grades, None)
    return replace(found, **changes)


def unread(found: RegionResult, *discs: int) -> RegionResult:
    """The result with discs that were not found."""
    lost = tuple(CornerGrade(None, None, "unreadable") for _ in range(2))
    grades = [lost if disc in discs else pair for disc, pair in enumerate(found.grades)]
    confidence = np.where(np.isin(np.arange(6), discs), 0.1, found.confidence)
    return replace(found, grades=grades, confidence=confidence, known=~np.isin(np.arange(6), discs))


def study() -> list[Radiograph]:
    return [radiograph(region) for region in REGIONS]
