"""Lists the assumptions of an export about a network, which neither its weights nor the manifest file state."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import onnx

from spinescore.export.keras_check import KERAS_EPSILON
from spinescore.export.sources import Network
from spinescore.export.weights import TORCH_EPSILON
from spinescore.runtime.manifest import CLASSES

__all__ = ["assumed_of"]

Document = Mapping[str, Any]


def assumed_of(network: Network, document: Document, overrides: Document) -> list[str]:
    """Return the assumptions about `network`, for people to read.

    If the network was checked against its framework, only those are left that such a check cannot show. `document` is
    the manifest as it will be written, `overrides` are the fields that the owner's manifest file sets.
    """
    meaning = _meaning(network, overrides)
    if network.checked is not None:
        return meaning
    return [*_normalisation(network, document, overrides), *_layers(network), *meaning]


def _meaning(network: Network, overrides: Document) -> list[str]:
    """Return assumptions about the meaning of the outputs. A check against the framework cannot show it."""
    if network.kind == "grader":
        return [] if network.classes else [f"class order: {', '.join(CLASSES[network.outputs])}"]
    if "keypoints" in overrides.get("localizer", {}):
        return []
    return ["heatmap order: disc by disc from above, centre then anterior"]


def _normalisation(network: Network, document: Document, overrides: Document) -> list[str]:
    stated = overrides.get(network.kind, {}).get("input", {})
    if "preprocessing" in stated or ("mean" in stated and "std" in stated):
        return []
    written = document[network.kind]["input"]
    mean, std = (", ".join(f"{value:.4g}" for value in written[name]) for name in ("mean", "std"))
    return [f"normalisation: mean {mean}, std {std} of grey 0..1"]


def _layers(network: Network) -> list[str]:
    """Return assumptions about the layers, if the file has weights alone: neither a graph nor a configuration."""
    if network.model is None or network.layout not in ("torch", "keras"):
        return []
    if network.kind == "localizer":
        return [
            "strides: those of the official HRNet",
            "activations: ReLU",
            f"BatchNorm epsilon: {TORCH_EPSILON:g}",
            "upsampling in the fuse layers: nearest",
        ]
    keras = network.layout == "keras"
    dense = _count(network.model, "Gemm")
    return [
        f"strides: in the {'first 1x1 (keras.applications)' if keras else '3x3 (torchvision)'} of each stage",
        "activations: ReLU" + (f", also between its {dense} dense layers" if dense > 1 else ""),
        f"BatchNorm epsilon: {KERAS_EPSILON if keras else TORCH_EPSILON:g}",
    ]


def _count(model: onnx.ModelProto, operator: str) -> int:
    return sum(node.op_type == operator for node in model.graph.node)
