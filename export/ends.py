"""Tells from its numbers how a ready graph ends, and cuts probabilities back to logits.

A softmax or sigmoid can be the last node, lie before nodes that only change shapes, or be written out in other
operators. The numbers show it in every case: for pictures far from any that the network was trained on, probabilities
still stay within 0..1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray

from spinescore.runtime.errors import CheckpointError

__all__ = ["ONE_CORNER", "check_heatmaps", "cut_to_logits", "in_groups", "probe_pictures", "rename_value", "softmax"]

ONE_CORNER = 4  # outputs of one softmax if there are eight
ORDINARY = 4  # of the probes: pictures as networks see them, whose answers must be finite

_SHAPES = ("Cast", "Dropout", "Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze")
_SOFTMAX = ("Softmax", "LogSoftmax")
_BOUNDED = ("Clip", "Cos", "Erf", "HardSigmoid", "Hardmax", "Sigmoid", "Sin", "Softsign", "Tanh", "ThresholdedRelu")
_CLOSE = 1e-4

_FLAT = (
    "Export it so that it gives raw logits: leave the softmax out of the forward function (PyTorch), or set "
    "model.layers[-1].activation = None before the export (Keras)"
)
_RETRAIN = "Train its last layer with a softmax over a corner's grades, as bundles read grades"

Floats = NDArray[np.float32]


def probe_pictures(channels: int, height_px: int, width_px: int) -> Floats:
    """Return eight pictures (N, C, H, W): the first `ORDINARY` as networks see them, the others far outside."""
    rng = np.random.default_rng(0)
    shape = (channels, height_px, width_px)
    ordinary = [rng.random((2, *shape)), rng.normal(0, 1, (2, *shape))]
    far = [scale * rng.normal(offset, 1, (1, *shape)) for scale, offset in ((30, 0), (300, 0), (50, -2), (50, 2))]
    return np.concatenate([*ordinary, *far]).astype(np.float32)


class _Groups(NamedTuple):
    """Outputs (N, n) in groups of `size` with the constant sum `total`: neighbours, or every (n / size)-th."""

    size: int
    total: float
    neighbours: bool


def cut_to_logits(model: onnx.ModelProto, answers: Floats, grades: int, run: Callable[[], Floats]) -> tuple[str, ...]:
    """Cut `model` in place so that it gives raw logits; return notes on the change.

    `answers` (N, n) are its outputs for the probes, `grades` is the number of a corner's grades among n outputs, and
    `run` answers the probes again. Raises `CheckpointError` for probabilities that cannot be cut back exactly, and for
    sigmoids and other bounded ends.
    """
    finite = answers[np.isfinite(answers).all(1)]
    groups = _groups(np.exp(np.minimum(finite, 0)) if (finite <= _CLOSE).all() else finite)
    nodes, path = _last_nodes(model.graph)
    kinds = sorted({node.op_type for node in nodes})
    confined = _within(finite)
    if groups is None and not confined and not (kinds and set(kinds) <= set(_BOUNDED)):
        return ()
    if groups is None:
        values = "values within 0..1, as a sigmoid does" if confined else "bounded values"
        end = f" (it ends in {', '.join(kinds)})" if kinds else ""
        raise CheckpointError(
            f"the network gives {values}{end}. Bundles hold raw logits, whose softmax is the grades' "
            f"probabilities. {_RETRAIN}"
        )
    order = "" if groups.neighbours else ", grade by grade"
    sums = f"groups of {groups.size} outputs that sum to {groups.total:.4g}{order}"
    at_end = f"the network gives probabilities: {sums}"
    if not groups.neighbours or groups.size not in (grades, answers.shape[1]):
        raise CheckpointError(f"{at_end}; read are groups of {grades}, corner by corner. {_RETRAIN}")
    if not nodes or not set(kinds) <= set(_SOFTMAX):
        if (finite <= _CLOSE).all():
            return ()  # logarithms of probabilities: logits already
        raise CheckpointError(f"{at_end}, and no Softmax node at its end that could be cut off. {_FLAT}")
    _cut(model.graph, nodes, path)
    logits = run()
    again = softmax(logits.astype(np.float64), groups.size)
    before = np.exp(answers) if kinds == ["LogSoftmax"] else answers
    if not np.allclose(again[:ORDINARY], before[:ORDINARY], atol=_CLOSE):
        raise CheckpointError(f"{at_end}, which are more than the {kinds[0]} at its end. {_FLAT}")
    note = f"the last {' and '.join(kinds)} was removed: bundles hold raw logits"
    return (note,) if groups.size == grades else (note, f"it was one {kinds[0]} over all {groups.size} outputs")


def check_heatmaps(heatmaps: Floats, stated: bool) -> tuple[str, ...]:
    """Return notes on heatmaps (N, ..) that stay within 0..1; refuse them unless their least confidence is `stated`."""
    finite = heatmaps[np.isfinite(heatmaps).reshape(len(heatmaps), -1).all(1)]
    if not _within(finite):
        return ()
    sums = [finite.sum(axes) for axes in ((2, 3), (1, 2), (1,), (3,))]
    softmax = any(np.ptp(total) < _CLOSE * max(1.0, float(total.max())) for total in sums)
    kind = "a softmax" if softmax else "a sigmoid"
    if stated:
        return (f"the heatmaps end in {kind} and are taken as they are, as the manifest states min_confidence",)
    raise CheckpointError(
        f"the heatmaps stay within 0..1 whatever the picture, as {kind} at the end gives; then a peak is no "
        "measure of confidence unless the network was trained so. Export it without that end if it was trained "
        "without; else state localizer.min_confidence, the least peak to trust, in the file that --manifest names"
    )


def rename_value(graph: onnx.GraphProto, old: str, new: str) -> None:
    """Rename the value `old` to `new` everywhere; another value of that name is renamed as well."""
    if old == new:
        return
    for source, target in ((new, f"{new}.before"), (old, new)):
        for node in graph.node:
            node.input[:] = [target if name == source else name for name in node.input]
            node.output[:] = [target if name == source else name for name in node.output]
        for value in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
            if value.name == source:
                value.name = target


def _within(values: Floats) -> bool:
    return bool(len(values) and values.min() >= -_CLOSE and values.max() <= 1 + _CLOSE)


def _groups(values: Floats) -> _Groups | None:
    """Return the groups of outputs whose sum is the same for every picture; None if there are none."""
    outputs = values.shape[1]
    if values.min() < -_CLOSE * max(1.0, float(values.max())) or not np.ptp(values, axis=0).any():
        return None
    for size in (size for size in range(2, outputs + 1) if outputs % size == 0):
        for neighbours in (True, False):
            parts = values.reshape(len(values), -1, size) if neighbours else values.reshape(len(values), size, -1)
            sums = parts.sum(2 if neighbours else 1)
            if sums.max() > 0 and np.ptp(sums) <= _CLOSE * sums.max():
                return _Groups(size, float(sums.mean()), neighbours)
    return None


def _last_nodes(graph: onnx.GraphProto) -> tuple[list[onnx.NodeProto], list[onnx.NodeProto]]:
    """Return the last nodes that compute, and the nodes after them that only reshape or join.

    Both are empty if a way back from the output ends without a node that computes.
    """
    producers = {name: node for node in graph.node for name in node.output}
    last: list[onnx.NodeProto] = []
    path: list[onnx.NodeProto] = []
    pending = [graph.output[0].name]
    while pending:
        node = producers.get(pending.pop())
        if node is None:
            return [], []
        if node.op_type in _SHAPES or node.op_type == "Concat":
            path.append(node)
            pending.extend(node.input if node.op_type == "Concat" else node.input[:1])
        elif not any(node is other for other in last):
            last.append(node)
    return last, path


def _cut(graph: onnx.GraphProto, nodes: list[onnx.NodeProto], path: list[onnx.NodeProto]) -> None:
    """Connect the nodes after `nodes` to the inputs of `nodes`; remove those of `nodes` that nothing reads any more."""
    for node in nodes:
        source, result = node.input[0], node.output[0]
        for behind in path:
            behind.input[:] = [source if name == result else name for name in behind.input]
        last = graph.output[0].name == result
        if last:
            graph.output[0].name = source
        if not any(result in other.input for other in graph.node):
            graph.node.remove(node)
        if last:
            rename_value(graph, source, result)


def in_groups(logits: NDArray[Any], width: int | None = None) -> NDArray[Any]:
    """Return logits (N, groups, width) by softmax; without `width`, each corner's four of eight, else all outputs."""
    outputs = logits.shape[1]
    return logits.reshape(len(logits), -1, width or (ONE_CORNER if outputs == 2 * ONE_CORNER else outputs))


def softmax(logits: NDArray[Any], width: int | None = None) -> NDArray[np.float64]:
    """Return the softmax over every group of `in_groups`."""
    groups = in_groups(logits, width)
    scaled = np.exp(groups - groups.max(axis=-1, keepdims=True))
    result: NDArray[np.float64] = (scaled / scaled.sum(axis=-1, keepdims=True)).reshape(logits.shape)
    return result
