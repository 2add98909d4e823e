"""ResNet (152, and any other depth and width) as an ONNX graph, built from its checkpoint's tensors alone.

He et al. 2016, arXiv 1512.03385, in its two usual layouts:

- Keras `applications.ResNet152` (v1): names `conv1_conv/kernel`, `conv2_block1_0_bn/gamma`, ..; kernels HWIO; every
  convolution has a bias; epsilon 1.001e-5; the stride in the block's first 1x1 (keras_applications/resnet_common.py).
- torchvision: names `conv1.weight`, `layer1.0.bn1.running_mean`, .. `fc`; epsilon 1e-5; the stride in the 3x3.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import numpy as np
import onnx
from numpy.typing import NDArray

from spinescore.export.blocks import conv_norm, residual
from spinescore.export.graph import Graph
from spinescore.export.keras_advice import TO_ONNX
from spinescore.export.keras_check import KERAS_EPSILON, check_layers
from spinescore.export.relatives import check_resnet_relatives
from spinescore.export.untrusted import KerasLayer
from spinescore.export.weights import Array64, Weights, fold_batch_norm
from spinescore.runtime.errors import CheckpointError

__all__ = ["HEADS", "Head", "build_resnet", "head_of", "is_keras_resnet"]

Head = Literal["corners4", "corner4", "grades", "bridge"]

# The number of a grader's outputs decides their meaning.
HEADS: dict[int, Head] = {8: "corners4", 4: "corner4", 3: "grades", 2: "bridge"}

_KERAS = "ResNet (Keras layout)"
_TORCH = "ResNet (torchvision layout)"


def head_of(outputs: int) -> Head:
    """Return the head with `outputs` logits. Raises `CheckpointError` if there is none."""
    if outputs in HEADS:
        return HEADS[outputs]
    heads = ", ".join(f"{number} ({head})" for number, head in HEADS.items())
    raise CheckpointError(
        f"the grader has {outputs} outputs; known are {heads}. Replace its final layer and train it on corners"
    )


def is_keras_resnet(names: Iterable[str]) -> bool:
    return "conv1_conv/kernel" in names


def build_resnet(
    tensors: Mapping[str, NDArray[np.generic]],
    height_px: int = 224,
    width_px: int = 224,
    layers: Sequence[KerasLayer] = (),
) -> onnx.ModelProto:
    """Build the graph from `image` (N, channels, height, width) to raw `logits` (N, outputs), in either layout.

    A softmax at the end has no tensors, so it is not part of the graph. Several dense layers after the pooling are read
    as a chain with ReLU between them, in the order of `layers`, or if their shapes allow one order only. `layers`, a
    Keras model's configuration if the file has one, is checked against the graph. Raises `CheckpointError` if a tensor
    is missing, left over or of a wrong shape, or if the configuration contradicts the graph.
    """
    order: tuple[str, ...] = ()
    if is_keras_resnet(tensors):
        _refuse_v2(tensors)
        order = check_layers(layers, tensors)
        weights = Weights(tensors, _KERAS)
        graph, features = _keras_features(weights, height_px, width_px)
        kernels = [name for name in weights.names() if name.endswith("/kernel") and len(weights.shape(name)) == 2]
        dense = {name[: -len("/kernel")]: (weights.take(name, 2), f"{name[:-6]}bias") for name in kernels}
    else:
        layer = next((name.rpartition("/")[0] for name in tensors if "/" in name), None)
        if layer is not None:
            raise CheckpointError(
                f"its first layer {layer} is none of keras.applications' ResNet50, -101 or -152 (conv1_conv, ..): the "
                f"Keras model is another network. {TO_ONNX}"
            )
        weights = Weights(tensors, _TORCH)
        check_resnet_relatives(weights)
        graph, features = _torch_features(weights, height_px, width_px)
        kernels = [name for name in weights.names("fc.") if name.endswith("weight")]
        dense = {name[: -len(".weight")]: (weights.take(name, 2).T, f"{name[:-6]}bias") for name in kernels}
    head = {
        name: (kernel, weights.take(bias, 1) if bias in weights else np.zeros(kernel.shape[1]))
        for name, (kernel, bias) in dense.items()
    }
    weights.close()
    if order and set(order) != set(head):
        raise CheckpointError(
            f"the model's configuration has the dense layers {', '.join(order)}, its weights {', '.join(head)}; the "
            "file is damaged, save the model again"
        )
    logits = _dense_chain(graph, graph.global_mean(features, name="avg_pool"), head, order)
    return graph.model(logits, "logits")


def _refuse_v2(names: Iterable[str]) -> None:
    before = [name for name in names if "_preact_" in name or name.startswith("post_bn")]
    if before:
        raise CheckpointError(
            f"the weights are of a ResNet V2 ({before[0]}), which normalises before its convolutions; V1 is read. "
            f"{TO_ONNX}"
        )


def _torch_features(weights: Weights, height_px: int, width_px: int) -> tuple[Graph, str]:
    graph = Graph("resnet", _input_channels(weights, "conv1.weight", 1), height_px, width_px)
    x = graph.relu(conv_norm(graph, weights, "image", "conv1", "bn1", stride=2))
    x = graph.max_pool(x, name="maxpool")
    for stage in range(1, 5):
        blocks = weights.count(f"layer{stage}")
        for block in range(blocks):
            x = residual(graph, weights, x, f"layer{stage}.{block}", stride=2 if stage > 1 and block == 0 else 1)
    return graph, x


def _keras_features(weights: Weights, height_px: int, width_px: int) -> tuple[Graph, str]:
    graph = Graph("resnet", _input_channels(weights, "conv1_conv/kernel", 2), height_px, width_px)
    x = graph.relu(_keras_conv_norm(graph, weights, "image", "conv1", stride=2))
    x = graph.max_pool(x, name="pool1_pool")
    for stage in range(2, 6):
        block = 1
        while f"conv{stage}_block{block}_1_conv/kernel" in weights:
            stride = 2 if stage > 2 and block == 1 else 1
            x = _keras_block(graph, weights, x, f"conv{stage}_block{block}", stride)
            block += 1
    return graph, x


def _keras_block(graph: Graph, weights: Weights, x: str, prefix: str, stride: int) -> str:
    shortcut = x
    if f"{prefix}_0_conv/kernel" in weights:
        shortcut = _keras_conv_norm(graph, weights, x, f"{prefix}_0", stride)
    y = graph.relu(_keras_conv_norm(graph, weights, x, f"{prefix}_1", stride))
    y = graph.relu(_keras_conv_norm(graph, weights, y, f"{prefix}_2"))
    y = _keras_conv_norm(graph, weights, y, f"{prefix}_3")
    return graph.relu(graph.add(y, shortcut, name=f"{prefix}_add"))


def _keras_conv_norm(graph: Graph, weights: Weights, x: str, prefix: str, stride: int = 1) -> str:
    """Add `prefix`_conv with `prefix`_bn folded into it.

    The k // 2 zeros around the picture come from a layer of their own in Keras (`conv1_pad`) or from `padding="same"`,
    which is equal for an odd kernel at stride 1.
    """
    name = f"{prefix}_conv"
    weight = weights.take(f"{name}/kernel", 4).transpose(3, 2, 0, 1)
    bias = weights.take(f"{name}/bias", 1) if f"{name}/bias" in weights else None
    parts = ("gamma", "beta", "moving_mean", "moving_variance")
    gamma, beta, mean, variance = (weights.take(f"{prefix}_bn/{part}", 1) for part in parts)
    folded, shift = fold_batch_norm(weight, bias, (gamma, beta, mean, variance), KERAS_EPSILON, name)
    return graph.conv(x, folded, shift, name=name, stride=stride)


def _input_channels(weights: Weights, name: str, axis: int) -> int:
    shape = weights.shape(name)
    if len(shape) != 4:
        raise CheckpointError(f"{weights.architecture}: tensor {name} has shape {shape}; expected 4 axes")
    return shape[axis]


def _dense_chain(graph: Graph, x: str, layers: Mapping[str, tuple[Array64, Array64]], order: Sequence[str] = ()) -> str:
    """Add the dense layers in `order`, or in the only order that their shapes allow, with ReLU between them."""
    if not layers:
        raise CheckpointError("ResNet: no dense layer after the pooling; give the weights with the trained top")
    rest = dict(layers)
    while rest:
        features = graph.shapes[x][0]
        fitting = [name for name, (kernel, _) in rest.items() if kernel.shape[0] == features]
        if order:
            fitting = [order[len(layers) - len(rest)]]
        if len(fitting) != 1:
            shapes = ", ".join(f"{name} {kernel.shape}" for name, (kernel, _) in rest.items())
            why = "more than one" if fitting else "none"
            if any(kernel.shape[0] == 2 * features for kernel, _ in rest.values()):
                why = "one takes twice as many (two kinds of pooling, joined), and none"
            raise CheckpointError(
                f"ResNet: of the dense layers {shapes}, {why} can follow {features} features, so their order is not "
                "certain. Export the model to ONNX (tf2onnx, torch.onnx) and give that file"
            )
        name = fitting[0]
        kernel, bias = rest.pop(name)
        x = graph.dense(x, kernel, bias, name=name)
        x = graph.relu(x) if rest else x
    return x
