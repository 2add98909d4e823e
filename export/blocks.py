"""Layers that PyTorch's HRNet and ResNet share: convolution with batch normalisation, and the residual blocks."""

from __future__ import annotations

from spinescore.export.graph import Graph
from spinescore.export.weights import Weights, fold_batch_norm

__all__ = ["TORCH_EPSILON", "conv_norm", "residual"]

TORCH_EPSILON = 1e-5  # the default of torch.nn.BatchNorm2d, which neither architecture changes


def conv_norm(graph: Graph, weights: Weights, x: str, conv: str, norm: str, stride: int = 1) -> str:
    """Add the convolution `conv` with the batch normalisation `norm` folded into it; return its value's name."""
    weight = weights.take(f"{conv}.weight", 4)
    bias = weights.take(f"{conv}.bias", 1) if f"{conv}.bias" in weights else None
    parts = ("weight", "bias", "running_mean", "running_var")
    gamma, beta, mean, variance = (weights.take(f"{norm}.{part}", 1) for part in parts)
    folded, shift = fold_batch_norm(weight, bias, (gamma, beta, mean, variance), TORCH_EPSILON, conv)
    return graph.conv(x, folded, shift, name=conv, stride=stride)


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
