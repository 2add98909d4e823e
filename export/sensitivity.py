"""Chooses the layers that run in 8 bits, choice by choice, until the outputs keep within the tolerances.

First the rule for the activations' ranges is chosen, with all layers but the first and the last in 8 bits. If that is
not enough, the sums stay in FP32, so that a residual network's main path is not rounded. If that is not enough either,
groups of neighbouring layers are kept in FP32 one after the other, the group that alone causes the largest error
first.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, islice

import numpy as np
import onnx
from numpy.typing import NDArray
from tqdm import tqdm

from spinescore.export.int8 import RULES, Ranges, calibrate, layers, quantize, sample_first
from spinescore.export.sessions import Images, ScaledImages, run_model
from spinescore.runtime.acceptance.comparison import GradeAgreement, PointAgreement
from spinescore.runtime.errors import CheckpointError
from spinescore.runtime.manifest.tolerances import Tolerances

__all__ = ["MIN_IMAGES", "Int8Result", "Step", "make_int8"]

MIN_IMAGES = 8  # fewer do not show an activation's range
_CALIBRATED = 64  # images at most, taken evenly from all
_LEAST_LAYERS = 3
_GROUPS = 16
_MOST_KEPT = 8  # groups; beyond half of the network INT8 is not worth a file
_PROBES = 8  # images on which a group's own error is measured

Array = NDArray[np.float32]
Agreement = PointAgreement | GradeAgreement


@dataclass(frozen=True)
class Step:
    """One choice, the output's mean error in shares of its range, and the change of the results.

    `rule` is the rule of the activations' ranges; `kept` stays in FP32 besides the first and the last layer: `sums`,
    and groups of layers as `first .. last`.
    """

    rule: str
    kept: tuple[str, ...]
    error: float
    agreement: Agreement
    within: bool
    faults: str = ""  # the figures beyond the tolerances, in words

    def __str__(self) -> str:
        agreement = self.agreement
        if isinstance(agreement, GradeAgreement):
            change = f"{agreement.flips} of {agreement.corners} grades flip"
        else:
            change = f"points move by {agreement.median_shift_px:.3f} heatmap pixels in the median"
        kept = f", {', '.join(self.kept)} in FP32" if self.kept else ""
        beyond = f"; beyond the tolerances: {self.faults}" if self.faults else ""
        return f"ranges by {self.rule}{kept}: error {self.error:.2e} of the range, {change}{beyond}"


@dataclass(frozen=True, eq=False)
class Int8Result:
    """The INT8 graph that was chosen; None if there is none, as `fault` explains."""

    model: onnx.ModelProto | None
    steps: tuple[Step, ...]
    fault: str | None = None


def make_int8(
    model: onnx.ModelProto,
    images: Images,
    reference: Array,
    judge: Callable[[Array], Agreement],
    bounds: Tolerances,
    name: str,
) -> Int8Result:
    """Convert the FP32 `model` to INT8, and try it on normalised `images` (N, C, H, W).

    `reference` has the FP32 outputs for the images, `judge` compares an output with it, and `bounds` are the limits:
    the criteria of the acceptance gate. Raises `CheckpointError` if too few images show anything to calibrate on.
    """
    weighted, sums = layers(model, "Conv", "Gemm"), layers(model, "Add")
    if len(weighted) < _LEAST_LAYERS:
        return Int8Result(None, (), f"it has {len(weighted)} layers with weights; the first and the last stay in FP32")
    _check(images, name)
    model = sample_first(model)
    ranges = calibrate(model, images[:: -(-len(images) // _CALIBRATED)])
    ends = {weighted[0], weighted[-1]}
    steps: list[Step] = []

    def attempt(rule: str, kept: Mapping[str, Collection[str]]) -> onnx.ModelProto:
        quantized = quantize(model, ranges[rule], ends.union(*kept.values()))
        output = run_model(quantized, images, f"{name}: INT8")
        error, agreement = mean_error(reference, output), judge(output)
        faults = agreement.faults(bounds) if np.isfinite(error) else ["an output that is not finite"]
        steps.append(Step(rule, tuple(kept), error, agreement, not faults, "; ".join(faults)))
        return quantized

    attempts = [attempt(rule, {}) for rule in RULES]
    best = int(np.argmin([step.error for step in steps]))  # grades are few, and change by chance as well
    if steps[best].within:
        return Int8Result(attempts[best], tuple(steps))
    rule = RULES[best]
    kept: dict[str, Collection[str]] = {}
    groups = _ranked(model, ranges[rule], images, reference, ends.union(sums), name)
    for name_of_group, group in chain([("sums", sums)] if sums else [], islice(groups, _MOST_KEPT)):
        kept[name_of_group] = group
        quantized = attempt(rule, kept)
        if steps[-1].within:
            return Int8Result(quantized, tuple(steps))
    fault = f"not within the tolerances with {_MOST_KEPT} of {_GROUPS} groups in FP32 ({steps[-1].faults})"
    return Int8Result(None, tuple(steps), fault)


def mean_error(reference: Array, other: Array) -> float:
    """Return the mean |other - reference| in shares of the reference's range; infinity if `other` is not finite."""
    if not np.isfinite(other).all():
        return float("inf")
    return float(np.abs(other - reference).mean() / max(float(np.ptp(reference)), np.finfo(np.float32).tiny))


def _check(images: Images, name: str) -> None:
    images = images.scales[0] if isinstance(images, ScaledImages) else images
    varied = sum(float(np.ptp(image)) > 0 for image in images)
    if varied < MIN_IMAGES:
        raise CheckpointError(
            f"{name}: INT8 needs at least {MIN_IMAGES} golden pictures that show something to calibrate on, "
            f"{varied} of {len(images)} do; give more radiographs with --golden, or more phantoms"
        )


def _ranked(
    model: onnx.ModelProto, ranges: Ranges, images: Images, reference: Array, keep: Collection[str], name: str
) -> Iterator[tuple[str, Collection[str]]]:
    """Yield the groups of layers with their names, the group that causes the largest error first."""
    images, reference = images[:_PROBES], reference[:_PROBES]
    free = [layer for layer in layers(model) if layer not in keep]
    groups = [tuple(str(layer) for layer in part) for part in np.array_split(np.array(free), _GROUPS) if len(part)]
    errors = []
    for group in tqdm(groups, desc=f"{name}: sensitivity", leave=False, disable=None):
        others = set(layers(model)) - set(group)
        errors.append(mean_error(reference, run_model(quantize(model, ranges, others), images)))
    for number in np.argsort(errors)[::-1]:
        yield f"{groups[number][0]} .. {groups[number][-1]}", groups[number]
