"""What shows after the points were found: cropped or obscured corners, levels that may be off by one, wrong sizes.

Only regions that were scored are looked at. Lengths are taken in units of the median step between neighbouring discs.
Thresholds as in `quality`: each names its source or its measurement.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from spinescore.runtime.geometry import median, rotation_deg
from spinescore.runtime.quality import WHITE, finding, greys_of
from spinescore.runtime.study import LEVELS, REGIONS, Finding, Radiograph, Region

if TYPE_CHECKING:
    from spinescore.runtime.assemble import RegionResult

__all__ = ["of_results"]

# A corner and what grows from it lie within this of the disc's anterior point; seen in 48 x 48 samples.
NEIGHBOURHOOD = 0.3
_SAMPLES = 48

# Peaks of 240 sound phantom views are at least 0.75, while shifts by one level had a lowest peak of 0.35 to 0.48.
# A bundle's own least confidence (0.3 where those were measured) tells what its peaks are like.
UNSURE_FACTOR = 1.75

# Metal and text are white and end within two samples, by this much of the range, and so does the sample beside;
# counted against the four outlines of a neighbourhood. 720 neighbourhoods of sound phantoms have at most 0.14, those
# of noisy ones (a tenth of the range) 0.21; a screw over them gives 0.6, letters 1.3 (medians of 120).
EDGE, EDGE_WHITE, MOST_EDGES = 0.15, 0.99, 0.25
MOST_WHITE = 0.6  # of a neighbourhood; sound phantoms have at most 0.32

# Means of 18.5 and 37 mm (standard deviations 1.4 and 2.6, as the phantoms have them), divided and multiplied by 1.7:
# wider than stature and magnification, narrower than a plate that was read at half its resolution.
STEP_MM: Mapping[Region, tuple[float, float]] = {"cervical": (11.0, 31.0), "lumbar": (22.0, 63.0)}
# Lumbar vertebrae are about twice as high as cervical ones (Gilad and Nissan 1985, Br J Radiol 58:1031).
LUMBAR_OVER_CERVICAL = (1.3, 3.0)

# Mean and standard deviation by level, from above, of what tells levels apart: logarithm of the next step over this
# one, logarithm of the next distance from centre to anterior point over this one, and, of lumbar discs alone, rotation
# in degrees (that of cervical ones follows the head). From 4,000 spines drawn per region from the statistics of 4,902
# cervical and 663 lumbar radiographs (benchmarks/phantom/spine_shape.json).
SHAPE: Mapping[Region, Mapping[str, tuple[tuple[float, ...], tuple[float, ...]]]] = {
    "cervical": {
        "step": ((0.031, -0.043, 0.030, 0.121), (0.021, 0.031, 0.028, 0.038)),
        "reach": ((0.027, 0.030, 0.028, 0.024, 0.009), (0.010, 0.018, 0.014, 0.021, 0.014)),
    },
    "lumbar": {
        "step": ((0.051, 0.028, -0.004, 0.018), (0.062, 0.036, 0.038, 0.052)),
        "reach": ((0.020, 0.029, 0.009, -0.023, -0.021), (0.022, 0.021, 0.015, 0.055, 0.068)),
        "rotation": ((-11.5, -10.6, -6.9, 1.2, 11.7, 22.2), (8.5, 7.5, 7.3, 7.5, 7.9, 13.6)),
    },
}
SHAPE_WIDENED = 1.5  # found points scatter more than landmarks set by hand
_FARTHEST = 9.0  # the square of a deviation counts no more than this, so that no single disc decides
# Log odds for another level. Of 1,500 spines drawn as above 0.5 % and 0.1 % exceed them; of 240 shifts by one level of
# found points 82 % of cervical ones do, and 20 % of lumbar ones, whose levels are alike. An unsure point lowers them.
LEVEL_ODDS: Mapping[Region, float] = {"cervical": 2.5, "lumbar": 4.5}
LEVEL_ODDS_UNSURE = 1.0


def of_results(results: Mapping[Region, RegionResult], min_confidence: float) -> list[Finding]:
    """Findings on the regions that were scored; `min_confidence` is that of the bundle's localizer."""
    scored = {region: results[region] for region in REGIONS if region in results and results[region].reject is None}
    steps_mm = {region: _step_mm(result) for region, result in scored.items()}
    found: list[Finding] = []
    for region, result in scored.items():
        name = result.chosen.radiograph.source
        what_is_so = _of_region(result, steps_mm[region], min_confidence)
        found.extend(finding(code, name, what, region) for code, what in what_is_so)
    if len(scored) == len(REGIONS):
        found.extend(_of_both(scored, steps_mm))
    return found


def _of_region(result: RegionResult, step_mm: float | None, min_confidence: float) -> Iterator[tuple[str, str]]:
    """Codes, and what is the case."""
    levels = LEVELS[result.region]
    known = _known(result)
    unsure = result.confidence < UNSURE_FACTOR * min_confidence
    step = _median_step(result.centre, known)

    def named(which: NDArray[np.bool_]) -> str:
        return ", ".join(level for level, yes in zip(levels, which, strict=True) if yes)

    greys, outside = _neighbourhoods(result.chosen.radiograph, result.anterior, NEIGHBOURHOOD * step)
    cut = outside & known | _beyond(result, known, step)
    if cut.any():
        yield "cropped-spine", f"corners of {named(cut)} lie at or beyond the picture's border"
    if unsure.any():
        yield (
            "unsure-points",
            f"the confidence of {named(unsure)} is low (lowest {result.confidence[unsure].min():.2f})",
        )
    odds, where = _shifted(result, known)
    if odds > (LEVEL_ODDS_UNSURE if unsure.any() else LEVEL_ODDS[result.region]):
        yield "level-shift", f"the discs' shape fits better one level {where} than where they were found"
    white = ((greys >= WHITE).mean(axis=(1, 2)) > MOST_WHITE) & known
    if white.any():
        yield "saturated", f"corners of {named(white)} lie in white without detail"
    covered = (_edges(greys) > MOST_EDGES) & known
    if covered.any():
        yield "obscured-corner", f"white, sharp-edged shapes lie by the corners of {named(covered)}"
    if step_mm is not None and _plausible(result.region, step_mm) is None:
        low, high = STEP_MM[result.region]
        yield "implausible-spacing", f"its discs would be {step_mm:.1f} mm apart, {low:g} to {high:g} mm are expected"


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
            what = f"lumbar discs would be {ratio:.1f} times as far apart as cervical ones, about twice is usual"
            yield finding("views-contradict", name, what)


def _same_picture(one: Radiograph, other: Radiograph) -> bool:
    """By every 16th pixel of every 16th row: no two exposures agree in all of them."""
    if one.pixels.shape != other.pixels.shape:
        return False
    first, second = (image.pixels[::16, ::16] for image in (one, other))
    middle = len(first) // 2  # this row alone tells nearly all apart, and the others need not be fetched
    return np.array_equal(first[middle], second[middle]) and np.array_equal(first, second)


def _known(result: RegionResult) -> NDArray[np.bool_]:
    """The discs whose points are to be trusted, at least `assemble.MIN_KNOWN_DISCS` in a region that was scored."""
    return np.array([upper.status != "unreadable" for upper, _ in result.grades])


def _median_step(centre: NDArray[np.float64], known: NDArray[np.bool_]) -> float:
    """The median distance per level between neighbouring discs that are known; `centre` is (6, 2)."""
    index = np.flatnonzero(known)
    return median(np.linalg.norm(np.diff(centre[index], axis=0), axis=1) / np.diff(index))


def _step_mm(result: RegionResult) -> float | None:
    spacing = result.chosen.radiograph.spacing_mm
    if spacing is None:
        return None
    return _median_step(result.centre * np.array([spacing[1], spacing[0]]), _known(result))


def _plausible(region: Region, step_mm: float | None) -> float | None:
    """The same; None where no person fits it, of which there is a finding of its own."""
    low, high = STEP_MM[region]
    return step_mm if step_mm is not None and low <= step_mm <= high else None


def _neighbourhoods(
    radiograph: Radiograph, points: NDArray[np.float64], reach: float
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Greys (n, 48, 48) within `reach` pixels of points (n, 2), and whether part of that lies outside of the picture.

    Of what lies outside, and of a point that is no number, the nearest pixels are shown.
    """
    places = np.rint(points[:, ::-1, None] + np.linspace(-reach, reach, _SAMPLES))  # (n, row and column, 48)
    last = np.array(radiograph.pixels.shape)[:, None] - 1
    inside = np.fmin(np.fmax(places, 0), last)
    rows, columns = inside.astype(np.intp).transpose(1, 0, 2)
    stored = radiograph.pixels[rows[:, :, None], columns[:, None, :]]
    return greys_of(radiograph, stored), (places != inside).any(axis=(1, 2))


def _edges(greys: NDArray[np.float32]) -> NDArray[np.float64]:
    """Pairs of neighbours that are white where two samples farther it is darker by `EDGE`, against four outlines.

    Of each neighbourhood in `greys` (n, 48, 48).
    """
    count = np.zeros(len(greys))
    bright = np.flatnonzero((greys >= EDGE_WHITE).any(axis=(1, 2)))
    for along in (greys[bright], greys[bright].swapaxes(1, 2)) if bright.size else ():
        for light, dark in ((along[:, 2:], along[:, :-2]), (along[:, :-2], along[:, 2:])):
            sharp = (light >= EDGE_WHITE) & (light - dark >= EDGE)
            count[bright] += (sharp[:, :, 1:] & sharp[:, :, :-1]).sum(axis=(1, 2))
    return count / (4 * _SAMPLES)


def _beyond(result: RegionResult, known: NDArray[np.bool_], step: float) -> NDArray[np.bool_]:
    """First or last discs that were not found, and would lie at or beyond the border where the spine goes on."""
    beyond = np.zeros(len(known), bool)
    size = np.array(result.chosen.radiograph.pixels.shape[::-1])
    for end, next_one, after in ((0, 1, 2), (-1, -2, -3)):
        if not known[end] and known[next_one] and known[after]:
            expected = 2 * result.centre[next_one] - result.centre[after]
            room = NEIGHBOURHOOD * step
            beyond[end] = bool(((expected < room) | (expected > size - 1 - room)).any())
    return beyond


def _shifted(result: RegionResult, known: NDArray[np.bool_]) -> tuple[float, str]:
    """The greater log odds that the discs are those one level below or above, and which of the two."""
    shape = _shape(result, known)
    lower, higher = (_log_odds(shape, *_compared(result.region, shift)) for shift in (1, -1))
    return (lower, "lower") if lower >= higher else (higher, "higher")


def _shape(result: RegionResult, known: NDArray[np.bool_]) -> NDArray[np.float64]:
    """What `SHAPE` has statistics of, one after the other; NaN where a disc is not known."""
    centre, anterior = (np.where(known[:, None], points, np.nan) for points in (result.centre, result.anterior))
    steps = np.linalg.norm(np.diff(centre, axis=0), axis=1)
    reach = np.linalg.norm(anterior - centre, axis=1)
    shape = {
        "step": np.log(steps[1:] / steps[:-1]),
        "reach": np.log(reach[1:] / reach[:-1]),
        "rotation": rotation_deg(centre, anterior, result.chosen.facing),
    }
    return np.concatenate([shape[name] for name in SHAPE[result.region]])


@cache
def _compared(region: Region, shift: int) -> tuple[NDArray[np.intp], NDArray[np.float64], NDArray[np.float64]]:
    """Where in `_shape` a value stands (n), and mean and deviation (2, n) there and `shift` levels lower."""
    places, statistics, start = [], [], 0
    for means, deviations in SHAPE[region].values():
        index = np.arange(max(0, -shift), min(len(means), len(means) - shift))
        both = np.array([means, SHAPE_WIDENED * np.array(deviations)])
        places.append(start + index)
        statistics.append(np.stack([both[:, index], both[:, index + shift]], axis=1))
        start += len(means)
    mean, deviation = np.concatenate(statistics, axis=-1)
    return np.concatenate(places), mean, deviation


def _log_odds(
    shape: NDArray[np.float64], index: NDArray[np.intp], mean: NDArray[np.float64], deviation: NDArray[np.float64]
) -> float:
    """Log likelihood of the levels that `_compared` names against that of those found, by normal distributions."""
    own, other = np.minimum(((shape[index] - mean) / deviation) ** 2, _FARTHEST) / 2 + np.log(deviation)
    return float(np.nansum(own - other))
