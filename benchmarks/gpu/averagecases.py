"""Random cases for the kernels that mirror inputs and average heatmaps, and the bounds of their errors.

The tests run them through the kernels compiled for the host, `kernels` in this package on a GPU.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spinescore.kernels.average import MOST_RUNS, AverageSpec, Run, average, mirror

__all__ = ["AverageCase", "off", "random_average"]

_SCALES = (0.5, 0.75, 1.0, 1.25, 1.5, 2.0)
_SHAPES = ((64, 48), (16, 12), (4, 8), (8, 4), (40, 28))
_SPOILED = 0.05  # share of the values that are not finite, in half of the cases
_BOUNDS = {"float16": 2e-3, "float32": 2e-5}  # for values of a normal distribution


@dataclass(frozen=True, eq=False)
class AverageCase:
    """Heatmaps of all runs, the grid of their mean, and images (N, C, H, W) to be mirrored."""

    heatmaps: list[NDArray[Any]]
    spec: AverageSpec
    shape: tuple[int, int]
    images: NDArray[Any]


def random_average(rng: np.random.Generator, half: bool = False) -> AverageCase:
    """Draw a case with 1 to 16 runs at random scales; half of the cases have a few values that are not finite."""
    dtype = np.float16 if half else np.float32
    shape = _SHAPES[rng.integers(len(_SHAPES))]
    runs = tuple(Run(float(rng.choice(_SCALES)), bool(rng.integers(2))) for _ in range(rng.integers(1, MOST_RUNS + 1)))
    maps = []
    for run in runs:
        values = rng.normal(size=(2, 3, *(max(1, round(run.scale * side)) for side in shape))).astype(dtype)
        if rng.random() < 0.5:
            values[rng.random(values.shape) < _SPOILED] = rng.choice([np.nan, np.inf, -np.inf])
        maps.append(values)
    spec = AverageSpec(runs, "stride" if rng.integers(2) else "centre", 4, bool(rng.integers(2)))
    images = rng.normal(size=(2, 3, *rng.integers(1, 70, 2))).astype(dtype)
    return AverageCase(maps, spec, shape, images)


def off(case: AverageCase, mean: NDArray[Any], mirrored: NDArray[Any]) -> tuple[float, str]:
    """Return the largest difference of the mean from its reference, and the fault in words; empty if there is none."""
    difference = float(np.abs(mean.astype(np.float64) - average(case.heatmaps, case.spec, case.shape)).max())
    bound = _BOUNDS[str(mean.dtype)]
    if not difference <= bound:
        return difference, f"the mean of {len(case.heatmaps)} runs differs by {difference:.3g}, at most {bound:g}"
    same = np.ascontiguousarray(mirror(case.images)).tobytes() == mirrored.tobytes()
    return difference, "" if same else "the mirrored images are not the images reversed"
