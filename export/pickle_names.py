"""Turns the names and calls in a PyTorch pickle into tensors, plain containers, and inert stubs for all else.

No name is ever looked up and nothing is called. Names and signatures: torch/_utils.py and torch/storage.py of PyTorch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from spinescore.runtime.errors import CheckpointError

__all__ = [
    "Global",
    "StorageRef",
    "Stub",
    "TensorRef",
    "call",
    "copied",
    "fill",
    "instance",
    "name_of",
    "refusal",
    "storage_of",
]


_STORAGES = {
    "FloatStorage": "<f4",
    "DoubleStorage": "<f8",
    "HalfStorage": "<f2",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "|i1",
    "ByteStorage": "|u1",
    "BoolStorage": "|b1",
    "ComplexFloatStorage": "<c8",
    "ComplexDoubleStorage": "<c16",
}
# Storages that are not read as weights, with their element's bytes. They may stand beside the network.
_OTHER_STORAGES = {
    "QInt8Storage": 1,
    "QUInt8Storage": 1,
    "QInt32Storage": 4,
    "QUInt4x2Storage": 1,
    "QUInt2x4Storage": 1,
    "UntypedStorage": 1,
}
_BUILTINS = ("builtins", "__builtin__")
_TENSORS = ("torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor")
_PARAMETERS = ("torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state")
_TENSOR_TYPES = ("torch.Tensor", "torch._tensor.Tensor", "torch.nn.parameter.Parameter", "torch.nn.parameter.Buffer")
_DICTIONARIES = ("collections.OrderedDict", "collections.defaultdict", "collections.Counter")
_RECONSTRUCTORS = tuple(
    f"{home}.{name}" for home in ("copyreg", "copy_reg") for name in ("_reconstructor", "__newobj__")
)
_MOST = 1 << 63  # PyTorch's sizes, strides and offsets are smaller
_METADATA = 6  # the argument of a tensor whose elements have another sign than the stored ones (conj, neg)
_MAX_AXES = 64  # as PyTorch has it
# A file that names one of these is hostile. It is refused, although nothing would be run.
_REFUSED_MODULES = frozenset(
    """
    os posix nt sys subprocess importlib runpy ctypes socket shutil pty code codeop pickle _pickle marshal webbrowser
    tempfile urllib pip
    """.split()  # noqa: SIM905
)
_REFUSED_BUILTINS = frozenset(
    """
    eval exec execfile compile open file input raw_input breakpoint apply reload globals locals vars __import__
    """.split()  # noqa: SIM905
)
_HARMLESS = frozenset(
    """
    os.stat_result os.statvfs_result os.terminal_size os.uname_result posix.stat_result posix.times_result
    posix.uname_result nt.stat_result nt.uname_result socket.AddressFamily socket.SocketKind urllib.parse.ParseResult
    urllib.parse.SplitResult subprocess.CompletedProcess
    """.split()  # noqa: SIM905
)


@dataclass(frozen=True)
class Global:
    name: str


@dataclass(eq=False, slots=True)
class Stub:
    """An object that is no tensor: of the class `made_by`, or the result of that function if `called`.

    `items` are the items of a class that behaves like a dictionary.
    """

    made_by: str
    called: bool = False
    items: dict[Any, Any] | None = None


@dataclass(frozen=True)
class StorageRef:
    key: str
    dtype: str
    numel: int

    @property
    def nbytes(self) -> int:
        known = {**_OTHER_STORAGES, "bfloat16": 2}
        return self.numel * (known[self.dtype] if self.dtype in known else np.dtype(self.dtype).itemsize)


@dataclass(frozen=True)
class TensorRef:
    """A tensor before its bytes are read. Two that are equal are the same elements of the same storage."""

    storage: StorageRef
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


def name_of(module: str, name: str) -> Global:
    """Return a name that the pickle mentions, without looking it up. Raises CheckpointError for a hostile one."""
    full = f"{module}.{name}"
    homes = {module.split(".")[0], *name.split(".")[:-1]}  # "pathlib", "os.system" would reach os as well
    builtin = not homes.isdisjoint(_BUILTINS) and not _REFUSED_BUILTINS.isdisjoint(name.split("."))
    if builtin or (not homes.isdisjoint(_REFUSED_MODULES) and full not in _HARMLESS):
        raise refusal(full)
    return Global(full)


def instance(kind: object) -> object:
    """Return an object of a class, without running the class's code."""
    name = kind.name if isinstance(kind, Global) else kind.made_by if isinstance(kind, Stub) else type(kind).__name__
    return {} if name in _DICTIONARIES else Stub(name)


def call(function: str, arguments: tuple[Any, ...]) -> object:
    """Return the tensor or plain container that a call stands for; for all else a stub. Nothing is called."""
    if function in _TENSORS:
        return Stub(f"{function}, metadata", called=True) if any(arguments[_METADATA:]) else _tensor(arguments)
    if function == "torch._utils._rebuild_tensor_v3":  # types without a storage of their own, as float8
        return Stub(next((part.name for part in arguments if isinstance(part, Global)), function), called=True)
    if function in _PARAMETERS:
        return arguments[0]
    if function == "torch._tensor._rebuild_from_type_v2":  # a tensor with attributes, or of a class of its own
        inner, kind, inner_arguments = arguments[:3]
        plain = isinstance(inner, Global) and inner.name in (*_TENSORS, *_PARAMETERS)
        if plain and isinstance(kind, Global) and kind.name in _TENSOR_TYPES and isinstance(inner_arguments, tuple):
            return call(inner.name, inner_arguments)
        return Stub(function, called=True)
    if function == "torch.Size" and isinstance(arguments[0], (list, tuple)):
        return tuple(arguments[0])
    if function in _DICTIONARIES:
        return _dictionary(arguments)
    if function in _RECONSTRUCTORS:
        return instance(arguments[0])
    return Stub(function, called=True)


def copied(function: str, arguments: tuple[Any, ...]) -> int:
    """Return how many items `call` will copy. A pickle may pass one list to any number of calls, so they count."""
    if function in _DICTIONARIES or function == "torch.Size":
        return len(arguments[0]) if arguments and isinstance(arguments[0], (list, tuple)) else 0
    return 0


def _dictionary(arguments: tuple[Any, ...]) -> dict[Any, Any]:
    target: dict[Any, Any] = {}
    pairs = arguments[0] if arguments and isinstance(arguments[0], list) else []
    for pair in pairs:
        if not isinstance(pair, (list, tuple)) or len(pair) != 2:
            raise CheckpointError("the pickle fills a dictionary with something that is no pair; it is damaged")
        fill(target, list(pair))
    return target


def _tensor(arguments: tuple[Any, ...]) -> TensorRef:
    storage, offset, size, stride = arguments[:4]
    if not isinstance(storage, StorageRef) or not isinstance(size, tuple) or not isinstance(stride, tuple):
        raise CheckpointError("a tensor is described in a way that cannot be; the file is damaged")
    fits = len(size) == len(stride) <= _MAX_AXES
    if not fits or not all(type(number) is int and 0 <= number < _MOST for number in (offset, *size, *stride)):
        raise CheckpointError(f"a tensor in storage {storage.key[:100]!r} has a shape or strides that cannot be")
    return TensorRef(storage, offset, size, stride)


def fill(target: object, items: list[Any]) -> None:
    """Set the keys and values that alternate in `items`. Keys that are no plain value are not needed and dropped."""
    if isinstance(target, Stub):
        target.items = target.items if target.items is not None else {}
        target = target.items
    if not isinstance(target, dict):
        raise CheckpointError("the pickle sets an item of something that has none; it is damaged or forged")
    pairs = zip(items[::2], items[1::2], strict=True)
    target.update((key, value) for key, value in pairs if isinstance(key, (str, int, float, bytes)))


def refusal(function: str) -> CheckpointError:
    """Return the error for a file that asks to run `function`."""
    return CheckpointError(
        f"the file asks to run {function[:100]!r}, which no set of weights needs; nothing was run. If you trust "
        "where it comes from, save the weights alone there: torch.save(model.state_dict(), 'weights.pth')"
    )


def storage_of(identity: Any) -> object:
    """Return the storage or class of a persistent id. The source that the legacy format adds is dropped."""
    if isinstance(identity, tuple) and len(identity) == 4 and identity[0] == "module":
        return identity[1]
    if not isinstance(identity, tuple) or len(identity) not in (5, 6) or identity[0] != "storage":
        raise CheckpointError("the pickle refers to something that is no tensor's storage; it is damaged or forged")
    kind, key, numel = identity[1], identity[2], identity[4]
    home, _, storage = kind.name.rpartition(".") if isinstance(kind, Global) else ("", "", "")
    if home not in ("torch", "torch.cuda", "torch.storage") or storage not in _STORAGES | _OTHER_STORAGES:
        label = kind.name if isinstance(kind, Global) else type(kind).__name__
        raise CheckpointError(f"a tensor is stored as {label}, which is not read; save it as float32")
    honest = isinstance(key, str) and type(numel) is int and 0 <= numel < _MOST
    if not honest or identity[5:] not in ((), (None,)):
        raise CheckpointError("a tensor's storage is described in a way that cannot be; the file is damaged")
    return StorageRef(key, _STORAGES.get(storage, storage), numel)
