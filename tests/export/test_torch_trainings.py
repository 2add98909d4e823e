"""Objects that trainings leave in PyTorch's files beside plain tensors: read, ignored or refused, and never run."""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
from golden import make_checkpoints
from golden.packing import contents
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helpers.checkpoint_files import saved, tensor_pickle, torch_zip
from spinescore.export import read_checkpoint
from spinescore.export.torchfiles import LEGACY_MAGIC
from spinescore.export.untrusted import MAX_ENTRIES
from spinescore.runtime.errors import CheckpointError

SIX = np.arange(6, dtype=np.float32)
WEIGHTS = contents("weights")


def save(folder: Path, data: bytes) -> Path:
    path = folder / "weights.pth"
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("name", ["beside2.pth", "beside4.pth", "beside.legacy"])
def test_what_stands_beside_a_network_is_passed_over(name: str, tmp_path: Path) -> None:
    tensors = read_checkpoint(save(tmp_path, WEIGHTS[name])).tensors
    assert {entry: tensor.shape for entry, tensor in tensors.items()} == make_checkpoints.TORCH_SHAPES
    for entry, tensor in tensors.items():
        np.testing.assert_array_equal(tensor, make_checkpoints.values(entry, tensor.shape), err_msg=entry)


@pytest.mark.parametrize("name", ["views.pth", "views.legacy"])
def test_shared_expanded_and_overlapping_tensors(name: str, tmp_path: Path) -> None:
    tensors = read_checkpoint(save(tmp_path, WEIGHTS[name])).tensors
    line, norm = make_checkpoints.values("line", (6,)), make_checkpoints.values("bn1.weight", (4,))
    expected = {
        "conv1.weight": np.broadcast_to(make_checkpoints.values("conv1.weight", (4, 1, 3, 3)), (4, 3, 3, 3)),
        "bn1.weight": norm,
        "bn1.running_var": norm,
        "bn1.bias": line[:4],
        "bn1.running_mean": line[2:],
        "windows": np.stack([line[:4], line[1:5], line[2:]]),
        "final_layer.weight": make_checkpoints.values("final_layer.weight", (2, 4, 1, 1)),
        "final_layer.bias": np.full(2, 0.5, np.float32),
    }
    assert list(tensors) == list(expected)
    for entry, value in expected.items():
        np.testing.assert_array_equal(tensors[entry], value, err_msg=entry)
        assert tensors[entry].flags.c_contiguous


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("sparse.pth", "'final_layer.weight' is sparse.*to_dense"),
        ("quantised.pth", "'final_layer.weight' is quantised.*before the quantisation"),
        ("float8.pth", r"'final_layer.weight' is of an 8-bit type.*float\(\)"),
        ("numpy.pth", r"'final_layer.weight' is a NumPy array.*numpy\.savez"),
        ("meta.pth", "'final_layer.weight' is on the device 'meta'"),
    ],
)
def test_tensors_of_other_kinds_get_the_reason(name: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(save(tmp_path, WEIGHTS[name]))


# Python 2's names and its classes without `object`, nested classes of protocol 2, functions made by functions.
INERT = {
    "long": b"c__builtin__\nlong\n(K\x01tR",
    "unicode": b"c__builtin__\nunicode\n",
    "xrange": b"c__builtin__\nxrange\n(K\0K\x03K\x01tR",
    "getattr": b"c__builtin__\ngetattr\n(cconfig\nOuter\nX\x05\0\0\0InnertR)\x81}b",
    "old class": b"(cconfig\nOld\no}b",
    "old class by name": b"(K\x01iconfig\nOld\n",
    "partial": b"cfunctools\npartial\n(c__builtin__\nint\ntR(c__builtin__\nint\n)}NtbK\x01\x85R",
    "enum": b"cconfig\nColour\nK\x01\x85R",
    "reconstructed": b"ccopy_reg\n_reconstructor\n(cconfig\nC\nc__builtin__\nobject\nNtR}b",
    "unknown call": b"cmypackage\nhook\nK\x01\x85R",
    "slots": b"cconfig\nC\n)\x81N}(X\x01\0\0\0aK\x01u\x86b",
    "list class": b"cconfig\nC\n)\x81(K\x01K\x02e",
    "dict class": b"cconfig\nC\n)\x81(X\x01\0\0\0aK\x01u",
    "uname": b"cposix\nuname_result\n(X\x01\0\0\0ttR",
}


@pytest.mark.parametrize("name", INERT)
def test_any_object_beside_the_weights_is_inert(name: str, tmp_path: Path) -> None:
    weights = b"X\x0a\0\0\0state_dict" + tensor_pickle()[2:-1] + b"s"
    root = b"\x80\x02}" + weights + b"X\x06\0\0\0beside" + INERT[name] + b"s."
    tensors = read_checkpoint(save(tmp_path, torch_zip(root, {"0": SIX.tobytes()}))).tensors
    np.testing.assert_array_equal(tensors["conv1.weight"], SIX.reshape(2, 3))


@pytest.mark.parametrize("function", ["os\nsystem", "__builtin__\neval", "builtins\n__import__", "subprocess\nPopen"])
def test_hostile_names_are_refused_wherever_they_stand(function: str, tmp_path: Path) -> None:
    beside = b"X\x06\0\0\0besidec" + function.encode() + b"\ns"
    root = tensor_pickle()[:-1] + beside + b"."
    with pytest.raises(CheckpointError, match="asks to run"):
        read_checkpoint(save(tmp_path, torch_zip(root, {"0": SIX.tobytes()})))


def test_a_class_that_behaves_as_a_dictionary_may_hold_the_weights(tmp_path: Path) -> None:
    inner = tensor_pickle()[3:-1]  # what fills the dictionary
    root = b"\x80\x02cbox\nBox\n)\x81X\x0a\0\0\0state_dictcbox\nBox\n)\x81" + inner + b"s."
    tensors = read_checkpoint(save(tmp_path, torch_zip(root, {"0": SIX.tobytes()}))).tensors
    np.testing.assert_array_equal(tensors["conv1.weight"], SIX.reshape(2, 3))


def test_an_object_in_the_place_of_the_network_is_named(tmp_path: Path) -> None:
    root = b"\x80\x02}X\x04\0\0\0argscyacs\nNode\n)\x81sX\x05\0\0\0modelcnets\nHRNet\n)\x81s."
    with pytest.raises(CheckpointError, match=r"under 'model' a whole object \(nets\.HRNet\)"):
        read_checkpoint(save(tmp_path, torch_zip(root)))
    trained = root[:-1] + b"X\x09\0\0\0optimizer" + tensor_pickle()[2:-1] + b"s."
    with pytest.raises(CheckpointError, match=r"under 'model' a whole object \(nets\.HRNet\)"):
        read_checkpoint(save(tmp_path, torch_zip(trained, {"0": SIX.tobytes()})))


def test_exported_programs_get_the_line_that_converts_them(tmp_path: Path) -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("m/archive_format", "pt2")
        archive.writestr("m/models/model.json", "{}")
    with pytest.raises(CheckpointError, match=r"\.pt2.*torch\.export\.load"):
        read_checkpoint(save(tmp_path, stream.getvalue()))


def test_the_containers_that_hold_tensors_are_named(tmp_path: Path) -> None:
    root = {"upper": {"a.weight": SIX.reshape(2, 3)}, "lower": {"b.weight": SIX.reshape(3, 2)}, "optimizer": {"m": SIX}}
    with pytest.raises(CheckpointError, match=r"2 sets .*: 'upper', 'lower'\. Name the one .*FILE:lower"):
        read_checkpoint(save(tmp_path, saved(root)))


def test_expanded_tensors_cannot_become_huge(tmp_path: Path) -> None:
    root = tensor_pickle(numel=1, size=(1 << 31, 1 << 31), stride=(0, 0))
    with pytest.raises(CheckpointError, match=r"declare .* bytes .*'conv1\.weight'.*contiguous"):
        read_checkpoint(save(tmp_path, torch_zip(root, {"0": bytes(4)})))


def test_one_storage_under_many_names_is_held_once(tmp_path: Path) -> None:
    big = np.ones((512, 512), np.float32)
    tensors = read_checkpoint(save(tmp_path, saved({f"{n}.weight": big for n in range(100)}))).tensors
    assert len(tensors) == 100
    assert len({id(tensor) for tensor in tensors.values()}) == 1


def legacy(*pickles: bytes) -> bytes:
    return LEGACY_MAGIC + pickle.dumps(1001, 2) + pickle.dumps({"little_endian": True}, 2) + b"".join(pickles)


def number(size: int) -> bytes:
    """Return a positive number of `size` bytes."""
    return b"\x8b" + size.to_bytes(4, "little") + b"\xff" * (size - 1) + b"\x01"


def doubling(open_: bytes, first: bytes, second: bytes) -> bytes:
    """Return a pickle of 60 levels, each of which holds the level below it twice."""
    levels = (
        open_ + b"(" + first + b"h" + bytes([n]) + second + b"h" + bytes([n]) + (b"e" if open_ == b"]" else b"u")
        + b"q" + bytes([n + 1])
        for n in range(60)
    )  # fmt: skip
    return b"\x80\x02" + open_ + b"q\0" + b"".join(levels) + b"."


ONES = b"K\1" * 100_000
ORDERED, SIZE = b"ccollections\nOrderedDict\n", b"ctorch\nSize\n"
BOMBS = {
    "one list many times": (b"\x80\x02" + ORDERED + b"(](]q\0(" + ONES + b"e" + b"h\0" * 30_000 + b"etR.", "no pair"),
    "pairs many times": (
        b"\x80\x02(" + ORDERED + b"q\1](" + b"K\1K\2\x86" * 1000 + b"e\x85q\2" + b"h\1h\2R" * 2100 + b"l.",
        "more than 2000000 steps",
    ),
    "sizes many times": (
        b"\x80\x02(" + SIZE + b"q\1(" + ONES + b"t\x85q\2" + b"h\1h\2R" * 100 + b"l.",
        "more than 2000000 steps",
    ),
    "one list in a list many times": (
        b"\x80\x02]q\0(" + b"}" * 50_000 + b"e0](" + b"h\0" * 50_000 + b"e.",
        "nests more than 2000000 entries",
    ),
    "doubling lists": (doubling(b"]", b"", b""), "no tensors"),
    "doubling dictionaries": (doubling(b"}", b"X\1\0\0\0a", b"X\1\0\0\0b"), "no tensors"),
    "a dictionary in itself": (b"\x80\x02}q\0X\1\0\0\0ah\0s.", "no tensors"),
    "numbers of a megabyte": (
        tensor_pickle().replace(b"\x8a\x09" + (2).to_bytes(9, "little"), number(1 << 20)),
        "shape or strides that cannot be",
    ),
    "a long name": (tensor_pickle("a" * 100_000), "100000 characters"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_what_a_pickle_builds_is_counted(name: str, tmp_path: Path) -> None:
    root, message = BOMBS[name]
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(save(tmp_path, torch_zip(root, {"0": SIX.tobytes()})))


def test_storage_keys_that_double_are_not_written_out(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="list of storages is damaged"):
        read_checkpoint(save(tmp_path, legacy(tensor_pickle(), doubling(b"]", b"", b""))))


def test_more_sets_than_a_training_keeps(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"holds 40 sets of weights, the first under 'epochs\.0'"):
        read_checkpoint(save(tmp_path, saved({"epochs": [{"layer1.0.conv1.weight": SIX.reshape(2, 3)}] * 40})))


def test_zip_with_more_entries_than_a_network(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=f"more than {MAX_ENTRIES} entries"):
        read_checkpoint(save(tmp_path, b"PK\x03\x04" + b"PK\x01\x02" * (MAX_ENTRIES + 1)))


@pytest.mark.parametrize("damage", ["change", "cut"])
@pytest.mark.parametrize("name", [name for name in WEIGHTS if "beside" in name or "views" in name or "sparse" in name])
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(draw=st.data())
def test_damaged_files(name: str, damage: str, draw: st.DataObject, tmp_path: Path) -> None:
    data = bytearray(WEIGHTS[name])
    if damage == "cut":
        del data[draw.draw(st.integers(0, len(data) - 1)) :]
    else:
        for _ in range(draw.draw(st.integers(1, 4))):
            data[draw.draw(st.integers(0, len(data) - 1))] = draw.draw(st.integers(0, 255))
    try:
        tensors = read_checkpoint(save(tmp_path, bytes(data))).tensors
    except CheckpointError:
        return
    assert damage == "change"
    assert all(tensor.dtype == np.float32 and np.isfinite(tensor).all() for tensor in tensors.values())
    assert sum(tensor.nbytes for tensor in tensors.values()) <= 4 * len(data) + (1 << 20)
