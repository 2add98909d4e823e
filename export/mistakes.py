"""Explains why a network differs from its reference: tries the usual mistakes, one by one and in pairs.

A mistake changes either the input (normalisation, channel order, an axis, a pixel) or the output (probabilities, class
order, an axis, a pixel). Each is tried on a few pictures; the one that makes the reference fit is reported.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from spinescore.export.mistaken_inputs import as_it_is, mistaken_inputs
from spinescore.export.reference import Reference
from spinescore.export.sources import Network
from spinescore.export.variants import ONE_CORNER, Runner, softmax
from spinescore.runtime.acceptance.comparison import difference_of_range
from spinescore.runtime.manifest import CLASSES, NetworkInput

__all__ = ["Explanation", "explain"]

_PICTURES = 8
_CLOSER = 20  # a mistake explains the difference if it makes it this many times smaller
_NEAR = 1e-2  # and at most this large
_UNCHANGED = ("", "")

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Explanation:
    """A mistake in words ("pictures that ..."), how to mend it, and the difference of range without it."""

    mistake: str
    remedy: str
    difference: float


def explain(
    network: Network, runner: Runner, reference: Reference, size: NetworkInput, difference: float, tolerance: float
) -> Explanation | None:
    """Return the mistake that makes `reference` fit, a single one before a pair; None if no usual one does.

    `difference` is the difference of range as it is, `runner` runs the network.
    """
    few = replace(reference, grey=reference.grey[:_PICTURES], outputs=reference.outputs[:_PICTURES])
    enough = max(tolerance, min(_NEAR, difference / _CLOSER))
    pairs: list[Explanation] = []
    singles: list[Explanation] = []
    for number, way in enumerate([as_it_is(size), *mistaken_inputs(network, reference, size)]):
        output = runner(few.grey, way.size, way.change)
        for changed, expected, mistake, remedy in _readings(network, few, output):
            words = [part for part in (way.mistake, mistake) if part]
            rest = difference_of_range(expected, changed)
            if not words or not rest <= enough:
                continue
            remedies = " ".join(part for part in (way.remedy, remedy) if part)
            (singles if len(words) == 1 else pairs).append(Explanation(" and ".join(words), remedies, rest))
        if any(number == 0 or one.difference <= tolerance for one in singles):  # if number is 0, the pictures are right
            break
    return min(singles or pairs, key=lambda one: one.difference, default=None)


def _readings(network: Network, reference: Reference, output: Array) -> Iterator[tuple[Array, Array, str, str]]:
    """Yield (the network's output, the reference's, mistake, remedy) for every way to read the outputs."""
    if network.kind == "localizer":
        yield output, reference.outputs, *_UNCHANGED
        yield from _heatmaps(reference.outputs, output)
        return
    usual = softmax(output) if reference.kind == "probabilities" else output
    yield usual, reference.outputs, *_UNCHANGED
    yield from _kinds(reference, output)
    yield from _orders(network, reference.outputs, usual)


def _kinds(reference: Reference, output: Array) -> Iterator[tuple[Array, Array, str, str]]:
    probabilities = softmax(output)
    if reference.kind == "probabilities":
        yield output, reference.outputs, "logits where probabilities are said", 'Save kind="logits" in REF.'
    else:
        remedy = 'Save kind="probabilities" in REF.'
        yield probabilities, reference.outputs, "probabilities where logits are said", remedy
    if output.shape[1] == 2 * ONE_CORNER:
        remedy = 'spinescore takes it over each corner\'s four; save the outputs before it, with kind="logits".'
        yield softmax(output, output.shape[1]), reference.outputs, "one softmax over all 8 outputs", remedy
    with np.errstate(over="ignore", divide="ignore"):
        sigmoids, logarithms = 1 / (1 + np.exp(-output)), np.log(probabilities)
    remedy = 'Save the outputs before them, with kind="logits".'
    if np.isfinite(logarithms).all():
        yield logarithms, reference.outputs, "logarithms of probabilities", remedy
    remedy = (
        'spinescore takes the softmax of a corner\'s outputs; save the outputs before the sigmoid, with kind="logits", '
        "and see that the training's loss was a softmax's."
    )
    yield sigmoids, reference.outputs, "a sigmoid of each output", remedy


def _orders(network: Network, expected: Array, output: Array) -> Iterator[tuple[Array, Array, str, str]]:
    """Yield the outputs in another order, if matching each column to the nearest gives one."""
    columns = _matching(expected, output)
    if columns is None:
        return
    names = CLASSES[network.outputs]
    raw = [""] * len(names)  # the class of each of the network's outputs, if REF is in the stated order
    stated = network.classes or names
    to_raw = [stated.index(name) for name in names]
    for place, column in enumerate(columns):
        raw[to_raw[column]] = names[place]
    listed = ", ".join(f'"{name}"' for name in raw)
    remedy = (
        "Save the outputs in the network's own order. If the order in REF is the one that is meant, state that of the "
        f"network in the --manifest file: [grader.classes] {network.role} = [{listed}]."
    )
    yield output[:, columns], expected, "the classes in another order", remedy


def _heatmaps(expected: Array, output: Array) -> Iterator[tuple[Array, Array, str, str]]:
    axes = "Save the heatmaps as the network gives them, rows from above, columns from the left."
    yield output[..., ::-1], expected, "heatmaps with left and right exchanged", axes
    yield output[..., ::-1, :], expected, "heatmaps that are upside down", axes
    if output.shape[2] == output.shape[3]:
        yield output.swapaxes(2, 3), expected, "heatmaps with rows and columns exchanged", axes
    columns = _matching(expected, output)
    if columns is not None:
        remedy = "Save the heatmaps in the network's own order, and state the order in localizer.keypoints."
        yield output[:, columns], expected, "the heatmaps in another order", remedy
    remedy = (
        "Save the heatmaps without any shift (the official HRNet's TEST.SHIFT_HEATMAP), and state where heatmap pixels "
        "lie by localizer.align in the --manifest file."
    )
    for name, down, right in (("right", 0, 1), ("left", 0, -1), ("down", 1, 0), ("up", -1, 0)):
        inner, outer = _overlap(output, down, right), _overlap(expected, -down, -right)
        yield inner, outer, f"heatmaps moved by one pixel {name}", remedy


def _overlap(heatmaps: Array, down: int, right: int) -> Array:
    """Return the part that stays inside if the heatmaps move by that many pixels."""
    height, width = heatmaps.shape[2:]
    rows = slice(max(-down, 0), height - max(down, 0))
    return heatmaps[:, :, rows, slice(max(-right, 0), width - max(right, 0))]


def _matching(expected: Array, output: Array) -> list[int] | None:
    """Return, for each channel of `expected`, the nearest channel of `output`; None if that is no other order."""
    nearest = [
        int(np.argmin([np.abs(output[:, other] - expected[:, own]).max() for other in range(output.shape[1])]))
        for own in range(expected.shape[1])
    ]
    in_order = list(range(output.shape[1]))
    return nearest if sorted(nearest) == in_order and nearest != in_order else None
