"""Compares an exported network with the outputs of the owner's own code for the same grey pictures.

The comparison covers the whole way from grey to output: normalisation, channels, layers, head. It shows that the export
computes the trained network. It cannot show the meaning of the outputs (class order, keypoints).

Pictures and outputs lie in REF files, which are read without running anything in them. An .npz has `images` (N, H, W),
the grey pictures before the owner's normalisation; `outputs`, the results of the owner's code for them; and optionally
`kind`. Sizes are checked before memory is taken. Arrays of objects, which are pickles, are refused.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from spinescore.export.ends import softmax
from spinescore.export.mistakes import explain
from spinescore.export.networks import columns_of
from spinescore.export.sessions import Runner
from spinescore.export.sources import Network, split_sources
from spinescore.export.untrusted import Zip, naming, read_file, read_npy
from spinescore.runtime.acceptance.comparison import difference_of_range
from spinescore.runtime.engines.half import store_half
from spinescore.runtime.errors import CheckpointError
from spinescore.runtime.manifest import NetworkInput
from spinescore.runtime.scoring.networks import HEATMAP_STRIDE

__all__ = ["TOLERANCE", "Kind", "prove"]

TOLERANCE = 1e-4  # of the range of the reference's outputs

Kind = Literal["heatmaps", "logits", "probabilities"]

MAX_FILE_BYTES = 1 << 29
LEAST_PICTURES, MOST_PICTURES = 8, 512
LEAST_CHANGE = 1e-3  # of the outputs' range, from picture to picture; with less a check would show nothing
_LARGEST_NUMBER, _HEADER_BYTES = 16, 1 << 16
_DEPTHS = {"|u1": 255, "<u2": 65535, ">u2": 65535}
_WRITE = "write it with np.savez(REF, images=.., outputs=.., kind=..), as docs/weights.md shows"
_KEYS = {"localizer": ("cervical", "lumbar"), "grader": ("bridge", "grades")}


def prove(
    networks: Sequence[Network], references: str | None, size: NetworkInput, kind: Kind | None, stored_half: bool
) -> None:
    """Compare `networks`, all localizers or all graders, with REF files; record the result in each network.

    `references` is a file, or `cervical=R,lumbar=S` or `bridge=R,grades=S` for two networks; None checks nothing.
    `kind` is the kind of a grader's outputs if the file does not state it. With `stored_half`, the difference that
    rounding the stored weights makes is recorded too. Raises `CheckpointError` if a network's outputs differ.
    """
    if references is None:
        return
    keys = _KEYS[networks[0].kind]
    paths = split_sources(references, keys)
    if len(paths) != len(networks):
        one = f"one file ({keys[0]}=, {keys[1]}= are of two)" if len(networks) == 1 else f"{keys[0]}=REF,{keys[1]}=REF"
        raise CheckpointError(
            f"--check-{networks[0].kind} {references}: {len(networks)} network(s) are checked; give {one}"
        )
    for network in networks:
        path = Path(paths[""] if len(paths) == 1 else paths[network.role])
        network.checked = _check(network, path, size, kind, stored_half)


def _check(network: Network, path: Path, size: NetworkInput, kind: Kind | None, stored_half: bool) -> dict[str, Any]:
    source = network.provenance["source"]
    if network.model is None:
        raise CheckpointError(f"{source}: random weights cannot be checked; leave --check-{network.kind} out")
    shape = [network.outputs]
    if network.kind == "localizer":
        shape += [size.height // HEATMAP_STRIDE, size.width // HEATMAP_STRIDE]
    reference = _read_reference(path, (size.height, size.width), tuple(shape), kind)
    if network.classes:
        reference = replace(reference, outputs=reference.outputs[:, columns_of(network.classes)])
    runner = Runner(network.model)
    outputs = runner(reference.grey, size, label=f"{network.stem}: check")
    outputs = softmax(outputs) if reference.kind == "probabilities" else outputs
    difference = difference_of_range(reference.outputs, outputs)
    if not difference <= TOLERANCE:
        raise CheckpointError(_refusal(network, runner, reference, size, difference))
    record = {
        "reference": reference.source,
        "sha256": reference.sha256,
        "bytes": reference.bytes,
        "pictures": len(reference.grey),
        "kind": reference.kind,
        "difference_of_range": difference,
        "largest_difference": float(np.abs(outputs - reference.outputs).max()),
        "range": float(np.ptp(reference.outputs)),
    }
    if stored_half:
        rounded = Runner(store_half(network.model))(reference.grey, size)
        rounded = softmax(rounded) if reference.kind == "probabilities" else rounded
        record["stored_difference_of_range"] = difference_of_range(reference.outputs, rounded)
    return record


def _refusal(network: Network, runner: Runner, reference: Reference, size: NetworkInput, difference: float) -> str:
    head = (
        f"{network.provenance['source']} does not give what {reference.source} says: {difference:.1e} of the outputs' "
        f"range off, {TOLERANCE:.0e} is allowed, so nothing was written."
    )
    reason = explain(network, runner, reference.grey, reference.outputs, reference.kind, size, difference, TOLERANCE)
    if reason is not None:
        return f"{head} It would be {reason.difference:.1e} off with {reason.mistake}. {reason.remedy}"
    return (
        f"{head} None of the usual mistakes (normalisation, channel order, logits or probabilities, class order, axes, "
        "pixel alignment) explains it. Weights do not tell strides, activations, BatchNorm's epsilon or upsampling: if "
        "yours are not the official ones, export the network to ONNX from its framework and give that file. Compute "
        "the outputs in evaluation mode and in float32 (on a GPU without TF32 and mixed precision)"
    )


@dataclass(frozen=True, eq=False)
class Reference:
    """One REF file: `grey` (N, H, W) in 0..1, and `outputs` of that `kind`, (N, joints, h, w) or (N, classes)."""

    source: str
    sha256: str
    bytes: int
    grey: NDArray[np.float64]
    outputs: NDArray[np.float64]
    kind: Kind


def _read_reference(path: Path, size: tuple[int, int], outputs: tuple[int, ...], kind: Kind | None = None) -> Reference:
    """Read `path` for a network with pictures of `size` (height, width) and outputs of the shape `outputs`.

    `kind`, of a grader's outputs, overrides the file's own. Raises `CheckpointError`, which names file and entry.
    """
    data = read_file(path, MAX_FILE_BYTES, _WRITE)
    with naming(path.name):
        if not data.startswith(b"PK\x03\x04"):
            raise CheckpointError(f"it is no .npz file; {_WRITE}")
        try:
            archive = Zip(data)
        except CheckpointError as error:
            raise CheckpointError(f"{error}. Write REF again with np.savez, which does not compress") from None
        grey = _grey(_array(archive, "images", prod(size)), size)
        values = _outputs(_array(archive, "outputs", prod(outputs)), len(grey), outputs)
        kind = kind or _kind(archive, outputs)
    return Reference(path.name, hashlib.sha256(data).hexdigest(), len(data), grey, values, kind)


def _array(archive: Zip, name: str, numbers: int) -> NDArray[Any]:
    """Return the array `name`, of at most that many numbers for each picture."""
    entry = archive.entries.get(f"{name}.npy")
    if entry is None:
        raise CheckpointError(f"it has no entry {name!r}; {_WRITE}")
    if entry.file_size > numbers * MOST_PICTURES * _LARGEST_NUMBER + _HEADER_BYTES:
        raise CheckpointError(
            f"entry {name!r} has {entry.file_size} bytes, more than {MOST_PICTURES} pictures of this network have; "
            f"{_WRITE}"
        )
    array = read_npy(name, archive.read(f"{name}.npy"), "fuiUS", _WRITE)
    if not array.size:
        raise CheckpointError(f"entry {name!r} is empty; {_WRITE}")
    return array


def _grey(images: NDArray[Any], size: tuple[int, int]) -> NDArray[np.float64]:
    """Return the pictures in 0..1. Refuses anything but a set of different grey pictures of `size`."""
    if images.ndim == 4 and 1 in (images.shape[1], images.shape[3]):
        images = images[:, 0] if images.shape[1] == 1 else images[..., 0]
    if images.shape[1:] != size:
        raise CheckpointError(
            f"'images' has shape {images.shape}; the network takes grey pictures (N, {size[0]}, {size[1]}), height "
            "before width, one channel, as they are before your normalisation"
        )
    if not LEAST_PICTURES <= len(images) <= MOST_PICTURES:
        raise CheckpointError(f"'images' has {len(images)} pictures; give {LEAST_PICTURES} to {MOST_PICTURES}")
    if images.dtype.str in _DEPTHS:
        grey = images / float(_DEPTHS[images.dtype.str])
    elif images.dtype.kind == "f":
        grey = images.astype(np.float64)
        least, most = float(grey.min()), float(grey.max())
        if not (least >= -1e-6 and most <= 1 + 1e-6):  # also false if one is not a number
            raise CheckpointError(
                f"'images' goes from {least:g} to {most:g}; grey of a floating-point type is 0..1, before your "
                "normalisation. Save 0..255 as uint8 and 0..65535 as uint16"
            )
    else:
        raise CheckpointError(f"'images' is of type {images.dtype}; save uint8, uint16, or float in 0..1")
    if (np.ptp(grey, axis=(1, 2)) == 0).any():
        raise CheckpointError("'images' has a picture of one grey alone, which shows nothing; give real pictures")
    if len({hashlib.sha256(picture.tobytes()).digest() for picture in grey}) < LEAST_PICTURES:
        raise CheckpointError(f"'images' has fewer than {LEAST_PICTURES} different pictures; give more")
    return grey


def _outputs(values: NDArray[Any], count: int, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Return the outputs (N, *shape). Channels that come last, as Keras has them, are brought to the front."""
    if values.dtype.kind != "f" or values.dtype.itemsize < 4:
        raise CheckpointError(f"'outputs' is of type {values.dtype}, which is too coarse to compare; save float32")
    if values.shape == (count, 2, 4) and shape == (8,):
        values = values.reshape(count, 8)
    if values.shape != (count, *shape) and len(shape) == 3 and values.shape == (count, *shape[1:], shape[0]):
        values = values.transpose(0, 3, 1, 2)
    if values.shape != (count, *shape):
        raise CheckpointError(
            f"'outputs' has shape {values.shape}; the network gives ({count}, {', '.join(map(str, shape))}) for these "
            "pictures. Save what it gives in evaluation mode, before any decoding or rounding to a class"
        )
    values = values.astype(np.float64)
    if not np.isfinite(values).all():
        raise CheckpointError("'outputs' holds NaN or infinity; compute it again, in float32")
    spread = float(np.ptp(values))
    if spread == 0 or np.ptp(values, axis=0).max() < LEAST_CHANGE * spread:
        raise CheckpointError(
            "'outputs' hardly differs from picture to picture, so that it would show nothing; give pictures of "
            "different grades, and logits rather than probabilities"
        )
    return values


def _kind(archive: Zip, outputs: tuple[int, ...]) -> Kind:
    if len(outputs) == 3:
        return "heatmaps"
    text = ""
    if "kind.npy" in archive.entries:
        try:
            text = str(_array(archive, "kind", 1).astype(str).reshape(-1)[0])[:40]
        except ValueError:  # bytes that are no text
            text = "?"
    if text in ("logits", "probabilities"):
        return cast("Kind", text)
    fault = f"its entry 'kind' is {text!r}" if text else "it has no entry 'kind'"
    raise CheckpointError(f'{fault}; save kind="logits" or "probabilities", or give --check-kind logits|probabilities')
