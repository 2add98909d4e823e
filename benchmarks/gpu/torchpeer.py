"""The steps of a study in PyTorch, as a user would write them: operation by operation, and crop by crop."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from spinescore.benchmarks.gpu.inputs import Study
from spinescore.benchmarks.phantom.checkpoints import networks_of
from spinescore.kernels.decode import POINT, CropSpec, crops
from spinescore.kernels.warp import Source
from spinescore.runtime.bundle import Bundle
from spinescore.runtime.manifest import NetworkInput

__all__ = ["TorchPeer"]

_RADIUS, _SIGMA, _FLOOR, _MOST = 5, 2.0, 1e-10, 2.0  # of DARK, as in spinescore.kernels.decode


class TorchPeer:
    """Scores studies on `device` with networks in `dtype`, channels last; pictures and coordinates are float32."""

    def __init__(self, bundle: Bundle, device: str = "cuda", dtype: torch.dtype = torch.float16) -> None:
        self._device, self._dtype, self._manifest = torch.device(device), dtype, bundle.manifest
        hrnet, resnet = networks_of(bundle)
        placed = {"device": self._device, "dtype": dtype, "memory_format": torch.channels_last}
        self.localizer, self.grader = (model.to(**placed) for model in (hrnet, resnet))
        self._channels = torch.tensor(bundle.manifest.localizer.channels(), device=self._device).reshape(2, 12)

    def score(self, study: Study, given: bool = False) -> tuple[NDArray[np.void], NDArray[np.float32]]:
        """Return points (2, 6, 2) of dtype `POINT` and logits (12, outputs)."""
        with torch.inference_mode():
            return self._score(study, given)

    def _score(self, study: Study, given: bool) -> tuple[NDArray[np.void], NDArray[np.float32]]:
        manifest = self._manifest
        images = [self._grey(source) for source in study.sources]
        size = manifest.localizer.input
        seen = [self._cut(image, roi, size) for image, roi in zip(images, _each(study.whole), strict=True)]
        heatmaps = self.localizer(torch.cat(seen)).float()
        views = study.given if given else study.views
        points = self._points(heatmaps, study)
        if given:
            points["xy"], points["confidence"] = views["given_xy"], 1
        grader = manifest.grader
        about = CropSpec(grader.input.height, grader.crop.unit, grader.crop.extent, grader.crop.anterior)
        rois = crops(points, views, about).reshape(-1)
        images.append(torch.zeros_like(images[0][..., :1, :1]))  # shown for a disc without points: source -1
        pictures = [self._cut(images[int(roi["source"])], roi, grader.input) for roi in _each(rois)]
        logits = self.grader(torch.cat(pictures)).float().cpu().numpy()
        return points, logits

    def _grey(self, source: Source) -> Tensor:
        """Return the picture (1, 1, H, W) with the table applied."""
        stored = torch.from_numpy(source.pixels.view(f"i{source.pixels.itemsize}")).to(self._device).int()
        if source.pixels.dtype.kind == "u":
            stored = stored & (2 ** (8 * source.pixels.itemsize) - 1)
        table = torch.from_numpy(source.tables[0]).to(self._device)
        return table[(stored - source.stored_min).clamp(0, len(table) - 1)][None, None]

    def _cut(self, image: Tensor, roi: NDArray[np.void], size: NetworkInput) -> Tensor:
        """Return (1, channels, height, width), normalised: the mean of n x n samples about each pixel."""
        n = size.antialias
        theta = torch.from_numpy(_theta(roi, size, image.shape[2:])).to(self._device)
        shape = [1, 1, size.height * n, size.width * n]
        grid = functional.affine_grid(theta[None], shape, align_corners=False)
        grey = functional.grid_sample(image, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
        grey = functional.avg_pool2d(grey, n) if n > 1 else grey
        mean, std = (torch.tensor(v, device=self._device).reshape(1, -1, 1, 1) for v in (size.mean, size.std))
        return ((grey - mean) / std).to(self._dtype)

    def _points(self, heatmaps: Tensor, study: Study) -> NDArray[np.void]:
        rows = torch.arange(2, device=self._device)[:, None]
        maps = heatmaps[rows, self._channels]
        xy, value = _dark(maps) if self._manifest.localizer.decode == "dark" else _argmax(maps)
        seen = (4 * xy if self._manifest.localizer.align == "stride" else 4 * (xy + 0.5) - 0.5).cpu().numpy()
        points = np.zeros((2, 6, 2), POINT)
        points["confidence"] = value.clamp(min=0).cpu().numpy().reshape(2, 6, 2)
        for view, roi in enumerate(_each(study.whole)):
            matrix = roi["matrix"].astype(np.float64)
            points["xy"][view] = (seen[view] @ matrix[:, :2].T + matrix[:, 2] + roi["origin"]).reshape(6, 2, 2)
        points["xy"][points["confidence"] == 0] = 0
        return points


def _each(rois: NDArray[np.void]) -> list[NDArray[np.void]]:
    return [rois[number, ...] for number in range(len(rois))]


def _theta(roi: NDArray[np.void], size: NetworkInput, image: Any) -> NDArray[np.float32]:
    """Return the matrix for affine_grid: from -1 .. 1 over the output (n times finer) to -1 .. 1 over the image."""
    n, (rows, columns) = size.antialias, (int(side) for side in image)
    fine = roi["matrix"].astype(np.float64)
    fine[:, 2] += roi["origin"] + fine[:, :2].sum(axis=1) * (0.5 / n - 0.5)
    fine[:, :2] /= n
    width, height = size.width * n, size.height * n
    theta = np.empty((2, 3))
    for axis, span in enumerate((columns, rows)):
        across, down, shift = fine[axis]
        theta[axis, :2] = across * width / span, down * height / span
        theta[axis, 2] = (across * (width - 1) + down * (height - 1) + 2 * shift + 1) / span - 1
    return theta.astype(np.float32)


def _argmax(maps: Tensor) -> tuple[Tensor, Tensor]:
    value, index = maps.flatten(2).max(dim=2)
    return torch.stack([index % maps.shape[3], index // maps.shape[3]], dim=2).float(), value


def _dark(maps: Tensor) -> tuple[Tensor, Tensor]:
    """Take one Newton step on the logarithm of the blurred maps, as in spinescore.kernels.decode."""
    xy, value = _argmax(maps)
    taps = torch.exp(-(torch.arange(-_RADIUS, _RADIUS + 1, device=maps.device) ** 2) / (2 * _SIGMA**2))
    taps = taps / taps.sum()
    flat = maps.flatten(0, 1)[:, None]
    blurred = functional.conv2d(flat, taps[None, None, None], padding=(0, _RADIUS))
    blurred = functional.conv2d(blurred, taps[None, None, :, None], padding=(_RADIUS, 0))
    logs = blurred.clamp(min=_FLOOR).log()[:, 0]
    height, width = maps.shape[2:]
    x, y = xy.flatten(0, 1).long().unbind(1)
    inside = (x > 1) & (x < width - 2) & (y > 1) & (y < height - 2)
    x, y = x.clamp(2, width - 3), y.clamp(2, height - 3)
    row = torch.arange(len(x), device=maps.device)

    def at(right: int, down: int) -> Tensor:
        return logs[row, y + down, x + right]

    dx, dy = 0.5 * (at(1, 0) - at(-1, 0)), 0.5 * (at(0, 1) - at(0, -1))
    dxx, dyy = (0.25 * (at(2 * a, 2 * b) - 2 * at(0, 0) + at(-2 * a, -2 * b)) for a, b in ((1, 0), (0, 1)))
    dxy = 0.25 * (at(1, 1) - at(-1, 1) - at(1, -1) + at(-1, -1))
    determinant = dxx * dyy - dxy * dxy
    use = inside & (determinant > 0) & (dxx < 0)
    safe = torch.where(use, determinant, torch.ones_like(determinant))
    step = torch.stack([(dxy * dy - dyy * dx) / safe, (dxy * dx - dxx * dy) / safe], dim=1).clamp(-_MOST, _MOST)
    return xy + torch.where(use[:, None], step, torch.zeros_like(step)).reshape(xy.shape), value
