"""Writes the files of a bundle into its folder, beside the networks' runs."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from spinescore.export.folder import write_synced
from spinescore.export.trial import Trial
from spinescore.runtime.engines.half import HALF_MAX
from spinescore.runtime.manifest import PRECISIONS

__all__ = ["GOLDEN", "BundleFiles", "file_entry"]

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
    """Return the golden inputs with their FP32 outputs."""
    arrays: dict[str, Any] = {}
    for trial in trials:
        is_localizer = trial.network.kind == "localizer"
        role = trial.network.role or "both"
        other = f"_{trial.network.alternative}" if trial.network.alternative else ""
        arrays[f"image_{role}"] = trial.pictures  # an alternative has the localizer's pictures
        arrays[f"expected_{role}{other}"] = _compact(trial.expected) if is_localizer else trial.expected
        arrays |= {f"image_{role}_x{scale:g}": pictures for scale, pictures in trial.scaled.items()}
        if is_localizer:
            arrays[f"region_{role}"] = trial.regions
    packed = io.BytesIO()
    np.savez_compressed(packed, **arrays)
    return packed.getvalue()


def _compact(heatmaps: np.ndarray[Any, np.dtype[np.float32]]) -> np.ndarray[Any, Any]:
    """Return heatmaps as half if they fit: precise enough to compare, and the bundle is a quarter smaller."""
    return heatmaps.astype(np.float16) if np.abs(heatmaps).max() <= HALF_MAX else heatmaps
