"""The golden checkpoints, unpacked, and ways to make files that no framework would."""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from golden.packing import contents

CHECKPOINTS = {**contents("checkpoints-torch"), **contents("checkpoints-keras")}  # by name


def torch_zip(root: object, storages: dict[str, bytes] | None = None, *, method: int = zipfile.ZIP_STORED) -> bytes:
    """A file of PyTorch's zip format whose pickle is `root`; an object pickled already is taken as bytes."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        archive.writestr("w/data.pkl", root if isinstance(root, bytes) else pickle.dumps(root, protocol=2))
        for key, content in (storages or {}).items():
            archive.writestr(f"w/data/{key}", content)
    return stream.getvalue()


def tensor_pickle(
    name: str = "conv1.weight",
    *,
    numel: int = 6,
    offset: int = 0,
    size: tuple[int, ...] = (2, 3),
    stride: tuple[int, ...] = (3, 1),
    storage: str = "FloatStorage",
) -> bytes:
    """The pickle of a state dict with one tensor, as torch.save writes it but with any numbers."""

    def text(value: str) -> bytes:
        return b"X" + len(value).to_bytes(4, "little") + value.encode()

    def number(value: int) -> bytes:
        return b"\x8a\x09" + value.to_bytes(9, "little", signed=True)

    def numbers(values: tuple[int, ...]) -> bytes:
        return b"(" + b"".join(map(number, values)) + b"t"

    identity = (
        b"(" + text("storage") + f"ctorch\n{storage}\n".encode() + text("0") + text("cpu") + number(numel) + b"tQ"
    )
    rebuilt = b"ctorch._utils\n_rebuild_tensor_v2\n(" + identity + number(offset) + numbers(size) + numbers(stride)
    return b"\x80\x02}" + text(name) + rebuilt + b"\x89}tRs."


def h5(path: Path, build: Any) -> Path:
    with h5py.File(path, "w") as file:
        build(file)
    return path


def weights_only(file: Any, kernel: Any = None) -> Any:
    """The least weights file of Keras 2: one layer with one kernel; returns the layer's group."""
    file.attrs["layer_names"] = np.array([b"conv"])
    group = file.create_group("conv")
    group.attrs["weight_names"] = np.array([b"conv/kernel:0"])
    inner = group.create_group("conv")
    if kernel is not None:
        inner.create_dataset("kernel:0", data=kernel)
    return inner


def saved(root: object) -> bytes:
    """A file of PyTorch's zip format that holds `root`: dictionaries, lists and plain values, arrays as tensors.

    An array that stands at two places is one storage with two names.
    """
    storages: dict[int, np.ndarray] = {}

    def text(value: str) -> bytes:
        return b"X" + len(value.encode()).to_bytes(4, "little") + value.encode()

    def tensor(array: np.ndarray) -> bytes:
        key = str(list(storages).index(id(array))) if id(array) in storages else str(len(storages))
        storages[id(array)] = array
        kind = {"f": "FloatStorage", "i": "LongStorage"}[array.dtype.kind]
        stride = tuple(step // array.itemsize for step in array.strides)
        identity = b"(" + text("storage") + f"ctorch\n{kind}\n".encode() + text(key) + text("cpu")
        identity += pickled(array.size) + b"tQ"
        return (
            b"ctorch._utils\n_rebuild_tensor_v2\n(" + identity + b"K\0" + pickled(array.shape) + pickled(stride) + b"tR"
        )

    def pickled(value: object) -> bytes:
        if isinstance(value, dict):
            return b"}(" + b"".join(text(str(key)) + pickled(item) for key, item in value.items()) + b"u"
        if isinstance(value, list):
            return b"](" + b"".join(map(pickled, value)) + b"e"
        return tensor(value) if isinstance(value, np.ndarray) else pickle.dumps(value, 2)[2:-1]

    pickle_bytes = b"\x80\x02" + pickled(root) + b"."
    return torch_zip(pickle_bytes, {str(number): array.tobytes() for number, array in enumerate(storages.values())})
