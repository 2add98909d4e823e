"""PyTorch checkpoints in both formats, legacy and zip, without PyTorch.

The pickle inside runs on the restricted machine of `pickles`; this module joins its tensors and their bytes.
Layout of the files: torch/serialization.py of PyTorch (`_legacy_save`, `_save`).
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator
from math import prod

import numpy as np
from numpy.typing import NDArray

from spinescore.export.pickle_names import StorageRef, Stub, TensorRef, refusal
from spinescore.export.pickles import MAX_STEPS, PickleMachine
from spinescore.export.untrusted import Zip, array_from, as_float32, check_shape, is_kernel
from spinescore.export.weight_sets import Entry, Loader, Tensors, of_training
from spinescore.runtime.errors import CheckpointError

__all__ = ["LEGACY_MAGIC", "is_torch", "read_legacy", "read_zip"]

LEGACY_MAGIC = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."  # the number 0x1950a86a20f9469cfc6c, pickled
_MAX_GROWTH = 4  # float32 beside the file: half precision doubles, and expanded or shared tensors are written out
_GROWTH_FLOOR = 1 << 20
_MAX_DEPTH = 8
_MAX_ENTRIES = 100_000
_MAX_KEY, _MAX_NAME = 100, 1000  # characters
_SAVE = "save the weights alone: torch.save(model.state_dict(), 'weights.pth')"
_REMEDIES = {  # by a word in the name of the tensor's constructor
    "metadata": "is a view that changes the signs of what is stored (conj, neg); save plain tensors: torch.save({name: "
    "value.resolve_conj().resolve_neg() for name, value in model.state_dict().items()}, 'weights.pth')",
    "sparse": "is sparse; save it dense: "
    "torch.save({name: value.to_dense() for name, value in model.state_dict().items()}, 'weights.pth')",
    "qtensor": "is quantised; give the weights from before the quantisation (the export quantises them with --int8)",
    "meta": "is on the device 'meta' and has no values; save the model after its weights were loaded",
    "multiarray": "is a NumPy array; save the arrays alone: numpy.savez('weights.npz', **arrays)",
    "float8": "is of an 8-bit type; save it as float32: "
    "torch.save({name: value.float() for name, value in model.state_dict().items()}, 'weights.pth')",
}


def is_torch(archive: Zip) -> bool:
    """Return whether the archive is one of PyTorch's. Raises CheckpointError if it holds a program."""
    last = {name.split("/", 1)[-1] for name in archive.entries}
    if not last.isdisjoint(("archive_format", "models/model.json", "serialized_exported_program.json")):
        raise CheckpointError(
            "this is an exported program (.pt2), not a checkpoint; convert it with "
            "torch.save(torch.export.load(FILE).state_dict, 'weights.pth')"
        )
    return "data.pkl" in last


def read_zip(archive: Zip, file_bytes: int) -> tuple[list[Entry], Loader]:
    """Return the tensors of a checkpoint of PyTorch 1.6 or later, and the loader of their values."""
    roots = [name[: -len("data.pkl")] for name in archive.entries if name.endswith("/data.pkl")]
    if len(roots) != 1:
        raise CheckpointError(f"the archive has {len(roots)} entries named data.pkl, one is expected")
    root = roots[0]
    if any(name.startswith(f"{root}code/") or name == f"{root}constants.pkl" for name in archive.entries):
        raise CheckpointError(
            "this is a TorchScript program, not a checkpoint; convert it with "
            "torch.save(torch.jit.load(FILE, map_location='cpu').state_dict(), 'weights.pth')"
        )
    order = f"{root}byteorder"
    if order in archive.entries and archive.read(order) != b"little":
        raise CheckpointError(f"entry {order!r} does not say 'little'; save the checkpoint on a little-endian machine")
    machine = PickleMachine()
    entries = _entries(machine.run(io.BytesIO(archive.read(f"{root}data.pkl"))))

    def content(storage: StorageRef) -> memoryview:
        name = f"{root}data/{storage.key}"
        if name not in archive.entries:
            raise CheckpointError(f"entry {name!r} is missing from the archive; get the file again")
        declared = archive.entries[name].file_size
        if declared != storage.nbytes:
            raise CheckpointError(f"entry {name!r} has {declared} bytes, its tensor's storage {storage.nbytes}")
        return memoryview(archive.read(name))

    return entries, _loader(content, file_bytes)


def read_legacy(data: bytes) -> tuple[list[Entry], Loader]:
    """Return the tensors of an older checkpoint (five pickles, then storages), and the loader of their values."""
    stream = io.BytesIO(data)
    magic, protocol, system = (PickleMachine().run(stream) for _ in range(3))
    if magic != 0x1950A86A20F9469CFC6C or protocol != 1001:
        raise CheckpointError("the file does not open as a PyTorch checkpoint does; get it again")
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise CheckpointError("the checkpoint comes from a big-endian machine; save it on a little-endian one")
    machine = PickleMachine()
    entries = _entries(machine.run(stream))
    keys = PickleMachine().run(stream)
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys) or len(set(keys)) != len(keys):
        raise CheckpointError("the list of storages is damaged; get the file again")
    view, position = memoryview(data), stream.tell()
    places: dict[str, tuple[int, int]] = {}
    for key in keys:
        storage = machine.storages.get(key)
        if storage is None:
            raise CheckpointError("the list of storages names one that no tensor has; the file is damaged")
        numel = int.from_bytes(view[position : position + 8], "little")
        if numel != storage.numel or position + 8 + storage.nbytes > len(data):
            raise CheckpointError(
                f"storage {key!r} should have {storage.numel} elements; the file is truncated or damaged, get it again"
            )
        places[key] = (position + 8, position + 8 + storage.nbytes)
        position += 8 + storage.nbytes

    def content(storage: StorageRef) -> memoryview:
        if storage.key not in places:
            raise CheckpointError(f"storage {storage.key!r} is missing from the file; get it again")
        return view[slice(*places[storage.key])]

    return entries, _loader(content, len(data))


def _entries(root: object) -> list[Entry]:
    """Return every tensor in the file with its container and name. Raises CheckpointError if there is none."""
    entries: dict[str, Entry] = {}
    objects: dict[str, str] = {}
    for container, name, value in _walk(root):
        if isinstance(value, TensorRef) or _should_be_a_tensor(name, value):
            entry = Entry(
                container, name, value.size if isinstance(value, TensorRef) else None, _floats(name, value), value
            )
            if entries.setdefault(entry.full, entry) is not entry:
                raise CheckpointError(f"two entries have the same name, {entry.full!r}; {_SAVE}")
            if len(entries) > _MAX_ENTRIES:
                raise CheckpointError(f"the file has more than {_MAX_ENTRIES} tensors; {_SAVE}")
        elif isinstance(value, Stub) and re.search("^$|model|net|state|ema", name):
            objects.setdefault(name, value.made_by)
    if entries and not (objects and all(of_training(entry.container) for entry in entries.values())):
        return list(entries.values())
    if isinstance(root, Stub) and root.called:
        raise refusal(root.made_by)
    if objects:
        key, made_by = next(iter(objects.items()))
        where = f"under {key!r} " if key else ""
        raise CheckpointError(
            f"the file holds {where}a whole object ({made_by[:_MAX_KEY]}) that only its own code can read; where "
            f"that code is installed, {_SAVE}"
        )
    raise CheckpointError(f"no tensors were found; {_SAVE}")


def _walk(root: object) -> Iterator[tuple[str, str, object]]:
    """Yield container, name and value of everything within dictionaries and lists, in the file's order.

    An object can occur in many places, or within itself, so depth and steps are bounded.
    """
    steps = 0
    pending: list[tuple[str, str, object, int]] = [("", "", root, 0)]
    while pending:
        container, name, value, depth = pending.pop()
        yield container, name, value
        value = value.items if isinstance(value, Stub) else value
        if not isinstance(value, (dict, list, tuple)) or depth == _MAX_DEPTH or len(name) > _MAX_KEY:
            continue
        steps += len(value)
        if steps > MAX_STEPS:
            raise CheckpointError(f"the file nests more than {MAX_STEPS} entries; {_SAVE}")
        inner = f"{container}.{name}" if container else name
        items = list(value.items() if isinstance(value, dict) else enumerate(value))
        shown = ((key, item) for key, item in reversed(items) if isinstance(item, (TensorRef, Stub, dict, list, tuple)))
        pending += [(inner, _text(key), item, depth + 1) for key, item in shown if isinstance(item, Stub) or item]


def _text(key: object) -> str:
    text = key.decode("utf-8", "replace") if isinstance(key, bytes) else str(key)
    if len(text) > _MAX_NAME:
        raise CheckpointError(f"an entry has a name of {len(text)} characters; {_SAVE}")
    return text


def _should_be_a_tensor(name: str, value: object) -> bool:
    """Return whether a stub is in a tensor's place: an unusual kind of tensor, or any object named like a parameter."""
    if not isinstance(value, Stub):
        return False
    parameter = name.rpartition(".")[2] in ("weight", "bias", "running_mean", "running_var")
    return value.made_by.startswith(("torch._utils._rebuild_", "torch._tensor._rebuild_", "torch.float8")) or parameter


def _floats(name: str, value: object) -> bool:
    """Return whether the value can hold weights; integers count steps, unless they are a kernel that was quantised."""
    if not isinstance(value, TensorRef) or value.storage.dtype[:2] not in ("<i", "|i", "|u", "|b"):
        return True
    return len(value.size) > 1 and is_kernel(name)


def _loader(content: Callable[[StorageRef], memoryview], file_bytes: int) -> Loader:
    """Return a function that loads entries' values, each checked against the storage that it lies in."""

    def load(entries: dict[str, Entry]) -> Tensors:
        for name, entry in entries.items():
            if isinstance(entry.value, Stub):
                raise CheckpointError(f"entry {name!r} {_remedy(entry.value.made_by)}")
        tensors = {name: one.value for name, one in entries.items() if isinstance(one.value, TensorRef) and one.floats}
        _check_growth(tensors, file_bytes)
        arrays: dict[TensorRef, NDArray[np.float32] | None] = {}
        by_storage: dict[StorageRef, list[str]] = {}
        for name, tensor in _once(tensors).items():
            by_storage.setdefault(tensor.storage, []).append(name)
        for storage, names in by_storage.items():  # each is read once, and one at a time
            if storage.dtype.endswith("Storage"):
                stored = f"is stored as torch.{storage.dtype}, which is not read"
                raise CheckpointError(f"entry {names[0]!r} {stored}; save it as float32")
            flat = array_from(content(storage), storage.dtype, (storage.numel,))
            for name in names:
                arrays[tensors[name]] = as_float32(name, _view(name, tensors[name], flat))
        loaded = {name: arrays[tensor] for name, tensor in tensors.items()}
        return {name: array for name, array in loaded.items() if array is not None}

    return load


def _remedy(made_by: str) -> str:
    other = f"is no plain tensor ({made_by[:_MAX_KEY]}); save it as a dense float32 tensor"
    return next((remedy for word, remedy in _REMEDIES.items() if word in made_by), other)


def _once(tensors: dict[str, TensorRef]) -> dict[str, TensorRef]:
    """Return the tensors without second names of the same tensor."""
    return {name: tensor for tensor, name in {tensor: name for name, tensor in reversed(tensors.items())}.items()}


def _check_growth(tensors: dict[str, TensorRef], file_bytes: int) -> None:
    """Check that shared or expanded tensors do not grow far beyond the file. Raises CheckpointError."""
    sizes = {name: prod(tensor.size) * 4 for name, tensor in _once(tensors).items()}
    if sum(sizes.values()) > _MAX_GROWTH * file_bytes + _GROWTH_FLOOR:
        largest = max(sizes, key=lambda name: sizes[name])
        raise CheckpointError(
            f"the entries declare {sum(sizes.values())} bytes together (the largest is {largest!r}), but the file has "
            f"{file_bytes}; save contiguous tensors: "
            "torch.save({name: value.contiguous() for name, value in model.state_dict().items()}, 'weights.pth')"
        )


def _view(name: str, tensor: TensorRef, flat: NDArray[np.generic]) -> NDArray[np.generic]:
    """Return the tensor's elements as a strided view of its storage; a stride of 0 repeats an element."""
    size, stride = check_shape(name, tensor.size, 0, 0), tensor.stride
    if not prod(size):
        return flat[:0].reshape(size)
    last = tensor.offset + sum((length - 1) * step for length, step in zip(size, stride, strict=True))
    if last >= len(flat):
        distinct = tuple(length if step else 1 for length, step in zip(size, stride, strict=True))
        check_shape(name, distinct, flat.itemsize, flat.nbytes)  # has the clearer message if the shape alone is wrong
        raise CheckpointError(f"entry {name!r} reaches element {last} of a storage of {len(flat)}; it is damaged")
    strides = tuple(step * flat.itemsize for step in stride)
    return np.lib.stride_tricks.as_strided(flat[tensor.offset :], size, strides, writeable=False)
