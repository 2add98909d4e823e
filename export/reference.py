"""REF files: pictures, and the outputs of the owner's own code for them. Read without running anything in them.

An .npz with `images` (N, H, W), the grey pictures before the owner's normalisation; `outputs`, the results of the
owner's code for them; and optionally `kind`. Sizes are checked before memory is taken. Arrays of objects, which are
pickles, are refused.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from spinescore.export.untrusted import Zip, naming, read_file, read_npy
from spinescore.runtime.errors import CheckpointError

__all__ = ["Kind", "Reference", "read_reference"]

Kind = Literal["heatmaps", "logits", "probabilities"]

MAX_FILE_BYTES = 1 << 29
LEAST_PICTURES, MOST_PICTURES = 8, 512
LEAST_CHANGE = 1e-3  # of the outputs' range, from picture to picture; with less a check would show nothing
_LARGEST_NUMBER, _HEADER_BYTES = 16, 1 << 16
_DEPTHS = {"|u1": 255, "<u2": 65535, ">u2": 65535}
_WRITE = "write it with np.savez(REF, images=.., outputs=.., kind=..), as docs/weights.md shows"


@dataclass(frozen=True, eq=False)
class Reference:
    """One REF file: `grey` (N, H, W) in 0..1, and `outputs` of that `kind`, (N, joints, h, w) or (N, classes)."""

    source: str
    sha256: str
    bytes: int
    grey: NDArray[np.float64]
    outputs: NDArray[np.float64]
    kind: Kind


def read_reference(path: Path, size: tuple[int, int], outputs: tuple[int, ...], kind: Kind | None = None) -> Reference:
    """Read `path` for a network with pictures of `size` (height, width) and outputs of the shape `outputs`.

    `kind`, of a grader's outputs, overrides the file's own. Raises `CheckpointError`, which names file and entry.
    """
    data = read_file(path, MAX_FILE_BYTES, _WRITE)
    with naming(path.name):
        if not data.startswith(b"PK\x03\x04"):
            raise CheckpointError(f"it is no .npz file; {_WRITE}")
        archive = _opened(data)
        grey = _grey(_array(archive, "images", prod(size)), size)
        values = _outputs(_array(archive, "outputs", prod(outputs)), len(grey), outputs)
        kind = kind or _kind(archive, outputs)
    return Reference(path.name, hashlib.sha256(data).hexdigest(), len(data), grey, values, kind)


def _opened(data: bytes) -> Zip:
    try:
        return Zip(data)
    except CheckpointError as error:
        raise CheckpointError(f"{error}. Write REF again with np.savez, which does not compress") from None


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
    raise CheckpointError(
        f'{fault}; save kind="logits" or kind="probabilities", or give --check-kind logits|probabilities'
    )
