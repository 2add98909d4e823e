"""Networks with seeded random weights, for people who measure latency and have no weights.

`synthetic:hrnet-w32` and `synthetic:resnet152` have the published shapes; any other width is `hrnet-w16` or
`resnet152-w16` (the base width; 64 if it is not stated). Activations keep a magnitude of about one through the whole
depth, so that FP16 behaves as with trained weights. The final layers are fitted to the features that real inputs give:
the localizer's so that points spread over the image in a spine's order, the grader's so that all grades occur.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spinescore.export.hrnet import build_hrnet
from spinescore.export.resnet152 import build_resnet
from spinescore.export.sessions import run_model
from spinescore.runtime.errors import CheckpointError

__all__ = ["PREFIX", "Synthetic", "fit_grader", "fit_localizer", "parse_synthetic", "random_tensors"]

PREFIX = "synthetic:"

Tensors = dict[str, NDArray[np.float32]]

_DEPTHS = {"resnet50": (3, 4, 6, 3), "resnet101": (3, 4, 23, 3), "resnet152": (3, 8, 36, 3)}
_MODULES = (1, 4, 3)  # of HRNet's stages 2, 3 and 4
_STEM = 64
_BRANCH_GAIN = 0.3  # of a residual block's last convolution: fifty blocks grow the signal by a factor of about ten
_SIGMA_PX = 4.0  # of the localizer's peaks, in heatmap pixels
_SHARPNESS = 8.0  # of the grader's logits: neighbouring classes change places within a tenth of the spread
_MIN_IMAGES = 8


@dataclass(frozen=True)
class Synthetic:
    """A network's architecture: `hrnet`, `resnet50`, `resnet101` or `resnet152`, and its width."""

    architecture: str
    width: int


def parse_synthetic(name: str) -> Synthetic:
    """Return the architecture of `synthetic:...`. Raises `CheckpointError` for an unknown name."""
    match = re.fullmatch(r"synthetic:(?:(hrnet)-w(\d{1,3})|(resnet(?:50|101|152))(?:-w(\d{1,3}))?)", name)
    width = int((match[2] or match[4] or 64) if match else 0)
    if not match or width == 0:
        raise CheckpointError(
            f"{name}: unknown; give synthetic:hrnet-w18, -w32, -w48 or synthetic:resnet50, 101, 152 "
            "(another width: resnet152-w16)"
        )
    return Synthetic(match[1] or match[3], width)


def random_tensors(synthetic: Synthetic, outputs: int, channels: int, seed: int = 0) -> Tensors:
    """Return random weights under the official PyTorch names, the final layer included. The seed decides them."""
    drawing = _Drawing(np.random.default_rng(seed))
    if synthetic.architecture == "hrnet":
        _draw_hrnet(drawing, synthetic.width, outputs, channels)
    else:
        _draw_resnet(drawing, _DEPTHS[synthetic.architecture], synthetic.width, outputs, channels)
    return drawing.tensors


class _Drawing:
    """Collects tensors: convolutions with He's scale, and batch normalisation that only sets a layer's gain."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.tensors: Tensors = {}

    def dense(self, name: str, shape: tuple[int, ...], gain: float = 1.0) -> None:
        scale = gain * np.sqrt(2.0 / np.prod(shape[1:]))
        self.tensors[f"{name}.weight"] = self.rng.standard_normal(shape, np.float32) * np.float32(scale)

    def conv_norm(self, conv: str, norm: str, shape: tuple[int, int, int], gain: float = 1.0) -> None:
        self.dense(conv, (*shape, shape[2]))
        for part, value in (("weight", gain), ("bias", 0.0), ("running_mean", 0.0), ("running_var", 1.0)):
            self.tensors[f"{norm}.{part}"] = np.full(shape[0], value, np.float32)

    def block(self, prefix: str, inputs: int, width: int, outputs: int, bottleneck: bool) -> None:
        shapes = [(width, inputs, 3), (outputs, width, 3)]
        if bottleneck:
            shapes = [(width, inputs, 1), (width, width, 3), (outputs, width, 1)]
        for number, shape in enumerate(shapes, 1):
            gain = _BRANCH_GAIN if number == len(shapes) else 1.0
            self.conv_norm(f"{prefix}.conv{number}", f"{prefix}.bn{number}", shape, gain)
        if inputs != outputs:
            self.conv_norm(f"{prefix}.downsample.0", f"{prefix}.downsample.1", (outputs, inputs, 1), 0.7)


def _draw_resnet(drawing: _Drawing, depths: tuple[int, ...], width: int, outputs: int, channels: int) -> None:
    drawing.conv_norm("conv1", "bn1", (width, channels, 7))
    inputs = width
    for stage, depth in enumerate(depths):
        inner = width * 2**stage
        for block in range(depth):
            drawing.block(f"layer{stage + 1}.{block}", inputs, inner, 4 * inner, bottleneck=True)
            inputs = 4 * inner
    drawing.dense("fc", (outputs, inputs))
    drawing.tensors["fc.bias"] = np.zeros(outputs, np.float32)


def _draw_hrnet(drawing: _Drawing, width: int, joints: int, channels: int) -> None:
    drawing.conv_norm("conv1", "bn1", (_STEM, channels, 3))
    drawing.conv_norm("conv2", "bn2", (_STEM, _STEM, 3))
    for block in range(4):
        drawing.block(f"layer1.{block}", 4 * _STEM if block else _STEM, _STEM, 4 * _STEM, bottleneck=True)
    old = [4 * _STEM]
    for stage, modules in enumerate(_MODULES, 2):
        widths = [width * 2**branch for branch in range(stage)]
        for branch, new in enumerate(widths):
            name = f"transition{stage - 1}.{branch}"
            if branch >= len(old):
                drawing.conv_norm(f"{name}.0.0", f"{name}.0.1", (new, old[-1], 3))
            elif old[branch] != new:
                drawing.conv_norm(f"{name}.0", f"{name}.1", (new, old[branch], 3))
        for module in range(modules):
            last = stage == len(_MODULES) + 1 and module == modules - 1
            _draw_exchange(drawing, f"stage{stage}.{module}", widths, 1 if last else len(widths))
        old = widths
    drawing.dense("final_layer", (joints, width, 1, 1))
    drawing.tensors["final_layer.bias"] = np.zeros(joints, np.float32)


def _draw_exchange(drawing: _Drawing, prefix: str, widths: list[int], targets: int) -> None:
    for branch, width in enumerate(widths):
        for block in range(4):
            drawing.block(f"{prefix}.branches.{branch}.{block}", width, width, width, bottleneck=False)
    gain = 0.5 / np.sqrt(len(widths))
    for target in range(targets):
        for source, width in enumerate(widths):
            name = f"{prefix}.fuse_layers.{target}.{source}"
            if source > target:
                drawing.conv_norm(f"{name}.0", f"{name}.1", (widths[target], width, 1), gain)
            for step in range(target - source):
                last = step == target - source - 1
                shape = (widths[target] if last else width, width, 3)
                drawing.conv_norm(f"{name}.{step}.0", f"{name}.{step}.1", shape, gain if last else 1.0)


def fit_localizer(tensors: Tensors, images: NDArray[np.float32]) -> Tensors:
    """Return `tensors` with a final layer whose heatmaps peak, as far as possible, along an upright spine.

    `images` is (N, C, H, W), normalised. Least squares over all pixels of all images, so the layer comes out centred;
    then scaled so that peaks are about one.
    """
    joints, width = tensors["final_layer.weight"].shape[:2]
    identity = {"final_layer.weight": np.eye(width, dtype=np.float32)[:, :, None, None]}
    probe = {**tensors, **identity, "final_layer.bias": np.zeros(width, np.float32)}
    features = run_model(build_hrnet(probe, *images.shape[2:]), images, "fitting the localizer").astype(np.float64)
    points = _upright_spine(joints, *features.shape[2:])
    rows, columns = np.indices(features.shape[2:])
    distance = (columns - points[:, 0, None, None]) ** 2 + (rows - points[:, 1, None, None]) ** 2
    targets = np.exp(-distance / (2 * _SIGMA_PX**2))
    x = np.concatenate([features, np.ones_like(features[:, :1])], 1).transpose(0, 2, 3, 1).reshape(-1, width + 1)
    y = np.tile(targets.reshape(joints, -1).T, (len(images), 1))
    gram = x.T @ x
    ridge = 1e-6 * np.trace(gram) / len(gram)
    solution = np.linalg.solve(gram + ridge * np.eye(len(gram)), x.T @ y)
    peaks = (x @ solution).reshape(len(images), -1, joints).max(1).mean(0)
    solution /= np.maximum(peaks, 1e-3)
    return {
        **tensors,
        "final_layer.weight": solution[:-1].T[:, :, None, None].astype(np.float32),
        "final_layer.bias": solution[-1].astype(np.float32),
    }


def _upright_spine(joints: int, height: int, width: int) -> NDArray[np.float64]:
    """Return points (joints, 2) in heatmap pixels, disc by disc from above, centre then anterior, 12 to a region."""
    disc, anterior = np.divmod(np.arange(joints) % 12, 2)
    return np.stack([width * (0.5 - 0.15 * anterior), height * (0.2 + 0.12 * disc)], axis=1)


def fit_grader(tensors: Tensors, images: NDArray[np.float32]) -> Tensors:
    """Return `tensors` with a final layer that gives every grade equally often on normalised `images` (N, C, H, W).

    The features' main direction over the images is cut at its quantiles: each class is the nearest of as many centres,
    which as logits is linear. The second corner's direction leans on the second component, so that corners differ.
    """
    outputs, width = tensors["fc.weight"].shape
    probe = {**tensors, "fc.weight": np.eye(width, dtype=np.float32), "fc.bias": np.zeros(width, np.float32)}
    features = run_model(build_resnet(probe, *images.shape[2:]), images, "fitting the grader").astype(np.float64)
    mean = features.mean(0)
    _, spread, directions = np.linalg.svd(features - mean, full_matrices=False)
    if len(images) < _MIN_IMAGES or spread[1] < 1e-9 * spread[0]:
        raise CheckpointError(f"a synthetic grader is fitted to at least {_MIN_IMAGES} different crops")
    corners = ((1.0, 0.0), (0.9, 0.45)) if outputs == 8 else ((1.0, 0.0),)
    weights, biases = [], []
    for lean in corners:
        direction = (np.array(lean) / spread[:2]) @ directions[:2] * np.sqrt(len(images))
        classes = outputs // len(corners)
        centres = np.quantile((features - mean) @ direction, (np.arange(classes) + 0.5) / classes)
        weights.append(_SHARPNESS * centres[:, None] * direction)
        biases.append(-_SHARPNESS * centres**2 / 2 - weights[-1] @ mean)
    return {
        **tensors,
        "fc.weight": np.concatenate(weights).astype(np.float32),
        "fc.bias": np.concatenate(biases).astype(np.float32),
    }
