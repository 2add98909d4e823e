"""Training data: the inputs that a manifest's networks will get of radiographs with known points. No network runs.

The host device cuts the pictures with the pipeline's own tables, matrices and kernels, so that training and scoring use
the same inputs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spinescore.kernels.decode import DISCS, POINT, BoxSpec
from spinescore.kernels.warp import ROI
from spinescore.runtime.devices.host import HostDevice
from spinescore.runtime.manifest import HEAD_OUTPUTS, Manifest, NetworkInput
from spinescore.runtime.reading.orientation import to_upright
from spinescore.runtime.reading.quality import as_reject, picture_findings
from spinescore.runtime.reading.vetting import vet
from spinescore.runtime.scoring.geometry import implausible, mirrored_views, rotation_deg, to_input
from spinescore.runtime.scoring.inputs import input_greys, source_of, view_of, whole_of
from spinescore.runtime.scoring.intake import GivenPoints, as_study
from spinescore.runtime.scoring.networks import (
    FLIPS,
    GRADER_TABLE,
    HEATMAP_STRIDE,
    LOCALIZER_TABLE,
    crop_spec,
    graded_sites,
    warp_spec,
)
from spinescore.runtime.scoring.selection import Chosen, faced, facing_from_points
from spinescore.runtime.study import LEVELS, REGIONS, Radiograph, Region, Study

__all__ = ["SeenDisc", "SeenPicture", "SeenStudy", "TrainingInputs"]

Points = Mapping[int, NDArray[np.float32]]  # disc -> (centre|anterior, xy), in pixels of the radiograph


@dataclass(frozen=True, eq=False)
class SeenDisc:
    """A disc with known points: (2, 2) centre and anterior point x, y, in the radiograph and in two grids.

    `input_px` are pixels of the localizer's input and `heatmap_px` of its heatmaps; both are None for a grader's crop.
    """

    level: str
    source_px: NDArray[np.float64]
    rotation_deg: float
    input_px: NDArray[np.float64] | None = None
    heatmap_px: NDArray[np.float64] | None = None


@dataclass(frozen=True, eq=False)
class SeenPicture:
    """One input of a network: grey (H x W, float32, 0 .. 1), before mean and std. `sites` are graded in it."""

    region: Region
    network: str
    image: NDArray[np.float32]
    discs: tuple[SeenDisc, ...]
    sites: tuple[str, ...] = ()


@dataclass(eq=False)
class SeenStudy:
    """A study's pictures for training, the radiograph of each region, warnings, and why others are left out."""

    study: Study
    pictures: list[SeenPicture] = field(default_factory=list)
    chosen: dict[Region, Chosen] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


class TrainingInputs:
    """Cuts the grader's inputs by `manifest`; with `localizer_inputs` also the localizer's. A context manager."""

    def __init__(self, manifest: Manifest, localizer_inputs: bool = False) -> None:
        self._manifest, self._localizer_inputs = manifest, localizer_inputs
        self._device = HostDevice(threads=1)

    def __enter__(self) -> TrainingInputs:
        return self

    def __exit__(self, *error: object) -> None:
        self._device.close()

    def of(self, study: Study, given: GivenPoints, strict: bool = False) -> SeenStudy:
        """Return the pictures of a study with its points `given`.

        With `strict`, a radiograph with a quality warning gives none. A region without points gives none. A radiograph
        that states no region is taken for the one region with points that has no other radiograph, if it is the only
        such radiograph.
        """
        seen = SeenStudy(as_study(study))
        seen.warnings.extend(study.warnings)
        seen.left_out.extend(reject.message for reject in study.rejects)
        for region, radiograph in _by_region(seen, given, strict).items():
            points = _inside(seen, region, radiograph, given.get(region, {}))
            if points:
                seen.chosen[region] = _faced(seen, region, radiograph, points)
                self._cut(seen, region, points)
        return seen

    def _cut(self, seen: SeenStudy, region: Region, points: Points) -> None:
        view, chosen = REGIONS.index(region), seen.chosen[region]
        self._device.upload(view, source_of(chosen.radiograph, self._manifest))
        views, marked = view_of(view, chosen, points).reshape(1), np.zeros((1, DISCS, 2), POINT)
        for disc, pair in points.items():
            marked["xy"][0, disc], marked["confidence"][0, disc] = pair, 1
        discs = {disc: _disc(region, disc, pair, chosen) for disc, pair in points.items()}
        if self._localizer_inputs:
            seen.pictures.extend(self._localized(region, chosen, views, marked, discs.values()))
        seen.pictures.extend(self._cropped(region, views, marked, discs))
        self._device.forget()

    def _localized(
        self,
        region: Region,
        chosen: Chosen,
        views: NDArray[np.void],
        marked: NDArray[np.void],
        discs: Iterable[SeenDisc],
    ) -> Iterator[SeenPicture]:
        """Yield the whole radiograph and, for a localizer with two passes, the box around the points."""
        localizer, size = self._manifest.localizer, self._manifest.localizer.input
        rois = {"localizer": whole_of(REGIONS.index(region), chosen, localizer).reshape(1)}
        if localizer.passes > 1:
            box = rois["localizer-pass-2"] = np.zeros(1, ROI)
            shown = mirrored_views(views, localizer.facing)
            self._device.boxes(marked, shown, BoxSpec(size.height, size.width, localizer.box_padding), box)
        half = 0.5 if localizer.align == "centre" else 0.0
        for network, roi in rois.items():
            placed = []
            for disc in discs:
                inputs = to_input(roi[0], disc.source_px)
                placed.append(replace(disc, input_px=inputs, heatmap_px=(inputs + half) / HEATMAP_STRIDE - half))
            yield SeenPicture(region, network, self._warped(roi, size, LOCALIZER_TABLE)[0], tuple(placed))

    def _cropped(
        self, region: Region, views: NDArray[np.void], marked: NDArray[np.void], discs: Mapping[int, SeenDisc]
    ) -> Iterator[SeenPicture]:
        grader = self._manifest.grader
        for network, outputs in HEAD_OUTPUTS[grader.head].items():
            flips = FLIPS[outputs]
            rois = np.zeros((1, DISCS, len(flips)), ROI)
            self._device.crops(marked, views, crop_spec(grader, flips), rois)
            greys = self._warped(rois, grader.input, GRADER_TABLE)
            for disc, seen in discs.items():
                for number in range(len(flips)):
                    if rois["source"][0, disc, number] >= 0:
                        sites = graded_sites(seen.level, flips, number)
                        yield SeenPicture(region, network, greys[disc * len(flips) + number], (seen,), sites)

    def _warped(self, rois: NDArray[np.void], size: NetworkInput, table: int) -> NDArray[np.float32]:
        out = np.zeros((rois.size, size.channels, size.height, size.width), np.float32)
        self._device.warp(rois, warp_spec(size, table), out)
        return input_greys(out, size)


def _by_region(seen: SeenStudy, given: GivenPoints, strict: bool) -> dict[Region, Radiograph]:
    """Return the one usable radiograph of each region, and note in `seen` why others are left out."""
    candidates: dict[Region | None, list[Radiograph]] = {}
    for radiograph in seen.study.radiographs:
        findings = (*radiograph.findings, *picture_findings(radiograph))
        severe = ("reject", "warning") if strict else ("reject",)
        refused = vet(radiograph) or next((as_reject(f, None) for f in findings if f.severity in severe), None)
        if refused is not None:
            seen.left_out.append(refused.message)
            continue
        seen.warnings.extend((*radiograph.warnings, *(f.message for f in findings)))
        candidates.setdefault(radiograph.region, []).append(radiograph)
    nameless = candidates.pop(None, [])
    open_regions = [region for region in REGIONS if given.get(region) and region not in candidates]
    if len(nameless) == len(open_regions) == 1:
        candidates[open_regions[0]] = nameless
        taken = f"{_name(nameless[0])} does not state its region; it was taken for the {open_regions[0]} one"
        seen.warnings.append(f"{taken}, the only region with points and without another radiograph.")
    elif nameless:
        advice = "state it with --region, or in the list of --inputs."
        seen.left_out.append(f"{_named(nameless)}: nothing states the region, and no network is asked; {advice}")
    usable: dict[Region, Radiograph] = {}
    for region in (region for region in REGIONS if region in candidates):
        names = _named(candidates[region])
        if len(candidates[region]) > 1:
            seen.left_out.append(
                f"{names} show the {region} spine of one study, and the points are of one; name only the file in which "
                "they were set."
            )
        elif not given.get(region):
            seen.left_out.append(f"{names}: no points of {region} discs are given for it.")
        else:
            usable[region] = candidates[region][0]
    return usable


def _inside(seen: SeenStudy, region: Region, radiograph: Radiograph, points: Points) -> Points:
    """Return the discs with points in the picture, and note in `seen` which lie outside."""
    last = np.array([radiograph.columns, radiograph.rows]) - 0.5
    kept = {disc: pair for disc, pair in points.items() if ((pair >= -0.5) & (pair <= last)).all()}
    outside = [LEVELS[region][disc] for disc in points if disc not in kept]
    if outside:
        seen.left_out.append(
            f"{_name(radiograph)}: the points of {', '.join(outside)} lie outside of the picture, which has "
            f"{radiograph.columns} x {radiograph.rows} pixels; check them."
        )
    return kept


def _faced(seen: SeenStudy, region: Region, radiograph: Radiograph, points: Points) -> Chosen:
    """Return the radiograph with its stated turn and the facing of the points, as in scoring."""
    chosen = faced(radiograph, points)
    if (text := facing_from_points(chosen, _name(radiograph))) is not None:
        seen.warnings.append(text)
    xy = np.zeros((DISCS, 2, 2))
    xy[list(points)] = to_upright(np.array(list(points.values()), np.float64), chosen.turn_deg)
    known = np.isin(np.arange(DISCS), list(points))
    reason = implausible(xy[:, 0], xy[:, 1], known, chosen.facing)
    if reason is not None:
        seen.warnings.append(f"{_name(radiograph)}: {reason}; scoring would refuse such points, so check them.")
    return chosen


def _disc(region: Region, disc: int, pair: NDArray[Any], chosen: Chosen) -> SeenDisc:
    xy = np.asarray(pair, np.float64)
    centre, anterior = to_upright(xy, chosen.turn_deg)
    return SeenDisc(LEVELS[region][disc], xy, float(rotation_deg(centre, anterior, chosen.facing)))


def _named(radiographs: list[Radiograph]) -> str:
    return ", ".join(map(_name, radiographs))


def _name(radiograph: Radiograph) -> str:
    return radiograph.source or "A radiograph"
