"""Puts the functions of an ONNX model in the place of their calls, after a look at how far that goes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from graphlib import CycleError, TopologicalSorter

import onnx
import onnx.inliner
from onnx import FunctionProto, NodeProto

from spinescore.runtime.errors import CheckpointError

__all__ = ["without_functions"]

_MOST_NODES = 100_000  # networks have a few thousand

Name = tuple[str, str, str]


def without_functions(model: onnx.ModelProto, source: str) -> onnx.ModelProto:
    """Return the model with its functions put in the place of their calls.

    Functions that call themselves, and those that multiply beyond any network, are refused first: the inliner of some
    versions of onnx ends the process at them. Raises `CheckpointError`, which names the file `source`.
    """
    if not model.functions:
        return model
    calls = {_name(one, one.name): [_name(node, node.op_type) for node in _nodes(one.node)] for one in model.functions}
    try:
        order = list(TopologicalSorter(calls).static_order())
    except CycleError as error:
        names = " calls ".join(name for _, name, _ in error.args[1])
        raise CheckpointError(
            f"{source}: its functions cannot be put in place: {names}; export the network again without functions"
        ) from None
    sizes: dict[Name, int] = {}
    for name in order:  # a function after those that it calls
        sizes[name] = sum(sizes[called] for called in calls[name]) if name in calls else 1
    total = sum(sizes.get(_name(node, node.op_type), 1) for node in _nodes(model.graph.node))
    if total > _MOST_NODES:
        raise CheckpointError(
            f"{source}: its functions would become {total} nodes, more than {_MOST_NODES}; export the network again "
            "without functions"
        )
    try:
        inlined: onnx.ModelProto = onnx.inliner.inline_local_functions(model)
    except Exception as error:  # the inliner's exceptions share no base class of its own
        raise CheckpointError(f"{source}: its functions cannot be put in place: {error}") from error
    return inlined


def _name(one: NodeProto | FunctionProto, name: str) -> Name:
    return "" if one.domain == "ai.onnx" else one.domain, name, one.overload


def _nodes(nodes: Iterable[NodeProto]) -> Iterator[NodeProto]:
    """Yield nodes, and those of the graphs in their attributes."""
    waiting = list(nodes)
    while waiting:
        node = waiting.pop()
        yield node
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                waiting.extend(graph.node)
