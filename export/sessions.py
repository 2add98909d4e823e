"""ONNX Runtime as the exporter uses it: on the CPU, on models in memory."""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from tqdm import tqdm

from spinescore.runtime.errors import CheckpointError

__all__ = ["batches_of", "open_session", "run_model"]

_BATCH = 8


def open_session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    """A CPU session of `model`; raises `CheckpointError` where ONNX Runtime refuses it."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = int(os.environ.get("OMP_NUM_THREADS", "0"))
    options.log_severity_level = 4  # what goes wrong arrives as an exception
    try:
        return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's exceptions share no base class of its own
        raise CheckpointError(f"ONNX Runtime does not accept the graph {model.graph.name}: {error}") from error


def batches_of(images: NDArray[np.floating], label: str = "") -> Iterator[NDArray[np.floating]]:
    """`images` a few at a time, so that memory stays small; with a `label`, progress shows on a terminal."""
    starts = range(0, len(images), _BATCH)
    for start in tqdm(starts, desc=label, unit="batch", leave=False, disable=None if label else True):
        yield images[start : start + _BATCH]


def run_model(model: onnx.ModelProto, images: NDArray[np.floating], label: str = "") -> NDArray[np.float32]:
    """The only output of `model` for `images` (N, C, H, W), as float32 whatever precision the model's ends have."""
    session = open_session(model)
    name = session.get_inputs()[0].name
    kind = np.float16 if session.get_inputs()[0].type == "tensor(float16)" else np.float32
    results = [session.run(None, {name: batch.astype(kind)})[0] for batch in batches_of(images, label)]
    return np.concatenate(results).astype(np.float32)
