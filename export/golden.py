"""Golden inputs: the networks' pictures of real radiographs or of phantoms, in 8 bits.

They are cut by the runtime's own host device and kernels, so that an export is checked on the inputs of later runs.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from spinescore.kernels.decode import DISCS, POINT, VIEW, CropSpec, DecodeSpec, crops, decode
from spinescore.kernels.warp import Source, WarpSpec
from spinescore.runtime.acceptance.golden import normalised
from spinescore.runtime.devices.host import HostDevice
from spinescore.runtime.errors import BundleError, InputRejected
from spinescore.runtime.manifest import Contrast, Grader, Localizer, NetworkInput
from spinescore.runtime.reading.greyscale import contrast_table
from spinescore.runtime.reading.studies import load_radiograph
from spinescore.runtime.scoring.geometry import scaled_rois, whole_image
from spinescore.runtime.scoring.networks import HEATMAP_STRIDE
from spinescore.runtime.study import REGIONS, Facing, Radiograph, Region

__all__ = [
    "GoldenView", "crop_pictures", "draw_phantoms", "localizer_pictures", "locate", "normalised", "phantom_views",
    "read_views",
]  # fmt: skip

_FIRST_SEED = 900_000  # neither among the phantoms that train (below 100,000) nor those that test (from 1,000,000 on)


@dataclass(frozen=True, eq=False)
class GoldenView:
    """One radiograph file of (rows, columns) `shape`; `points_px` (6, 2, 2) are the discs' true centre and anterior xy.

    The pixels are read again for each use: all radiographs together would take much memory.
    """

    path: Path
    region: Region
    faces_right: bool
    shape: tuple[int, int]
    points_px: NDArray[np.float32] | None = None

    def parameters(self) -> NDArray[np.void]:
        """Return the `VIEW` record, shape (1,), of this radiograph as source 0."""
        view = np.zeros(1, VIEW)
        view["region"], view["faces_right"] = REGIONS.index(self.region), self.faces_right
        if self.points_px is not None:
            view["given"], view["given_xy"] = 1, self.points_px
        return view


def draw_phantoms(pool: Executor, folder: Path, studies: int) -> Iterator[Path]:
    """Begin to draw that many phantom studies into `folder`; return an iterator that waits for each one's folder."""
    from spinescore.runtime.phantom import write_study

    return pool.map(lambda seed: write_study(seed, folder / str(seed)), range(_FIRST_SEED, _FIRST_SEED + studies))


def phantom_views(drawn: Iterable[Path], studies: int) -> list[GoldenView]:
    """Return both radiographs of each of the phantom `studies`, when they are drawn."""
    views = []
    for written in tqdm(drawn, desc="drawing phantoms", total=studies, leave=False, disable=None):
        truth = json.loads((written / "truth.json").read_text(encoding="utf-8"))
        for region in REGIONS:
            discs, facts = truth["regions"][region]["discs"], truth["regions"][region]["radiograph"]
            points = np.array([[disc["centre_px"], disc["anterior_px"]] for disc in discs], np.float32)
            shape, faces_right = (facts["rows"], facts["columns"]), facts["facing"] == "right"
            views.append(GoldenView(written / f"{region}.dcm", region, faces_right, shape, points))
    return views


def read_views(paths: Sequence[Path]) -> list[GoldenView]:
    """Return the radiographs in `paths` (files and folders). Those whose header names no region get them in turn."""
    files = [file for path in paths for file in (sorted(path.rglob("*")) if path.is_dir() else [path])]
    views: list[GoldenView] = []
    for file in (file for file in files if file.is_file() or file in paths):
        try:
            radiograph = load_radiograph(file)
        except InputRejected as error:
            if file in paths:
                raise BundleError(f"golden radiograph {file} cannot be used: {error}") from error
            continue
        region = radiograph.region or REGIONS[len(views) % len(REGIONS)]
        shape = radiograph.rows, radiograph.columns
        views.append(GoldenView(file, region, radiograph.facing == "right", shape))
    if not views:
        raise BundleError(f"no radiograph in {', '.join(map(str, paths))}; give DICOM radiographs of the spine")
    return views


def localizer_pictures(views: Sequence[GoldenView], localizer: Localizer, scale: float = 1.0) -> NDArray[np.uint8]:
    """Return the whole radiographs as the localizer sees them at one scale, (N, height, width)."""
    size = localizer.input_at(scale)
    pictures = []
    for view in tqdm(views, desc="golden radiographs", leave=False, disable=None):
        roi = scaled_rois(_whole(view, localizer).reshape(1), scale)
        pictures.append(_cut(load_radiograph(view.path), roi, size, localizer.contrast))
    return np.concatenate(pictures)


def locate(
    views: Sequence[GoldenView], heatmaps: Sequence[NDArray[np.float32]], localizer: Localizer
) -> NDArray[np.void]:
    """Return points (N, 6, 2) of dtype `POINT`: the known ones, else those in the heatmaps.

    `heatmaps` has one array (joints, h, w) for each view.
    """
    points = np.zeros((len(views), DISCS, 2), POINT)
    spec = DecodeSpec(localizer.decode, localizer.align, HEATMAP_STRIDE, localizer.channels())
    for number, view in enumerate(views):
        roi = _whole(view, localizer).reshape(1)
        points[number] = decode(heatmaps[number][None], roi, view.parameters(), spec)[0]
    return points


def crop_pictures(
    views: Sequence[GoldenView], points: NDArray[np.void], grader: Grader, flips: tuple[bool, ...]
) -> NDArray[np.uint8]:
    """Return the crops of all discs as the grader sees them, (discs x flips, size, size), view by view from above."""
    size = grader.input
    spec = CropSpec(size.height, grader.crop.unit, grader.crop.extent, grader.crop.anterior, flips)
    pictures = []
    for view, points_of_view in zip(tqdm(views, desc="golden crops", leave=False, disable=None), points, strict=True):
        rois = crops(points_of_view[None], view.parameters(), spec).reshape(-1)
        pictures.append(_cut(load_radiograph(view.path), rois, size, grader.contrast))
    return np.concatenate(pictures)


def _whole(view: GoldenView, localizer: Localizer) -> NDArray[np.void]:
    shape, fit = (localizer.input.height, localizer.input.width), localizer.input.fit or "stretch"
    facing: Facing = "right" if view.faces_right else "left"
    return whole_image(0, *view.shape, shape, fit, facing, localizer.facing)


def _cut(radiograph: Radiograph, rois: NDArray[np.void], size: NetworkInput, contrast: Contrast) -> NDArray[np.uint8]:
    table = contrast_table(radiograph, contrast.mode, contrast.low, contrast.high, size.levels, contrast.over)
    out = np.empty((len(rois), 1, size.height, size.width), np.float32)
    device = HostDevice()
    device.upload(0, Source(radiograph.pixels, (table,), radiograph.stored_min))
    device.warp(rois, WarpSpec(size.height, size.width, size.antialias, (0.0,), (1.0,)), out)
    device.close()
    return np.rint(out[:, 0] * 255).astype(np.uint8)
