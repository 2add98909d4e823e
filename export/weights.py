"""A checkpoint's tensors, each of which must be used exactly once, and the layers that are made of them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from spinescore.export.graph import Graph
from spinescore.export.keras_check import KERAS_EPSILON
from spinescore.runtime.errors import CheckpointError

__all__ = ["TORCH_EPSILON", "Weights", "conv_norm", "residual"]

TORCH_EPSILON = 1e-5  # the default of torch.nn.BatchNorm2d, which neither architecture changes

Array64 = NDArray[np.float64]

_COUNTERS = ("num_batches_tracked",)  # PyTorch counts batches while training; inference has no use for it
_TORCH_NORM = ("weight", "bias", "running_mean", "running_var")
_KERAS_NORM = ("gamma", "beta", "moving_mean", "moving_variance")
_SHOWN = 5


class Weights:
    """Hands out tensors by name as float64, and refuses to hand one out twice."""

    def __init__(self, tensors: Mapping[str, NDArray[np.generic]], architecture: str) -> None:
        self.architecture = architecture
        self._tensors = {name: value for name, value in tensors.items() if not name.endswith(_COUNTERS)}
        self._taken: set[str] = set()
        self.keras = "conv1_conv/kernel" in tensors

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def shape(self, name: str) -> tuple[int, ...]:
        return self._find(name).shape

    def names(self, prefix: str = "") -> list[str]:
        return [name for name in self._tensors if name.startswith(prefix)]

    def count(self, prefix: str) -> int:
        """Return how many of `prefix.0.`, `prefix.1.`, .. exist without a gap."""
        number = 0
        while any(name.startswith(f"{prefix}.{number}.") for name in self._tensors):
            number += 1
        return number

    def _find(self, name: str) -> NDArray[np.generic]:
        if name not in self._tensors:
            first = ", ".join(list(self._tensors)[:_SHOWN]) or "no tensor at all"
            raise CheckpointError(
                f"{self.architecture}: the checkpoint has no tensor {name}; it begins with {first}. "
                "Give the weights of this architecture, or export it to ONNX and give that file"
            )
        return self._tensors[name]

    def take(self, name: str, dimensions: int) -> Array64:
        value = self._find(name)
        if name in self._taken:
            raise CheckpointError(f"{self.architecture}: tensor {name} is used twice")
        if value.ndim != dimensions or 0 in value.shape:
            raise CheckpointError(
                f"{self.architecture}: tensor {name} has shape {value.shape}; "
                f"expected {dimensions} axes, none of them 0"
            )
        taken = np.asarray(value, np.float64)
        if not np.isfinite(taken).all():
            raise CheckpointError(f"{self.architecture}: tensor {name} holds NaN or infinity; the training diverged")
        self._taken.add(name)
        return taken

    def close(self) -> None:
        """Check that every tensor was used. Raises `CheckpointError` if not."""
        left = [name for name in self._tensors if name not in self._taken]
        if left:
            more = f" and {len(left) - _SHOWN} more" if len(left) > _SHOWN else ""
            raise CheckpointError(
                f"{self.architecture}: {len(left)} tensors of the checkpoint have no place in the network: "
                f"{', '.join(left[:_SHOWN])}{more}. The checkpoint is of a variant that is not known here; "
                "export it to ONNX and give that file instead"
            )


def conv_norm(graph: Graph, weights: Weights, x: str, conv: str, norm: str, stride: int = 1) -> str:
    """Add the convolution `conv` with the batch normalisation `norm` folded into it; return its value's name.

    The k // 2 zeros around the picture come from a layer of their own in Keras (`conv1_pad`) or from `padding="same"`,
    which is equal for an odd kernel at stride 1.
    """
    name, parts, epsilon = f"{conv}.", _TORCH_NORM, TORCH_EPSILON
    if weights.keras:
        name, parts, epsilon = f"{conv}/", _KERAS_NORM, KERAS_EPSILON
        weight = weights.take(f"{name}kernel", 4).transpose(3, 2, 0, 1)
    else:
        weight = weights.take(f"{name}weight", 4)
    bias = weights.take(f"{name}bias", 1) if f"{name}bias" in weights else 0.0
    norms = [weights.take(f"{norm}{name[-1]}{part}", 1) for part in parts]
    if any(part.shape != weight.shape[:1] for part in norms):
        shapes = ", ".join(str(part.shape) for part in norms)
        raise CheckpointError(f"{conv}: {weight.shape[0]} channels, but its batch normalisation has {shapes}")
    gamma, beta, mean, variance = norms
    if (variance < 0).any():
        raise CheckpointError(f"{conv}: the running variance of its batch normalisation is negative")
    scale = gamma / np.sqrt(variance + epsilon)
    return graph.conv(x, weight * scale.reshape(-1, 1, 1, 1), beta + (bias - mean) * scale, name=conv, stride=stride)


def residual(graph: Graph, weights: Weights, x: str, prefix: str, stride: int = 1) -> str:
    """Add torchvision's BasicBlock (two convolutions) or Bottleneck (three, the stride in the 3x3)."""
    bottleneck = f"{prefix}.conv3.weight" in weights
    strides = (1, stride, 1) if bottleneck else (stride, 1)
    y = x
    for number, step in enumerate(strides, 1):
        y = conv_norm(graph, weights, y, f"{prefix}.conv{number}", f"{prefix}.bn{number}", step)
        if number < len(strides):
            y = graph.relu(y)
    if f"{prefix}.downsample.0.weight" in weights:
        x = conv_norm(graph, weights, x, f"{prefix}.downsample.0", f"{prefix}.downsample.1", stride)
    return graph.relu(graph.add(y, x, name=f"{prefix}.sum"))
