"""Connects the layers of a Keras model by its configuration; nested models are replaced by their layers.

Keras 2 writes a call as `[[name, node, tensor, kwargs], ..]` (keras/src/engine/functional.py), Keras 3 as
`{"args": .., "kwargs": ..}` with tensors as `__keras_tensor__` (keras/src/models/functional.py). A Sequential model is
a chain and has no calls. Only graphs with one input and one output, whose layers are called once each, are connected.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from spinescore.export.keras_advice import TO_ONNX
from spinescore.export.keras_layers import kind_of, layer_of, model_in
from spinescore.export.untrusted import KerasLayer
from spinescore.runtime.errors import CheckpointError

__all__ = ["connected_layers"]

_MODELS = ("Functional", "Model", "Sequential")
_INPUT = "InputLayer"
_NEUTRAL = (("training", False), ("mask", None), ("training", None))  # arguments of a call that change nothing


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
    if model is None or kind_of(entry) not in _MODELS:
        raise _refused(
            f"the model {'/'.join(path) or entry.get('name', '')!r} is a {kind_of(entry)}, a class of its own"
        )
    chain = kind_of(entry) == "Sequential"
    if not chain:
        for side in ("input", "output"):
            ends = list(_references(model.get(f"{side}_layers")))
            if len(ends) != 1:
                raise _refused(f"the model {_named(model)} has {len(ends)} {side}s ({_shown(ends)}), not one")
    outputs: dict[str, str | None] = {}
    last = source
    for layer in model["layers"]:
        name = str(layer_of(layer).name) if model_in(layer) is None else _name(layer)
        if name in outputs:
            raise _refused(f"two layers are called {name!r}")
        if kind_of(layer) == _INPUT and source is not None:
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
    if kind_of(entry) == _INPUT and not calls:
        return []
    if len(calls) != 1:
        raise _refused(f"layer {name!r} ({kind_of(entry)}) is called {len(calls)} times, not once")
    call = calls[0]
    keys: list[str] = []
    for tensor, arguments in _call_3(call, name) if isinstance(call, dict) else _call_2(call, name):
        for argument, value in arguments.items():
            if (argument, value) not in _NEUTRAL and value is not None:
                shown = "an argument of its own" if isinstance(value, (dict, list)) else f"{argument}={str(value)[:40]}"
                raise _refused(f"layer {name!r} ({kind_of(entry)}) is called with {shown}")
        if tensor is None:
            continue
        source, _, number = tensor  # the node's number counts calls outside of this model too
        if number != 0:
            raise _refused(f"layer {name!r} ({kind_of(entry)}) takes another than the first output of {source!r}")
        key = outputs.get(source) if isinstance(source, str) else None
        if key is None:
            raise _refused(
                f"layer {name!r} ({kind_of(entry)}) takes {str(source)[:40]!r}, which does not come before it"
            )
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


def _name(entry: dict[str, Any]) -> str:
    model = model_in(entry) or {}
    return str(entry.get("name") or model.get("name") or entry["class_name"])


def _named(model: dict[str, Any]) -> str:
    return repr(str(model.get("name", "")))


def _shown(names: list[str]) -> str:
    return ", ".join(names[:5]) + (", .." if len(names) > 5 else "")


def _refused(why: str) -> CheckpointError:
    return CheckpointError(f"{why}, so it is not read as a ResNet. {TO_ONNX}")
