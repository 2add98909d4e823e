"""Opens a bundle's networks: from a checkpoint, from a ready ONNX file, or as `synthetic:` without a file."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray

from spinescore.export.checkpoints import Checkpoint, KerasLayer, read_checkpoint
from spinescore.export.defaults import InputSize, Preprocessing, not_stated
from spinescore.export.graph import free_size
from spinescore.export.hrnet import build_hrnet
from spinescore.export.ready import Ready, read_ready
from spinescore.export.resnet152 import build_resnet, is_keras_resnet
from spinescore.export.sessions import Images, ScaledImages
from spinescore.export.synthetic import PREFIX, Tensors, fit_grader, fit_localizer, parse_synthetic, random_tensors
from spinescore.export.untrusted import naming
from spinescore.runtime.errors import CheckpointError
from spinescore.runtime.manifest import HEAD_OUTPUTS
from spinescore.runtime.manifest.testtime import scaled_size
from spinescore.runtime.study import REGIONS, Region

__all__ = ["InputSize", "Network", "open_network", "parameters_of", "split_key", "split_sources"]

Kind = Literal["localizer", "grader"]
Layout = Literal["torch", "keras", "whole"]  # the layers that weights alone are read as; "whole": the file has them

_JOINTS = 12
_SYNTHETIC_OUTPUTS = {"corners": 8, **HEAD_OUTPUTS["bridge+grades"]}


@dataclass(eq=False)
class Network:
    """One network on its way into a bundle.

    `model` is the FP32 graph; a synthetic network gets it from `fit`. `outputs` is the number of joints or logits.
    """

    kind: Kind
    role: str  # a region or "" for both; corners, bridge or grades
    size: InputSize
    channels: int
    outputs: int
    preprocessing: Preprocessing
    provenance: dict[str, Any]
    notes: tuple[str, ...] = ()  # choices, omissions and changes
    model: onnx.ModelProto | None = None
    tensors: Tensors = field(default_factory=dict)
    alternative: str = ""  # the name of another localizer than the bundle's own
    layout: Layout = "whole"
    classes: tuple[str, ...] | None = None  # the order of its outputs as the owner states it
    checked: dict[str, Any] | None = None  # the record of its check against its framework
    warnings: tuple[str, ...] = ()  # possible faults

    @property
    def stem(self) -> str:
        """The beginning of its files' names: localizer, localizer-cervical, localizer-NAME, grader-bridge, .."""
        role = "" if self.role == "corners" else self.role
        return "-".join(part for part in (self.kind, self.alternative, role) if part)

    @property
    def regions(self) -> tuple[Region, ...]:
        """The regions that a localizer serves."""
        return tuple(region for region in REGIONS if self.role in ("", region))

    def fit(self, images: Images) -> onnx.ModelProto:
        """Return the FP32 graph; a synthetic one is fitted to normalised `images` (N, C, H, W) at the first call."""
        if self.model is None:
            fit = fit_localizer if self.kind == "localizer" else fit_grader
            fitted = fit(self.tensors, images.scales[0] if isinstance(images, ScaledImages) else images)
            self.model = _build(self.kind, fitted, self.size)
            self.provenance["parameters"] = parameters_of(self.model)
        return self.model


def split_sources(text: str, keys: tuple[str, str]) -> dict[str, str]:
    """Return {"": F} for `F`, or two files by key for `cervical=F,lumbar=G`. Raises `CheckpointError` for one alone."""
    parts = re.split(rf"(?:^|,)({'|'.join(keys)})=", text)
    if len(parts) == 1:
        return {"": text}
    sources = dict(zip(parts[1::2], parts[2::2], strict=True))
    if parts[0] or len(parts) != 5 or set(sources) != set(keys) or not all(sources.values()):
        raise CheckpointError(f"{text}: give one file, or both of {keys[0]}=FILE,{keys[1]}=FILE")
    return sources


def split_key(source: str) -> tuple[Path, str]:
    """Split `FILE:key` into the file and the key of one set of weights; the key is "" if there is none.

    The colon of a Windows drive (`C:\\nets\\w.pth`) and a colon in the name of an existing file start no key.
    """
    file, colon, key = source.rpartition(":")
    if not colon or len(file) < 2 or not key or set(key) & set("/\\") or Path(source).exists():
        return Path(source), ""
    return Path(file), key


def open_network(source: str, kind: Kind, role: str, size: InputSize) -> Network:
    """Read the network `source`: a file, `FILE:key` or `synthetic:..`.

    `role` is a region or "" for both; of a grader `corners`, `bridge` or `grades`.
    Raises `CheckpointError` if it cannot be read, or is no HRNet or ResNet with that input.
    """
    if source.startswith(PREFIX):
        return _synthetic(source, kind, role, size)
    path, key = split_key(source)
    if path.suffix.lower() == ".onnx":
        if key:
            raise CheckpointError(f"{path.name}: an ONNX file holds one network; leave out ':{key}'")
        return _ready(path, kind, role, size)
    checkpoint = read_checkpoint(path, key, "hrnet" if kind == "localizer" else "resnet")
    _refuse_exchanged(path.name, checkpoint.tensors, kind)
    with naming(f"{path.name} ({checkpoint.key})" if checkpoint.key else path.name):
        model = _build(kind, checkpoint.tensors, size, checkpoint.layers)
    channels = _second_dimension(model.graph.input[0])
    if size.channels not in (None, channels):
        raise CheckpointError(
            f"{path.name}: its first convolution takes {channels} channels, the manifest says {size.channels}; "
            "leave input.channels out of the manifest, or correct it"
        )
    keras = kind == "grader" and is_keras_resnet(checkpoint.tensors)
    usual: tuple[Preprocessing, str] = ("caffe", "a Keras file") if keras else ("imagenet", "a PyTorch file")
    preprocessing, stated = _chosen(size, *usual)
    architecture = "HRNet" if kind == "localizer" else "ResNet"
    provenance = _provenance(path, checkpoint, checkpoint.framework, architecture, model, stated)
    outputs = _second_dimension(model.graph.output[0])
    network = Network(kind, role, size, channels, outputs, preprocessing, provenance, checkpoint.notes, model)
    network.warnings = _warnings_of_keras(checkpoint, size) if keras else ()
    network.layout = "whole" if checkpoint.layers else "keras" if keras else "torch"
    return network


def _chosen(size: InputSize, usual: Preprocessing, files: str) -> tuple[Preprocessing, str]:
    """Return the normalisation of an input, and a phrase for its origin."""
    if size.preprocessing is None:
        return usual, f"{usual}, assumed for {files}"
    if size.preprocessing == "stated":
        return "stated", "mean and std as the manifest file states them"
    return size.preprocessing, f"{size.preprocessing}, as the manifest file states"


def _warnings_of_keras(checkpoint: Checkpoint, size: InputSize) -> tuple[str, ...]:
    """Return warnings about a ResNet in a Keras file that passed the check of its layers."""
    if not checkpoint.layers:
        warning = (
            "weights alone do not show operators (as x / 255.), settings and activations: read as keras.applications' "
            "ResNet V1 with ReLU between Dense layers. Give the whole model (.keras, .h5) to have that checked"
        )
        return (warning,)
    ours = [size.height_px, size.width_px]
    for layer in checkpoint.layers:
        shape = layer.config.get("batch_shape", layer.config.get("batch_input_shape"))
        theirs = shape[1:3] if layer.kind == "InputLayer" and isinstance(shape, list) and len(shape) == 4 else ours
        if any(own not in (None, our) for own, our in zip(theirs, ours, strict=True)):
            warning = (
                f"the model was built for {theirs[0]}x{theirs[1]} pixels, the manifest gives it {ours[0]}x{ours[1]}"
            )
            return (f"{warning}; set grader.input.height and width to what it was trained on",)
    return ()


def parameters_of(model: onnx.ModelProto) -> int:
    """Return the number of trainable values in the graph, with batch normalisation folded."""
    kinds = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16)
    return sum(int(np.prod(tensor.dims)) for tensor in model.graph.initializer if tensor.data_type in kinds)


def _refuse_exchanged(name: str, tensors: Mapping[str, NDArray[Any]], kind: Kind) -> None:
    """Refuse tensors whose names belong to the other kind of network. Raises `CheckpointError`."""
    grader = is_keras_resnet(tensors) or any(tensor.startswith("fc.") for tensor in tensors)
    localizer = "final_layer.weight" in tensors
    if (grader and not localizer) if kind == "localizer" else (localizer and not grader):
        actual, expected = ("a ResNet", "an HRNet") if grader else ("an HRNet", "a ResNet")
        raise CheckpointError(
            f"{name}: its tensors are those of {actual}, and the {kind} is {expected}; are --localizer and --grader "
            "exchanged?"
        )


def _build(
    kind: Kind, tensors: Mapping[str, NDArray[Any]], size: InputSize, layers: Sequence[KerasLayer] = ()
) -> onnx.ModelProto:
    if kind == "grader":
        return build_resnet(tensors, size.height_px, size.width_px, layers)
    model = build_hrnet(tensors, size.height_px, size.width_px)
    if len(size.scales) > 1:
        free_size(model)
    return model


def _synthetic(source: str, kind: Kind, role: str, size: InputSize) -> Network:
    synthetic = parse_synthetic(source)
    if (synthetic.architecture == "hrnet") != (kind == "localizer"):
        raise CheckpointError(f"{source}: the localizer is an hrnet, the grader a resnet; exchange the two")
    channels = size.channels or 3
    outputs = _JOINTS if kind == "localizer" else _SYNTHETIC_OUTPUTS[role]
    tensors = random_tensors(synthetic, outputs, channels)
    provenance = {
        "source": source,
        "framework": "none: seeded random weights, for measuring latency",
        "architecture": "HRNet" if kind == "localizer" else "ResNet",
    }
    preprocessing, provenance["normalisation"] = _chosen(size, "imagenet", "random weights")
    return Network(kind, role, size, channels, outputs, preprocessing, provenance, tensors=tensors)


def _ready(path: Path, kind: Kind, role: str, size: InputSize) -> Network:
    output: Literal["heatmaps", "logits"] = "heatmaps" if kind == "localizer" else "logits"
    others = [scaled_size(size.height_px, size.width_px, scale) for scale in size.scales if scale != 1.0]
    ready = read_ready(path, output, size.channels, size.height_px, size.width_px, size.confidence_stated, others)
    if size.preprocessing is None:
        raise not_stated(path.name, kind, ready.channels)
    preprocessing, stated = _chosen(size, size.preprocessing, "")
    framework = f"ONNX by {ready.model.producer_name or 'an unnamed producer'}"
    provenance = _provenance(path, ready, framework, "as in the ONNX file", ready.model, stated)
    return Network(kind, role, size, ready.channels, ready.outputs, preprocessing, provenance, ready.notes, ready.model)


def _provenance(
    path: Path, file: Checkpoint | Ready, framework: str, architecture: str, model: onnx.ModelProto, stated: str
) -> dict[str, Any]:
    return {
        "source": path.name,
        "source_sha256": file.sha256,
        "source_bytes": file.bytes,
        **({"source_key": file.key} if isinstance(file, Checkpoint) and file.key else {}),
        "framework": framework,
        "architecture": architecture,
        "parameters": parameters_of(model),
        "normalisation": stated,
    }


def _second_dimension(end: onnx.ValueInfoProto) -> int:
    """Return the channels of a network's input, or the number of its outputs."""
    return int(end.type.tensor_type.shape.dim[1].dim_value)
