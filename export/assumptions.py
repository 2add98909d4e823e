"""Lists what an export took for granted of a network: neither its weights nor the owner's manifest say it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import onnx

from spinescore.export.blocks import TORCH_EPSILON
from spinescore.export.keras_check import KERAS_EPSILON
from spinescore.export.sources import Network
from spinescore.runtime.manifest import CLASSES

__all__ = ["assumed_of"]

Document = Mapping[str, Any]


def assumed_of(network: Network, document: Document, overrides: Document) -> list[str]:
    """A short list for people; what a check against the framework shows is left out if there was one.

    `document` is the manifest as it will be written, `overrides` what its owner stated of it.
    """
    meaning = _meaning(network, overrides)
    if network.checked is not None:
        return meaning
    return [*_normalisation(network, document, overrides), *_layers(network), *meaning]


def _meaning(network: Network, overrides: Document) -> list[str]:
    """The meaning of the outputs, which no output of the framework tells."""
    if network.kind == "grader":
        return [] if network.classes else [f"class order: {', '.join(CLASSES[network.outputs])}"]
    if "keypoints" in overrides.get("localizer", {}):
        return []
    return ["heatmap order: disc by disc from above, centre then anterior"]


def _normalisation(network: Network, document: Document, overrides: Document) -> list[str]:
    given = overrides.get(network.kind, {}).get("input", {})
    if "preprocessing" in given or ("mean" in given and "std" in given):
        return []
    size = document[network.kind]["input"]
    mean, std = (", ".join(f"{value:.4g}" for value in size[name]) for name in ("mean", "std"))
    return [f"normalisation: mean {mean}, std {std} of grey 0..1"]


def _layers(network: Network) -> list[str]:
    """Of weights alone. A graph (ONNX) and a Keras model's configuration have their layers in the file."""
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
