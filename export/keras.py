"""Reads Keras' weights without Keras: `.h5` (whole model and weights only), `.weights.h5` and `.keras`.

Tensors are named "<layer>/<variable>" (`conv1_conv/kernel`), without the submodels around the layer.

Keras 2, and the `.h5` files of Keras 3, name each variable. `.weights.h5` and `.keras` number them by class instead
("layers/conv2d_3/vars/0", keras/src/saving/saving_lib.py). The name of layer `conv2d_3` then comes from the model's
configuration; else from the name that newer Keras 3 writes beside the variables; else from the order in which Keras
lists the layers of its own ResNets. If none of them decides, the file is refused.
The configuration is read for names and settings; nothing in it is built or run.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spinescore.export.hdf5 import Dataset, Group, read_hdf5
from spinescore.export.keras_advice import TO_FUNCTIONAL
from spinescore.export.keras_alone import check_classes, check_names, resnet_names
from spinescore.export.keras_config import KerasLayer, connected_layers, layer_of, model_in, parse_config, slots_of
from spinescore.export.untrusted import Zip, array_from, as_float32, check_total
from spinescore.runtime.errors import CheckpointError

__all__ = ["read_h5", "read_keras"]

Tensors = dict[str, NDArray[np.float32]]

_CONTAINERS = ("layers", "_layer_checkpoint_dependencies")  # Keras >= 2.13, Keras 2.12
_NOT_THE_MODEL = ("optimizer", "optimizer_weights", "top_level_model_weights")
_METRICS = re.compile(r"(^|_)(metrics|tracker)$")
_VARIABLES = {
    "conv2d": ("kernel", "bias"),
    "dense": ("kernel", "bias"),
    "batch_normalization": ("gamma", "beta", "moving_mean", "moving_variance"),
}


@dataclass(frozen=True)
class _Leaf:
    """One layer's variables in a file that numbers them; `slot` is its place, as "layers/conv2d_3"."""

    slot: str
    kind: str
    number: int
    layer: KerasLayer | None
    name: str | None
    variables: tuple[Dataset, ...]


def read_keras(archive: Zip) -> tuple[Tensors, tuple[KerasLayer, ...]]:
    """Return the tensors and layers of a `.keras` file: a zip of the configuration and a `.weights.h5`."""
    for name in ("config.json", "model.weights.h5"):
        if name not in archive.entries:
            raise CheckpointError(f"the .keras archive has no entry {name!r}; save the model again")
    return read_h5(archive.read("model.weights.h5"), archive.read("config.json").decode("utf-8", "replace"))


def read_h5(data: bytes, config: str | None = None) -> tuple[Tensors, tuple[KerasLayer, ...]]:
    """Return the tensors and layers of an HDF5 file; `config` is the configuration if it lies outside the file."""
    root = read_hdf5(data)
    stated = root.attributes.get("model_config") if config is None else config
    whole = parse_config(stated) if stated and isinstance(stated, str) else None
    weights = root.groups.get("model_weights", root)
    if (layers := _names(weights, "layer_names")) is not None:
        datasets = dict(_by_name(weights))
    elif any(container in root.groups for container in _CONTAINERS):
        datasets = dict(_by_number(root, model_in(whole) if whole is not None else None))
    else:
        raise CheckpointError("the HDF5 file holds no weights of a Keras model; save them with model.save_weights(..)")
    check_total({name: dataset.raw.nbytes for name, dataset in datasets.items()}, len(data))
    arrays = ((name, as_float32(name, _array(dataset))) for name, dataset in datasets.items())
    tensors = {name: array for name, array in arrays if array is not None}
    if whole is not None:
        return tensors, connected_layers(whole)
    if layers is not None:
        check_names(layers, [layer for layer in layers if any(_all(weights.groups[layer]))], tensors)
    else:
        check_classes(list(_classes(root)), tensors)
    return tensors, ()


def _array(dataset: Dataset) -> NDArray[np.generic]:
    dtype = dataset.dtype
    if dtype == "opaque" and dataset.attributes.get("dtype") == "bfloat16":  # as Keras 3 writes it
        dtype = "bfloat16"
    if dtype in ("opaque", "other", "text", "heap text"):
        raise CheckpointError(f"entry {dataset.path!r} holds no numbers that are known here; save it as float32")
    return array_from(dataset.raw, dtype, dataset.shape)


# Files that name their variables


def _names(group: Group, attribute: str) -> list[str] | None:
    """Return a list of names; Keras cuts a long one into `attribute0`, `attribute1`, .. None if there is none."""
    if attribute in group.attributes:
        value = group.attributes[attribute]
        return value if isinstance(value, list) else None
    chunks: list[str] = []
    number = 0
    while isinstance(chunk := group.attributes.get(f"{attribute}{number}"), list):
        chunks += chunk
        number += 1
    return chunks if number else None


def _by_name(weights: Group) -> Iterator[tuple[str, Dataset]]:
    """Yield each variable's name and dataset, in the file's order of layers and weights."""
    taken: dict[str, str] = {}
    for layer in _names(weights, "layer_names") or []:
        group = weights.groups.get(layer)
        if group is None:
            raise CheckpointError(f"layer {layer!r} is missing from the file; it is truncated or damaged")
        for weight in _names(group, "weight_names") or []:
            parts = [re.sub(r":\d+$", "", part) for part in weight.split("/")]
            name = "/".join(parts[-2:]) if len(parts) > 1 else f"{layer}/{parts[0]}"
            dataset = _find(group, weight)
            if name in taken:
                raise _twice(name)
            taken[name] = dataset.path
            yield name, dataset
    used = set(taken.values())
    for dataset in _all(weights, skip=_NOT_THE_MODEL):
        if dataset.path not in used:
            raise CheckpointError(f"entry {dataset.path!r} belongs to no layer that the file names; it is damaged")


def _find(group: Group, path: str) -> Dataset:
    *folders, last = path.split("/")
    try:
        for folder in folders:
            group = group.groups[folder]
        return group.datasets[last]
    except KeyError:
        raise CheckpointError(f"variable {path!r} is missing from the file; it is truncated or damaged") from None


def _all(group: Group, skip: tuple[str, ...] = ()) -> Iterator[Dataset]:
    yield from group.datasets.values()
    for name, inner in group.groups.items():
        if name not in skip:
            yield from _all(inner)


# Files that number their variables


def _by_number(root: Group, tree: dict[str, Any] | None) -> Iterator[tuple[str, Dataset]]:
    leaves = [leaf for leaf in _leaves(root, tree, "") if leaf.variables]
    unnamed = [leaf for leaf in leaves if leaf.name is None]
    names = resnet_names([(leaf.slot, leaf.kind, leaf.number, leaf.variables[0].shape) for leaf in unnamed])
    taken: set[str] = set()
    for leaf in leaves:
        layer = leaf.name if leaf.name is not None else names[leaf.slot]
        if layer in taken:
            raise _twice(layer)
        taken.add(layer)
        for variable, dataset in zip(_variables(leaf), leaf.variables, strict=True):
            yield f"{layer}/{variable}", dataset


def _leaves(group: Group, tree: dict[str, Any] | None, path: str) -> Iterator[_Leaf]:
    """Yield the layers below a model's group, those of nested models included."""
    for name, inner in group.groups.items():
        if not path and (name in (*_NOT_THE_MODEL, "vars") or _METRICS.search(name)):
            continue
        if name in _CONTAINERS:
            yield from _container(inner, tree, f"{path}{name}/")
        elif not path and tree is None and any(_all(inner)):
            raise CheckpointError(
                f"the file is of a model of a class of its own, which keeps layers in {name!r}; what it computes with "
                f"them is code, which is not read. {TO_FUNCTIONAL}"
            )
        elif name != "vars":  # other parts of a layer or a model: a seed, a layer that it wraps
            yield from _slot(name, inner, None, f"{path}{name}", listed=False)


def _container(group: Group, tree: dict[str, Any] | None, path: str) -> Iterator[_Leaf]:
    entries = slots_of(tree) if tree is not None else {}
    order = {slot: place for place, slot in enumerate(entries)}
    for slot in sorted(group.groups, key=lambda name: (order.get(name, len(order)), *_class_and_number(name))):
        entry = entries.get(slot)
        if tree is not None and entry is None and any(_all(group.groups[slot])):
            raise CheckpointError(f"entry {path + slot!r} belongs to no layer of the model's configuration")
        yield from _slot(slot, group.groups[slot], entry, path + slot, listed=tree is not None)


def _classes(group: Group) -> Iterator[str]:
    """Yield the class of every layer that a file lists, with and without variables."""
    for name in _CONTAINERS:
        for slot, inner in (group.groups[name].groups if name in group.groups else {}).items():
            yield _class_and_number(slot)[0]
            yield from _classes(inner)


def _slot(slot: str, group: Group, entry: dict[str, Any] | None, path: str, *, listed: bool) -> Iterator[_Leaf]:
    """Yield one layer's own variables, then those of the layers inside it.

    `listed` says whether the configuration lists the layer; then layers inside it that it does not list are refused.
    """
    variables = group.groups.get("vars")
    kind, number = _class_and_number(slot)
    if variables is not None:
        name = variables.attributes.get("name")
        stated = name if isinstance(name, str) else None
        layer = layer_of(entry) if entry is not None else None
        if layer is not None and stated not in (None, layer.name):
            raise CheckpointError(
                f"entry {path!r} is layer {stated!r} by its own name, {layer.name!r} by the configuration"
            )
        numbers = list(map(str, range(len(variables.datasets))))
        if set(variables.datasets) != set(numbers):
            raise CheckpointError(f"entry {path + '/vars'!r} does not number its variables from 0; it is damaged")
        values = tuple(variables.datasets[key] for key in numbers)
        yield _Leaf(path, kind, number, layer, layer.name if layer is not None else stated, values)
    nested = model_in(entry) if entry is not None else None
    if listed and nested is None and any(container in group.groups for container in _CONTAINERS):
        nested = {"layers": []}
    yield from _leaves(group, nested, path + "/")


def _variables(leaf: _Leaf) -> list[str]:
    """Return the names of a layer's variables, in the order in which Keras numbers them."""
    count, names = len(leaf.variables), list(_VARIABLES.get(leaf.kind, ()))
    if leaf.kind == "batch_normalization" and count != 4:
        config = leaf.layer.config if leaf.layer is not None else {}
        left_out = {name for name, key in (("gamma", "scale"), ("beta", "center")) if config.get(key) is False}
        names = [name for name in names if name not in left_out] if config or count != 2 else names[2:]
        if len(names) != count:
            raise CheckpointError(f"entry {leaf.slot!r} has {count} variables, and nothing says which; save as .keras")
        return names
    if not names:
        return [f"vars/{index}" for index in range(count)]
    if count > len(names):
        raise CheckpointError(f"entry {leaf.slot!r} has {count} variables, more than a {leaf.kind} layer has")
    return names[:count]


def _class_and_number(slot: str) -> tuple[str, int]:
    match = re.fullmatch(r"(.*?)(?:_(\d{1,6}))?", slot, re.DOTALL)
    return (match[1], int(match[2] or 0)) if match else (slot, 0)


def _twice(name: str) -> CheckpointError:
    return CheckpointError(f"{name!r} stands twice in the file, in two submodels; give a file with one network in it")
