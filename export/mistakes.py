"""Explains why a network differs from its reference: tries the usual mistakes, one by one and in pairs.

A mistake changes either the input (normalisation, channel order, an axis, a pixel) or the output (probabilities, class
order, an axis, a pixel). Each is tried on a few pictures; the one that makes the reference fit is reported.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from spinescore.export.defaults import USUAL
from spinescore.export.ends import ONE_CORNER, softmax
from spinescore.export.sessions import Change, Runner
from spinescore.export.sources import Network
from spinescore.runtime.acceptance.comparison import difference_of_range
from spinescore.runtime.manifest import CLASSES, NetworkInput

__all__ = ["Explanation", "explain"]

_PICTURES = 8
_CLOSER = 20  # a mistake explains the difference if it makes it this many times smaller
_NEAR = 1e-2  # and at most this large
_UNCHANGED = ("", "")
_MOVES = (("right", 0, 1), ("left", 0, -1), ("down", 1, 0), ("up", -1, 0))  # in words, pixels down and to the right

Array = NDArray[np.float64]
Normalisation = tuple[tuple[float, ...], tuple[float, ...]]  # mean and std of grey 0..1, per channel


@dataclass(frozen=True)
class Explanation:
    """A mistake in words ("pictures that ..."), how to mend it, and the difference of range without it."""

    mistake: str
    remedy: str
    difference: float


def explain(
    network: Network,
    runner: Runner,
    grey: Array,
    expected: Array,
    kind: str,
    size: NetworkInput,
    difference: float,
    tolerance: float,
) -> Explanation | None:
    """Return the mistake that makes the `expected` outputs fit, a single one before a pair; None if no usual one does.

    `grey` are the pictures, `kind` the kind of the outputs, `difference` is the difference of range as it is.
    """
    enough = max(tolerance, min(_NEAR, difference / _CLOSER))
    pairs: list[Explanation] = []
    singles: list[Explanation] = []
    ways = chain(
        _normalisations(network, size), _depths(grey, size), _geometries(network, size), _by_picture(network, size)
    )
    for number, way in enumerate([_Input(*_UNCHANGED, size), *ways]):
        output = runner(grey[:_PICTURES], way.size, way.change)
        for changed, other, mistake, remedy in _readings(network, expected[:_PICTURES], kind, output):
            words = [part for part in (way.mistake, mistake) if part]
            rest = difference_of_range(other, changed)
            if words and rest <= enough:
                remedies = f"{way.remedy} {remedy}".strip()
                (singles if len(words) == 1 else pairs).append(Explanation(" and ".join(words), remedies, rest))
        if any(number == 0 or one.difference <= tolerance for one in singles):  # if number is 0, the pictures are right
            break
    return min(singles or pairs, key=lambda one: one.difference, default=None)


def _readings(network: Network, expected: Array, kind: str, output: Array) -> Iterator[tuple[Array, Array, str, str]]:
    """Yield (the network's output, the reference's, mistake, remedy) for every way to read the outputs."""
    if network.kind == "localizer":
        yield output, expected, *_UNCHANGED
        yield from _heatmaps(expected, output)
        return
    usual = softmax(output) if kind == "probabilities" else output
    yield usual, expected, *_UNCHANGED
    for changed, mistake, remedy in _kinds(kind, output):
        yield changed, expected, mistake, remedy
    yield from _orders(network, expected, usual)


def _kinds(said: str, output: Array) -> Iterator[tuple[Array, str, str]]:
    probabilities = softmax(output)
    other, changed = ("logits", output) if said == "probabilities" else ("probabilities", probabilities)
    yield changed, f"{other} where {said} are said", f'Save kind="{other}" in REF.'
    if output.shape[1] == 2 * ONE_CORNER:
        remedy = 'spinescore takes it over each corner\'s four; save the outputs before it, with kind="logits".'
        yield softmax(output, output.shape[1]), "one softmax over all 8 outputs", remedy
    with np.errstate(over="ignore", divide="ignore"):
        sigmoids, logarithms = 1 / (1 + np.exp(-output)), np.log(probabilities)
    remedy = 'Save the outputs before them, with kind="logits".'
    if np.isfinite(logarithms).all():
        yield logarithms, "logarithms of probabilities", remedy
    remedy = (
        'spinescore takes the softmax of a corner\'s outputs; save the outputs before the sigmoid, with kind="logits", '
        "and see that the training's loss was a softmax's."
    )
    yield sigmoids, "a sigmoid of each output", remedy


def _orders(network: Network, expected: Array, output: Array) -> Iterator[tuple[Array, Array, str, str]]:
    """Yield the outputs in another order, if matching each column to the nearest gives one."""
    columns = _matching(expected, output)
    if columns is None:
        return
    names = CLASSES[network.outputs]
    stated = network.classes or names
    meant = {stated.index(names[column]): name for column, name in zip(columns, names, strict=True)}
    order = json.dumps([meant[output] for output in range(len(names))])  # if REF is in the stated order
    remedy = (
        "Save the outputs in the network's own order. If the order in REF is the one that is meant, state that of the "
        f"network in the --manifest file: [grader.classes] {network.role} = {order}."
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
    for words, down, right in _MOVES:
        inner, outer = _overlap(output, down, right), _overlap(expected, -down, -right)
        yield inner, outer, f"heatmaps moved by one pixel {words}", remedy


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


@dataclass(frozen=True)
class _Input:
    """A way into the network: `change` is applied to the grey pictures, then the normalisation of `size`."""

    mistake: str
    remedy: str
    size: NetworkInput
    change: Change | None = None


def _normalisations(network: Network, size: NetworkInput) -> Iterator[_Input]:
    for words, (mean, std) in _usual(size).items():
        if np.allclose(mean, size.mean) and np.allclose(std, size.std):
            continue
        lists = [", ".join(f"{value:.9g}" for value in values) for values in (mean, std)]
        remedy = f"State it in the --manifest file: [{network.kind}.input] mean = [{lists[0]}], std = [{lists[1]}]."
        yield _Input(words, remedy, replace(size, mean=mean, std=std))


def _usual(size: NetworkInput) -> dict[str, Normalisation]:
    """Return the usual normalisations for the input's channels, by their description."""

    def in_all(mean: float, std: float) -> Normalisation:
        return (mean,) * size.channels, (std,) * size.channels

    imagenet, caffe = USUAL["imagenet"], USUAL["caffe"]
    usual = {"the channels in the opposite order (BGR for RGB)": (size.mean[::-1], size.std[::-1])}
    if size.channels == 3:
        usual["ImageNet's mean and std, in the order BGR"] = (imagenet[0][::-1], imagenet[1][::-1])
        usual["Keras' 'caffe' means, in the order RGB"] = (caffe[0][::-1], caffe[1])
    else:
        imagenet, caffe = (in_all(sum(mean) / 3, sum(std) / 3) for mean, std in (imagenet, caffe))
        usual["ImageNet's mean 0.485 and std 0.229"] = in_all(0.485, 0.229)
    usual |= {
        "ImageNet's mean and std of grey 0..1 (RGB)": imagenet,
        "Keras' 'caffe' normalisation (BGR, 0..255 minus the means)": caffe,
        "no normalisation (grey 0..1)": in_all(0.0, 1.0),
        "no normalisation (grey 0..255)": in_all(0.0, 1 / 255),
        "grey brought to -1..1": in_all(0.5, 0.5),
    }
    undivided = {"ImageNet's mean and std": imagenet, "the stated mean and std": (size.mean, size.std)}
    for words, (mean, std) in undivided.items():
        divided = tuple(value / 255 for value in mean), tuple(value / 255 for value in std)
        usual[f"{words} taken of grey 0..255 (not divided by 255)"] = divided
    return usual


def _depths(grey: Array, size: NetworkInput) -> Iterator[_Input]:
    """Yield pictures of 8, 10, 12 or 14 bits that were saved in a wider type."""
    most = float(grey.max())
    for bits in (8, 10, 12, 14):
        factor = 65535 / (2**bits - 1)
        if most * factor <= 1 + 1e-9:
            remedy = f"Save `images` as float, divided by {2**bits - 1}."
            yield _Input(f"pictures of {bits} bits, saved as uint16", remedy, size, partial(np.multiply, factor))


def _geometries(network: Network, size: NetworkInput) -> Iterator[_Input]:
    remedy = "Save `images` as they go into the network."
    side = f'{remedy} If they are the ones to be scored, state grader.crop.anterior = "right" (or "left").'
    sideways = side if network.kind == "grader" else remedy
    yield _Input("pictures with left and right exchanged", sideways, size, lambda grey: grey[:, :, ::-1])
    yield _Input("pictures that are upside down", remedy, size, lambda grey: grey[:, ::-1])
    if size.height == size.width:
        yield _Input("pictures with rows and columns exchanged", remedy, size, lambda grey: grey.swapaxes(1, 2))
    yield _Input("pictures in the negative", remedy, size, lambda grey: 1 - grey)
    aligned = (
        f"{remedy} If the network pads its first convolution on one side alone (TensorFlow's 'same'), export it to "
        "ONNX with tf2onnx and give that file."
    )
    for words, down, right in _MOVES:
        mistake = f"pictures moved by one pixel {words}"
        yield _Input(mistake, aligned, size, partial(_moved, down=down, right=right))


def _moved(grey: Array, down: int, right: int) -> Array:
    """Return the pictures moved by one pixel; the border's pixels are repeated."""
    padded = np.pad(grey, ((0, 0), (1, 1), (1, 1)), mode="edge")
    height, width = grey.shape[1:]
    return padded[:, 1 - down : 1 - down + height, 1 - right : 1 - right + width]


def _by_picture(network: Network, size: NetworkInput) -> Iterator[_Input]:
    """Yield normalisations by each picture's own grey values, which a manifest cannot state."""
    remedy = (
        "No manifest says that: put it into the network, export that to ONNX, and state "
        f"[{network.kind}.input] mean = {[0.0] * size.channels}, std = {[1.0] * size.channels}."
    )
    plain = replace(size, mean=(0.0,) * size.channels, std=(1.0,) * size.channels)

    def standardised(grey: Array) -> Array:
        return np.asarray((grey - grey.mean((1, 2), keepdims=True)) / grey.std((1, 2), keepdims=True))

    def stretched(grey: Array) -> Array:
        return np.asarray((grey - grey.min((1, 2), keepdims=True)) / np.ptp(grey, (1, 2), keepdims=True))

    yield _Input("each picture brought to mean 0 and std 1 by itself", remedy, plain, standardised)
    yield _Input("each picture stretched to 0..1 by itself", remedy, plain, stretched)
