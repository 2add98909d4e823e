"""Checks settings of Keras layers against the values that a ResNet's graph is built with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from spinescore.export.keras_advice import TO_ONNX
from spinescore.export.untrusted import KerasLayer
from spinescore.runtime.errors import CheckpointError

__all__ = ["KERAS_EPSILON", "activation_of", "check_settings", "refused"]

KERAS_EPSILON = 1.001e-5

# The values that a class's settings may have. A setting that a file leaves out has Keras' own default.
_SETTINGS: Mapping[str, Mapping[str, Sequence[Any]]] = {
    "Add": {},
    "BatchNormalization": {
        "axis": (3, -1, [3], [-1]), "epsilon": (KERAS_EPSILON,), "center": (True,), "scale": (True,),
    },
    "Conv2D": {
        "data_format": ("channels_last",), "dilation_rate": ([1, 1],), "groups": (1,), "activation": ("linear",),
        "use_bias": (True, False),
    },
    "Dense": {"use_bias": (True, False)},
    "Flatten": {"data_format": ("channels_last",)},
    "GlobalAveragePooling2D": {"data_format": ("channels_last",), "keepdims": (False, True)},
    "InputLayer": {},
    "MaxPooling2D": {"data_format": ("channels_last",)},
    "ReLU": {"max_value": (None,), "negative_slope": (0, None), "threshold": (0, None)},
    "Softmax": {"axis": (-1, [-1])},
    "ZeroPadding2D": {"data_format": ("channels_last",)},
}  # fmt: skip
_DEFAULTS = {
    "axis": -1, "epsilon": 1e-3, "center": True, "scale": True, "data_format": "channels_last", "dilation_rate": [1, 1],
    "groups": 1, "activation": "linear", "use_bias": True, "keepdims": False, "strides": [1, 1], "padding": "valid",
    "max_value": None, "negative_slope": 0, "threshold": 0,
}  # fmt: skip

# Settings that do not change a model's answers.
_FOR_TRAINING = (
    "name", "trainable", "momentum", "batch_input_shape", "batch_shape", "shape", "filters", "units", "target_shape",
    "synchronized", "fused", "renorm_momentum",
)  # fmt: skip
_FOR_TRAINING_TOO = ("_initializer", "_regularizer", "_constraint")
_PRECISIONS = tuple(
    f"{mixed}{kind}" for mixed in ("", "mixed_") for kind in ("float16", "bfloat16", "float32", "float64")
)


def activation_of(layer: KerasLayer) -> str:
    """Return the activation that a layer applies: `relu`, `softmax`, `linear`, or another name in its configuration."""
    if layer.kind in ("ReLU", "Softmax"):
        return layer.kind.lower()
    activation = layer.config.get("activation")
    if activation is None:
        return "linear"
    if isinstance(activation, dict):  # a function or a layer of the user's
        inner = activation.get("config")
        return f"{activation.get('class_name')} {inner if isinstance(inner, str) else ''}".strip()
    return str(activation)


def check_settings(layer: KerasLayer, expected: Mapping[str, Sequence[Any]], *, idle: bool = False) -> None:
    """Check that the settings of `layer` have no effect that the graph lacks. Raises `CheckpointError`.

    `expected` are the values allowed in this place, besides those that its class may have anywhere. For a layer that
    does nothing (`idle`) only the precision is checked.
    """
    if idle:
        _check_precision(layer, layer.config.get("dtype"))
        return
    allowed = {**_SETTINGS.get(layer.kind, {}), **expected}
    if layer.kind in ("Dense", "Activation"):
        allowed.setdefault("activation", (activation_of(layer),))  # checked with the head
    for key in dict.fromkeys((*allowed, *layer.config)):
        value = _plain(layer.config.get(key, _DEFAULTS.get(key)))
        if key == "activation":
            value = activation_of(layer)
        if key in allowed:
            if not any(_same(value, one) for one in allowed[key]):
                usual = " or ".join(str(one) for one in allowed[key])
                raise refused(layer, f"has {key} {value}, not {usual}")
        elif key == "dtype":
            _check_precision(layer, value)
        elif not (value is None or value is False or key in _FOR_TRAINING or key.endswith(_FOR_TRAINING_TOO)):
            raise refused(layer, f"has {key} {str(value)[:60]}, which is not known here")


def refused(layer: KerasLayer, why: str) -> CheckpointError:
    """Return the error that `layer` does not fit the graph that is built."""
    return CheckpointError(f"layer {layer.name} ({layer.kind}) {why}. {TO_ONNX}")


def _check_precision(layer: KerasLayer, value: Any) -> None:
    """Check that the layer computes in floating point; `value` is a type's name, or a policy's configuration."""
    if isinstance(value, dict):
        inner = value.get("config")
        value = inner.get("name", inner) if isinstance(inner, dict) else value.get("class_name")
    if value is not None and value not in _PRECISIONS:
        raise refused(layer, f"computes in {str(value)[:40]}, not in floating point")


def _plain(value: Any) -> Any:
    """Return tuples as lists, and a NumPy number in the form of newer Keras 2 as a plain number."""
    if isinstance(value, dict) and value.get("class_name") == "__numpy__" and isinstance(value.get("config"), dict):
        return _plain(value["config"].get("value"))
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def _same(value: Any, one: Any) -> bool:
    if isinstance(value, bool) or isinstance(one, bool) or value is None or one is None:
        return value is one
    if isinstance(value, float) or isinstance(one, float):
        return isinstance(value, (int, float)) and abs(value - one) <= 1e-9
    return bool(value == one)
