"""Findings from the points: cropped or obscured corners, levels that may be off by one, wrong sizes.

Only scored regions are examined. Lengths are in units of the median step between neighbouring discs. As in `quality`,
each threshold names its source or its measurement.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from spinescore.runtime.reading.percentiles import median
from spinescore.runtime.reading.quality import WHITE, finding, greys_of
from spinescore.runtime.scoring.shape import median_step, shifted_odds, upside_down_odds
from spinescore.runtime.study import LEVELS, REGIONS, Finding, Radiograph, Region

if TYPE_CHECKING:
    from spinescore.runtime.scoring.judgement import RegionResult

__all__ = ["LEAST_COUNTED", "UNSURE_FACTOR", "miscounted", "of_results"]

# A corner and its bone growth lie within this distance of the disc's anterior point. It is sampled at 48 x 48 places.
NEIGHBOURHOOD = 0.3
_SAMPLES = 48

# Peaks of 240 sound phantom views are at least 0.75, while shifts by one level had a lowest peak of 0.35 to 0.48.
# The factor is on a bundle's own least confidence, because peaks differ between bundles (0.3 in this measurement).
UNSURE_FACTOR = 1.75

# Metal and text are white, and become darker by this much of the range within two samples, as does the sample beside.
# The number of such edges is divided by the samples on the four sides of a neighbourhood. 720 neighbourhoods of sound
# phantoms have at most 0.14, noisy ones (a tenth of the range) 0.21; with a screw 0.6, with letters 1.3 (medians of
# 120).
EDGE, EDGE_WHITE, MOST_EDGES = 0.15, 0.99, 0.25
MOST_WHITE = 0.6  # of a neighbourhood; sound phantoms have at most 0.32

# Means of 18.5 and 37 mm (standard deviations 1.4 and 2.6, as in the phantoms), divided and multiplied by 1.7. Stature
# and magnification change a step by less than that, a plate that was read at half its resolution by more.
STEP_MM: Mapping[Region, tuple[float, float]] = {"cervical": (11.0, 31.0), "lumbar": (22.0, 63.0)}
# Lumbar vertebrae are about twice as high as cervical ones (Gilad and Nissan 1985, Br J Radiol 58:1031).
LUMBAR_OVER_CERVICAL = (1.3, 3.0)

# Log odds for another level. Of 1,500 spines drawn from the statistics in `shape` 0.5 % (cervical) and 0.1 % (lumbar)
# exceed them. Of 240 sets of points that were shifted by one level 82 % do so in the cervical region, and 20 % in the
# lumbar region, where levels are alike. With an unsure point the lower bound applies.
LEVEL_ODDS: Mapping[Region, float] = {"cervical": 2.5, "lumbar": 4.5}
LEVEL_ODDS_UNSURE = 1.0
# The end of each region from which levels are counted: the axis with its dens, and the sacrum.
ANCHOR: Mapping[Region, int] = {"cervical": 0, "lumbar": -1}
# Distances across discs that were not found, per level, over the median. Of phantom radiographs that were cut off, 18
# have a level named twice or left out, and at most 0.63; the 59 others lie within these bounds.
ACROSS = (0.75, 1.35)
# Log odds for a spine upside down, for the case that the localizer could not be asked.
UPSIDE_DOWN_ODDS: Mapping[Region, float] = {"cervical": 2.5, "lumbar": 4.5}

LEAST_COUNTED = 3  # discs that must agree: fewer could be one stray point
NEAR = 0.35  # of the step between discs; two points within this distance belong to one disc


def of_results(results: Mapping[Region, RegionResult], min_confidence: float) -> list[Finding]:
    """Return the findings on the scored regions; `min_confidence` is that of the bundle's localizer."""
    scored = {region: results[region] for region in REGIONS if region in results and results[region].reject is None}
    steps_mm = {region: _step_mm(result) for region, result in scored.items()}
    findings = [one for result in results.values() for one in result.findings]
    for region, result in scored.items():
        name = result.chosen.radiograph.source
        facts = _of_region(result, steps_mm[region], min_confidence)
        findings.extend(finding(code, name, text, region, **values) for code, text, values in facts)
    if len(scored) == len(REGIONS):
        findings.extend(_of_both(scored, steps_mm))
    return findings


def _of_region(
    result: RegionResult, step_mm: float | None, min_confidence: float
) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield the code, the text and the values of each finding on a region."""
    known = result.known
    unsure = result.confidence < UNSURE_FACTOR * min_confidence
    step = median_step(result)

    def on(discs: NDArray[np.bool_], text: str, **values: float) -> tuple[str, dict[str, Any]]:
        levels = [level for level, is_in in zip(LEVELS[result.region], discs, strict=True) if is_in]
        return text.format(", ".join(levels)), {"levels": levels, **values}

    greys, outside = _neighbourhoods(result.chosen.radiograph, result.anterior, NEIGHBOURHOOD * step)
    cut = outside & known | _beyond(result, known, step)
    if cut.any():
        yield "cropped-spine", *on(cut, "corners of {} lie at or beyond the picture's border")
    if unsure.any():
        lowest = float(result.confidence[unsure].min())
        text = f"the confidence of {{}} is low (lowest {lowest:.2f})"
        yield "unsure-points", *on(unsure, text, lowest=round(lowest, 4))
    off_by_one = _off_by_one(result, known, unsure)
    if off_by_one is not None and all(one.code != "level-shift" for one in result.findings):
        yield "level-shift", off_by_one, {}
    if not result.stands_as_seen and upside_down_odds(result) > UPSIDE_DOWN_ODDS[result.region]:
        yield "not-upright", "the discs' shape fits a spine upside down better", {}
    white = ((greys >= WHITE).mean(axis=(1, 2)) > MOST_WHITE) & known
    if white.any():
        yield "saturated", *on(white, "corners of {} lie in white without detail")
    covered = (_edges(greys) > MOST_EDGES) & known
    if covered.any():
        yield "obscured-corner", *on(covered, "white, sharp-edged shapes lie by the corners of {}")
    if step_mm is not None and _plausible(result.region, step_mm) is None:
        low, high = STEP_MM[result.region]
        text = f"its discs would be {step_mm:.1f} mm apart, {low:g} to {high:g} mm are expected"
        yield "implausible-spacing", text, {"step_mm": round(step_mm, 2), "low_mm": low, "high_mm": high}


def _off_by_one(result: RegionResult, known: NDArray[np.bool_], unsure: NDArray[np.bool_]) -> str | None:
    """Return why levels may be off by one: the discs' shape, a level left out, no sure disc to count from. Or None."""
    levels, anchor = LEVELS[result.region], ANCHOR[result.region]
    odds, direction = shifted_odds(result)
    if odds > (LEVEL_ODDS_UNSURE if unsure.any() else LEVEL_ODDS[result.region]):
        return f"the discs' shape fits better one level {direction} than where they were found"
    index = np.flatnonzero(known)
    steps = np.linalg.norm(np.diff(result.centre[index], axis=0), axis=1) / np.diff(index)
    ratios, across = steps / median(steps), np.diff(index) > 1
    for number in np.flatnonzero(across & ((ratios < ACROSS[0]) | (ratios > ACROSS[1]))):
        between = f"between {levels[index[number]]} and {levels[index[number + 1]]}"
        return f"{between} the discs are {ratios[number]:.1f} times as far apart as elsewhere, per level"
    if unsure[anchor]:
        text = f"{levels[anchor]}, from which levels are counted, was found with confidence"
        return f"{text} {result.confidence[anchor]:.2f} only"
    return None


def miscounted(result: RegionResult, seen: NDArray[np.void], min_confidence: float) -> Finding | None:
    """Return the finding `level-shift` if given discs lie where the localizer sees those one level away.

    `seen` (6, 2) of dtype `POINT` are the localizer's own points; only discs with a high confidence count.
    """
    given = np.array([disc in result.given for disc in range(len(seen))])
    sure = seen["confidence"].min(axis=1) >= UNSURE_FACTOR * min_confidence
    near = NEAR * median_step(result)

    def agreeing(shift: int) -> int:
        """Return how many given discs lie near the disc that the localizer counts `shift` levels lower."""
        discs = np.flatnonzero(given)
        discs = discs[(discs + shift >= 0) & (discs + shift < len(seen))]
        apart = np.linalg.norm(result.centre[discs] - seen["xy"][discs + shift, 0], axis=1)
        return int((sure[discs + shift] & (apart < near)).sum())

    counts = {shift: agreeing(shift) for shift in (0, 1, -1)}
    best = max(counts, key=lambda shift: counts[shift])
    if best == 0 or counts[best] < LEAST_COUNTED:
        return None
    direction = "lower" if best > 0 else "higher"
    text = f"{counts[best]} of the discs given lie where the localizer finds the disc one level {direction}"
    return finding("level-shift", result.chosen.radiograph.source, text, result.region)


def _of_both(scored: Mapping[Region, RegionResult], steps_mm: Mapping[Region, float | None]) -> Iterator[Finding]:
    cervical, lumbar = (scored[region].chosen.radiograph for region in REGIONS)
    name = f"{cervical.source or 'the cervical radiograph'} and {lumbar.source or 'the lumbar radiograph'}"
    dates = {cervical.study_date, lumbar.study_date} - {None}
    studies = {cervical.study_instance_uid, lumbar.study_instance_uid} - {None}
    steps = [_plausible(region, steps_mm[region]) for region in REGIONS]
    if len(dates) > 1:
        yield finding("views-contradict", name, "their study dates differ")
    elif len(studies) > 1:
        yield finding("views-contradict", name, "they belong to different studies")
    if _same_picture(cervical, lumbar):
        yield finding("views-contradict", name, "both hold the same picture")
    elif steps[0] is not None and steps[1] is not None:
        ratio, (low, high) = steps[1] / steps[0], LUMBAR_OVER_CERVICAL
        if not low <= ratio <= high:
            text = f"lumbar discs would be {ratio:.1f} times as far apart as cervical ones, about twice is usual"
            yield finding("views-contradict", name, text, ratio=round(ratio, 2))


def _same_picture(one: Radiograph, other: Radiograph) -> bool:
    """Whether every 16th pixel of every 16th row is the same, which is never so for two exposures."""
    if one.pixels.shape != other.pixels.shape:
        return False
    first, second = (image.pixels[::16, ::16] for image in (one, other))
    middle = len(first) // 2  # this row differs in nearly all pairs, and saves reading the other rows
    return np.array_equal(first[middle], second[middle]) and np.array_equal(first, second)


def _step_mm(result: RegionResult) -> float | None:
    spacing = result.chosen.radiograph.spacing_mm
    return None if spacing is None else median_step(result, spacing[::-1])


def _plausible(region: Region, step_mm: float | None) -> float | None:
    """Return `step_mm`, or None if it is outside the human range (which is reported separately)."""
    low, high = STEP_MM[region]
    return step_mm if step_mm is not None and low <= step_mm <= high else None


def _neighbourhoods(
    radiograph: Radiograph, points: NDArray[np.float64], reach: float
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return the greys (n, 48, 48) within `reach` pixels of points (n, 2), and which reach beyond the picture (n).

    Outside the picture the nearest pixels are used, also for a point that is not a number.
    """
    places = np.rint(points[:, ::-1, None] + np.linspace(-reach, reach, _SAMPLES))  # (n, row and column, 48)
    last = np.array(radiograph.pixels.shape)[:, None] - 1
    inside = np.fmin(np.fmax(places, 0), last)
    rows, columns = inside.astype(np.intp).transpose(1, 0, 2)
    stored = radiograph.pixels[rows[:, :, None], columns[:, None, :]]
    return greys_of(radiograph, stored), (places != inside).any(axis=(1, 2))


def _edges(greys: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the length of white, sharp edges in each neighbourhood of `greys` (n, 48, 48), (n,).

    An edge is a pair of neighbouring white samples, both darker by `EDGE` two samples away. The unit is the number of
    samples on the four sides of the neighbourhood.
    """
    count = np.zeros(len(greys))
    bright = np.flatnonzero((greys >= EDGE_WHITE).any(axis=(1, 2)))
    for along in (greys[bright], greys[bright].swapaxes(1, 2)) if bright.size else ():
        for light, dark in ((along[:, 2:], along[:, :-2]), (along[:, :-2], along[:, 2:])):
            sharp = (light >= EDGE_WHITE) & (light - dark >= EDGE)
            count[bright] += (sharp[:, :, 1:] & sharp[:, :, :-1]).sum(axis=(1, 2))
    return count / (4 * _SAMPLES)


def _beyond(result: RegionResult, known: NDArray[np.bool_], step: float) -> NDArray[np.bool_]:
    """Return which end discs were not found because, if the spine continues, they lie at or beyond the border."""
    beyond = np.zeros(len(known), bool)
    size = np.array(result.chosen.radiograph.pixels.shape[::-1])
    for end, next_one, after in ((0, 1, 2), (-1, -2, -3)):
        if not known[end] and known[next_one] and known[after]:
            expected = 2 * result.centre[next_one] - result.centre[after]
            room = NEIGHBOURHOOD * step
            beyond[end] = bool(((expected < room) | (expected > size - 1 - room)).any())
    return beyond
