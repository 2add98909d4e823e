"""The paper's pipeline written plainly (Koo et al. 2022): read, convert, localize, crop, rotate, grade; one by one.

Each whole radiograph becomes a float picture, windowed by pydicom; OpenCV cuts from it. Points and places of crops come
from this package's float64 reference (`spinescore.kernels.decode`), so that every peer sees the same crops.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spinescore.kernels.decode import VIEW, BoxSpec, CropSpec, DecodeSpec, boxes, crops, decode
from spinescore.runtime.bundle import Bundle
from spinescore.runtime.manifest import NetworkInput
from spinescore.runtime.scoring.geometry import whole_image
from spinescore.runtime.scoring.grading import probabilities
from spinescore.runtime.study import LEVELS, REGIONS, Facing, Region

__all__ = ["GivenPoints", "Network", "PlainPipeline", "Unsuited"]

Network = Callable[[NDArray[np.float32]], NDArray[Any]]  # a batch of images to the network's output
GivenPoints = Mapping[str, Mapping[str, tuple[Sequence[float], Sequence[float]]]]

_PARTS: dict[str, Region] = {"CSPINE": "cervical", "LSPINE": "lumbar"}
_STRIDE = 4


class Unsuited(Exception):
    """The reason why the plain pipeline cannot run a bundle or a study."""


class PlainPipeline:
    """Scores studies; `single` gives the networks one image at a time."""

    def __init__(self, bundle: Bundle, localize: Network, grade: Network, single: bool) -> None:
        """Raises `Unsuited`."""
        manifest = bundle.manifest
        localizer, grader = manifest.localizer, manifest.grader
        plain = localizer.contrast.mode == grader.contrast.mode == "dicom"
        if not (localizer.shared and grader.head == "corners4" and plain):
            raise Unsuited("it is written for one localizer, one grader of both corners, and the header's window")
        if localizer.averaging.runs > 1:
            raise Unsuited("it is written for a localizer that runs once for each pass")
        if localizer.facing != "left":
            raise Unsuited("it is written for a localizer of patients who look to the left")
        if localizer.input.levels or grader.input.levels:
            raise Unsuited("it is written for pictures that are not rounded to 8 bits")
        self._localizer, self._grader = localizer, grader
        self._localize, self._grade = (_one_by_one(run) if single else run for run in (localize, grade))
        self._decode = DecodeSpec(localizer.decode, localizer.align, _STRIDE, localizer.channels())
        self._box = BoxSpec(localizer.input.height, localizer.input.width, localizer.box_padding)
        self._crop = CropSpec(grader.input.height, grader.crop.unit, grader.crop.extent, grader.crop.anterior)

    def score(self, files: Sequence[Path], given: GivenPoints | None) -> NDArray[np.float64]:
        """Return p0 .. p3 of the two corners of 12 discs (12, 2, 4); given points replace the localizer's."""
        pictures = dict(_read(path) for path in files)
        if set(pictures) != set(REGIONS):
            raise Unsuited(f"it needs one radiograph of each region, and got {', '.join(pictures) or 'none'}")
        greys = [pictures[region][0] for region in REGIONS]
        views = _views(pictures, given)
        rois = np.stack([self._whole(number, *pictures[region]) for number, region in enumerate(REGIONS)])
        points = self._points(greys, rois, views)
        for _ in range(1, self._localizer.passes):
            points = self._points(greys, boxes(points, views, self._box), views)
        around = crops(points, views, self._crop).reshape(-1)
        return probabilities({"corners": self._grade(_pictures(greys, around, self._grader.input))}, self._grader.head)

    def _whole(self, number: int, grey: NDArray[np.float32], facing: Facing) -> NDArray[np.void]:
        size, (rows, columns) = self._localizer.input, grey.shape
        return whole_image(number, rows, columns, (size.height, size.width), size.fit or "stretch", facing)

    def _points(
        self, greys: list[NDArray[np.float32]], rois: NDArray[np.void], views: NDArray[np.void]
    ) -> NDArray[np.void]:
        heatmaps = self._localize(_pictures(greys, rois, self._localizer.input))
        return decode(heatmaps, rois, views, self._decode)


def _one_by_one(run: Network) -> Network:
    return lambda images: np.concatenate([run(images[row : row + 1]) for row in range(len(images))])


def _read(path: Path) -> tuple[Region, tuple[NDArray[np.float32], Facing]]:
    """Return region, grey picture (0 .. 1, 1 brightest), and the side to which the patient looks, by the header."""
    import pydicom
    from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut

    ds = pydicom.dcmread(path)
    region = _PARTS.get(str(ds.get("BodyPartExamined", "")))
    orientation = ds.get("PatientOrientation")
    if region is None or not orientation:
        raise Unsuited("it takes region and facing from the header, which does not state them")
    values = apply_voi_lut(apply_modality_lut(ds.pixel_array, ds), ds)
    grey = values.astype(np.float32) / np.float32((1 << ds.BitsStored) - 1)
    if ds.PhotometricInterpretation == "MONOCHROME1":
        grey = 1 - grey
    facing: Facing = "right" if str(orientation[0]).startswith("A") else "left"
    return region, (grey, facing)


def _views(
    pictures: Mapping[Region, tuple[NDArray[np.float32], Facing]], given: GivenPoints | None
) -> NDArray[np.void]:
    views = np.zeros(len(REGIONS), VIEW)
    for number, region in enumerate(REGIONS):
        views[number]["source"] = views[number]["region"] = number
        views[number]["faces_right"] = pictures[region][1] == "right"
        for disc, level in enumerate(LEVELS[region]):
            if given and level in given.get(region, {}):
                views[number]["given"][disc] = 1
                views[number]["given_xy"][disc] = given[region][level]
    return views


def _pictures(greys: list[NDArray[np.float32]], rois: NDArray[np.void], size: NetworkInput) -> NDArray[np.float32]:
    """Return (N, channels, height, width), normalised. An undetermined region has grey 0."""
    mean, std = (np.asarray(values, np.float32)[:, None, None] for values in (size.mean, size.std))
    cut = [
        _cut(greys[roi["source"]], roi, size) if roi["source"] >= 0 else np.zeros((size.height, size.width), np.float32)
        for roi in rois
    ]
    return np.stack([(picture - mean) / std for picture in cut]).astype(np.float32)


def _cut(grey: NDArray[np.float32], roi: np.void, size: NetworkInput) -> NDArray[np.float32]:
    """Return the mean of n x n samples about each pixel: warp n times finer, then shrink."""
    import cv2

    n = size.antialias
    matrix = roi["matrix"].astype(np.float64)
    matrix[:, 2] += roi["origin"] + matrix[:, :2].sum(axis=1) * (0.5 / n - 0.5)
    matrix[:, :2] /= n
    fine = size.width * n, size.height * n
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    samples = cv2.warpAffine(grey, matrix, fine, flags=flags, borderMode=cv2.BORDER_CONSTANT, borderValue=0)
    resized = cv2.resize(samples, (size.width, size.height), interpolation=cv2.INTER_AREA)
    return np.asarray(resized, np.float32)
