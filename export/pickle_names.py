"""What the names and calls in a PyTorch pickle stand for: tensors, plain containers, inert stubs, or a refusal.

No name is ever looked up. Names and signatures: torch/_utils.py and torch/storage.py of PyTorch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from spinescore.runtime.errors import CheckpointError

__all__ = ["Global", "StorageRef", "Stub", "TensorRef", "call", "fill", "instance", "name_of", "storage_of"]


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
_BUILTINS = ("builtins", "__builtin__")
# Calls that stand in honest checkpoints beside the tensors. None is made: the result is a stub.
_INERT_CALLS = {
    "_codecs.encode",
    "copyreg._reconstructor",
    "copy_reg._reconstructor",
    "numpy.dtype",
    "numpy.core.multiarray.scalar",
    "numpy.core.multiarray._reconstruct",
    "numpy._core.multiarray.scalar",
    "numpy._core.multiarray._reconstruct",
    "torch.device",
    "datetime.date",
    "datetime.datetime",
    "datetime.timedelta",
    *(f"{home}.{name}Path" for home in ("pathlib", "pathlib._local") for name in ("", "Posix", "Windows")),
    *(f"{home}.{name}" for home in _BUILTINS for name in ("set", "frozenset", "complex", "bytearray")),
    *(f"torch._utils._rebuild_{kind}" for kind in ("sparse_tensor", "qtensor", "tensor_v3", "wrapper_subclass")),
}
_DICTIONARIES = ("collections.OrderedDict", "collections.defaultdict", "collections.Counter")
_PLAIN_TYPES = {f"{home}.{name}" for home in _BUILTINS for name in ("object", "dict", "list", "int", "float", "str")}
# Modules that no weights name except for what stands above: naming one at all is refused.
_REFUSED_MODULES = frozenset(
    """
    os posix nt sys subprocess builtins __builtin__ importlib runpy ctypes socket shutil pty code codeop pickle _pickle
    marshal operator functools webbrowser multiprocessing threading signal tempfile urllib pip
    """.split()  # noqa: SIM905
)


@dataclass(frozen=True)
class Global:
    name: str


@dataclass(frozen=True, eq=False)
class Stub:
    """Something that is no tensor; `made_by` is what would have made it."""

    made_by: str


@dataclass(frozen=True)
class StorageRef:
    key: str
    dtype: str
    numel: int

    @property
    def itemsize(self) -> int:
        return 2 if self.dtype == "bfloat16" else np.dtype(self.dtype).itemsize

    @property
    def nbytes(self) -> int:
        return self.numel * self.itemsize


@dataclass(frozen=True, eq=False)
class TensorRef:
    storage: StorageRef
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


def name_of(module: str, name: str) -> Global:
    """A name that the pickle mentions. It is never looked up."""
    full = f"{module}.{name}"
    if module.split(".")[0] in _REFUSED_MODULES and full not in _INERT_CALLS | _PLAIN_TYPES:
        raise _refusal(full)
    return Global(full)


def instance(kind: Global) -> object:
    """An object whose class's own code was not run."""
    return {} if kind.name in _DICTIONARIES else Stub(kind.name)


def call(function: str, arguments: tuple[Any, ...]) -> object:
    """The result of a call that checkpoints are made of; any other is refused."""
    if function in ("torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor"):
        return _tensor(arguments)
    if function in ("torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state"):
        return arguments[0]
    if function == "torch.Size":
        return tuple(arguments[0])
    if function in _DICTIONARIES:
        target: dict[Any, Any] = {}
        pairs = arguments[0] if arguments and isinstance(arguments[0], list) else []
        fill(target, [item for pair in pairs for item in pair])
        return target
    if function in _INERT_CALLS:
        return Stub(function)
    raise _refusal(function)


def _tensor(arguments: tuple[Any, ...]) -> TensorRef:
    storage, offset, size, stride = arguments[:4]
    numbers = [offset, *size, *stride]
    if not isinstance(storage, StorageRef) or not isinstance(size, tuple) or not isinstance(stride, tuple):
        raise CheckpointError("a tensor is described in a way that cannot be; the file is damaged")
    if len(size) != len(stride) or not all(isinstance(number, int) and number >= 0 for number in numbers):
        raise CheckpointError(f"a tensor in storage {storage.key!r} has a shape or strides that cannot be")
    return TensorRef(storage, offset, size, stride)


def fill(target: object, items: list[Any]) -> None:
    """Set keys and values that alternate in `items`. Keys that are no plain value have no use here and are dropped."""
    if isinstance(target, dict):
        target.update((key, value) for key, value in _pairs(items) if isinstance(key, (str, int, float, bytes)))
    elif not isinstance(target, Stub):
        raise CheckpointError("the pickle sets an item of something that has none; it is damaged or forged")


def _pairs(items: list[Any]) -> Iterator[tuple[Any, Any]]:
    return zip(items[::2], items[1::2], strict=True)


def _refusal(function: str) -> CheckpointError:
    return CheckpointError(
        f"the file asks to run {function[:100]!r}, which no set of weights needs; nothing was run. If you trust "
        "where it comes from, save the weights alone there: torch.save(model.state_dict(), 'weights.pth')"
    )


def storage_of(identity: Any) -> object:
    """What a persistent id stands for: a storage, or a class (the legacy format adds its source, dropped here)."""
    if isinstance(identity, tuple) and len(identity) == 4 and identity[0] == "module":
        return identity[1]
    if not isinstance(identity, tuple) or len(identity) not in (5, 6) or identity[0] != "storage":
        raise CheckpointError("the pickle refers to something that is no tensor's storage; it is damaged or forged")
    kind, key, numel = identity[1], identity[2], identity[4]
    home, _, storage = kind.name.rpartition(".") if isinstance(kind, Global) else ("", "", "")
    if home not in ("torch", "torch.cuda") or storage not in _STORAGES:
        label = kind.name if isinstance(kind, Global) else type(kind).__name__
        raise CheckpointError(f"a tensor is stored as {label}, which is not read; save it as float32")
    if not isinstance(key, str) or not isinstance(numel, int) or numel < 0 or identity[5:] not in ((), (None,)):
        raise CheckpointError("a tensor's storage is described in a way that cannot be; the file is damaged")
    return StorageRef(key, _STORAGES[storage], numel)
