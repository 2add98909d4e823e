"""Reads ONNX files whole: weights from a second file beside them, and functions put in the place of their calls."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from graphlib import CycleError, TopologicalSorter
from math import prod
from pathlib import Path, PurePosixPath, PureWindowsPath

import onnx
import onnx.inliner
from onnx import FunctionProto, NodeProto, TensorProto, external_data_helper, helper

from spinescore.export.untrusted import naming, read_file
from spinescore.runtime.errors import CheckpointError

__all__ = ["load_model"]

_MAX_BYTES = 2 << 30  # what protobuf holds
_MOST_NODES = 100_000  # networks have a few thousand
_ONE_FILE = "python -c \"import onnx; onnx.save(onnx.load('{name}'), 'one.onnx')\" makes one file of it"


def load_model(path: Path) -> tuple[onnx.ModelProto, bytes]:
    """Return the model with its weights and functions inlined, and the bytes of its file.

    A second file of weights must lie beside `path`, under a plain name. Raises `CheckpointError` if `path` is no ONNX
    file, for weights that are missing, elsewhere or too many, and for functions without end.
    """
    content = read_file(path, _MAX_BYTES, "give the .onnx file that was exported")
    try:
        model = onnx.load_model_from_string(content)
    except Exception as error:  # protobuf's DecodeError; its class is not public
        raise CheckpointError(f"{path.name}: not an ONNX file, or truncated: {error}") from error
    with naming(path.name):
        _inline(model, path)
        for tensor in _tensors(model):
            if external_data_helper.uses_external_data(tensor):
                label = tensor.name or "without a name"
                one_file = _ONE_FILE.format(name=path.name)
                raise CheckpointError(f"tensor {label} of a node lies in another file; {one_file}")
        return _without_functions(model), content


def _inline(model: onnx.ModelProto, path: Path) -> None:
    """Replace the initializers' external data by values; each file is read once."""
    files: dict[str, bytes] = {}
    total = 0
    for tensor in model.graph.initializer:
        if not external_data_helper.uses_external_data(tensor):
            continue
        place = {entry.key: entry.value for entry in tensor.external_data}
        location, length = place.get("location", ""), place.get("length")
        if not all(place.get(key, "0").isdecimal() for key in ("offset", "length")):
            raise CheckpointError(f"tensor {tensor.name} has a damaged place; export the network again")
        if location not in files:
            files[location] = _beside(path, tensor.name, location)
        data, offset = files[location], int(place.get("offset", "0"))
        size = _bytes_of(tensor)
        present = max(0, min(len(data) - offset, len(data) if length is None else int(length)))
        total += size
        if present < size or (present > size and length is not None):
            raise CheckpointError(
                f"tensor {tensor.name} cannot be read from {location}: {present} bytes instead of "
                f"{size}; copy both files again"
            )
        if total > sum(map(len, files.values())):
            raise CheckpointError(f"its tensors share bytes of {location}; it is damaged or forged")
        tensor.raw_data = data[offset : offset + size]
        tensor.data_location = TensorProto.DEFAULT
        del tensor.external_data[:]


def _beside(path: Path, tensor: str, location: str) -> bytes:
    plain = location not in ("", ".", "..") and PurePosixPath(location).name == PureWindowsPath(location).name
    source = path.parent / location
    if not plain or PurePosixPath(location).name != location or source.is_symlink():
        raise CheckpointError(
            f"tensor {tensor} lies in {location!r}; only a file beside the model is read. With both files "
            f"in one folder {_ONE_FILE.format(name=path.name)}"
        )
    return read_file(source, _MAX_BYTES, f"tensor {tensor} lies in it, copy both files")


def _bytes_of(tensor: TensorProto) -> int:
    try:
        item = helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    except (KeyError, TypeError, ValueError):
        item = 0
    if item == 0 or min(tensor.dims, default=0) < 0:
        raise CheckpointError(f"tensor {tensor.name} has a type or shape that weights do not have")
    return int(prod(tensor.dims)) * item


def _tensors(model: onnx.ModelProto) -> Iterator[TensorProto]:
    """Yield every tensor of the model, those in attributes, subgraphs and functions included."""
    graphs = [model.graph, *(part for step in model.training_info for part in (step.initialization, step.algorithm))]
    sparse: list[onnx.SparseTensorProto] = []
    nodes = [node for part in (*graphs, *model.functions) for node in part.node]
    for attribute in (attribute for node in _nodes(nodes) for attribute in node.attribute):
        yield from (attribute.t, *attribute.tensors)
        sparse += [attribute.sparse_tensor, *attribute.sparse_tensors]
        graphs += [attribute.g, *attribute.graphs]
    for graph in graphs:
        yield from graph.initializer
        sparse += graph.sparse_initializer
    for tensor in sparse:
        yield from (tensor.values, tensor.indices)


def _without_functions(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model with its functions put in the place of their calls.

    Functions that call themselves, and those that multiply beyond any network, are refused first: the inliner of some
    versions of onnx ends the process at them.
    """
    if not model.functions:
        return model
    calls = {_name(one, one.name): [_name(node, node.op_type) for node in _nodes(one.node)] for one in model.functions}
    sizes: dict[tuple[str, str, str], int] = {}
    try:
        for name in TopologicalSorter(calls).static_order():  # a function after those that it calls
            sizes[name] = sum(sizes[called] for called in calls[name]) if name in calls else 1
        total = sum(sizes.get(_name(node, node.op_type), 1) for node in _nodes(model.graph.node))
        fault = f"would become {total} nodes, more than {_MOST_NODES}" if total > _MOST_NODES else ""
    except CycleError as error:
        fault = f"cannot be put in place: {' calls '.join(name for _, name, _ in error.args[1])}"
    if fault:
        raise CheckpointError(f"its functions {fault}; export the network again without functions")
    try:
        inlined: onnx.ModelProto = onnx.inliner.inline_local_functions(model)
    except Exception as error:  # the inliner's exceptions share no base class of its own
        raise CheckpointError(f"its functions cannot be put in place: {error}") from error
    return inlined


def _name(one: NodeProto | FunctionProto, name: str) -> tuple[str, str, str]:
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
