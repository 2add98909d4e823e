"""What a Keras model's configuration says of a ResNet, held against what its weights are read as.

Weights alone do not tell strides, epsilons or activations. Where the file has the configuration, anything that differs
from keras_applications' ResNet (v1) with an ordinary top is refused instead of computed wrongly.
"""

from __future__ import annotations

from collections.abc import Sequence

from spinescore.export.untrusted import KerasLayer
from spinescore.runtime.errors import CheckpointError

__all__ = ["KERAS_EPSILON", "check_layers"]

KERAS_EPSILON = 1.001e-5

_IDLE = ("Dropout", "Flatten", "InputLayer", "Reshape")  # nothing at inference, between pooling and the last layer
_PREPROCESSING = ("Lambda", "Normalization", "Rescaling")
_ADVICE = "export the model to ONNX (tf2onnx) and give that file"


def check_layers(layers: Sequence[KerasLayer]) -> None:
    """Raises `CheckpointError` where `layers` describe another network than the weights are read as."""
    for layer in layers:
        config = layer.config
        if layer.kind == "BatchNormalization" and abs(_number(config.get("epsilon")) - KERAS_EPSILON) > 1e-9:
            raise CheckpointError(f"layer {layer.name} has epsilon {config.get('epsilon')}, not 1.001e-5; {_ADVICE}")
        if layer.kind in _PREPROCESSING:
            raise CheckpointError(
                f"layer {layer.name} ({layer.kind}) changes the picture inside of the model, which the weights of a "
                f"ResNet do not show; {_ADVICE}"
            )
        if layer.kind == "GlobalMaxPooling2D":
            raise CheckpointError(f"layer {layer.name} pools by the maximum, not by the mean; {_ADVICE}")
        if layer.kind == "Conv2D" and layer.name.endswith(("_2_conv", "_3_conv")):
            strides = config.get("strides", (1, 1))
            if isinstance(strides, Sequence) and list(strides) != [1, 1]:
                raise CheckpointError(f"layer {layer.name} has strides {strides}, not in the first 1x1; {_ADVICE}")
    _check_top(layers)


def _check_top(layers: Sequence[KerasLayer]) -> None:
    """ReLU, and nothing else that computes, between dense layers; softmax or nothing behind the last."""
    dense = [number for number, layer in enumerate(layers) if layer.kind == "Dense"]
    for number, start in enumerate(dense):
        last = number == len(dense) - 1
        found = [str(layers[start].config.get("activation", "linear"))]
        for layer in layers[start + 1 : len(layers) if last else dense[number + 1]]:
            if layer.kind in _IDLE:
                continue
            found.append(str(layer.config.get("activation", layer.kind)).lower())
        active = [activation for activation in found if activation not in ("linear", "None")]
        if active not in ([[], ["softmax"]] if last else [["relu"]]):
            wanted = "softmax or nothing" if last else "relu"
            raise CheckpointError(
                f"after layer {layers[start].name} comes {', '.join(active) or 'nothing'}; read is {wanted}. {_ADVICE}"
            )


def _number(value: object) -> float:
    return float(value) if isinstance(value, (int, float)) else float("nan")
