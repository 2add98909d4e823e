"""The crops of a scored study, exactly as the grader sees them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spinescore.runtime.manifest import NetworkInput
from spinescore.runtime.scoring.inputs import input_greys
from spinescore.runtime.scoring.judgement import RegionResult
from spinescore.runtime.scoring.networks import VIEWS, graded_sites
from spinescore.runtime.scoring.pipeline import Pipeline
from spinescore.runtime.study import LEVELS, REGIONS, Region

__all__ = ["Crop", "latest_crops"]


@dataclass(frozen=True, eq=False)
class Crop:
    """One picture as a network of the grader sees it: grey (H x W, float32, 0 .. 1), before mean and std."""

    region: Region
    level: str
    sites: tuple[str, ...]  # that the network grades in it
    network: str
    image: NDArray[np.float32]


def latest_crops(pipeline: Pipeline, size: NetworkInput, results: Mapping[Region, RegionResult]) -> tuple[Crop, ...]:
    """Return the grader's pictures of the latest study; `size` is the grader's input, `results` are the study's."""
    crops = []
    scored = [region for region in REGIONS if region in results and results[region].reject is None]
    for network, pictures in pipeline.crops(slice(0, VIEWS)).items():
        flips = pipeline.flips(network)
        greys = input_greys(pictures, size).reshape(VIEWS, -1, len(flips), size.height, size.width)
        for region in scored:
            for disc, level in enumerate(LEVELS[region]):
                for number in range(len(flips)):
                    image = greys[REGIONS.index(region), disc, number]
                    crops.append(Crop(region, level, graded_sites(level, flips, number), network, image))
    return tuple(crops)
