"""Ways in which pictures may have entered a network that differ from the manifest."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from spinescore.export.normalisation import USUAL
from spinescore.export.reference import Reference
from spinescore.export.sources import Network
from spinescore.export.variants import Change
from spinescore.runtime.manifest import NetworkInput

__all__ = ["MistakenInput", "as_it_is", "mistaken_inputs"]

Array = NDArray[np.float64]
Normalisation = tuple[tuple[float, ...], tuple[float, ...]]  # mean and std of grey 0..1, per channel


@dataclass(frozen=True)
class MistakenInput:
    """One such way: `change` is applied to the grey pictures, then the normalisation of `size`."""

    mistake: str
    remedy: str
    size: NetworkInput
    change: Change | None = None


def as_it_is(size: NetworkInput) -> MistakenInput:
    """Return the manifest's own way, without a mistake."""
    return MistakenInput("", "", size)


def mistaken_inputs(network: Network, reference: Reference, size: NetworkInput) -> Iterator[MistakenInput]:
    """Yield every other way to try, the likelier first."""
    yield from _normalisations(network, size)
    yield from _depths(reference, size)
    yield from _geometries(network, size)
    yield from _of_each_picture(network, size)


def _normalisations(network: Network, size: NetworkInput) -> Iterator[MistakenInput]:
    for words, (mean, std) in _usual(size).items():
        if np.allclose(mean, size.mean) and np.allclose(std, size.std):
            continue
        lists = [", ".join(f"{value:.9g}" for value in values) for values in (mean, std)]
        remedy = f"State it in the --manifest file: [{network.kind}.input] mean = [{lists[0]}], std = [{lists[1]}]."
        yield MistakenInput(words, remedy, replace(size, mean=mean, std=std))


def _usual(size: NetworkInput) -> dict[str, Normalisation]:
    """Return the usual normalisations for the input's channels, by their description."""
    imagenet, caffe = USUAL["imagenet"], USUAL["caffe"]
    usual = {"the channels in the opposite order (BGR for RGB)": (size.mean[::-1], size.std[::-1])}
    if size.channels == 3:
        usual["ImageNet's mean and std, in the order BGR"] = (imagenet[0][::-1], imagenet[1][::-1])
        usual["Keras' 'caffe' means, in the order RGB"] = (caffe[0][::-1], caffe[1])
    else:
        count = size.channels
        means = [(sum(values) / 3,) * count for pair in (imagenet, caffe) for values in pair]
        imagenet, caffe = (means[0], means[1]), (means[2], means[3])
        usual["ImageNet's mean 0.485 and std 0.229"] = ((0.485,) * count, (0.229,) * count)
    usual["ImageNet's mean and std of grey 0..1 (RGB)"] = imagenet
    usual["Keras' 'caffe' normalisation (BGR, 0..255 minus the means)"] = caffe
    for words, mean, std in (
        ("no normalisation (grey 0..1)", 0.0, 1.0),
        ("no normalisation (grey 0..255)", 0.0, 1 / 255),
        ("grey brought to -1..1", 0.5, 0.5),
    ):
        usual[words] = ((mean,) * size.channels, (std,) * size.channels)
    for words, (mean_of, std_of) in (("ImageNet's mean and std", imagenet), ("the stated mean and std", _stated(size))):
        undivided = tuple(value / 255 for value in mean_of), tuple(value / 255 for value in std_of)
        usual[f"{words} taken of grey 0..255 (not divided by 255)"] = undivided
    return usual


def _stated(size: NetworkInput) -> Normalisation:
    return size.mean, size.std


def _depths(reference: Reference, size: NetworkInput) -> Iterator[MistakenInput]:
    """Yield pictures of 8, 10, 12 or 14 bits that were saved in a wider type."""
    most = float(reference.grey.max())
    for bits in (8, 10, 12, 14):
        factor = 65535 / (2**bits - 1)
        if most * factor <= 1 + 1e-9:
            remedy = f"Save `images` as float, divided by {2**bits - 1}."
            yield MistakenInput(f"pictures of {bits} bits, saved as uint16", remedy, size, partial(np.multiply, factor))


def _geometries(network: Network, size: NetworkInput) -> Iterator[MistakenInput]:
    remedy = "Save `images` as they go into the network."
    side = f'{remedy} If they are the ones to be scored, state grader.crop.anterior = "right" (or "left").'
    sideways = side if network.kind == "grader" else remedy
    yield MistakenInput("pictures with left and right exchanged", sideways, size, lambda grey: grey[:, :, ::-1])
    yield MistakenInput("pictures that are upside down", remedy, size, lambda grey: grey[:, ::-1])
    if size.height == size.width:
        yield MistakenInput("pictures with rows and columns exchanged", remedy, size, lambda grey: grey.swapaxes(1, 2))
    yield MistakenInput("pictures in the negative", remedy, size, lambda grey: 1 - grey)
    aligned = (
        f"{remedy} If the network pads its first convolution on one side alone (TensorFlow's 'same'), export it to "
        "ONNX with tf2onnx and give that file."
    )
    for words, down, right in (("right", 0, 1), ("left", 0, -1), ("down", 1, 0), ("up", -1, 0)):
        mistake = f"pictures moved by one pixel {words}"
        yield MistakenInput(mistake, aligned, size, partial(_moved, down=down, right=right))


def _moved(grey: Array, down: int, right: int) -> Array:
    """Return the pictures moved by one pixel; the border's pixels are repeated."""
    padded = np.pad(grey, ((0, 0), (1, 1), (1, 1)), mode="edge")
    height, width = grey.shape[1:]
    return padded[:, 1 - down : 1 - down + height, 1 - right : 1 - right + width]


def _of_each_picture(network: Network, size: NetworkInput) -> Iterator[MistakenInput]:
    """Yield normalisations by each picture's own grey values, which a manifest cannot state."""
    remedy = (
        "No manifest says that: put it into the network, export that to ONNX, and state "
        f"[{network.kind}.input] mean = {[0.0] * size.channels}, std = {[1.0] * size.channels}."
    )
    plain = replace(size, mean=(0.0,) * size.channels, std=(1.0,) * size.channels)
    yield MistakenInput("each picture brought to mean 0 and std 1 by itself", remedy, plain, _standardised)
    yield MistakenInput("each picture stretched to 0..1 by itself", remedy, plain, _stretched)


def _standardised(grey: Array) -> Array:
    mean, std = grey.mean(axis=(1, 2), keepdims=True), grey.std(axis=(1, 2), keepdims=True)
    return np.asarray((grey - mean) / std)


def _stretched(grey: Array) -> Array:
    least, most = grey.min(axis=(1, 2), keepdims=True), grey.max(axis=(1, 2), keepdims=True)
    return np.asarray((grey - least) / (most - least))
