"""How operators read their inputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import zip_longest
from typing import Any

from numpy.typing import NDArray

from spinescore.runtime.bundle.networkcheck.graph import Node, Tensor

__all__ = [
    "Inputs",
    "Rule",
    "Shape",
    "all_axes",
    "broadcast",
    "first_shape",
    "integers",
    "known_values",
    "one_axis",
]

Shape = tuple[int, ...]
Inputs = Sequence[Tensor | None]  # None for an optional input that is left out
Rule = Callable[[Node, Inputs, int], list[Shape]]  # of a node, its inputs and the opset: the shapes of its outputs


def first_shape(inputs: Inputs, index: int = 0) -> Shape:
    result = inputs[index] if index < len(inputs) else None
    if result is None:
        raise ValueError(f"its input {index + 1} is missing")
    return result.shape


def known_values(inputs: Inputs, index: int, name: str) -> NDArray[Any] | None:
    """Return the values of an input; None if it is left out. Raises `ValueError` if they are not known."""
    result = inputs[index] if index < len(inputs) else None
    if result is None or result.shape == (0,):
        return None
    if result.values is None:
        raise ValueError(f"its {name} cannot be told before it runs")
    return result.values.reshape(-1)


def integers(node: Node, inputs: Inputs, name: str, index: int) -> list[int] | None:
    """Return a list of integers that is an attribute in older opsets, and an input in newer ones."""
    values = known_values(inputs, index, name)
    return node.integers(name) if values is None else [int(value) for value in values]


def one_axis(axis: int, rank: int) -> int:
    if not -rank <= axis < max(rank, 1):
        raise ValueError(f"axis {axis} of a tensor with {rank} dimensions")
    return axis % rank if rank else 0


def all_axes(axes: Sequence[int], rank: int) -> list[int]:
    return [one_axis(axis, rank) for axis in axes]


def broadcast(*shapes: Shape) -> Shape:
    shape = []
    for sizes in zip_longest(*(shape[::-1] for shape in shapes), fillvalue=1):
        others = {size for size in sizes if size != 1}
        if len(others) > 1:
            raise ValueError(f"its inputs {' and '.join(map(str, shapes))} do not fit")
        shape.append(others.pop() if others else 1)
    return tuple(shape[::-1])
