"""Keras files that refer to other files, hold code, or do not identify their layers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from helpers.checkpoint_files import h5, weights_only
from spinescore.export import read_checkpoint
from spinescore.runtime.errors import CheckpointError

KERNEL = np.arange(12, dtype=np.float32).reshape(1, 1, 3, 4)


@pytest.mark.parametrize("kind", ["<f2", "<f4", "<f8", ">f4", ">f8"])
def test_precisions_and_byte_orders(kind: str, tmp_path: Path) -> None:
    path = h5(tmp_path / "w.h5", lambda file: weights_only(file, KERNEL.astype(kind)))
    tensors = read_checkpoint(path).tensors
    assert list(tensors) == ["conv/kernel"]
    np.testing.assert_array_equal(tensors["conv/kernel"], KERNEL)


def test_names_in_several_pieces(tmp_path: Path) -> None:
    def build(file: Any) -> None:
        for number, layer in enumerate(("a", "b", "c")):
            file.attrs[f"layer_names{number}"] = np.array([layer.encode()])
            group = file.create_group(layer)
            group.attrs["weight_names0"] = np.array([f"{layer}/kernel:0".encode()])
            group.attrs["weight_names1"] = np.array([f"{layer}/bias:0".encode()])
            group.create_dataset(f"{layer}/kernel:0", data=KERNEL)
            group.create_dataset(f"{layer}/bias:0", data=KERNEL[0, 0, 0])

    names = list(read_checkpoint(h5(tmp_path / "w.h5", build)).tensors)
    assert names == ["a/kernel", "a/bias", "b/kernel", "b/bias", "c/kernel", "c/bias"]


def external_link(file: Any) -> None:
    weights_only(file)["kernel:0"] = h5py.ExternalLink("/etc/other.h5", "/kernel")


def soft_link(file: Any) -> None:
    weights_only(file)["kernel:0"] = h5py.SoftLink("/elsewhere")


def hard_link_twice(file: Any) -> None:
    inner = weights_only(file, KERNEL)
    inner["again:0"] = inner["kernel:0"]


def loop(file: Any) -> None:
    inner = weights_only(file, KERNEL)
    inner["loop"] = file["conv"]


def external_storage(file: Any) -> None:
    weights_only(file).create_dataset("kernel:0", (12,), "<f4", external=[("/etc/passwd", 0, 48)])


def virtual(file: Any) -> None:
    layout = h5py.VirtualLayout((12,), "<f4")
    layout[:] = h5py.VirtualSource("/etc/other.h5", "kernel", (12,))
    weights_only(file).create_virtual_dataset("kernel:0", layout)


def compressed(file: Any) -> None:
    weights_only(file).create_dataset("kernel:0", data=KERNEL, compression="gzip")


def never_written(file: Any) -> None:
    weights_only(file).create_dataset("kernel:0", (1 << 50,), "<f4")


def huge_but_small(file: Any) -> None:
    weights_only(file).create_dataset("kernel:0", (1000,), "<f4")


def committed_type(file: Any) -> None:
    file["type"] = np.dtype("<f4")
    weights_only(file).create_dataset("kernel:0", data=KERNEL, dtype=file["type"])


def text(file: Any) -> None:
    weights_only(file).create_dataset("kernel:0", data=np.array([b"abc"]))


def objects(file: Any) -> None:
    weights_only(file).create_dataset("kernel:0", data=["abc"], dtype=h5py.string_dtype())


def references(file: Any) -> None:
    weights_only(file).create_dataset("kernel:0", data=file["conv"].ref, dtype=h5py.ref_dtype)


def not_finite(file: Any) -> None:
    weights_only(file, np.array([np.inf], np.float32))


def missing(file: Any) -> None:
    weights_only(file)


def left_over(file: Any) -> None:
    weights_only(file, KERNEL).create_dataset("other:0", data=KERNEL)


def missing_layer(file: Any) -> None:
    weights_only(file, KERNEL)
    file.attrs["layer_names"] = np.array([b"conv", b"gone"])


def no_weights(file: Any) -> None:
    file.create_dataset("x", data=KERNEL)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (external_link, r"'conv/conv' holds links .*external"),
        (soft_link, r"'conv/conv' holds a soft link"),
        (hard_link_twice, r"linked twice"),
        (loop, r"linked twice"),
        (external_storage, r"'conv/conv/kernel:0' keeps its values in another file"),
        (virtual, r"'conv/conv/kernel:0' is stored in chunks, compressed or virtually"),
        (compressed, r"'conv/conv/kernel:0' is stored in chunks, compressed .* h5repack"),
        (never_written, r"'conv/conv/kernel:0' declares the shape"),
        (huge_but_small, r"'conv/conv/kernel:0'"),
        (committed_type, r"shared description|neither a group nor a dataset"),
        (text, r"'conv/conv/kernel:0' holds no numbers"),
        (objects, r"'conv/conv/kernel:0' holds no numbers"),
        (references, r"'conv/conv/kernel:0' holds no numbers"),
        (not_finite, r"'conv/kernel' holds values that are not finite"),
        (missing, r"'conv/kernel:0' is missing"),
        (left_over, r"'conv/conv/other:0' belongs to no layer"),
        (missing_layer, r"layer 'gone' is missing"),
        (no_weights, r"no weights of a Keras model"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_hdf5_that_is_refused(build: Callable[[Any], None], message: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(h5(tmp_path / "w.h5", build))


def test_newer_hdf5_layout_is_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "w.h5", "w", libver="latest") as file:
        weights_only(file, KERNEL)
    with pytest.raises(CheckpointError, match="layout that Keras does not write"):
        read_checkpoint(tmp_path / "w.h5")
