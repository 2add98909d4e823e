"""Reads the graph of an ONNX file for the check: nodes, shapes and small tensors, but not the weights."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from mmap import mmap
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spinescore.runtime.bundle.networkcheck.wire import LENGTH_DELIMITED, VARINT, length_fields, varint, wire_fields

__all__ = ["FEW_VALUES", "TEXT", "Graph", "Node", "Tensor", "read_graph"]

FEW_VALUES = 1024  # elements of a tensor whose values may be sizes; larger ones are weights

_MOST_NODES = 20_000
_MEAN_LINKS = 10  # inputs and outputs of a node, over the whole graph
_MOST_ENTRIES = 4096  # inputs of a node, numbers of an attribute
_MOST_DIMENSIONS = 16
_ORT_FORMAT = b"ORTM"  # at byte 4 of ONNX Runtime's own format, which it also accepts under an .onnx name

# NumPy types of raw data by the element type's number in onnx.proto. Other types are read without values.
_KINDS = {1: "<f4", 2: "u1", 3: "i1", 4: "<u2", 5: "<i2", 6: "<i4", 7: "<i8", 9: "?", 10: "<f2", 11: "<f8", 12: "<u4",
          13: "<u8"}  # fmt: skip
TEXT = 8  # the element type of text; a single element can have any size
_FLOATS, _DOUBLES = 4, 10  # fields of a tensor with packed numbers
_INTEGERS = (5, 7, 11)


@dataclass(frozen=True)
class Tensor:
    """A tensor: its shape, its values if they are few and known, and whether it is the same for every picture."""

    shape: tuple[int, ...]
    values: NDArray[Any] | None = None
    constant: bool = True


@dataclass(frozen=True)
class Node:
    """A node of the graph; `holds_graph` if an attribute is a graph, a sparse tensor or of an unknown type."""

    name: str
    operator: str
    domain: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]
    holds_graph: bool

    def integers(self, name: str, default: Sequence[int] | None = None) -> list[int] | None:
        value = self.attributes.get(name, default)
        if value is not None and not (isinstance(value, (list, tuple)) and all(isinstance(n, int) for n in value)):
            raise ValueError(f"attribute {name} holds no integers")
        return None if value is None else list(value)

    def integer(self, name: str, default: int) -> int:
        value = self.attributes.get(name, default)
        if not isinstance(value, int):
            raise ValueError(f"attribute {name} is no integer")
        return value

    def flag(self, name: str, default: bool = False) -> bool:
        value = self.integer(name, int(default))
        if value not in (0, 1):  # engines read other values in different ways
            raise ValueError(f"attribute {name} is neither 0 nor 1")
        return bool(value)

    def text(self, name: str, default: str) -> str:
        value = self.attributes.get(name, default.encode())
        return value.decode("utf-8", "replace") if isinstance(value, bytes) else ""


@dataclass(frozen=True)
class Graph:
    """The main graph of a network. `inputs` are those without a tensor in the file.

    `image` are the sizes (N, C, H, W) that the first input declares, 0 for a free one; engines refuse other sizes.
    """

    nodes: tuple[Node, ...]
    tensors: Mapping[str, Tensor]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    opset: int
    image: tuple[int, ...]
    extras: tuple[str, ...]  # parts that a bundle's network may not have: functions, sparse tensors, training


def read_graph(data: mmap) -> Graph:
    """Return the graph of an ONNX file. Raises `IndexError` or `ValueError` if it is none, damaged or far too large."""
    if data[4:8] == _ORT_FORMAT:
        raise ValueError("it is a file of ONNX Runtime's own format")
    nodes: list[Node] = []
    tensors: dict[str, Tensor] = {}
    inputs: dict[str, list[int]] = {}
    outputs, extras, opset, links = [], set(), 0, 0
    for number, first, last in length_fields(data, 0, len(data)):
        if number == 7:
            for field, begin, end in length_fields(data, first, last):
                if field == 1:
                    nodes.append(_node(data, begin, end))
                    links += len(nodes[-1].inputs) + len(nodes[-1].outputs)
                elif field == 5:
                    name, tensor = _tensor(data, begin, end)
                    if name in tensors:
                        raise ValueError("two tensors have one name")
                    tensors[name] = tensor
                elif field == 11:
                    inputs[_texts(data, begin, end, 1).get(1, "")] = _declared(data, begin, end)
                elif field == 12:
                    outputs.append(_texts(data, begin, end, 1).get(1, ""))
                elif field == 15:
                    extras.add("sparse tensors")
                if max(len(nodes), len(tensors), len(inputs), len(outputs), links // _MEAN_LINKS) > _MOST_NODES:
                    raise ValueError(f"it has more than {_MOST_NODES} nodes or tensors")
        elif number == 8:
            if _texts(data, first, last, 1).get(1, "") in ("", "ai.onnx"):
                if opset:
                    raise ValueError("it states two opsets")
                opset = _number(data, first, last, 2)
        elif number in (20, 25):
            extras.add("functions" if number == 25 else "training steps")
    free = tuple(name for name in inputs if name not in tensors)
    image = tuple(inputs[free[0]]) if free else ()
    return Graph(tuple(nodes), tensors, free, tuple(outputs), opset, image, tuple(sorted(extras)))


def _declared(data: mmap, start: int, end: int) -> list[int]:
    """Return the sizes that an input declares, 0 for one that is free."""
    places = [(start, end)]
    for field in (2, 1, 2):  # the type, in it the tensor's type, in it the shape
        places = [
            (a, b) for first, last in places for number, a, b in length_fields(data, first, last) if number == field
        ]
    sizes = [(a, b) for first, last in places for number, a, b in length_fields(data, first, last) if number == 1]
    return [
        0 if any(number == 2 for number, _, _ in length_fields(data, *size)) else max(_number(data, *size, 1), 0)
        for size in sizes[:_MOST_DIMENSIONS]  # one with a name (2) is free, whatever else it has
    ]


def _node(data: mmap, start: int, end: int) -> Node:
    inputs: list[str] = []
    outputs: list[str] = []
    attributes: dict[str, Any] = {}
    holds_graph = False
    for number, first, last in length_fields(data, start, end):
        if number in (1, 2):
            (inputs if number == 1 else outputs).append(bytes(data[first:last]).decode("utf-8", "replace"))
        elif number == 5:
            name, value = _attribute(data, first, last)
            if name in attributes:
                raise ValueError("a node has an attribute twice")
            attributes[name] = value
            holds_graph |= value is None
        if max(len(inputs), len(outputs), len(attributes)) > _MOST_ENTRIES:
            raise ValueError(f"a node has more than {_MOST_ENTRIES} inputs, outputs or attributes")
    texts = _texts(data, start, end, 3, 4, 7)
    return Node(
        texts.get(3, ""), texts.get(4, ""), texts.get(7, ""), tuple(inputs), tuple(outputs), attributes, holds_graph
    )


def _attribute(data: mmap, start: int, end: int) -> tuple[str, Any]:
    """Return the name and the value of an attribute; None for a graph, a sparse tensor or an unknown type."""
    name, kind = _texts(data, start, end, 1).get(1, ""), _number(data, start, end, 20)
    if kind == 1:
        return name, (_floats(data, start, end, 2, 4, packed=False) or [0.0])[-1]
    if kind == 2:
        return name, _number(data, start, end, 3)
    if kind in (3, 4):
        places = [(first, last) for number, first, last in length_fields(data, start, end) if number == kind + 1]
        if len(places) > 1:
            raise ValueError("an attribute has its value twice")
        if kind == 3:
            return name, bytes(data[places[0][0] : places[0][1]]) if places else b""
        return name, _tensor(data, *places[0])[1] if places else Tensor(())
    if kind == 6:
        return name, _floats(data, start, end, 7, 4)
    if kind == 7:
        return name, _numbers(data, start, end, 8)
    return name, () if kind == 8 else None  # texts: no size depends on them


def _tensor(data: mmap, start: int, end: int) -> tuple[str, Tensor]:
    """Return the name of a tensor, and the tensor."""
    shape = tuple(_numbers(data, start, end, 1, _MOST_DIMENSIONS))
    if min(shape, default=0) < 0:
        raise ValueError("a tensor has a negative size")
    name = _texts(data, start, end, 8).get(8, "")
    kind, raw, outside = _number(data, start, end, 2) % 2**32, None, False
    if kind == TEXT:
        raise ValueError("a tensor of texts")
    if prod(shape) > FEW_VALUES:
        return name, Tensor(shape)
    for number, form, first, last in wire_fields(data, start, end):
        if form == LENGTH_DELIMITED and number == 9:
            raw = bytes(data[first:last]) if last - first <= FEW_VALUES * 8 else None
        outside |= number in (13, 14)
    if kind not in _KINDS or outside:
        return name, Tensor(shape)
    if raw is not None:
        values = np.frombuffer(raw, _KINDS[kind])
    elif kind == 1:
        values = np.array(_floats(data, start, end, _FLOATS, 4), np.float32)
    elif kind == 11:
        values = np.array(_floats(data, start, end, _DOUBLES, 8), np.float64)
    else:
        numbers = [one for field in _INTEGERS for one in _numbers(data, start, end, field)]
        stored = np.array(numbers, np.int64)
        values = stored.astype(np.uint16).view(np.float16) if kind == 10 else stored.astype(_KINDS[kind])
    return name, Tensor(shape, values.reshape(shape) if values.size == prod(shape) else None)


def _texts(data: mmap, start: int, end: int, *fields: int) -> dict[int, str]:
    """Return the last short text of each of the `fields` of a message."""
    return {
        number: bytes(data[first:last]).decode("utf-8", "replace")
        for number, first, last in length_fields(data, start, end)
        if last - first <= _MOST_ENTRIES and number in fields
    }


def _number(data: mmap, start: int, end: int, field: int) -> int:
    """Return the signed integer of a field that has one, else 0. Engines pass over a packed one."""
    return (_numbers(data, start, end, field, packed=False) or [0])[-1]


def _numbers(data: mmap, start: int, end: int, field: int, most: int = _MOST_ENTRIES, packed: bool = True) -> list[int]:
    """Return the signed integers of a field, one by one or packed."""
    integers: list[int] = []
    for number, kind, first, last in wire_fields(data, start, end):
        if number == field and (kind == VARINT or (packed and kind == LENGTH_DELIMITED)):
            while first < last:
                value, first = varint(data, first)
                value &= (1 << 64) - 1
                integers.append(value - (1 << 64) if value >> 63 else value)
                if len(integers) > most:
                    raise ValueError(f"more than {most} numbers where a few are expected")
    return integers


def _floats(data: mmap, start: int, end: int, field: int, size: int, packed: bool = True) -> list[float]:
    """Return the floating-point numbers of a field, one by one or packed."""
    joined, own_kind = b"", {4: 5, 8: 1}[size]
    for number, kind, first, last in wire_fields(data, start, end):
        if number == field and (kind == own_kind or (packed and kind == LENGTH_DELIMITED)):
            if (last - first) % size or len(joined) + last - first > _MOST_ENTRIES * size:
                raise ValueError("a damaged or far too long list of numbers")
            joined += data[first:last]
    return list(struct.unpack(f"<{len(joined) // size}{'f' if size == 4 else 'd'}", joined))
