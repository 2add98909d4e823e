"""The networks' inputs: a radiograph's grey tables, its place in the input, its view; and the crops of the grader."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spinescore.kernels.decode import VIEW
from spinescore.kernels.warp import Source
from spinescore.runtime.manifest import Contrast, Localizer, Manifest, NetworkInput
from spinescore.runtime.scoring.geometry import whole_image
from spinescore.runtime.scoring.judgement import RegionResult
from spinescore.runtime.scoring.networks import GRADER_TABLE, LOCALIZER_TABLE, VIEWS, graded_sites
from spinescore.runtime.scoring.pipeline import Pipeline
from spinescore.runtime.scoring.selection import Chosen
from spinescore.runtime.study import LEVELS, REGIONS, Radiograph, Region

__all__ = ["Crop", "input_greys", "latest_crops", "source_of", "view_of", "whole_of"]


def source_of(radiograph: Radiograph, manifest: Manifest) -> Source:
    """Return the radiograph's pixels with the tables through which localizer and grader see it."""
    localizer, grader = manifest.localizer, manifest.grader
    tables = [_table(radiograph, localizer.contrast, localizer.input)]
    same = (localizer.contrast, localizer.input.levels) == (grader.contrast, grader.input.levels)
    tables.insert(GRADER_TABLE, tables[LOCALIZER_TABLE] if same else _table(radiograph, grader.contrast, grader.input))
    return Source(radiograph.pixels, tuple(tables), radiograph.stored_min)


def whole_of(source: int, chosen: Chosen, localizer: Localizer) -> NDArray[np.void]:
    """Return the ROI record that maps the whole radiograph to the localizer's input."""
    size, image = localizer.input, chosen.radiograph
    fit, shape, shown = size.fit or "stretch", (size.height, size.width), localizer.facing
    return whole_image(source, image.rows, image.columns, shape, fit, chosen.facing, shown, chosen.turn_deg)


def input_greys(pictures: NDArray[Any], size: NetworkInput) -> NDArray[np.float32]:
    """Return a network's normalised inputs (N, C, H, W) as grey (N, H, W) in 0 .. 1, before mean and std."""
    greys: NDArray[np.float32] = np.clip(pictures[:, 0].astype(np.float32) * size.std[0] + size.mean[0], 0, 1)
    return greys


def _table(radiograph: Radiograph, contrast: Contrast, size: NetworkInput) -> NDArray[np.float32]:
    if contrast.mode == "dicom" and size.levels is None:
        return radiograph.table
    from spinescore.runtime.reading.greyscale import contrast_table

    return contrast_table(radiograph, contrast.mode, contrast.low, contrast.high, size.levels, contrast.over)


def view_of(view: int, chosen: Chosen, given: Any) -> NDArray[np.void]:
    """Return the `VIEW` record of view 0 or 1, with a reader's points by disc, (2, 2) each."""
    parameters = np.zeros((), VIEW)
    parameters["source"] = parameters["region"] = view
    parameters["faces_right"] = chosen.facing == "right"
    parameters["turns"] = chosen.turn_deg // 90
    for disc, pair in given.items():
        parameters["given"][disc] = 1
        parameters["given_xy"][disc] = pair
    return parameters


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
