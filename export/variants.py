"""Runs a network on grey pictures with any normalisation; gives raw outputs as a reference has them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from spinescore.export.sessions import map_batches, open_session
from spinescore.runtime.manifest import NetworkInput

__all__ = ["ONE_CORNER", "Change", "Runner", "in_groups", "softmax"]

Change = Callable[[NDArray[np.float64]], NDArray[np.float64]]  # of grey pictures (N, H, W)

ONE_CORNER = 4  # outputs of one softmax if there are eight


class Runner:
    """An FP32 graph that takes grey pictures; its session is opened once for any number of runs."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._session = open_session(model)
        self._input = self._session.get_inputs()[0].name

    def __call__(
        self, grey: NDArray[np.float64], size: NetworkInput, change: Change | None = None, label: str = ""
    ) -> NDArray[np.float64]:
        """Return the raw output for `grey` (N, H, W) in 0..1, changed by `change` and normalised by `size`."""
        mean, std = (np.array(values).reshape(1, -1, 1, 1) for values in (size.mean, size.std))

        def run(batch: NDArray[np.floating]) -> NDArray[np.float32]:
            pictures = batch.astype(np.float64)
            pictures = pictures if change is None else change(pictures)
            images = ((pictures[:, None] - mean) / std).astype(np.float32)
            output: NDArray[np.float32] = self._session.run(None, {self._input: images})[0]
            return output

        return np.concatenate(map_batches(run, grey, label)).astype(np.float64)


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
