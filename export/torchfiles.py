"""PyTorch checkpoints in both formats, legacy and zip, without PyTorch.

The pickle inside runs on the restricted machine of `pickles`; here its tensors meet the bytes of their storages.
Layout of the files: torch/serialization.py of PyTorch (`_legacy_save`, `_save`).
"""

from __future__ import annotations

import io
from collections.abc import Callable
from math import prod

import numpy as np
from numpy.typing import NDArray

from spinescore.export.pickle_names import StorageRef, Stub, TensorRef
from spinescore.export.pickles import PickleMachine
from spinescore.export.untrusted import Zip, array_from, as_float32, check_shape, check_total
from spinescore.runtime.errors import CheckpointError

__all__ = ["LEGACY_MAGIC", "read_legacy", "read_zip"]

LEGACY_MAGIC = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."  # the number 0x1950a86a20f9469cfc6c, pickled
CONTAINERS = ("state_dict", "model_state_dict", "model", "best_state_dict")


def read_zip(archive: Zip, file_bytes: int) -> dict[str, NDArray[np.float32]]:
    """The network's tensors in a checkpoint as `torch.save` writes it since PyTorch 1.6."""
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
    state = _state_dict(machine.run(io.BytesIO(archive.read(f"{root}data.pkl"))))

    def content(storage: StorageRef) -> memoryview:
        name = f"{root}data/{storage.key}"
        if name not in archive.entries:
            raise CheckpointError(f"entry {name!r} is missing from the archive; get the file again")
        declared = archive.entries[name].file_size
        if declared != storage.nbytes:
            raise CheckpointError(f"entry {name!r} has {declared} bytes, its tensor's storage {storage.nbytes}")
        return memoryview(archive.read(name))

    return _tensors(state, content, file_bytes)


def read_legacy(data: bytes) -> dict[str, NDArray[np.float32]]:
    """The network's tensors in a checkpoint as PyTorch before 1.6 wrote it: five pickles, then the raw storages."""
    stream = io.BytesIO(data)
    magic, protocol, system = (PickleMachine().run(stream) for _ in range(3))
    if magic != 0x1950A86A20F9469CFC6C or protocol != 1001:
        raise CheckpointError("the file does not open as a PyTorch checkpoint does; get it again")
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise CheckpointError("the checkpoint comes from a big-endian machine; save it on a little-endian one")
    machine = PickleMachine()
    state = _state_dict(machine.run(stream))
    keys = PickleMachine().run(stream)
    if not isinstance(keys, list) or len(set(map(str, keys))) != len(keys):
        raise CheckpointError("the list of storages is damaged; get the file again")
    view, position = memoryview(data), stream.tell()
    places: dict[str, tuple[int, int]] = {}
    for key in keys:
        storage = machine.storages.get(key) if isinstance(key, str) else None
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

    return _tensors(state, content, len(data))


def _state_dict(root: object) -> dict[str, object]:
    """The dictionary that holds the network's tensors: bare, or in one of `CONTAINERS`, which may nest."""
    found = root
    for _ in range(3):
        if isinstance(found, Stub):
            raise CheckpointError(
                f"the file holds a whole object ({found.made_by}) that only its own code can read; where that code is, "
                "save the weights alone: torch.save(model.state_dict(), 'weights.pth')"
            )
        if not isinstance(found, dict):
            break
        if any(isinstance(value, TensorRef) for value in found.values()):
            return found
        inner = [found[name] for name in CONTAINERS if isinstance(found.get(name), (dict, Stub))]
        if not inner:
            break
        found = inner[0]
    raise CheckpointError(
        f"no tensors were found, neither at the top nor under {', '.join(CONTAINERS)}; "
        "save the weights alone: torch.save(model.state_dict(), 'weights.pth')"
    )


def _tensors(
    state: dict[str, object], content: Callable[[StorageRef], memoryview], file_bytes: int
) -> dict[str, NDArray[np.float32]]:
    """The state's floating tensors, each checked against the storage that it says it lies in."""
    for name, value in state.items():
        if isinstance(value, Stub) and value.made_by.startswith("torch._utils."):
            raise CheckpointError(
                f"entry {str(name)!r} is a tensor of an unusual kind ({value.made_by}); save it dense"
            )
    tensors = {str(name): value for name, value in state.items() if isinstance(value, TensorRef)}
    if len(tensors) != sum(isinstance(value, TensorRef) for value in state.values()):
        raise CheckpointError("two entries have the same name")
    check_total({name: prod(tensor.size) * tensor.storage.itemsize for name, tensor in tensors.items()}, file_bytes)
    result: dict[str, NDArray[np.float32]] = {}
    for name, tensor in tensors.items():
        array = as_float32(name, _view(name, tensor, content))
        if array is not None:
            result[name] = array
    return result


def _view(name: str, tensor: TensorRef, content: Callable[[StorageRef], memoryview]) -> NDArray[np.generic]:
    """The tensor's elements, as a strided view of its storage's bytes."""
    storage = tensor.storage
    size = check_shape(name, tensor.size, storage.itemsize, storage.nbytes)
    last = tensor.offset + sum((length - 1) * step for length, step in zip(size, tensor.stride, strict=True))
    if prod(size) and last >= storage.numel:
        raise CheckpointError(f"entry {name!r} reaches element {last} of a storage of {storage.numel}; it is damaged")
    flat = array_from(content(storage), storage.dtype, (storage.numel,))
    if not prod(size):
        return flat[:0].reshape(size)
    strides = tuple(step * flat.itemsize for step in tensor.stride)
    return np.lib.stride_tricks.as_strided(flat[tensor.offset :], size, strides, writeable=False)
