"""Converts a network to half precision, and tries it on golden inputs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from spinescore.export.averaged import Images
from spinescore.export.rounding import largest_activations, open_rounded
from spinescore.export.sessions import open_session, run_session
from spinescore.runtime.acceptance.comparison import difference_of_range
from spinescore.runtime.engines.half import HALF_MAX, HalfReport, LayerMax, to_half
from spinescore.runtime.errors import CheckpointError

__all__ = ["HalfResult", "PreparedHalf", "prepare_half", "try_half"]

_SAMPLE = 8  # images on which the largest activations are measured
_FILE_SAMPLE = 2  # images for the FP16 file itself: each image uses all weights
_FILE_TOLERANCE = 0.05  # of the range: rounding stays far below, a wrong file far above


@dataclass(frozen=True, eq=False)
class HalfResult:
    """The FP16 graph and its outputs for the golden inputs; both are None if there is none, as `fault` explains.

    `weights` and `largest_activation` are None if the graph cannot be converted at all.
    """

    model: onnx.ModelProto | None
    output: NDArray[np.float32] | None  # every tensor rounded to half, products and sums in FP32
    weights: HalfReport | None
    largest_activation: LayerMax | None
    fault: str | None = None


@dataclass(frozen=True, eq=False)
class PreparedHalf:
    """All that is made without the FP32 outputs: the FP16 graph, its output for the first images, an open session."""

    model: onnx.ModelProto
    weights: HalfReport
    largest_activation: LayerMax
    first_output: NDArray[np.float32]
    rounded: onnxruntime.InferenceSession


def prepare_half(model: onnx.ModelProto, images: Images) -> PreparedHalf | HalfResult:
    """Convert the FP32 `model` to half precision; return the result at once if it cannot be converted.

    This runs mostly on one core, so that the FP32 network can run at the same time.
    """
    try:
        half, weights = to_half(model)
    except CheckpointError as error:
        return HalfResult(None, None, None, None, str(error))
    largest = max(largest_activations(model, images[:_SAMPLE]), key=_magnitude)
    if weights.overflowed:
        first = weights.overflowed[0]
        fault = f"{first.count} of {first.total} weights of layer {first.layer} exceed {HALF_MAX:.0f}"
        return HalfResult(None, None, weights, largest, fault)
    first_output = run_session(open_session(half, optimised=False), images[:_FILE_SAMPLE])
    return PreparedHalf(half, weights, largest, first_output, open_rounded(model))


def try_half(
    prepared: PreparedHalf, model: onnx.ModelProto, images: Images, reference: NDArray[np.float32], name: str
) -> HalfResult:
    """Try half precision on `images`; `reference` has the outputs of the FP32 `model`."""
    weights, largest = prepared.weights, prepared.largest_activation
    output = run_session(prepared.rounded, images, f"{name}: half precision")
    if not np.isfinite(output).all() or _magnitude(largest) > HALF_MAX:
        activations = largest_activations(model, images, f"{name}: looking for the overflow")
        above = [layer for layer in activations if _magnitude(layer) > HALF_MAX]
        first_over = above[0] if above else max(activations, key=_magnitude)
        fault = f"the output of layer {first_over.layer} reaches {first_over.value:.3g}, half ends at {HALF_MAX:.0f}"
        return HalfResult(None, None, weights, first_over, fault)
    of_file = np.concatenate([prepared.first_output, reference[_FILE_SAMPLE:]])
    difference = difference_of_range(reference, of_file)
    if difference > _FILE_TOLERANCE:
        fault = f"ONNX Runtime's result for the FP16 file is {difference:.3f} of the range off"
        return HalfResult(None, None, weights, largest, fault)
    return HalfResult(prepared.model, output, weights, largest)


def _magnitude(layer: LayerMax) -> float:
    return layer.value if np.isfinite(layer.value) else float("inf")
