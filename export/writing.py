"""Writes a bundle's files while its networks run, and the records of the networks in its provenance."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from spinescore.export.folder import write_synced
from spinescore.export.keras_check import KERAS_EPSILON
from spinescore.export.sources import Network
from spinescore.export.trial import Trial
from spinescore.export.weights import TORCH_EPSILON
from spinescore.runtime.acceptance.comparison import PointAgreement
from spinescore.runtime.engines.half import HALF_MAX
from spinescore.runtime.manifest import CLASSES, PRECISIONS

__all__ = ["GOLDEN", "BundleFiles", "file_entry", "network_records"]

GOLDEN = {"localizer": "golden/localizer.npz", "grader": "golden/grader.npz"}

Document = dict[str, Any]


class BundleFiles:
    """The files of a bundle, written in threads of `writer`, and their entries in the manifest."""

    def __init__(self, folder: Path, writer: Executor) -> None:
        self._folder, self._writer = folder, writer
        self._entries: dict[str, Future[Document]] = {}

    def save_graph(self, path: str, model: onnx.ModelProto) -> None:
        """Begin to write a graph, which nobody may change any more."""
        self._entries[path] = self._writer.submit(lambda: self._write(path, model.SerializeToString()))

    def save_golden(self, trials: Sequence[Trial]) -> None:
        """Begin to write the golden inputs of all localizers, or of all networks of the grader."""
        path = GOLDEN[trials[0].network.kind]
        self._entries[path] = self._writer.submit(lambda: self._write(path, _golden_archive(trials)))

    def entries(self, stems: Sequence[str]) -> dict[str, Document]:
        """Return the entries by path when all files are on the disk: the networks `stems`, then the golden inputs."""
        graphs = [f"{stem}.{precision}.onnx" for stem in stems for precision in PRECISIONS]
        return {path: self._entries[path].result() for path in [*graphs, *GOLDEN.values()] if path in self._entries}

    def _write(self, path: str, content: bytes) -> Document:
        write_synced(self._folder / path, content)
        return file_entry(path, content)


def file_entry(path: str, content: bytes) -> Document:
    """Return the entry of a file in the manifest."""
    precision = path.split(".")[-2] if path.endswith(".onnx") else None
    return {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content), "precision": precision}


def _golden_archive(trials: Sequence[Trial]) -> bytes:
    """Return the golden inputs with their FP32 outputs; heatmaps as half if they fit, which is precise enough."""
    arrays: dict[str, Any] = {}
    for trial in trials:
        network, expected = trial.network, trial.expected
        role = network.role or "both"
        other = f"_{network.alternative}" if network.alternative else ""
        compact = network.kind == "localizer" and np.abs(expected).max() <= HALF_MAX
        arrays[f"image_{role}"] = trial.pictures  # an alternative has the localizer's pictures
        arrays[f"expected_{role}{other}"] = expected.astype(np.float16) if compact else expected
        arrays |= {f"image_{role}_x{scale:g}": pictures for scale, pictures in trial.scaled.items()}
        if network.kind == "localizer":
            arrays[f"region_{role}"] = trial.regions
    packed = io.BytesIO()
    np.savez_compressed(packed, **arrays)
    return packed.getvalue()


def network_records(
    trials: Sequence[Trial], beside: Mapping[str, PointAgreement], document: Document, overrides: Document
) -> Document:
    """Return a record of each network; `beside` compares alternatives with the bundle's own localizer.

    `document` is the manifest as it will be written, `overrides` are the fields that the owner's manifest file sets.
    """
    records = {}
    for trial in trials:
        network, half, int8 = trial.network, trial.half, trial.int8
        entry = {**network.provenance, "changes": [*network.notes, *network.warnings]}
        if half is not None:
            entry["half_precision"] = {"fault": half.fault}
            if half.weights is not None and half.largest_activation is not None:
                lost = {name: getattr(half.weights, name) for name in ("overflowed", "flushed", "subnormal")}
                entry["half_precision"] |= {
                    "largest_weight": asdict(half.weights.largest_weight),
                    **{name: sum(layer.count for layer in layers) for name, layers in lost.items()},
                    "largest_activation": asdict(half.largest_activation),
                }
        if int8 is not None:
            entry["int8"] = {"fault": int8.fault, "steps": [asdict(step) for step in int8.steps]}
        if network.stem in beside:
            entry["beside_localizer"] = asdict(beside[network.stem])
        if network.checked is not None:
            entry["checked"] = network.checked
        if not network.tensors:  # nothing is assumed of random weights
            entry["assumed"] = list(_assumptions(network, document, overrides))
        records[network.stem] = entry
    return records


def _assumptions(network: Network, document: Document, overrides: Document) -> Iterator[str]:
    """Yield what neither the weights nor the manifest file state.

    If the network was checked against its framework, only the meaning of the outputs, which such a check cannot show.
    """
    if network.checked is None:
        stated = overrides.get(network.kind, {}).get("input", {})
        if "preprocessing" not in stated and not ("mean" in stated and "std" in stated):
            written = document[network.kind]["input"]
            mean, std = (", ".join(f"{value:.4g}" for value in written[name]) for name in ("mean", "std"))
            yield f"normalisation: mean {mean}, std {std} of grey 0..1"
        if network.model is not None and network.layout != "whole":
            yield from _assumed_layers(network, network.model)
    if network.kind == "grader" and not network.classes:
        yield f"class order: {', '.join(CLASSES[network.outputs])}"
    if network.kind == "localizer" and "keypoints" not in overrides.get("localizer", {}):
        yield "heatmap order: disc by disc from above, centre then anterior"


def _assumed_layers(network: Network, model: onnx.ModelProto) -> Iterator[str]:
    """Yield assumptions about layers, for weights alone: the file has neither a graph nor a configuration."""
    keras = network.layout == "keras"
    if network.kind == "localizer":
        yield "strides: those of the official HRNet"
    else:
        yield f"strides: in the {'first 1x1 (keras.applications)' if keras else '3x3 (torchvision)'} of each stage"
    dense = sum(node.op_type == "Gemm" for node in model.graph.node)
    yield "activations: ReLU" + (f", also between its {dense} dense layers" if dense > 1 else "")
    yield f"BatchNorm epsilon: {KERAS_EPSILON if keras else TORCH_EPSILON:g}"
    if network.kind == "localizer":
        yield "upsampling in the fuse layers: nearest"
