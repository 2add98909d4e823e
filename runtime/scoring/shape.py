"""The odds, by their shape, that six discs are one level off or that the spine is upside down.

The shape does not depend on the picture's size: how steps and reaches grow from disc to disc, and how lumbar discs are
rotated. (A step is the distance to the next disc, a reach that from a disc's centre to its anterior point.) Likelihoods
are normal, from statistics of real spines.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from spinescore.runtime.reading.percentiles import median
from spinescore.runtime.scoring.geometry import rotation_deg
from spinescore.runtime.study import Region

if TYPE_CHECKING:
    from spinescore.runtime.scoring.judgement import RegionResult

__all__ = ["median_step", "shifted_odds", "upside_down_odds"]

# Mean and standard deviation by level, from above: logarithm of the next step over this one, logarithm of the next
# reach over this one, and, for lumbar discs only, rotation in degrees (that of cervical discs follows the head). From
# 4,000 spines per region, drawn from the statistics of 4,902 cervical and 663 lumbar radiographs
# (benchmarks/phantom/spine_shape.json).
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
SHAPE_WIDENED = 1.5  # a localizer's points scatter more than landmarks set by hand
_FARTHEST = 9.0  # the square of a deviation counts no more than this, so that no single disc decides


def median_step(result: RegionResult, unit: tuple[float, float] = (1.0, 1.0)) -> float:
    """Return the median distance per level between neighbouring known discs; `unit` is the size of a pixel."""
    index = np.flatnonzero(result.known)
    return median(np.linalg.norm(np.diff((result.centre * np.array(unit))[index], axis=0), axis=1) / np.diff(index))


def shifted_odds(result: RegionResult) -> tuple[float, str]:
    """Return the log odds that the discs are those one level `lower` or `higher`, the greater of both, and its name."""
    shape = _shape(result)
    lower, higher = (_log_odds(shape, *_compared(result.region, shift)) for shift in (1, -1))
    return (lower, "lower") if lower >= higher else (higher, "higher")


def upside_down_odds(result: RegionResult) -> float:
    """Return the log odds that the spine is upside down: the first disc is the last, and growth is shrinking."""
    return _log_odds(_shape(result), *_reversed(result.region))


def _shape(result: RegionResult) -> NDArray[np.float64]:
    """Return the values for which `SHAPE` has statistics, in its order; NaN if a disc is not known."""
    centre, anterior = (np.where(result.known[:, None], points, np.nan) for points in result.upright)
    steps = np.linalg.norm(np.diff(centre, axis=0), axis=1)
    reach = np.linalg.norm(anterior - centre, axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        shape = {
            "step": np.log(steps[1:] / steps[:-1]),
            "reach": np.log(reach[1:] / reach[:-1]),
            "rotation": rotation_deg(centre, anterior, result.chosen.facing),
        }
    values = np.concatenate([shape[name] for name in SHAPE[result.region]])
    return np.where(np.isfinite(values), values, np.nan)


@cache
def _compared(region: Region, shift: int) -> tuple[NDArray[np.intp], NDArray[np.float64], NDArray[np.float64]]:
    """Return indices in `_shape` (n), and means and deviations (2, n) for the disc itself and `shift` levels lower."""
    places, statistics, start = [], [], 0
    for means, deviations in SHAPE[region].values():
        index = np.arange(max(0, -shift), min(len(means), len(means) - shift))
        both = np.array([means, SHAPE_WIDENED * np.array(deviations)])
        places.append(start + index)
        statistics.append(np.stack([both[:, index], both[:, index + shift]], axis=1))
        start += len(means)
    mean, deviation = np.concatenate(statistics, axis=-1)
    return np.concatenate(places), mean, deviation


@cache
def _reversed(region: Region) -> tuple[NDArray[np.intp], NDArray[np.float64], NDArray[np.float64]]:
    """Return as `_compared`, for the spine upside down: the order is reversed, and every value changes its sign."""
    statistics = []
    for means, deviations in SHAPE[region].values():
        both = np.array([means, SHAPE_WIDENED * np.array(deviations)])
        statistics.append(np.stack([both, both[:, ::-1] * [[-1], [1]]], axis=1))
    mean, deviation = np.concatenate(statistics, axis=-1)
    return np.arange(mean.shape[-1]), mean, deviation


def _log_odds(
    shape: NDArray[np.float64], index: NDArray[np.intp], mean: NDArray[np.float64], deviation: NDArray[np.float64]
) -> float:
    """Return the log likelihood of the other statistics over that of the discs' own, by normal distributions."""
    own, other = np.minimum(((shape[index] - mean) / deviation) ** 2, _FARTHEST) / 2 + np.log(deviation)
    return float(np.nansum(own - other))
