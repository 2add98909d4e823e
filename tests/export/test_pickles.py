"""Pickles that would run code, and impossible tensors: an error names them, and nothing is run."""

from __future__ import annotations

import io
import os
import pickle
import subprocess
import zipfile
from argparse import Namespace
from collections import defaultdict
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from golden import make_checkpoints

from helpers.checkpoint_files import CHECKPOINTS, tensor_pickle, torch_zip
from spinescore.export import read_checkpoint
from spinescore.export.torchfiles import LEGACY_MAGIC
from spinescore.runtime.errors import CheckpointError

SIX = np.arange(6, dtype=np.float32)


def save(folder: Path, data: bytes) -> Path:
    path = folder / "weights.pth"
    path.write_bytes(data)
    return path


def legacy(root: bytes) -> bytes:
    return LEGACY_MAGIC + pickle.dumps(1001, 2) + pickle.dumps({"little_endian": True}, 2) + root


def mkdir_by_reduce(canary: str) -> bytes:
    return b"cos\nmkdir\n(X" + len(canary).to_bytes(4, "little") + canary.encode() + b"tR."


def mkdir_by_stack_global(canary: str) -> bytes:
    return b"\x80\x04\x8c\x02os\x8c\x05mkdir\x93\x8c" + bytes([len(canary)]) + canary.encode() + b"\x85R."


def mkdir_by_inst(canary: str) -> bytes:
    return b"(V" + canary.encode() + b"\nios\nmkdir\n."


def mkdir_by_obj(canary: str) -> bytes:
    return b"(cos\nmkdir\nV" + canary.encode() + b"\no."


def mkdir_by_eval(canary: str) -> bytes:
    return b"c__builtin__\neval\n(V__import__('os').mkdir(" + repr(canary).encode() + b")\ntR."


def mkdir_beside_weights(canary: str) -> bytes:
    return b"(dV state_dict\n" + mkdir_by_reduce(canary)[:-1] + b"s."


def mkdir_in_persistent_id(canary: str) -> bytes:
    return mkdir_by_reduce(canary)[:-1] + b"Q."


def mkdir_by_getattr(canary: str) -> bytes:
    path = b"V" + canary.encode() + b"\n"
    return b"c__builtin__\ngetattr\n(c__builtin__\n__import__\n(Vos\ntRVmkdir\ntR(" + path + b"tR."


RUNS: list[Callable[[str], bytes]] = [
    mkdir_by_reduce,
    mkdir_by_stack_global,
    mkdir_by_inst,
    mkdir_by_obj,
    mkdir_by_eval,
    mkdir_beside_weights,
    mkdir_in_persistent_id,
    mkdir_by_getattr,
]


@pytest.mark.parametrize("wrap", [torch_zip, legacy], ids=["zip", "legacy"])
@pytest.mark.parametrize("make", RUNS, ids=lambda make: make.__name__)
def test_code_is_refused_and_not_run(
    make: Callable[[str], bytes], wrap: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    canary = tmp_path / "canary"
    evil = make(str(canary))

    class Unpickler(pickle.Unpickler):
        persistent_load = staticmethod(lambda identity: identity)

    Unpickler(io.BytesIO(evil)).load()  # Python's own reader does run it
    canary.rmdir()
    with pytest.raises(CheckpointError, match=r"asks to run|opcode"):
        read_checkpoint(save(tmp_path, wrap(evil)))
    assert not canary.exists()


@pytest.mark.parametrize(
    ("root", "message"),
    [
        (b"\x80\x02cmypackage\nhook\n)R.", "asks to run 'mypackage.hook'"),
        (b"\x80\x02ctorch.hub\nload\n)R.", "asks to run 'torch.hub.load'"),
        (b"\x80\x02cposix\nsystem\n.", "asks to run 'posix.system'"),
        (b"\x80\x02\x82\x01.", "opcode EXT1"),
        (b"\x80\x02Pkey\n.", "opcode PERSID"),
        (b"\x80\x05\x97.", "opcode NEXT_BUFFER"),
        (b"\x80\x02K\x01K\x02R.", "calls something that is no function"),
        (b"\x80\x02K\x01)\x81.", "something that is no class"),
        (b"\x80\x02K\x01}b.", "state of something that has none"),
        (b"\x80\x02K\x01K\x02a.", "appends to something"),
        (b"\x80\x02K\x01K\x02K\x03s.", "sets an item"),
        (b"\x80\x02K\x01Q.", "no tensor's storage"),
        (b"\x80\x02.", "damaged"),
        (b"\x80\x02}", "damaged"),
        (b"\x80\x02h\x07.", "damaged"),
        (b"\x80\x02}.", "no tensors were found"),
        (b"\x80\x02X\xff\xff\xff\x7fabc.", "damaged"),
        (b"\x80\x02\x8b\xff\xff\xff\x7fabc.", "damaged"),
        (b"(" * 2_000_001 + b".", "more than 2000000 steps"),
        (b"(" + b"t(" * 200_000 + b"ld.", "damaged"),
    ],
    ids=range(20),
)
def test_pickles_that_make_no_weights(root: bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(save(tmp_path, torch_zip(root)))


def test_key_nested_too_deep_to_hash_is_dropped(tmp_path: Path) -> None:
    deep = b"\x80\x02}" + b")" + b"\x85" * 500_000 + b"K\x01s."
    with pytest.raises(CheckpointError, match="no tensors were found"):
        read_checkpoint(save(tmp_path, torch_zip(deep)))


def test_whole_models_get_the_line_that_saves_their_weights(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"Sequential.*torch\.save\(model\.state_dict\(\)"):
        read_checkpoint(save(tmp_path, CHECKPOINTS["whole_model.pth"]))


def test_settings_of_unknown_classes_beside_the_weights_become_stubs(tmp_path: Path) -> None:
    settings = b"X\x04\0\0\0argscyacs.config\nCfgNode\n)\x81(X\x02\0\0\0lrK\x01u}bs"
    weights = b"X\x0a\0\0\0state_dict" + tensor_pickle()[2:-1] + b"s"
    root = b"\x80\x02}" + settings + weights + b"."
    tensors = read_checkpoint(save(tmp_path, torch_zip(root, {"0": SIX.tobytes()}))).tensors
    np.testing.assert_array_equal(tensors["conv1.weight"], SIX.reshape(2, 3))


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_what_training_scripts_store_beside_the_weights(protocol: int, tmp_path: Path) -> None:
    beside = {
        "args": Namespace(lr=0.1, out=Path("runs")),
        "history": defaultdict(list, loss=[1.0]),
        "when": datetime(2026, 1, 2),
        "perf": np.float64(0.75),
        "curve": np.arange(3.0),
        "kinds": {1, 2, (3, 4)},
        "raw": b"bytes",
    }
    root = pickle.dumps(beside, protocol)
    root = root[11:-1] if protocol == 4 else root[:-1]  # protocol 4 opens with a frame of the old length
    root += b"X\x0a\0\0\0state_dict" + tensor_pickle()[2:-1] + b"s."
    tensors = read_checkpoint(save(tmp_path, torch_zip(root, {"0": SIX.tobytes()}))).tensors
    assert list(tensors) == ["conv1.weight"]


def test_crafted_tensor_is_read_when_it_is_honest(tmp_path: Path) -> None:
    tensors = read_checkpoint(save(tmp_path, torch_zip(tensor_pickle(), {"0": SIX.tobytes()}))).tensors
    np.testing.assert_array_equal(tensors["conv1.weight"], SIX.reshape(2, 3))


@pytest.mark.parametrize("metadata", [{"neg": True}, {"conj": True}])
def test_views_that_change_signs_are_not_read_as_what_is_stored(metadata: dict[str, bool], tmp_path: Path) -> None:
    more = b"N" + pickle.dumps(metadata, 2)[2:-1]  # no hooks, then what torch._utils.get_tensor_metadata gives
    root = tensor_pickle().replace(b"\x89}tRs.", b"\x89" + more + b"tRs.")
    with pytest.raises(CheckpointError, match=r"'conv1.weight' is a view that changes the signs .*resolve_neg"):
        read_checkpoint(save(tmp_path, torch_zip(root, {"0": SIX.tobytes()})))
    plain = tensor_pickle().replace(b"\x89}tRs.", b"\x89N}tRs.")
    np.testing.assert_array_equal(
        read_checkpoint(save(tmp_path, torch_zip(plain, {"0": SIX.tobytes()}))).tensors["conv1.weight"],
        SIX.reshape(2, 3),
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": (3, 3)}, "'conv1.weight' declares the shape"),
        ({"size": (1 << 40, 1 << 40)}, "declare .* bytes together .*'conv1.weight'"),
        ({"size": (2, 3), "offset": 1}, "'conv1.weight' reaches element 6"),
        ({"offset": 1 << 62}, "'conv1.weight' reaches element"),
        ({"stride": (1 << 62, 1)}, "'conv1.weight' reaches element"),
        ({"stride": (4, 1)}, "'conv1.weight' reaches element 6"),
        ({"stride": (-3, 1)}, "shape or strides that cannot be"),
        ({"size": (-2, -3)}, "shape or strides that cannot be"),
        ({"offset": -1}, "shape or strides that cannot be"),
        ({"size": (6,)}, "shape or strides that cannot be"),
        ({"size": (1,) * 9, "stride": (1,) * 9}, "'conv1.weight' declares the shape"),
        ({"numel": 7}, "'w/data/0' has 24 bytes, its tensor's storage 28"),
        ({"numel": 1 << 62}, "'w/data/0' has 24 bytes"),
        ({"numel": -6}, "in a way that cannot be"),
        ({"storage": "QInt8Storage"}, "stored as torch.QInt8Storage"),
        (
            {"storage": "ComplexFloatStorage", "numel": 3, "size": (3,), "stride": (1,)},
            "'conv1.weight' holds .* complex64",
        ),
    ],
)
def test_tensors_that_cannot_be(changes: dict[str, object], message: str, tmp_path: Path) -> None:
    root = tensor_pickle(**changes)  # type: ignore[arg-type]
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(save(tmp_path, torch_zip(root, {"0": SIX.tobytes()})))


def test_one_element_cannot_be_expanded_into_many(tmp_path: Path) -> None:
    root = tensor_pickle(numel=1, size=(1 << 20,), stride=(0,))
    with pytest.raises(CheckpointError, match=r"conv1\.weight"):
        read_checkpoint(save(tmp_path, torch_zip(root, {"0": bytes(4)})))


def test_missing_storage_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"'w/data/0' is missing"):
        read_checkpoint(save(tmp_path, torch_zip(tensor_pickle())))


def test_packed_zip_is_read_within_its_bounds(tmp_path: Path) -> None:
    data = torch_zip(tensor_pickle(), {"0": SIX.tobytes()}, method=zipfile.ZIP_DEFLATED)
    np.testing.assert_array_equal(read_checkpoint(save(tmp_path, data)).tensors["conv1.weight"].ravel(), SIX)


def test_torchscript_gets_the_line_that_converts_it(tmp_path: Path) -> None:
    path = save(tmp_path, torch_zip(tensor_pickle(), {"0": SIX.tobytes()}))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("w/code/__torch__.py", "import os")
    with pytest.raises(CheckpointError, match=r"torch\.jit\.load"):
        read_checkpoint(path)


@pytest.mark.parametrize("cut", [10, 60, 500, 1500, -1])
def test_truncated_legacy_file(cut: int, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"weights\.pth"):
        read_checkpoint(save(tmp_path, CHECKPOINTS["bare_legacy.pth"][:cut]))


def test_no_process_is_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise AssertionError("a process was started")

    monkeypatch.setattr(os, "system", fail)
    monkeypatch.setattr(subprocess, "Popen", fail)
    evil = b"\x80\x02}X\x05\0\0\0modelcos\nsystem\nX\x04\0\0\0true\x85Rs."
    with pytest.raises(AssertionError):
        pickle.loads(evil)
    with pytest.raises(CheckpointError, match=r"asks to run 'os\.system'"):
        read_checkpoint(save(tmp_path, torch_zip(evil)))


def test_official_legacy_tensors_survive_without_their_optimizer(tmp_path: Path) -> None:
    tensors = read_checkpoint(save(tmp_path, CHECKPOINTS["official_zip.pth"])).tensors
    assert {name: value.shape for name, value in tensors.items()} == make_checkpoints.TORCH_SHAPES
