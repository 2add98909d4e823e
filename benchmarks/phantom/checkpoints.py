"""PyTorch networks with the weights of a bundle's ONNX files.

An ONNX file holds each batch normalisation folded into its convolution. Here every batch normalisation is the identity
up to its bias.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from spinescore.export.weights import TORCH_EPSILON
from spinescore.runtime.bundle import Bundle

if TYPE_CHECKING:
    from torch import nn

__all__ = ["network", "networks_of", "rebuilt_tensors"]

Tensors = dict[str, NDArray[np.float32]]


def networks_of(bundle: Bundle) -> tuple[nn.Module, nn.Module]:
    """Return HRNet and ResNet of a bundle with one shared localizer and a `corners` grader, for inference."""
    files = bundle.manifest.localizer.files["cervical"]["fp32"], bundle.manifest.grader.files["corners"]["fp32"]
    localizer, grader = (network(rebuilt_tensors(onnx.load(str(bundle.path(name))))) for name in files)
    return localizer, grader


def network(tensors: Tensors) -> nn.Module:
    """Return the HRNet or ResNet with these tensors, for inference."""
    import torch

    from spinescore.benchmarks.phantom.networks import HRNet, ResNet

    stem, channels = tensors["conv1.weight"].shape[:2]
    if "final_layer.weight" in tensors:
        joints, width = tensors["final_layer.weight"].shape[:2]
        module: nn.Module = HRNet(width, joints, channels, stem=stem)
    else:
        blocks = [match for name in tensors if (match := re.match(r"layer(\d)\.(\d+)\.", name))]
        depths = tuple(1 + max(int(block[2]) for block in blocks if block[1] == str(stage)) for stage in range(1, 5))
        module = ResNet(depths, stem, len(tensors["fc.bias"]), channels)
    module.load_state_dict({name: torch.from_numpy(value.copy()) for name, value in tensors.items()})
    return module.eval()


def rebuilt_tensors(model: onnx.ModelProto) -> Tensors:
    """Return the tensors of a PyTorch checkpoint from which the exporter makes the graph `model` again.

    A convolution's bias becomes that of the batch normalisation behind it. Names are those of the official HRNet and of
    torchvision's ResNet. `model` is a graph of this exporter, its weights stored as single or half.
    """
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    values = {name.removesuffix(".half"): value.astype(np.float32) for name, value in stored.items()}
    gamma, variance = _identity()
    tensors: Tensors = {}
    for node in model.graph.node:
        if node.op_type not in ("Conv", "Gemm"):
            continue
        weight, bias = (values[name] for name in node.input[1:])
        tensors[f"{node.name}.weight"] = weight.T if node.op_type == "Gemm" else weight
        norm = _norm_of(node.name)
        tensors[f"{norm or node.name}.bias"] = bias
        if norm:
            parts = {"weight": gamma, "running_mean": np.float32(0), "running_var": variance}
            tensors |= {f"{norm}.{part}": np.full(bias.shape, value, np.float32) for part, value in parts.items()}
    return tensors


def _norm_of(conv: str) -> str:
    """Return the name of the batch normalisation behind a convolution; "" for the last layers, which have none."""
    if conv in ("final_layer", "fc"):
        return ""
    prefix, dot, last = conv.rpartition(".")
    return f"{prefix}{dot}{last.replace('conv', 'bn') if last.startswith('conv') else int(last) + 1}"


def _identity() -> tuple[np.float32, np.float32]:
    """Return gamma and variance of a batch normalisation with scale 1, to far less than single precision."""
    variances = (1 + np.arange(1 << 20) * 2.0**-23).astype(np.float32)
    roots = np.sqrt(variances.astype(np.float64) + TORCH_EPSILON)
    gammas = roots.astype(np.float32)
    best = int(np.argmin(np.abs(gammas / roots - 1)))
    return gammas[best], variances[best]
