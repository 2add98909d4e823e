"""Checks a Keras model's configuration against the ResNet that its weights are read as.

Weights alone do not tell strides, epsilons, activations or layers without weights. If the file has the configuration,
the whole graph must be keras.applications' ResNet (v1; keras/src/applications/resnet.py) with a head of Dense layers:
from the output back to the input, every layer and its settings must be allowed in that place. Everything else is
refused by name instead of computed wrongly.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from spinescore.export.keras_advice import TO_ONNX
from spinescore.export.keras_config import KerasLayer
from spinescore.runtime.errors import CheckpointError

__all__ = ["IDLE_LAYERS", "KERAS_EPSILON", "check_layers"]

KERAS_EPSILON = 1.001e-5

# Layers that do nothing when a model answers (keras/src/layers/regularization, keras/src/layers/preprocessing).
IDLE_LAYERS = (
    "ActivityRegularization", "AlphaDropout", "Dropout", "GaussianDropout", "GaussianNoise", "Identity",
    "RandomBrightness", "RandomContrast", "RandomFlip", "RandomRotation", "RandomTranslation", "RandomZoom",
    "SpatialDropout2D",
)  # fmt: skip
_ACTIVATIONS = ("Activation", "ReLU", "Softmax")
_HEAD = ("Dense", "Flatten", "Reshape", *IDLE_LAYERS, *_ACTIVATIONS)
_CORNER_GRADES = 4  # of the 8 outputs, corner by corner

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


def check_layers(layers: Sequence[KerasLayer], names: Iterable[str]) -> tuple[str, ...]:
    """Check the layers and return the Dense layers' names, first to last; empty without `layers`.

    `layers` come from `connected_layers`, `names` are those of the file's tensors (`conv1_conv/kernel`, ..). Raises
    `CheckpointError` if the layers describe another network than the weights are read as.
    """
    return _Walk(layers, frozenset(names)).check() if layers else ()


class _Walk:
    """Walks from the model's output to its input.

    Each method takes the key of the last layer of a part, checks the part, and returns the key of the layer before it.
    """

    def __init__(self, layers: Sequence[KerasLayer], names: frozenset[str]) -> None:
        self._layers = {layer.key: layer for layer in layers}
        self._left = dict.fromkeys(self._layers)
        self._names = names

    def check(self) -> tuple[str, ...]:
        taken = {source for layer in self._layers.values() for source in layer.sources or ()}
        x, dense = self._head([key for key in self._layers if key not in taken][-1])
        x = self._take(x, ("GlobalAveragePooling2D",), "the mean over the picture")
        for stage in (5, 4, 3, 2):
            first = f"conv{stage}_block"
            blocks = sum(name.startswith(first) and name.endswith("_1_conv/kernel") for name in self._names)
            for block in range(blocks, 0, -1):
                x = self._block(x, f"{first}{block}", 2 if block == 1 and stage > 2 else 1)
        pooling = {"pool_size": ([3, 3],), "strides": ([2, 2],), "padding": ("valid",)}
        x = self._take(x, ("MaxPooling2D",), "the maximum of 3x3", **pooling)
        x = self._take(x, ("ZeroPadding2D",), "padding by 1", padding=([[1, 1], [1, 1]],))
        x = self._conv_norm(self._relu(x, "conv1"), "conv1", 7, 2)
        x = self._take(x, ("ZeroPadding2D",), "padding by 3", padding=([[3, 3], [3, 3]],))
        x = self._idle(x)
        if x:  # a Sequential model may leave its input out
            layer = self._layer(x, "the input")
            if layer.kind != "InputLayer":
                raise _refused(layer, "changes the picture before the network, which the weights do not show")
            _check_settings(layer, {})
            self._left.pop(x, None)
        for key in self._left:
            raise _refused(self._layers[key], "has no place in the network")
        return tuple(dense)

    def _head(self, x: str) -> tuple[str, list[str]]:
        """Check the Dense layers, with ReLU between them and softmax or nothing after the last one."""
        dense: list[KerasLayer] = []
        active: list[tuple[KerasLayer, str]] = []
        shapes: list[KerasLayer] = []
        while (layer := self._layer(x, "a Dense layer")).kind in _HEAD:
            if layer.kind in ("Dense", *_ACTIVATIONS) and (name := _activation_of(layer)) != "linear":
                active.append((layer, name))
            if layer.kind in ("Flatten", "Reshape"):
                shapes.append(layer)
            if layer.kind == "Dense":
                _check_behind(layer, [name for _, name in active], shapes, last=not dense)
                dense, active, shapes = [layer, *dense], [], []
            x = self._pass(x, {})
        if shapes and layer.kind == "Add":
            raise _refused(shapes[0], "stands where the mean over the picture is read (GlobalAveragePooling2D)")
        if not dense:
            raise _refused(layer, "stands at the model's end, where a Dense layer is read")
        if active and layer.kind == "GlobalAveragePooling2D":
            first, name = active[0]
            raise _refused(first, f"applies {name} between the pooling and the Dense layer {dense[0].name}")
        return x, [layer.name for layer in dense]

    def _block(self, x: str, prefix: str, stride: int) -> str:
        x = self._relu(x, f"{prefix}_out")
        add = self._layer(self._idle(x), f"{prefix}_add")
        sources = list(add.sources or ())
        if add.kind != "Add" or len(sources) != 2:
            raise _refused(add, f"stands where the sum of {prefix} is read")
        _check_settings(add, {})
        self._left.pop(add.key, None)
        shortcut = f"{prefix}_0_conv/kernel" in self._names
        ends = [self._layer(self._idle(key), prefix) for key in sources]
        ends.sort(key=lambda end: end.name == f"{prefix}_0_bn" if shortcut else end.name != f"{prefix}_3_bn")
        branch, other = (end.key for end in ends)
        y = self._relu(self._conv_norm(branch, f"{prefix}_3", 1, 1), f"{prefix}_2")
        y = self._relu(self._conv_norm(y, f"{prefix}_2", 3, 1), f"{prefix}_1")
        before = self._idle(self._conv_norm(y, f"{prefix}_1", 1, stride))
        beside = self._idle(self._conv_norm(other, f"{prefix}_0", 1, stride) if shortcut else other)
        if before != beside:
            raise _refused(add, f"adds what comes from {beside}, where {before} is read")
        return before

    def _conv_norm(self, x: str, prefix: str, size: int, stride: int) -> str:
        x = self._take(x, ("BatchNormalization",), f"{prefix}_bn", f"{prefix}_bn")
        same = {1: ("valid", "same"), 3: ("same",), 7: ("valid",)}[size]
        bias = (f"{prefix}_conv/bias" in self._names,)
        settings = {"kernel_size": ([size] * 2,), "strides": ([stride] * 2,), "padding": same, "use_bias": bias}
        return self._take(x, ("Conv2D",), f"{prefix}_conv", f"{prefix}_conv", **settings)

    def _relu(self, x: str, place: str) -> str:
        return self._take(x, ("Activation", "ReLU"), f"the ReLU of {place}", activation=("relu",))

    # One layer

    def _layer(self, key: str, place: str) -> KerasLayer:
        if key not in self._layers:
            raise CheckpointError(f"the model's configuration has nothing where {place} is read. {TO_ONNX}")
        return self._layers[key]

    def _idle(self, x: str) -> str:
        """Return the key of the first layer, from `x` backwards, that does something."""
        while (layer := self._layers.get(x)) is not None and (
            layer.kind in IDLE_LAYERS or (layer.kind == "Activation" and _activation_of(layer) == "linear")
        ):
            x = self._pass(x, {})
        return x

    def _take(self, x: str, kinds: tuple[str, ...], place: str, name: str = "", /, **settings: Sequence[Any]) -> str:
        """Check that the next layer is of one of `kinds`, with these settings, and has the name, if one is given."""
        layer = self._layer(self._idle(x), place)
        if layer.kind not in kinds or name not in ("", layer.name):
            raise _refused(layer, f"stands where {place} is read ({' or '.join(kinds)})")
        return self._pass(layer.key, {} if layer.kind == "ReLU" else settings)

    def _pass(self, key: str, settings: Mapping[str, Sequence[Any]]) -> str:
        """Check the settings of the layer `key`, and return the key of the one layer before it."""
        layer = self._layers[key]
        _check_settings(layer, settings)
        sources = layer.sources or ()
        if len(sources) > 1:
            raise _refused(layer, f"takes {len(sources)} inputs, not one")
        self._left.pop(key, None)
        return sources[0] if sources else ""


def _check_behind(layer: KerasLayer, active: Sequence[str], shapes: Sequence[KerasLayer], *, last: bool) -> None:
    """Check what follows a Dense layer; a Reshape after the last one may only separate the corners' grades."""
    if list(active) not in ([[], ["softmax"]] if last else [["relu"]]):
        expected = "softmax or nothing" if last else "relu, once"
        actual = ", ".join(reversed(active)) or "nothing"
        raise CheckpointError(f"after layer {layer.name} comes {actual}; read is {expected}. {TO_ONNX}")
    units = layer.config.get("units")
    groups = _CORNER_GRADES if units == 2 * _CORNER_GRADES else units
    for shape in shapes if last else ():
        target = shape.config.get("target_shape")
        good = isinstance(target, (list, tuple)) and target and target[-1] in (groups, units)
        if shape.kind == "Reshape" and not good:
            raise _refused(shape, f"gives the outputs the shape {target}, not groups of {groups}")


def _activation_of(layer: KerasLayer) -> str:
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


def _check_settings(layer: KerasLayer, expected: Mapping[str, Sequence[Any]]) -> None:
    """Check that the settings of `layer` have no effect that the graph lacks. Raises `CheckpointError`.

    `expected` are the values allowed in this place, besides those that its class may have anywhere. For a layer that
    does nothing only the precision is checked.
    """
    allowed = {**_SETTINGS.get(layer.kind, {}), **expected}
    if layer.kind in ("Dense", "Activation"):
        allowed.setdefault("activation", (_activation_of(layer),))  # checked with the head
    for key in ("dtype",) if layer.kind in IDLE_LAYERS else dict.fromkeys((*allowed, *layer.config)):
        value = _plain(layer.config.get(key, _DEFAULTS.get(key)))
        if key == "activation":
            value = _activation_of(layer)
        if key in allowed:
            if not any(_same(value, one) for one in allowed[key]):
                usual = " or ".join(str(one) for one in allowed[key])
                raise _refused(layer, f"has {key} {value}, not {usual}")
        elif key == "dtype":
            _check_precision(layer, value)
        elif not (value is None or value is False or key in _FOR_TRAINING or key.endswith(_FOR_TRAINING_TOO)):
            raise _refused(layer, f"has {key} {str(value)[:60]}, which is not known here")


def _refused(layer: KerasLayer, why: str) -> CheckpointError:
    """Return the error that `layer` does not fit the graph that is built."""
    return CheckpointError(f"layer {layer.name} ({layer.kind}) {why}. {TO_ONNX}")


def _check_precision(layer: KerasLayer, value: Any) -> None:
    """Check that the layer computes in floating point; `value` is a type's name, or a policy's configuration."""
    if isinstance(value, dict):
        inner = value.get("config")
        value = inner.get("name", inner) if isinstance(inner, dict) else value.get("class_name")
    if value is not None and value not in _PRECISIONS:
        raise _refused(layer, f"computes in {str(value)[:40]}, not in floating point")


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
