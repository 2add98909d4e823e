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

from spinescore.export.graph import Graph
from spinescore.export.keras_advice import TO_ONNX
from spinescore.export.keras_check import check_layers
from spinescore.export.keras_config import KerasLayer
from spinescore.export.relatives import check_resnet_relatives
from spinescore.export.weights import Array64, Weights, conv_norm, residual
from spinescore.runtime.errors import CheckpointError

__all__ = ["HEADS", "Head", "build_resnet", "head_of", "is_keras_resnet"]

Head = Literal["corners4", "corner4", "grades", "bridge"]

# The number of a grader's outputs decides their meaning.
HEADS: dict[int, Head] = {8: "corners4", 4: "corner4", 3: "grades", 2: "bridge"}


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
    weights = Weights(tensors, f"ResNet ({'Keras' if is_keras_resnet(tensors) else 'torchvision'} layout)")
    if weights.keras:
        _refuse_v2(tensors)
        order = check_layers(layers, tensors)
    else:
        layer = next((name.rpartition("/")[0] for name in tensors if "/" in name), None)
        if layer is not None:
            raise CheckpointError(
                f"its first layer {layer} is none of keras.applications' ResNet50, -101 or -152 (conv1_conv, ..): the "
                f"Keras model is another network. {TO_ONNX}"
            )
        check_resnet_relatives(weights)
    name, axis = ("conv1_conv/kernel", 2) if weights.keras else ("conv1.weight", 1)
    stem = weights.shape(name)
    graph = Graph("resnet", stem[axis] if len(stem) == 4 else 0, height_px, width_px)
    features = _keras_features(graph, weights) if weights.keras else _torch_features(graph, weights)
    head = _dense_layers(weights)
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


def _torch_features(graph: Graph, weights: Weights) -> str:
    x = graph.relu(conv_norm(graph, weights, "image", "conv1", "bn1", stride=2))
    x = graph.max_pool(x, name="maxpool")
    for stage in range(1, 5):
        for block in range(weights.count(f"layer{stage}")):
            x = residual(graph, weights, x, f"layer{stage}.{block}", stride=2 if stage > 1 and block == 0 else 1)
    return x


def _keras_features(graph: Graph, weights: Weights) -> str:
    def convolve(x: str, prefix: str, stride: int = 1) -> str:
        return conv_norm(graph, weights, x, f"{prefix}_conv", f"{prefix}_bn", stride)

    x = graph.relu(convolve("image", "conv1", 2))
    x = graph.max_pool(x, name="pool1_pool")
    for stage in range(2, 6):
        block = 1
        while f"{(prefix := f'conv{stage}_block{block}')}_1_conv/kernel" in weights:
            stride = 2 if stage > 2 and block == 1 else 1
            shortcut = convolve(x, f"{prefix}_0", stride) if f"{prefix}_0_conv/kernel" in weights else x
            y = graph.relu(convolve(x, f"{prefix}_1", stride))
            y = convolve(graph.relu(convolve(y, f"{prefix}_2")), f"{prefix}_3")
            x = graph.relu(graph.add(y, shortcut, name=f"{prefix}_add"))
            block += 1
    return x


def _dense_layers(weights: Weights) -> dict[str, tuple[Array64, Array64]]:
    """Return the kernels (in, out) and biases of the dense layers by name."""
    head, kernel_end = {}, "/kernel" if weights.keras else ".weight"
    for name in weights.names("" if weights.keras else "fc."):
        if name.endswith(kernel_end) and (len(weights.shape(name)) == 2 or not weights.keras):
            kernel = weights.take(name, 2) if weights.keras else weights.take(name, 2).T
            layer, bias = name.removesuffix(kernel_end), f"{name[: -len('kernel')]}bias"
            head[layer] = kernel, weights.take(bias, 1) if bias in weights else np.zeros(kernel.shape[1])
    return head


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
