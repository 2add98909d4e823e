"""A Keras model's configuration (JSON), read for names and settings; nothing in it is built or run."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Any

from spinescore.export.keras_advice import TO_FUNCTIONAL, TO_ONNX
from spinescore.export.untrusted import KerasLayer
from spinescore.runtime.errors import CheckpointError

__all__ = ["kind_of", "layer_of", "model_in", "parse_config", "slot_class", "slots_of"]

_KERAS = re.compile(r"(tf_)?keras(\.src)?(\.(layers|models|engine)(\..*)?)?")


def parse_config(text: str) -> dict[str, Any]:
    """Return the configuration of the whole model (class, `config`, layers). Refuses code inside it."""
    try:
        tree: object = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"the model's configuration is damaged ({error}); save the model again") from None
    model = model_in(tree) if isinstance(tree, dict) else None
    if not isinstance(tree, dict) or model is None:
        raise CheckpointError(
            f"the model's configuration lists no layers, as it is of a class of its own. {TO_FUNCTIONAL}"
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
    _check_names(model)
    whole: dict[str, Any] = tree
    return whole


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


def kind_of(entry: dict[str, Any]) -> str:
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
    return KerasLayer(name, kind_of(entry), config, path)


def _check_names(model: dict[str, Any]) -> None:
    for entry in model["layers"]:
        inner = model_in(entry)
        if inner is None:
            layer_of(entry)
        else:
            _check_names(inner)


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
