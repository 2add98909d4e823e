"""Counts a network's memory and multiplications for a batch of pictures, from its graph, without running it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from math import prod
from typing import Any

from numpy.typing import NDArray

from spinescore.runtime.bundle.networkcheck.graph import Graph, Node, Tensor
from spinescore.runtime.bundle.networkcheck.inputs import Shape
from spinescore.runtime.bundle.networkcheck.layers import LAYERS, multiplications, scratch
from spinescore.runtime.bundle.networkcheck.layout import LAYOUTS
from spinescore.runtime.bundle.networkcheck.values import values_of

__all__ = ["Costs", "TooCostly", "costs_of", "has_sizes"]

_RULES = {**LAYERS, **LAYOUTS}
_SEVERAL = ("Dropout", "MaxPool", "Split")  # operators whose further outputs have a rule here
_BYTES = 4  # of an element: engines compute in FP32 unless they have a smaller type
_SHAPES = ("Shape", "Size")
_OLDEST_OPSET = 7  # operators of older opsets broadcast in other ways
_MOST_LETTERS = 400  # of a message; names in a file may be long


class TooCostly(ValueError):
    """The network takes too much, or its costs are unknown; the message names the node."""

    def __init__(self, text: str) -> None:
        super().__init__(text if len(text) <= _MOST_LETTERS else f"{text[:_MOST_LETTERS]} ..")


@dataclass(frozen=True)
class Costs:
    """The costs of a batch, and the shapes of the graph's outputs for it.

    `memory_bytes` is the peak: weights, results that do not depend on the picture, and the other results that are held
    at the same time.
    """

    memory_bytes: int
    work: int
    outputs: tuple[Shape, ...] = ()


def has_sizes(graph: Graph) -> bool:
    """Return whether the graph computes sizes from other sizes, which may grow as the batch becomes smaller."""
    return any(node.operator in _SHAPES for node in graph.nodes)


def costs_of(graph: Graph, image: Shape, most_bytes: int, most_work: int) -> Costs:
    """Return the graph's costs for `image` (N, C, H, W); sizes that the graph declares replace those of `image`.

    Raises `TooCostly` for the first node that exceeds `most_bytes` or `most_work`, or whose result's size is not known
    before it runs.
    """
    if graph.extras or len(graph.inputs) != 1:
        raise TooCostly(f"it has {' and '.join(graph.extras) or f'{len(graph.inputs)} inputs'}")
    if graph.opset < _OLDEST_OPSET or len(graph.image) not in (0, len(image)):
        raise TooCostly(f"its opset is {graph.opset} and its input has {len(graph.image)} dimensions")
    image = tuple(declared or size for declared, size in zip(graph.image or image, image, strict=True))
    results = dict(graph.tensors)
    held = sum(_bytes(tensor.shape) for tensor in graph.tensors.values())
    if held > most_bytes:
        raise TooCostly(f"its weights take {_shown(held)}")
    results[graph.inputs[0]] = Tensor(image, constant=False)
    uses = Counter([name for node in graph.nodes for name in node.inputs] + list(graph.outputs))
    held, peak, work = held + _bytes(image), held, 0
    for node in graph.nodes:
        inputs = [results[name] if name else None for name in _checked_inputs(node, results)]
        shapes, values, within = _outputs(node, inputs, graph.opset)
        added = sum(map(_bytes, shapes))
        steps = multiplications(node, inputs, shapes)
        held, work = held + added, work + steps
        peak = max(peak, held + within)
        if peak > most_bytes:
            raise TooCostly(
                f"{_named(node)} makes {' and '.join(map(str, shapes))}, {_shown(added + within)}; with what is held "
                f"beside it that is {_shown(peak)}"
            )
        if work > most_work:
            raise TooCostly(f"{_named(node)} takes {steps:.2g} multiplications, with those before it {work:.2g}")
        constant = node.operator in _SHAPES or all(result is None or result.constant for result in inputs)
        for name, shape in zip(node.outputs, shapes, strict=True):
            if name in results:
                raise TooCostly(f"{_named(node)} gives {name!r}, which there is already")
            results[name] = Tensor(shape, values, constant)
        held -= _freed(node, results, uses)
    missing = [name for name in graph.outputs if name not in results]
    if missing or not graph.outputs:
        raise TooCostly(f"no node gives its output {missing[0]!r}" if missing else "it has no output")
    return Costs(peak, work, tuple(results[name].shape for name in graph.outputs))


def _checked_inputs(node: Node, results: dict[str, Tensor]) -> tuple[str, ...]:
    if node.domain not in ("", "ai.onnx") or node.holds_graph or node.operator not in _RULES:
        kind = f"{node.domain}.{node.operator}" if node.domain else node.operator
        raise TooCostly(f"{_named(node)}: {kind} is not an operator whose costs are known before it runs")
    for name in node.inputs:
        if name and name not in results:
            raise TooCostly(f"{_named(node)} takes {name!r}, which nothing before it gives")
    if len(node.outputs) != 1 and node.operator not in _SEVERAL:
        raise TooCostly(f"{_named(node)} has {len(node.outputs)} outputs")
    return node.inputs


def _outputs(node: Node, inputs: list[Tensor | None], opset: int) -> tuple[list[Shape], NDArray[Any] | None, int]:
    """Return the shapes of a node's outputs, the values of a small one if they are known, and the bytes it works in."""
    try:
        shapes = _RULES[node.operator](node, inputs, opset)
        if all(size >= 0 for shape in shapes for size in shape):
            return shapes, values_of(node, inputs, shapes), scratch(node, inputs) * _BYTES
    except (ArithmeticError, IndexError, TypeError, ValueError) as error:
        raise TooCostly(f"{_named(node)} is not understood: {error}") from error
    raise TooCostly(f"{_named(node)} makes {' and '.join(map(str, shapes))}")


def _freed(node: Node, results: dict[str, Tensor], uses: Counter[str]) -> int:
    """Return the bytes that are free after a node. Engines keep results that are the same for every picture."""
    freed = 0
    for name in node.inputs:
        uses[name] -= 1
        if name and not uses[name] and not results[name].constant:
            freed += _bytes(results[name].shape)
    return freed + sum(_bytes(results[name].shape) for name in node.outputs if not uses[name])


def _bytes(shape: Shape) -> int:
    return prod(shape) * _BYTES


def _named(node: Node) -> str:
    return f"node {node.name or (node.outputs or ('',))[0]!r} ({node.operator})"


def _shown(size: int) -> str:
    return f"{size / 2**30:.1f} GiB" if size < 2**60 else "more than any machine has"
