"""A Keras model's configuration (JSON), read for names and settings; nothing in it is built or run."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

from spinescore.export.untrusted import KerasLayer
from spinescore.runtime.errors import CheckpointError

__all__ = ["layer_of", "layers_of", "model_in", "parse_config", "slots_of"]


def parse_config(text: str) -> dict[str, Any]:
    """The model's configuration, refused where it holds code of its own."""
    try:
        tree = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"the model's configuration is damaged ({error}); save the model again") from None
    model = model_in(tree) if isinstance(tree, dict) else None
    if model is None:
        raise CheckpointError("the model's configuration lists no layers; save a Functional or Sequential model")
    pending: list[Any] = [tree.get("config")]
    while pending:
        item = pending.pop()
        if isinstance(item, dict):
            kind = item.get("class_name")
            if isinstance(kind, str) and (kind.endswith("Lambda") or kind == "__lambda__"):
                label = item.get("name") or (item.get("config") or {}).get("name") if kind != "__lambda__" else kind
                raise CheckpointError(
                    f"layer {label!r} of the model is a {kind}: code that only Keras can run, which is not read. "
                    "Save the network without it (preprocessing belongs in the bundle's manifest), or export it to ONNX"
                )
            pending.extend(item.values())
        elif isinstance(item, list):
            pending.extend(item)
    list(layers_of(model))  # each has a name, or this raises
    return model


def model_in(entry: dict[str, Any]) -> dict[str, Any] | None:
    """The configuration of a model, as one dictionary with `layers`; None for a plain layer."""
    config = entry.get("config")
    if isinstance(config, list):  # Sequential models before Keras 2.2.3
        config = {"layers": config}
    if not isinstance(config, dict) or not isinstance(config.get("layers"), list):
        return None
    for layer in config["layers"]:
        if not isinstance(layer, dict) or not isinstance(layer.get("class_name"), str):
            raise CheckpointError("the model's configuration has a layer without a class; it is damaged")
    return config


def layer_of(entry: dict[str, Any], path: tuple[str, ...] = ()) -> KerasLayer:
    config = entry.get("config")
    config = config if isinstance(config, dict) else {}
    name = config.get("name") or entry.get("name")
    if not isinstance(name, str):
        raise CheckpointError(f"a {entry['class_name']} layer of the model's configuration has no name")
    return KerasLayer(name, entry["class_name"], config, path)


def layers_of(tree: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[KerasLayer]:
    """Every layer that is no model itself, in the configuration's order."""
    for entry in tree["layers"]:
        inner = model_in(entry)
        if inner is None:
            yield layer_of(entry, path)
        else:
            yield from layers_of(inner, (*path, str(inner.get("name", entry["class_name"]))))


def slots_of(tree: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The slots of a model's layers ("conv2d_3"): its layers in order, counted by class."""
    counts: Counter[str] = Counter()
    result = {}
    for entry in tree["layers"]:
        kind = re.sub(r"\W+", "", entry["class_name"])
        kind = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", kind)
        kind = re.sub("([a-z])([A-Z])", r"\1_\2", kind).lower()
        result[f"{kind}_{counts[kind]}" if counts[kind] else kind] = entry
        counts[kind] += 1
    return result
