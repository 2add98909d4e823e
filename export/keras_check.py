"""Checks a Keras model's configuration against the ResNet that its weights are read as.

Weights alone do not tell strides, epsilons, activations or layers without weights. If the file has the configuration,
the whole graph must be keras.applications' ResNet (v1; keras/src/applications/resnet.py) with a head of Dense layers:
from the output back to the input, every layer and its settings must be allowed in that place. Everything else is
refused by name instead of computed wrongly.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from spinescore.export.keras_advice import TO_ONNX
from spinescore.export.keras_settings import KERAS_EPSILON, activation_of, check_settings, refused
from spinescore.export.untrusted import KerasLayer
from spinescore.runtime.errors import CheckpointError

__all__ = ["IDLE_LAYERS", "KERAS_EPSILON", "check_layers"]

# Layers that do nothing when a model answers (keras/src/layers/regularization, keras/src/layers/preprocessing).
IDLE_LAYERS = (
    "ActivityRegularization", "AlphaDropout", "Dropout", "GaussianDropout", "GaussianNoise", "Identity",
    "RandomBrightness", "RandomContrast", "RandomFlip", "RandomRotation", "RandomTranslation", "RandomZoom",
    "SpatialDropout2D",
)  # fmt: skip
_ACTIVATIONS = ("Activation", "ReLU", "Softmax")
_HEAD = ("Dense", "Flatten", "Reshape", *IDLE_LAYERS, *_ACTIVATIONS)
_CORNER_GRADES = 4  # of the 8 outputs, corner by corner


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
            for block in range(self._blocks(stage), 0, -1):
                x = self._block(x, f"conv{stage}_block{block}", 2 if block == 1 and stage > 2 else 1)
        settings: dict[str, Any] = {"pool_size": ([3, 3],), "strides": ([2, 2],), "padding": ("valid",)}
        x = self._take(x, ("MaxPooling2D",), "the maximum of 3x3", settings)
        x = self._take(x, ("ZeroPadding2D",), "padding by 1", {"padding": ([[1, 1], [1, 1]],)})
        x = self._conv_norm(self._relu(x, "conv1"), "conv1", 7, 2)
        x = self._take(x, ("ZeroPadding2D",), "padding by 3", {"padding": ([[3, 3], [3, 3]],)})
        self._input(x)
        for key in self._left:
            raise refused(self._layers[key], "has no place in the network")
        return tuple(dense)

    def _head(self, x: str) -> tuple[str, list[str]]:
        """Check the Dense layers, with ReLU between them and softmax or nothing after the last one."""
        dense: list[KerasLayer] = []
        active: list[tuple[KerasLayer, str]] = []
        shapes: list[KerasLayer] = []
        while (layer := self._layer(x, "a Dense layer")).kind in _HEAD:
            if layer.kind in ("Dense", *_ACTIVATIONS) and (name := activation_of(layer)) != "linear":
                active.append((layer, name))
            if layer.kind in ("Flatten", "Reshape"):
                shapes.append(layer)
            if layer.kind == "Dense":
                self._check_activation(layer, [name for _, name in active], last=not dense)
                for shape in () if dense else shapes:
                    _check_groups(shape, layer)
                dense, active, shapes = [layer, *dense], [], []
            x = self._pass(x, {})
        if shapes and layer.kind == "Add":
            raise refused(shapes[0], "stands where the mean over the picture is read (GlobalAveragePooling2D)")
        if not dense:
            raise refused(layer, "stands at the model's end, where a Dense layer is read")
        if active and layer.kind == "GlobalAveragePooling2D":
            first, name = active[0]
            raise refused(first, f"applies {name} between the pooling and the Dense layer {dense[0].name}")
        return x, [layer.name for layer in dense]

    @staticmethod
    def _check_activation(layer: KerasLayer, active: Sequence[str], *, last: bool) -> None:
        if list(active) not in ([[], ["softmax"]] if last else [["relu"]]):
            expected = "softmax or nothing" if last else "relu, once"
            actual = ", ".join(reversed(active)) or "nothing"
            raise CheckpointError(f"after layer {layer.name} comes {actual}; read is {expected}. {TO_ONNX}")

    def _blocks(self, stage: int) -> int:
        prefix, suffix = f"conv{stage}_block", "_1_conv/kernel"
        return sum(name.startswith(prefix) and name.endswith(suffix) for name in self._names)

    def _block(self, x: str, prefix: str, stride: int) -> str:
        x = self._relu(x, f"{prefix}_out")
        add = self._layer(self._idle(x), f"{prefix}_add")
        sources = list(add.sources or ())
        if add.kind != "Add" or len(sources) != 2:
            raise refused(add, f"stands where the sum of {prefix} is read")
        check_settings(add, {})
        self._left.pop(add.key, None)
        shortcut = f"{prefix}_0_conv/kernel" in self._names
        ends = [self._layer(self._idle(key), prefix) for key in sources]
        if shortcut:
            ends.sort(key=lambda end: end.name == f"{prefix}_0_bn")
        else:
            ends.sort(key=lambda end: end.name != f"{prefix}_3_bn")
        branch, other = (end.key for end in ends)
        y = self._relu(self._conv_norm(branch, f"{prefix}_3", 1, 1), f"{prefix}_2")
        y = self._relu(self._conv_norm(y, f"{prefix}_2", 3, 1), f"{prefix}_1")
        before = self._idle(self._conv_norm(y, f"{prefix}_1", 1, stride))
        beside = self._idle(self._conv_norm(other, f"{prefix}_0", 1, stride) if shortcut else other)
        if before != beside:
            raise refused(add, f"adds what comes from {beside}, where {before} is read")
        return before

    def _conv_norm(self, x: str, prefix: str, size: int, stride: int) -> str:
        x = self._take(x, ("BatchNormalization",), f"{prefix}_bn", name=f"{prefix}_bn")
        same = {1: ("valid", "same"), 3: ("same",), 7: ("valid",)}[size]
        bias = (f"{prefix}_conv/bias" in self._names,)
        settings = {"kernel_size": ([size] * 2,), "strides": ([stride] * 2,), "padding": same, "use_bias": bias}
        return self._take(x, ("Conv2D",), f"{prefix}_conv", settings, name=f"{prefix}_conv")

    def _relu(self, x: str, place: str) -> str:
        return self._take(x, ("Activation", "ReLU"), f"the ReLU of {place}", {"activation": ("relu",)})

    def _input(self, x: str) -> None:
        x = self._idle(x)
        if not x:  # a Sequential model that leaves its input out
            return
        layer = self._layer(x, "the input")
        if layer.kind != "InputLayer":
            raise refused(layer, "changes the picture before the network, which the weights do not show")
        check_settings(layer, {})
        self._left.pop(x, None)

    # One layer

    def _layer(self, key: str, place: str) -> KerasLayer:
        if key not in self._layers:
            raise CheckpointError(f"the model's configuration has nothing where {place} is read. {TO_ONNX}")
        return self._layers[key]

    def _idle(self, x: str) -> str:
        """Return the key of the first layer, from `x` backwards, that does something."""
        while x in self._layers and self._does_nothing(self._layers[x]):
            x = self._pass(x, {})
        return x

    @staticmethod
    def _does_nothing(layer: KerasLayer) -> bool:
        return layer.kind in IDLE_LAYERS or (layer.kind == "Activation" and activation_of(layer) == "linear")

    def _take(
        self,
        x: str,
        kinds: tuple[str, ...],
        place: str,
        settings: dict[str, Any] | None = None,
        name: str | None = None,
    ) -> str:
        layer = self._layer(self._idle(x), place)
        if layer.kind not in kinds or name not in (None, layer.name):
            raise refused(layer, f"stands where {place} is read ({' or '.join(kinds)})")
        settings = settings or {}
        return self._pass(layer.key, {} if layer.kind == "ReLU" else settings)

    def _pass(self, key: str, settings: dict[str, Any]) -> str:
        """Check the settings of the layer `key`, and return the key of the one layer before it."""
        layer = self._layers[key]
        check_settings(layer, settings, idle=layer.kind in IDLE_LAYERS)
        sources = layer.sources or ()
        if len(sources) > 1:
            raise refused(layer, f"takes {len(sources)} inputs, not one")
        self._left.pop(key, None)
        return sources[0] if sources else ""


def _check_groups(shape: KerasLayer, last: KerasLayer) -> None:
    """Check that a Reshape after the last Dense layer only separates one corner's grades from the other's."""
    if shape.kind == "Flatten":
        return
    units, target = last.config.get("units"), shape.config.get("target_shape")
    groups = _CORNER_GRADES if units == 2 * _CORNER_GRADES else units
    if not isinstance(target, (list, tuple)) or not target or target[-1] not in (groups, units):
        raise refused(shape, f"gives the outputs the shape {target}, not groups of {groups}")
