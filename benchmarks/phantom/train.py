"""Trains the shipped bundle's networks on phantom studies (extra `train`).

    python -m spinescore.benchmarks.phantom.train localizer --data DIR --out localizer.pth --minutes 70
    python -m spinescore.benchmarks.phantom.train grader    --data DIR --out grader.pth    --minutes 70

The learning rate follows the time spent, so that a run ends after the given minutes. Each process has one thread: the
two networks train best side by side on two cores. Validation is on the first shard, which is never trained on. Shards
that appear during a run are added at the next checkpoint.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from spinescore.benchmarks.phantom.data import CROP_EXTENT, CROP_SIZE, VIEW_SIZE
from spinescore.benchmarks.phantom.networks import BasicBlock, Bottleneck, HRNet, ResNet

__all__ = ["INPUT", "MEAN", "STD", "crop_sample", "view_sample"]

MEAN, STD = 0.5, 0.25  # of the networks' input, in grey [0, 1]
INPUT = (256, 192)
_SIGMA = 2.0  # of the target Gaussians, in heatmap pixels
_PADDING = 1.25  # of the second pass's box, as in the manifest
_EXTENT = 3.2  # of the grader's crop, as in the manifest
_RESUMED = 0.6  # place in the schedule of a resumed run

Picture = NDArray[np.float32]


def jitter_grey(rng: np.random.Generator, image: Picture) -> Picture:
    """Vary exposure, gamma, unsharpness and noise as they differ between modalities; `image` is in [0, 1]."""
    if rng.random() < 0.3:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.3, 1.0)).astype(np.float32)
    image = image ** np.float32(math.exp(rng.normal(0, 0.15)))
    image = (image - np.float32(0.5)) * np.float32(rng.uniform(0.8, 1.2)) + np.float32(0.5 + rng.uniform(-0.1, 0.1))
    if rng.random() < 0.5:
        image = image + rng.standard_normal(image.shape, dtype=np.float32) * np.float32(rng.uniform(0, 0.03))
    return image


def _warp(image: NDArray[np.uint8], matrix: NDArray[np.float64], size: tuple[int, int]) -> Picture:
    """Warp by `matrix`, which maps output to source pixels; each output pixel is the mean of 2 x 2 samples."""
    half = matrix.copy()
    half[:, 2] -= matrix[:, :2] @ [0.25, 0.25]
    half[:, :2] /= 2
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    fine = cv2.warpAffine(image, half, (2 * size[1], 2 * size[0]), flags=flags)
    return cv2.resize(fine, size[::-1], interpolation=cv2.INTER_AREA).astype(np.float32) / np.float32(255)


def _similarity(centre: NDArray[np.float64], scale: float, angle: float, size: tuple[int, int]) -> NDArray[np.float64]:
    c, s = math.cos(angle) * scale, math.sin(angle) * scale
    matrix = np.array([[c, -s, 0.0], [s, c, 0.0]])
    matrix[:, 2] = centre - matrix[:, :2] @ [(size[1] - 1) / 2, (size[0] - 1) / 2]
    return matrix


def view_sample(
    rng: np.random.Generator, image: NDArray[np.uint8], points: NDArray[np.float32], region: int
) -> tuple[Picture, NDArray[np.float32], NDArray[np.float32]]:
    """Return one training example of the localizer: input (256, 192), targets and weights (24, 64, 48).

    Half are whole radiographs; half are the box of a second pass, with errors like those of the first pass. Some whole
    radiographs are mirrored and have no points, so that the peaks tell which way a patient looks. If the weight is 0,
    only values above the target count: the channels of the other region may be anything below 0.
    """
    whole = rng.random() < 0.5
    mirrored = whole and rng.random() < 0.15
    if whole:
        centre = np.array([(VIEW_SIZE[1] - 1) / 2, (VIEW_SIZE[0] - 1) / 2]) + rng.normal(0, 0.02, 2) * VIEW_SIZE[::-1]
        scale = VIEW_SIZE[0] / INPUT[0] * math.exp(rng.normal(0, 0.05))
    else:
        flat = points.reshape(-1, 2)
        low, high = flat.min(0), flat.max(0)
        scale = _PADDING * float(max((high - low) / INPUT[::-1]))
        wide = 3.0 if rng.random() < 0.15 else 1.0  # now and then the first pass is a level off
        centre = (low + high) / 2 + rng.normal(0, 0.02 * wide, 2) * (high - low).max()
        scale *= math.exp(rng.normal(0, 0.04 * wide))
    matrix = _similarity(centre, scale, rng.normal(0, 0.05), INPUT)
    picture = jitter_grey(rng, _warp(image, matrix, INPUT))
    targets = np.zeros((24, INPUT[0] // 4, INPUT[1] // 4), np.float32)
    weights = np.zeros((24, 1, 1), np.float32)
    if mirrored:
        return np.ascontiguousarray(picture[:, ::-1]), targets, weights
    inverse = cv2.invertAffineTransform(matrix)
    places = (points.reshape(-1, 2) @ inverse[:, :2].T + inverse[:, 2]) / 4
    ys, xs = np.arange(INPUT[0] // 4), np.arange(INPUT[1] // 4)
    for k, (x, y) in enumerate(places):
        column = np.exp(-((ys - y) ** 2) / (2 * _SIGMA**2))
        targets[12 * region + k] = column[:, None] * np.exp(-((xs - x) ** 2) / (2 * _SIGMA**2))
    weights[12 * region : 12 * region + 12] = 1
    return picture, targets, weights


def crop_sample(
    rng: np.random.Generator, image: NDArray[np.uint8], grades: NDArray[np.int64], size: int
) -> tuple[Picture, NDArray[np.int64]]:
    """Return one training example of the grader: crop (size, size), shifted like the localizer's errors, two grades."""
    wide = 2.0 if rng.random() < 0.15 else 1.0
    scale = _EXTENT / CROP_EXTENT * CROP_SIZE / size * math.exp(rng.normal(0, 0.04 * wide))
    centre = (CROP_SIZE - 1) / 2 + rng.normal(0, 0.015 * wide, 2) * CROP_SIZE
    matrix = _similarity(centre, scale, rng.normal(0, 0.045 * wide), (size, size))
    picture = jitter_grey(rng, _warp(image, matrix, (size, size)))
    if rng.random() < 0.5:
        return np.ascontiguousarray(picture[::-1]), grades[::-1].copy()
    return picture, grades


def initialise(model: nn.Module) -> None:
    """Initialise convolutions by Kaiming's rule; each residual block starts as the identity."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if isinstance(module, Bottleneck):
            nn.init.zeros_(module.bn3.weight)
        if isinstance(module, BasicBlock):
            nn.init.zeros_(module.bn2.weight)


class _Shards:
    """The shards of a folder; `new` reads those that appeared since the last call."""

    def __init__(self, folder: Path, keys: tuple[str, ...]) -> None:
        self.folder, self.keys, self.seen = folder, keys, set[Path]()

    def new(self) -> list[dict[str, NDArray[np.generic]]]:
        paths = sorted(set(self.folder.glob("shard-*.npz")) - self.seen)
        self.seen.update(paths)
        shards = []
        for path in paths:
            with np.load(path) as data:
                shards.append({key: data[key] for key in self.keys})
        return shards


def _tensor(pictures: list[Picture]) -> Tensor:
    batch = torch.from_numpy((np.stack(pictures)[:, None] - MEAN) / np.float32(STD))
    return batch.contiguous(memory_format=torch.channels_last)


class _Localizer:
    keys = ("views", "points", "regions")
    batch, rate = 8, 1.5e-3

    def __init__(self) -> None:
        self.model: nn.Module = HRNet(16, 24, channels=1)
        initialise(self.model)
        nn.init.normal_(self.model.final_layer.weight, std=0.001)  # type: ignore[arg-type]
        nn.init.zeros_(self.model.final_layer.bias)  # type: ignore[arg-type]
        self.optimizer: torch.optim.Optimizer = torch.optim.Adam(self.model.parameters(), self.rate)

    def examples(self, shard: dict[str, NDArray]) -> list[tuple]:  # type: ignore[type-arg]
        return list(zip(shard["views"], shard["points"], shard["regions"], strict=True))

    def loss(self, rng: np.random.Generator, batch: list[tuple], progress: float) -> Tensor:  # type: ignore[type-arg]
        samples = [view_sample(rng, image, points, int(region)) for image, points, region in batch]
        targets = torch.from_numpy(np.stack([s[1] for s in samples]))
        weights = torch.from_numpy(np.stack([s[2] for s in samples]))
        with torch.autocast("cpu", torch.bfloat16):
            heatmaps = self.model(_tensor([s[0] for s in samples]))
        error = heatmaps.float() - targets
        return 1000 * (weights * error**2 + (1 - weights) * torch.relu(error) ** 2).mean()


class _Grader:
    keys = ("crops", "grades")
    batch, rate = 32, 1e-3

    def __init__(self) -> None:
        self.model: nn.Module = ResNet(width=16, outputs=8, channels=1)
        initialise(self.model)
        self.optimizer: torch.optim.Optimizer = torch.optim.AdamW(self.model.parameters(), self.rate, weight_decay=0.02)

    def examples(self, shard: dict[str, NDArray]) -> list[tuple]:  # type: ignore[type-arg]
        return list(zip(shard["crops"], shard["grades"], strict=True))

    def loss(self, rng: np.random.Generator, batch: list[tuple], progress: float) -> Tensor:  # type: ignore[type-arg]
        size = 112 if progress < 0.3 else 224  # at 224 from the start it does not leave chance for long
        samples = [crop_sample(rng, image, grades, size) for image, grades in batch]
        grades = torch.from_numpy(np.stack([s[1] for s in samples]).astype(np.int64))
        with torch.autocast("cpu", torch.bfloat16):
            logits = self.model(_tensor([s[0] for s in samples]))
        return nn.functional.cross_entropy(logits.float().reshape(-1, 4), grades.reshape(-1))


def train(
    task: _Localizer | _Grader, data: Path, out: Path, minutes: float, seed: int, weights: Path | None = None
) -> None:
    """Train for `minutes` and write the weights to `out` every ten minutes and at the end.

    With `weights`, training goes on from them at `_RESUMED` of the schedule: small steps, full-size crops.
    """
    rng = np.random.default_rng(seed)
    source = _Shards(data, task.keys)
    shards = source.new()
    if len(shards) < 2:
        raise SystemExit(f"{data} holds fewer than two shards; draw some with spinescore.benchmarks.phantom.data first")
    first, *shards = shards
    held_out = task.examples(first)
    examples = [example for shard in shards for example in task.examples(shard)]
    begin = 0.0
    if weights is not None:
        task.model.load_state_dict(torch.load(weights, weights_only=True))
        begin = _RESUMED
    model = task.model.to(memory_format=torch.channels_last)
    warm_up, step, saved, losses = 100, 0, begin, []
    start = time.monotonic()
    while (progress := begin + (1 - begin) * (time.monotonic() - start) / 60 / minutes) < 1:
        rate = task.rate * min(1, (step + 1) / warm_up) * 0.5 * (1 + math.cos(math.pi * progress))
        for group in task.optimizer.param_groups:
            group["lr"] = rate
        chosen = [examples[i] for i in rng.integers(len(examples), size=task.batch)]
        loss = task.loss(rng, chosen, progress)
        task.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 5)
        task.optimizer.step()
        losses.append(float(loss.detach()))
        step += 1
        if step % 200 == 0:
            print(f"step {step} progress {progress:.3f} loss {np.mean(losses[-200:]):.4f}", flush=True)
        if progress - saved > (1 - begin) * 10 / minutes:
            _save(model, out)
            saved = progress
            examples += [example for shard in source.new() for example in task.examples(shard)]
            print(f"held-out loss {_held_out(task, held_out, progress):.4f}", flush=True)
    _save(model, out)
    print(f"done after {step} steps, held-out loss {_held_out(task, held_out, 1.0):.4f}", flush=True)


def _held_out(task: _Localizer | _Grader, examples: list[tuple], progress: float) -> float:  # type: ignore[type-arg]
    rng = np.random.default_rng(0)
    task.model.eval()
    with torch.no_grad():
        batches = [examples[i : i + task.batch] for i in range(0, min(len(examples), 192), task.batch)]
        value = float(np.mean([float(task.loss(rng, batch, progress)) for batch in batches]))
    task.model.train()
    return value


def _save(model: nn.Module, out: Path) -> None:
    part = out.with_name(out.name + ".part")
    torch.save({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, part)
    part.replace(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("network", choices=["localizer", "grader"])
    parser.add_argument("--data", type=Path, required=True, help="folder of shards")
    parser.add_argument("--out", type=Path, required=True, help="the .pth to write")
    parser.add_argument("--minutes", type=float, default=70, help="time to train (70)")
    parser.add_argument("--weights", type=Path, help="the .pth of an earlier run to resume")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    task = _Localizer() if args.network == "localizer" else _Grader()
    train(task, args.data, args.out, args.minutes, args.seed, args.weights)


if __name__ == "__main__":
    main()
