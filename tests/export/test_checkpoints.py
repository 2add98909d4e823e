"""Weights in the frameworks' files, read without the frameworks; and files that are refused before any reader."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from golden import make_checkpoints

import spinescore.export
from helpers.checkpoint_files import CHECKPOINTS, saved
from spinescore.export import read_checkpoint
from spinescore.runtime.errors import CheckpointError

READABLE = [name for name in sorted(CHECKPOINTS) if name != "whole_model.pth"]
KERAS = [name for name in READABLE if name.startswith("keras")]
HEADS = {"keras2_transfer.weights.h5": "grade"}  # nothing in this file tells the head's name: it is read as predictions


def save(folder: Path, data: bytes, name: str = "weights") -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def safetensors(header: object, body: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


def npz(**arrays: object) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **arrays)  # type: ignore[arg-type]
    return stream.getvalue()


def test_public_door() -> None:
    for name in spinescore.export.__all__:
        assert getattr(spinescore.export, name).__name__ == name


@pytest.mark.parametrize("name", READABLE)
def test_every_entry_of_a_golden_file(name: str, tmp_path: Path) -> None:
    data = CHECKPOINTS[name]
    checkpoint = read_checkpoint(save(tmp_path, data, name))
    assert checkpoint.sha256 == hashlib.sha256(data).hexdigest()
    assert (checkpoint.source, checkpoint.bytes) == (name, len(data))
    assert checkpoint.framework == ("keras" if name in KERAS else "torch")
    for entry, tensor in checkpoint.tensors.items():
        stored = entry.replace("predictions", HEADS[name]) if name in HEADS else entry
        assert tensor.dtype == np.float32
        assert tensor.flags.c_contiguous
        np.testing.assert_array_equal(tensor, make_checkpoints.values(stored, tensor.shape), err_msg=entry)


@pytest.mark.parametrize("name", sorted(set(READABLE) - set(KERAS) - {"views.pt"}))
def test_torch_shapes_are_complete(name: str, tmp_path: Path) -> None:
    tensors = read_checkpoint(save(tmp_path, CHECKPOINTS[name])).tensors
    assert {entry: tensor.shape for entry, tensor in tensors.items()} == make_checkpoints.TORCH_SHAPES


@pytest.mark.parametrize("name", KERAS)
def test_keras_layers_are_complete(name: str, tmp_path: Path) -> None:
    tensors = read_checkpoint(save(tmp_path, CHECKPOINTS[name])).tensors
    layers = {entry.split("/")[0] for entry in tensors}
    blocks = [
        f"conv{stage}_block{block}_{part}"
        for stage, (_, count) in enumerate(make_checkpoints.STAGES, start=2)
        for block in range(1, count + 1)
        for part in ((0, 1, 2, 3) if block == 1 else (1, 2, 3))
    ]
    assert {f"{unit}_{kind}" for unit in ["conv1", *blocks] for kind in ("conv", "bn")} == {
        layer for layer in layers if layer.startswith("conv")
    }
    assert len(tensors) == 6 * (1 + len(blocks)) + 2
    assert tensors["conv1_conv/kernel"].shape == (7, 7, 3, 2)


def test_official_checkpoint_takes_the_network_not_the_optimizer(tmp_path: Path) -> None:
    tensors = read_checkpoint(save(tmp_path, CHECKPOINTS["official_legacy.pth"])).tensors
    assert list(tensors) == list(make_checkpoints.TORCH_SHAPES)  # in order, `module.` and the step count gone


def test_npz_keeps_names_and_takes_any_order_of_elements(tmp_path: Path) -> None:
    kernel = make_checkpoints.values("conv1.weight", (4, 3, 2, 5))
    arrays = {"conv1.weight": np.asfortranarray(kernel), "big": kernel.astype(">f8"), "steps": np.arange(3)}
    tensors = read_checkpoint(save(tmp_path, npz(**arrays))).tensors
    assert list(tensors) == ["conv1.weight", "big"]
    for tensor in tensors.values():
        np.testing.assert_array_equal(tensor, kernel)


def test_npz_names_tell_the_framework(tmp_path: Path) -> None:
    kernel = np.ones((1, 1, 2, 2), np.float32)
    assert read_checkpoint(save(tmp_path, npz(**{"conv1_conv/kernel": kernel}))).framework == "keras"
    assert read_checkpoint(save(tmp_path, npz(**{"module.conv1.weight": kernel}))).framework == "torch"


def test_pickled_npz_is_refused_and_not_run(tmp_path: Path) -> None:
    canary = tmp_path / "canary"

    class Evil:
        def __reduce__(self) -> tuple[object, ...]:
            return os.mkdir, (str(canary),)

    path = save(tmp_path, npz(conv=np.array([Evil()], dtype=object)))
    with pytest.raises(CheckpointError, match=r"'conv' is pickled"):
        read_checkpoint(path)
    assert not canary.exists()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.array([1.0, np.nan], np.float32), "'w' holds values that are not finite"),
        (np.array([np.inf], np.float16), "'w' holds values that are not finite"),
        (np.array([1e300]), "'w' holds values that float32 cannot"),
        (np.array([1j], np.complex64), "'w' holds complex64"),
        (np.array(["text"]), "'w' holds <U4"),
        (np.arange(4), "no floating-point tensor"),
        (np.ones((2, 2), np.int64), "no floating-point tensor"),
    ],
)
def test_values_that_are_no_weights(value: np.ndarray, message: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(save(tmp_path, npz(w=value)))


def test_kernels_of_whole_numbers_are_named(tmp_path: Path) -> None:
    whole = {"layer1.0.conv1.weight": np.ones((2, 2), np.int64), "fc.bias": np.ones(2, np.float32)}
    for content in (npz(**whole), saved({"state_dict": whole})):
        with pytest.raises(CheckpointError, match=r"conv1.weight' holds whole numbers .*before the quantisation"):
            read_checkpoint(save(tmp_path, content))


def test_npz_that_declares_more_than_it_holds(tmp_path: Path) -> None:
    stream = io.BytesIO()
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (1 << 40,)})
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("w.npy", header.getvalue() + b"\0" * 64)
    with pytest.raises(CheckpointError, match=r"'w' declares the shape .* only 64 bytes"):
        read_checkpoint(save(tmp_path, stream.getvalue()))


def test_zip_bomb_is_refused_before_it_inflates(tmp_path: Path) -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("w.npy", b"\0" * (64 << 20))
    with pytest.raises(CheckpointError, match="zip bomb"):
        read_checkpoint(save(tmp_path, stream.getvalue()))


def test_zip_that_names_an_entry_twice(tmp_path: Path) -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("w.npy", b"a")
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("w.npy", b"b")
    with pytest.raises(CheckpointError, match=r"'w.npy' stands twice"):
        read_checkpoint(save(tmp_path, stream.getvalue()))


F32 = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    ("header", "body", "message"),
    [
        ({"w": {**F32, "shape": [1 << 60]}}, bytes(8), "'w' declares the shape"),
        ({"w": {**F32, "shape": [-1]}}, bytes(8), "'w' declares the shape"),
        ({"w": {**F32, "shape": [1]}}, bytes(8), "'w' has 8 bytes"),
        ({"w": {**F32, "shape": [2.0]}}, bytes(8), "'w' declares the shape"),
        ({"w": {**F32, "data_offsets": [0, 1 << 60]}}, bytes(8), "'w' ends at byte 1152921504606846976 of 8"),
        ({"w": {**F32, "data_offsets": [4, 12]}}, bytes(8), "'w' ends at byte 12 of 8"),
        ({"w": {**F32, "data_offsets": [8, 0]}}, bytes(8), "'w' has bytes from 8 to 0"),
        ({"w": {**F32, "data_offsets": None}}, bytes(8), "'w' does not say where"),
        ({"w": F32, "v": F32}, bytes(8), "'w' begins within the entry before it"),
        ({"w": F32, "v": {**F32, "data_offsets": [4, 12]}}, bytes(16), "'v' begins within"),
        ({"fc.weight": {"dtype": "I8", "shape": [2, 4], "data_offsets": [0, 8]}}, bytes(8), "quantised weights do"),
        ({"w": {**F32, "dtype": "F8_E4M3"}}, bytes(8), "'w' is of type 'F8_E4M3'"),
        ({"w": 3}, bytes(8), "'w' does not say where"),
        (b'{"w":1,"w":2}', b"", "a name stands twice"),
        (b"{" + b'"a":[' * 50_000, b"", "header is damaged"),
        ({}, b"", "no floating-point tensor"),
    ],
)
def test_safetensors_that_cannot_be(header: object, body: bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(save(tmp_path, safetensors(header, body)))


@pytest.mark.parametrize(
    "data", [b"", b"\0" * 4096, b"PK\x03\x04", b"\x89HDF\r\n\x1a\n", b"weights", bytes(range(256)) * 8]
)
def test_garbage(data: bytes, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="weights"):
        read_checkpoint(save(tmp_path, data))


def test_paths_that_are_no_file(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"absent\.pth cannot be read"):
        read_checkpoint(tmp_path / "absent.pth")
    with pytest.raises(CheckpointError, match="is no file"):
        read_checkpoint(tmp_path)


def test_saved_model_is_refused_with_the_line_that_converts_it(tmp_path: Path) -> None:
    folder = tmp_path / "grader"
    folder.mkdir()
    (folder / "saved_model.pb").write_bytes(b"")
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(folder)
    line = f"python -m tf2onnx.convert --saved-model '{folder.as_posix()}' --output 'grader.onnx' --opset 17"
    assert line in str(caught.value)


@pytest.mark.parametrize("given", ["best.ckpt", "best.ckpt.index", "best.ckpt.data-00000-of-00001"])
@pytest.mark.parametrize(
    ("index", "lines"),
    [
        (b"\0layer_with_weights-0/bias\0", {"old"}),
        (b"\0model/_operations/10/_kernel\0", {"new"}),
        (b"\0" * 100, {"old", "new"}),
    ],
)
def test_tensorflow_checkpoint_is_refused_with_the_line_that_converts_it(
    given: str, index: bytes, lines: set[str], tmp_path: Path
) -> None:
    (tmp_path / "best.ckpt.index").write_bytes(index)
    (tmp_path / "best.ckpt.data-00000-of-00001").write_bytes(b"\0" * 100)
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(tmp_path / given)
    stem = (tmp_path / "best.ckpt").as_posix()
    known = {
        "old": f"model.load_weights('{stem}').expect_partial(); model.save('best.ckpt.h5')",
        "new": f"tf.train.Checkpoint(model=model).restore('{stem}').expect_partial(); model.save('best.ckpt.keras')",
    }
    assert {name for name, line in known.items() if line in str(caught.value)} == lines
    assert ("TF_USE_LEGACY_KERAS=1" in str(caught.value)) == ("old" in lines)


def test_reading_loads_no_framework() -> None:
    code = (
        "import sys, spinescore.export as e; assert 'spinescore.export.checkpoints' not in sys.modules; "
        "e.read_checkpoint; print(sorted({'torch', 'tensorflow', 'keras', 'h5py', 'onnx'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
