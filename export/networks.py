"""Opens the networks of an export, checks that they fit together, and brings a grader's outputs in order."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import onnx
from onnx import helper, numpy_helper

from spinescore.export.defaults import input_size
from spinescore.export.resnet152 import head_of
from spinescore.export.sources import Kind, Network, open_network, split_sources
from spinescore.export.untrusted import naming
from spinescore.runtime.errors import BundleError, CheckpointError
from spinescore.runtime.manifest import CLASSES
from spinescore.runtime.manifest.localizer import NAME_RULE, is_alternative_name

__all__ = ["columns_of", "in_bundle_order", "open_alternatives", "open_graders", "open_localizers"]

Document = dict[str, Any]


def open_localizers(text: str, overrides: Document) -> list[Network]:
    """Open one localizer for both regions, or one for each.

    Raises `CheckpointError`, and `BundleError` for the input in `overrides`.
    """
    networks = _open(text, ("cervical", "lumbar"), "localizer", overrides)
    if len({_kind(network) for network in networks}) > 1:
        raise CheckpointError(
            f"the localizers of {text} differ in channels, heatmaps or preprocessing; they share one input"
        )
    return networks


def open_alternatives(texts: Sequence[str], localizers: Sequence[Network], overrides: Document) -> list[Network]:
    """Open the networks of every `NAME=F`, with `F` as for the localizer. Raises `CheckpointError`.

    They must have the same regions, input, heatmaps and preprocessing as `localizers`.
    """
    alternatives: dict[str, list[Network]] = {}
    for text in texts:
        name, equals, source = text.partition("=")
        if not (equals and source):
            raise CheckpointError(f"the alternative {text!r} is not NAME=FILE, as w18=narrow.pth")
        if not is_alternative_name(name):
            raise CheckpointError(f"the alternative {text!r}: {NAME_RULE}")
        if name in alternatives:
            raise CheckpointError(f"two alternatives are called {name!r}; give each a name of its own")
        alternatives[name] = [replace(network, alternative=name) for network in open_localizers(source, overrides)]
        if [network.role for network in alternatives[name]] != [network.role for network in localizers]:
            raise CheckpointError(
                f"the alternative {name} must be given as the localizer is: FILE, or cervical=FILE,lumbar=FILE"
            )
        if _kind(alternatives[name][0]) != _kind(localizers[0]):
            theirs, ours = (
                f"{network.channels} channels, {network.outputs} heatmaps and {network.preprocessing} preprocessing"
                for network in (alternatives[name][0], localizers[0])
            )
            raise CheckpointError(f"the alternative {name} has {theirs}, the localizer {ours}; they must answer alike")
    return [network for networks in alternatives.values() for network in networks]


def open_graders(text: str, overrides: Document) -> tuple[str, list[Network]]:
    """Return the head's name, and its networks. Raises the same errors as `open_localizers`."""
    networks = _open(text, ("bridge", "grades"), "grader", overrides)
    heads = []
    for network in networks:
        source = network.provenance["source"]
        with naming(source):
            head = head_of(network.outputs)
        heads.append(head)
        fits = head in ("corners4", "corner4") if network.role == "corners" else head == network.role
        if not fits:
            role = "" if network.role == "corners" else f"{network.role}: "
            raise CheckpointError(
                f"{role}{source}: has {network.outputs} outputs ({head}); a grader alone has 8 or 4, a pair "
                "bridge=FILE,grades=FILE has 2 and 3"
            )
    if len({(network.channels, network.preprocessing) for network in networks}) > 1:
        raise CheckpointError(f"the graders of {text} differ in channels or preprocessing; both see the same crops")
    return heads[0] if len(networks) == 1 else "bridge+grades", networks


def _open(text: str, keys: tuple[str, str], kind: Kind, overrides: Document) -> list[Network]:
    """Open one network, or one for each of `keys`. An error names its key: two files may have the same name."""
    size = input_size(overrides, kind)
    networks = []
    for role, source in split_sources(text, keys).items():
        with naming(role):
            networks.append(open_network(source, kind, role or ("corners" if kind == "grader" else ""), size))
    return networks


def _kind(network: Network) -> tuple[int, int, str]:
    return network.channels, network.outputs, network.preprocessing


def in_bundle_order(
    networks: Sequence[Network], overrides: Document, bridge_class: Literal[0, 1] | None = None
) -> list[Network]:
    """Return the grader's networks with their outputs in the order of `CLASSES`.

    `overrides` may have `grader.classes`, the order of each network's outputs by its role; `bridge_class` is the output
    of the 2-class network that means bridge. If no order is stated, the outputs are taken to be in the bundle's order,
    except those of a 2-class network, which has no usual order.
    Raises `BundleError` if the stated order is not valid, `CheckpointError` for a 2-class network without one.
    """
    stated = overrides.get("grader", {}).get("classes", {})
    roles = [network.role for network in networks]
    if not isinstance(stated, dict) or set(stated) - set(roles):
        raise BundleError(
            f"grader.classes is {stated!r}; give a list of classes for any of {', '.join(roles)}, as "
            f"[grader.classes] {roles[0]} = {json.dumps(CLASSES[networks[0].outputs])}"
        )
    if bridge_class is not None and "bridge" not in roles:
        raise BundleError("--bridge-class is of a 2-class network; this grader has none, so leave it out")
    return [_ordered(network, _stated_order(network, stated, bridge_class)) for network in networks]


def _stated_order(network: Network, stated: Document, bridge_class: Literal[0, 1] | None) -> tuple[str, ...] | None:
    """Return the order of the outputs that the owner states; None if none is stated and none is needed."""
    usual = CLASSES[network.outputs]
    order = stated.get(network.role)
    if order is not None:
        order = tuple(str(item) for item in order) if isinstance(order, list) else ()
        if sorted(order) != sorted(usual):
            raise BundleError(
                f"grader.classes.{network.role} must hold each of {json.dumps(usual)} once, in the order of the "
                f"outputs of {network.provenance['source']}; it is {stated[network.role]!r}"
            )
    if network.role != "bridge":
        return order
    by_option = None if bridge_class is None else usual if bridge_class == 1 else usual[::-1]
    if order is not None and by_option is not None and order != by_option:
        raise BundleError(f"--bridge-class {bridge_class} contradicts grader.classes.bridge = {json.dumps(order)}")
    chosen = order or by_option
    if chosen is None and not network.tensors:
        raise CheckpointError(
            f"{network.provenance['source']}: which of its 2 outputs means bridge is in no weight file, and there is "
            "no usual order (folders sorted by name put `3` before `no_3`). State it: --bridge-class 0 if the first "
            f"output is the bridge (in a --manifest file: [grader.classes] bridge = {json.dumps(usual[::-1])}), "
            f"--bridge-class 1 if the second is (bridge = {json.dumps(usual)})"
        )
    return chosen


def columns_of(order: Sequence[str]) -> list[int]:
    """Return, for each class in the bundle's order, its place in `order`."""
    return [list(order).index(name) for name in CLASSES[len(order)]]


def _ordered(network: Network, order: tuple[str, ...] | None) -> Network:
    if order is None or order == CLASSES[network.outputs]:
        return replace(network, classes=order)
    note = f"outputs were brought from the order {', '.join(order)} to {', '.join(CLASSES[network.outputs])}"
    model = None if network.model is None else _with_columns(network.model, columns_of(order))
    return replace(network, classes=order, model=model, notes=(*network.notes, note))


def _with_columns(model: onnx.ModelProto, columns: list[int]) -> onnx.ModelProto:
    """Return a copy whose output i is output `columns[i]` of `model`.

    The rows of its last dense layer are exchanged. If the graph does not end in a dense layer with weights of its own,
    a Gather is put behind it.
    """
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    graph = changed.graph
    output = graph.output[0].name
    last = next(node for node in graph.node if output in node.output)
    stored = {tensor.name: tensor for tensor in graph.initializer}
    uses = [name for node in graph.node for name in node.input]
    own = [name for name in last.input[1:] if name in stored and uses.count(name) == 1]
    if last.op_type == "Gemm" and len(own) == len(last.input) - 1:
        rows = any(attribute.name == "transB" and attribute.i for attribute in last.attribute)
        for name, axis in zip(own, (0 if rows else 1, -1), strict=False):
            value = numpy_helper.to_array(stored[name])
            if value.ndim and value.shape[axis] == len(columns):
                value = np.ascontiguousarray(np.take(value, columns, axis))
            stored[name].CopyFrom(numpy_helper.from_array(value, name))
        return changed
    last.output[:] = [f"{output}.unordered" if name == output else name for name in last.output]
    for node in graph.node:
        node.input[:] = [f"{output}.unordered" if name == output else name for name in node.input]
    graph.initializer.append(numpy_helper.from_array(np.array(columns, np.int64), f"{output}.columns"))
    inputs = [f"{output}.unordered", f"{output}.columns"]
    graph.node.append(helper.make_node("Gather", inputs, [output], name="class_order", axis=1))
    onnx.checker.check_model(changed, full_check=True)
    return changed
