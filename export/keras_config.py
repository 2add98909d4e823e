"""A Keras model's configuration (JSON): its layers, connected. Nothing in it is built or run.

Nested models are replaced by their layers. Keras 2 writes a call as `[[name, node, tensor, kwargs], ..]`
(keras/src/engine/functional.py), Keras 3 as `{"args": .., "kwargs": ..}` with tensors as `__keras_tensor__`
(keras/src/models/functional.py). A Sequential model is a chain and has no calls. Only graphs with one input and one
output, whose layers are called once each, are connected.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from spinescore.export.keras_advice import TO_FUNCTIONAL, TO_ONNX
from spinescore.runtime.errors import CheckpointError

__all__ = ["KerasLayer", "connected_layers", "layer_of", "model_in", "parse_config", "slot_class", "slots_of"]

_KERAS = re.compile(r"(tf_)?keras(\.src)?(\.(layers|models|engine)(\..*)?)?")
_MODELS = ("Functional", "Model", "Sequential")
_INPUT = "InputLayer"
_NEUTRAL = (("training", False), ("mask", None), ("training", None))  # arguments of a call that change nothing


@dataclass(frozen=True)
class KerasLayer:
    """One layer of a Keras model's configuration; `path` are the names of the submodels around it.

    `sources` are the keys of the layers whose outputs it takes; None if the configuration was not connected.
    """

    name: str
    kind: str  # Keras' class name: Conv2D, BatchNormalization, Dense, ..; of another package, with its module
    config: dict[str, object]
    path: tuple[str, ...] = ()
    sources: tuple[str, ...] | None = None

    @property
    def key(self) -> str:
        return "/".join((*self.path, self.name))


def parse_config(text: str) -> dict[str, Any]:
    """Return the configuration of the whole model (class, `config`, layers). Refuses code inside it."""
    try:
        tree: object = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"the model's configuration is damaged ({error}); save the model again") from None
    if not isinstance(tree, dict) or model_in(tree) is None:
        raise CheckpointError(
            f"the model's configuration lists no layers: it is of a class of its own. {TO_FUNCTIONAL}"
        )
    pending: list[Any] = [tree.get("config")]
    while pending:
        item = pending.pop()
        if isinstance(item, dict):
            kind = item.get("class_name")
            if isinstance(kind, str) and (kind.endswith("Lambda") or kind == "__lambda__"):
                label = item.get("name") or (item.get("config") or {}).get("name") if kind != "__lambda__" else kind
                raise CheckpointError(
                    f"layer {label!r} of the model is a {kind}: code that only Keras can run, which is not read. "
                    f"{TO_ONNX}"
                )
            pending.extend(item.values())
        elif isinstance(item, list):
            pending.extend(item)
    return tree


def model_in(entry: dict[str, Any]) -> dict[str, Any] | None:
    """Return a model's configuration as one dictionary with `layers`; None for a plain layer."""
    config = entry.get("config")
    if isinstance(config, list):  # Sequential models before Keras 2.2.3
        config = {"layers": config}
    if not isinstance(config, dict) or not isinstance(config.get("layers"), list):
        return None
    for layer in config["layers"]:
        if not isinstance(layer, dict) or not isinstance(layer.get("class_name"), str):
            raise CheckpointError("the model's configuration has a layer without a class; it is damaged")
    return config


def _kind_of(entry: dict[str, Any]) -> str:
    """Return the entry's class: the name alone for Keras' own layers and models, else with its module."""
    kind, module, registered = entry["class_name"], entry.get("module"), entry.get("registered_name")
    if isinstance(registered, str) and registered != kind:
        return registered
    return kind if module is None or _KERAS.fullmatch(str(module)) else f"{module}.{kind}"


def layer_of(entry: dict[str, Any], path: tuple[str, ...] = ()) -> KerasLayer:
    """Return the layer that `entry` describes, inside the models `path`; its `sources` are not set."""
    config = entry.get("config")
    config = config if isinstance(config, dict) else {}
    name = config.get("name") or entry.get("name")
    if not isinstance(name, str):
        raise CheckpointError(f"a {entry['class_name']} layer of the model's configuration has no name")
    return KerasLayer(name, _kind_of(entry), config, path)


def slots_of(tree: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return a model's layers by slot ("conv2d_3"): in order, counted by class. Operators have no slot."""
    counts: Counter[str] = Counter()
    result = {}
    for entry in tree["layers"]:
        if ".ops." in str(entry.get("module")):
            continue
        kind = slot_class(entry["class_name"])
        result[f"{kind}_{counts[kind]}" if counts[kind] else kind] = entry
        counts[kind] += 1
    return result


def slot_class(kind: str) -> str:
    """Return the name of the slots of a class: `zero_padding2d` for `ZeroPadding2D`."""
    kind = re.sub(r"\W+", "", kind)
    kind = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", kind)
    return re.sub("([a-z])([A-Z])", r"\1_\2", kind).lower()


def connected_layers(root: dict[str, Any]) -> tuple[KerasLayer, ...]:
    """Return every layer that is no model itself, each after its inputs, with `sources` set.

    `root` is the whole configuration, as `parse_config` gives it. Raises `CheckpointError` for several inputs or
    outputs, and for layers that are called twice or with arguments of their own.
    """
    layers: dict[str, KerasLayer] = {}
    _open(root, None, (), layers)
    taken = {source for layer in layers.values() for source in layer.sources or ()}
    ends = [key for key in layers if key not in taken]
    if len(ends) > 1:
        raise _refused(f"the model has {len(ends)} ends ({_shown(ends)}), not one output")
    return tuple(layers.values())


def _open(
    entry: dict[str, Any], source: str | None, path: tuple[str, ...], layers: dict[str, KerasLayer]
) -> str | None:
    """Add the layers of the model `entry`, whose input is layer `source`; return its end's key."""
    model = model_in(entry)
    if model is None or _kind_of(entry) not in _MODELS:
        raise _refused(f"the model {'/'.join(path) or entry.get('name')!r} is a {_kind_of(entry)}, a class of its own")
    chain = _kind_of(entry) == "Sequential"
    for side in () if chain else ("input", "output"):
        ends = list(_references(model.get(f"{side}_layers")))
        if len(ends) != 1:
            raise _refused(f"the model {str(model.get('name', ''))!r} has {len(ends)} {side}s ({_shown(ends)}), not 1")
    outputs: dict[str, str | None] = {}
    last = source
    for layer in model["layers"]:
        inner = model_in(layer)
        named = layer_of(layer).name if inner is None else layer.get("name") or inner.get("name")
        name = str(named or layer["class_name"])
        if name in outputs:
            raise _refused(f"two layers are called {name!r}")
        if _kind_of(layer) == _INPUT and source is not None:
            outputs[name] = source
            continue
        sources = ([last] if last is not None else []) if chain else _sources(layer, name, outputs)
        last = _add(layer, sources, (*path, name), layers)
        outputs[name] = last
    if chain:
        return last
    (output,) = _references(model["output_layers"])
    if output not in outputs:
        raise _refused(f"the output {output!r} is no layer of the model")
    return outputs[output]


def _add(entry: dict[str, Any], sources: list[str], path: tuple[str, ...], layers: dict[str, KerasLayer]) -> str | None:
    if model_in(entry) is not None:
        if len(sources) > 1:
            raise _refused(f"the model {path[-1]!r} takes {len(sources)} inputs, not one")
        return _open(entry, sources[0] if sources else None, path, layers)
    key = "/".join(path)
    layers[key] = replace(layer_of(entry, path[:-1]), sources=tuple(sources))
    return key


def _sources(entry: dict[str, Any], name: str, outputs: dict[str, str | None]) -> list[str]:
    """Return the keys of the layers whose outputs the layer `entry` takes."""
    calls = entry.get("inbound_nodes")
    calls = calls if isinstance(calls, list) else []
    if _kind_of(entry) == _INPUT and not calls:
        return []
    layer, keys = f"layer {name!r} ({_kind_of(entry)})", []
    if len(calls) != 1:
        raise _refused(f"{layer} is called {len(calls)} times, not once")
    call = calls[0]
    for tensor, arguments in _call_3(call, name) if isinstance(call, dict) else _call_2(call, name):
        for argument, value in arguments.items():
            if (argument, value) not in _NEUTRAL and value is not None:
                shown = "an argument of its own" if isinstance(value, (dict, list)) else f"{argument}={str(value)[:40]}"
                raise _refused(f"{layer} is called with {shown}")
        if tensor is None:
            continue
        source, _, number = tensor  # the node's number counts calls outside of this model too
        if number != 0:
            raise _refused(f"{layer} takes another than the first output of {source!r}")
        key = outputs.get(source) if isinstance(source, str) else None
        if key is None:
            raise _refused(f"{layer} takes {str(source)[:40]!r}, which does not come before it")
        keys.append(key)
    return keys


_Call = Iterator[tuple[list[Any] | None, dict[str, Any]]]


def _call_3(call: dict[str, Any], name: str) -> _Call:
    pending = [call.get("args")]
    while pending:
        item = pending.pop(0)
        if isinstance(item, list):
            pending = item + pending
        elif isinstance(item, dict) and item.get("class_name") == "__keras_tensor__":
            history = (item.get("config") or {}).get("keras_history")
            if not isinstance(history, list) or len(history) != 3:
                raise _refused(f"layer {name!r} takes a tensor without its origin")
            yield history, {}
        elif item is not None:
            yield None, {"argument": item}
    kwargs = call.get("kwargs")
    yield None, kwargs if isinstance(kwargs, dict) else {}


def _call_2(call: Any, name: str) -> _Call:
    tensors = [call] if isinstance(call, list) and call and isinstance(call[0], str) else call
    for tensor in tensors if isinstance(tensors, list) else [None]:
        if not isinstance(tensor, list) or not 3 <= len(tensor) <= 4:
            raise _refused(f"layer {name!r} takes a tensor without its origin")
        kwargs = tensor[3] if len(tensor) > 3 else {}
        yield tensor[:3], kwargs if isinstance(kwargs, dict) else {"argument": kwargs}


def _references(value: Any) -> Iterator[str]:
    """Yield the names in `input_layers` or `output_layers`: one `[name, 0, 0]`, or a list or dictionary of them."""
    if isinstance(value, list) and len(value) == 3 and isinstance(value[0], str):
        yield value[0]
    elif isinstance(value, (list, dict)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _references(item)


def _shown(names: list[str]) -> str:
    return ", ".join(names[:5]) + (", .." if len(names) > 5 else "")


def _refused(why: str) -> CheckpointError:
    return CheckpointError(f"{why}, so it is not read as a ResNet. {TO_ONNX}")
