"""Trained weights from a file, read without the framework that wrote them and without running anything in it.

A file's format is told by its bytes, not by its name: PyTorch's two formats, safetensors, NumPy's .npz, and Keras'
.h5, .weights.h5 and .keras. SavedModel folders and TensorFlow's .ckpt are refused with the line that converts them.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from spinescore.export.hdf5 import HDF5_MAGIC
from spinescore.export.keras import read_h5, read_keras
from spinescore.export.keras_advice import from_checkpoint, from_saved_model
from spinescore.export.keras_config import KerasLayer
from spinescore.export.torchfiles import LEGACY_MAGIC, is_torch, read_legacy, read_zip
from spinescore.export.untrusted import Zip, array_from, as_float32, check_shape, naming, read_file, read_npy
from spinescore.export.weight_sets import Architecture, Chosen, Entry, Loader, Tensors, choose_weights
from spinescore.runtime.errors import CheckpointError
from spinescore.runtime.files import open_regular

__all__ = ["Checkpoint", "KerasLayer", "read_checkpoint"]

MAX_FILE_BYTES = 4 << 30  # a ResNet152 with its optimizer has 0.7 GB
MAX_SAFETENSORS_HEADER = 100_000_000  # as the format's own reader has it

_DAMAGED = (
    ArithmeticError, AttributeError, EOFError, LookupError, MemoryError, RecursionError, TypeError, ValueError,
    struct.error,
)  # fmt: skip

_Format = Literal["torch-zip", "torch-legacy", "safetensors", "npz", "keras-h5", "keras-zip"]

_SAFETENSORS = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "BF16": "bfloat16",
    **{f"I{bits}": f"<i{bits // 8}" for bits in (8, 16, 32, 64)},
    **{f"U{bits}": f"<u{bits // 8}" for bits in (8, 16, 32, 64)},
    "BOOL": "|b1",
}


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """The floating-point tensors of one file, float32 in C order, in the file's order.

    `framework` says which names and layouts they have: "torch" (`conv1.weight`, OIHW; a beginning such as `module.` and
    containers such as `state_dict` are gone) or "keras" (`conv1_conv/kernel`, HWIO; submodels' names are gone).
    `layers` are the layers in the Keras model's configuration, in order, without the submodels themselves; empty if the
    file has no configuration. Integer tensors (step counts) are left out. `source` is the file's name without its
    folder. `key` is the beginning of the tensors' names in the file; `notes` are sentences on what was chosen and left
    out.
    """

    framework: Literal["torch", "keras"]
    format: _Format
    tensors: Mapping[str, NDArray[np.float32]]
    source: str
    sha256: str
    bytes: int
    layers: tuple[KerasLayer, ...] = ()
    key: str = ""
    notes: tuple[str, ...] = ()


def read_checkpoint(path: str | Path, key: str = "", architecture: Architecture | None = None) -> Checkpoint:
    """Read the weights in `path`.

    A file of PyTorch, safetensors or .npz may hold several sets of weights: `key` names one, as `state_dict_ema`.
    Without it, the file must hold one set with the names of `architecture` (None: of HRNet or ResNet).

    Raises CheckpointError, which names the entry at fault, for a file that is damaged, that would run code, that holds
    several sets, or whose format is not read. If the format can be converted, the error gives the command for it.
    """
    path = Path(path)
    _refuse_tensorflow(path)
    data = read_file(path, MAX_FILE_BYTES, "give the file with the trained weights")
    with naming(path.name):
        try:
            kind, chosen, layers = _read(data, key, architecture)
        except _DAMAGED as error:
            detail = str(error)[:200] or type(error).__name__
            raise CheckpointError(f"the file is damaged ({detail}); get it again, or save the weights again") from None
        if not chosen.tensors:
            raise CheckpointError("the file holds no floating-point tensor; give the file with the trained weights")
    digest, tensors = hashlib.sha256(data).hexdigest(), chosen.tensors
    keras = kind.startswith("keras") or any("/" in name for name in tensors)
    framework: Literal["keras", "torch"] = "keras" if keras else "torch"
    return Checkpoint(framework, kind, tensors, path.name, digest, len(data), layers, chosen.key, chosen.notes)


def _read(data: bytes, key: str, architecture: Architecture | None) -> tuple[_Format, Chosen, tuple[KerasLayer, ...]]:
    """Return the format, the network and the Keras layers; the reader is chosen by the file's first bytes."""
    archive = Zip(data) if data.startswith(b"PK\x03\x04") else None
    if archive and ("config.json" in archive.entries or "model.weights.h5" in archive.entries):
        return "keras-zip", *_keras(read_keras(archive), key)
    if data.startswith(HDF5_MAGIC):
        return "keras-h5", *_keras(read_h5(data), key)
    kind: _Format
    if archive and is_torch(archive):
        kind, (entries, load) = "torch-zip", read_zip(archive, len(data))
    elif archive and archive.entries and all(name.endswith(".npy") for name in archive.entries):
        kind, (entries, load) = "npz", _as_entries(_read_npz(archive))
    elif archive:
        raise CheckpointError("the zip archive is neither of PyTorch, nor of Keras, nor an .npz; give the file itself")
    elif data.startswith(LEGACY_MAGIC):
        kind, (entries, load) = "torch-legacy", read_legacy(data)
    elif data[8:9] == b"{" and int.from_bytes(data[:8], "little") <= len(data) - 8:
        kind, (entries, load) = "safetensors", _as_entries(_read_safetensors(data))
    else:
        raise CheckpointError(
            f"its {len(data)} bytes are none of: PyTorch (.pth, .pt), safetensors, .npz, Keras (.h5, .weights.h5, "
            ".keras); it may be truncated, or a pickle of another kind, which is never loaded"
        )
    return kind, choose_weights(entries, load, key, architecture), ()


def _keras(read: tuple[Tensors, tuple[KerasLayer, ...]], key: str) -> tuple[Chosen, tuple[KerasLayer, ...]]:
    if key:
        raise CheckpointError(f"a file of Keras holds one set of weights; leave out ':{key}'")
    return Chosen(read[0], "", ()), read[1]


def _as_entries(tensors: Tensors) -> tuple[list[Entry], Loader]:
    """Return tensors that are read already as entries and their loader, as PyTorch's files give them."""
    if not tensors:
        raise CheckpointError("the file holds no floating-point tensor; give the file with the trained weights")
    entries = [Entry("", name, tensor.shape, floats=True, value=name) for name, tensor in tensors.items()]
    return entries, lambda chosen: {name: tensors[entry.full] for name, entry in chosen.items()}


def _read_npz(archive: Zip) -> Tensors:
    """Read NumPy's archive of arrays. Arrays of objects, which are pickles, are refused."""
    remedy = "save the weights as float32 arrays"
    arrays = {name.removesuffix(".npy"): archive.read(name) for name in archive.entries}
    return _weights((name, read_npy(name, content, "fiub", remedy)) for name, content in arrays.items())


def _weights(arrays: Iterable[tuple[str, NDArray[Any]]]) -> Tensors:
    """Return the arrays as float32, without those that are no weights."""
    weights = ((name, as_float32(name, array)) for name, array in arrays)
    return {name: array for name, array in weights if array is not None}


def _read_safetensors(data: bytes) -> Tensors:
    """Read the safetensors format: a length, a JSON header, and the tensors' bytes side by side."""
    length = int.from_bytes(data[:8], "little")
    if length > MAX_SAFETENSORS_HEADER:
        raise CheckpointError(f"the header has {length} bytes, more than safetensors allows; the file is damaged")
    try:
        header = json.loads(data[8 : 8 + length], object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"the header is damaged ({str(error)[:100]}); get the file again") from None
    header.pop("__metadata__", None)
    place = 0
    for start, end, name in sorted((*_span(name, entry), name) for name, entry in header.items()):
        if start < place:  # as the format's own reader has it
            raise CheckpointError(f"entry {name!r} begins within the entry before it; the file is damaged or forged")
        place = end
    body = memoryview(data)[8 + length :]
    return _weights((name, _safetensor(name, entry, body)) for name, entry in header.items())


def _safetensor(name: str, entry: dict[str, Any], body: memoryview) -> NDArray[np.generic]:
    start, end = _span(name, entry)
    if end > len(body):
        raise CheckpointError(f"entry {name!r} ends at byte {end} of {len(body)}; the file is truncated, get it again")
    dtype, shape = entry.get("dtype"), entry.get("shape")
    if dtype not in _SAFETENSORS or not isinstance(shape, list):
        raise CheckpointError(f"entry {name!r} is of type {str(dtype)[:20]!r}, which is not read; save it as float32")
    itemsize = 2 if dtype == "BF16" else np.dtype(_SAFETENSORS[dtype]).itemsize
    dims = check_shape(name, shape, itemsize, end - start)
    if prod(dims) * itemsize != end - start:
        raise CheckpointError(f"entry {name!r} has {end - start} bytes, not those of the shape {dims}; it is damaged")
    return array_from(body[start:end], _SAFETENSORS[dtype], dims)


def _span(name: str, entry: Any) -> tuple[int, int]:
    offsets = entry.get("data_offsets") if isinstance(entry, dict) else None
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(type(offset) is int for offset in offsets):
        raise CheckpointError(f"entry {name!r} does not say where its bytes are; the file is damaged")
    if not 0 <= offsets[0] <= offsets[1]:
        raise CheckpointError(f"entry {name!r} has bytes from {offsets[0]} to {offsets[1]}, which cannot be")
    return offsets[0], offsets[1]


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a name stands twice")
    return result


def _refuse_tensorflow(path: Path) -> None:
    """Refuse SavedModel folders and .ckpt pairs, which hold or need a program, with the way to get their weights."""
    if path.is_dir() and any((path / name).exists() for name in ("saved_model.pb", "saved_model.pbtxt")):
        raise CheckpointError(
            f"{path.name} is a SavedModel folder, which holds a program and is not read. "
            f"{from_saved_model(path.as_posix(), path.name)}"
        )
    index = path if path.suffix == ".index" else path.with_name(f"{path.name}.index")
    shard = ".data-0" in path.name
    if (index.is_file() or shard) and not path.is_dir():
        stem = path.with_name(path.name.split(".data-0")[0] if shard else index.name.removesuffix(".index"))
        raise CheckpointError(
            f"{path.name} is part of a TensorFlow checkpoint, which does not name its layers and is not read. "
            f"{from_checkpoint(stem.as_posix(), stem.name, _index_of(stem))}"
        )


def _index_of(stem: Path) -> bytes:
    """Return the start of a TensorFlow checkpoint's table of names; empty if there is none."""
    try:
        with open_regular(stem.with_name(f"{stem.name}.index")) as file:
            return file.read(1 << 20)
    except OSError:
        return b""
