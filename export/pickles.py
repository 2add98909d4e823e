"""Pickles of PyTorch without unpickling: tensors and plain containers come out, nothing is imported or called.

A pickle is a program for a small stack machine. Python's own unpickler imports and calls what the program names; the
machine here has no way to do either: a name stays a name (`_Global`), and a call is carried out only where it stands
in a table of this module. What a checkpoint has beside its tensors (an optimizer, NumPy scalars, settings) becomes an
inert stub; any other call is refused. Opcodes: `pickletools` of the standard library.
"""

from __future__ import annotations

import io
import pickletools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from spinescore.runtime.errors import CheckpointError

__all__ = ["PickleMachine", "StorageRef", "Stub", "TensorRef"]

MAX_OPCODES = 2_000_000  # a checkpoint of HRNet with its optimizer has about 200,000

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
    "pathlib.Path",
    "pathlib.PosixPath",
    "pathlib.WindowsPath",
    *(
        f"{home}.{name}"
        for home in ("builtins", "__builtin__")
        for name in ("set", "frozenset", "complex", "bytearray")
    ),
    *(f"torch._utils._rebuild_{kind}" for kind in ("sparse_tensor", "qtensor", "tensor_v3", "wrapper_subclass")),
}
# Modules that no weights name except for the calls above: naming one at all is refused.
_REFUSED_MODULES = frozenset(
    ("os", "posix", "nt", "sys", "subprocess", "builtins", "__builtin__", "importlib", "runpy", "ctypes", "socket")
    + ("shutil", "pty", "code", "codeop", "pickle", "_pickle", "marshal", "operator", "functools", "webbrowser")
    + ("multiprocessing", "threading", "signal", "tempfile", "urllib", "pip")
)


@dataclass(frozen=True)
class _Global:
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


class PickleMachine:
    """The pickle machine: a stack, a memo, and the opcodes that data needs. It imports nothing and calls nothing."""

    def __init__(self) -> None:
        self.storages: dict[str, StorageRef] = {}
        self._stack: list[Any] = []
        self._below: list[list[Any]] = []  # the stacks under each open mark
        self._memo: dict[int, Any] = {}

    def run(self, stream: io.BytesIO) -> Any:
        """Run one pickle from the stream's position; the stream is left behind its end."""
        for step, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
            if step >= MAX_OPCODES:
                raise CheckpointError(f"the pickle has more than {MAX_OPCODES} steps; save only model.state_dict()")
            name = opcode.name
            if name in _LITERALS:
                self._stack.append(argument)
            elif name in _CONSTANTS:
                self._stack.append(_CONSTANTS[name]())
            elif name in _ACTIONS:
                _ACTIONS[name](self, argument)
            elif name == "STOP":
                return self._stack.pop()
            elif name not in ("PROTO", "FRAME"):
                raise CheckpointError(f"the pickle uses the opcode {name}, which no set of weights needs")
        raise CheckpointError("the pickle has no end; the file is truncated, get it again")

    def _pop_mark(self) -> list[Any]:
        items = self._stack
        self._stack = self._below.pop()
        return items

    def mark(self, _: Any) -> None:
        self._below.append(self._stack)
        self._stack = []

    def pop(self, _: Any) -> None:
        if self._stack:
            self._stack.pop()
        else:
            self._pop_mark()

    def pop_mark(self, _: Any) -> None:
        self._pop_mark()

    def dup(self, _: Any) -> None:
        self._stack.append(self._stack[-1])

    def put(self, index: Any) -> None:
        self._memo[len(self._memo) if index is None else index] = self._stack[-1]

    def get(self, index: Any) -> None:
        self._stack.append(self._memo[index])

    def tuple_of(self, count: int | None) -> None:
        items = self._pop_mark() if count is None else [self._stack.pop() for _ in range(count)][::-1]
        self._stack.append(tuple(items))

    def list_of(self, _: Any) -> None:
        self._stack.append(self._pop_mark())

    def dict_of(self, _: Any) -> None:
        target: dict[Any, Any] = {}
        _fill(target, self._pop_mark())
        self._stack.append(target)

    def append(self, _: Any) -> None:
        self._extend([self._stack.pop()])

    def appends(self, _: Any) -> None:
        self._extend(self._pop_mark())

    def _extend(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if isinstance(target, list):
            target.extend(items)
        elif not isinstance(target, Stub):
            raise CheckpointError("the pickle appends to something that is no list; it is damaged")

    def set_item(self, _: Any) -> None:
        value, key = self._stack.pop(), self._stack.pop()
        _fill(self._stack[-1], [key, value])

    def set_items(self, _: Any) -> None:
        items = self._pop_mark()
        _fill(self._stack[-1], items)

    def name(self, argument: str) -> None:
        self._stack.append(_named(*argument.split(" ", 1)))

    def stack_name(self, _: Any) -> None:
        name, module = self._stack.pop(), self._stack.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise CheckpointError("the pickle names an object by something that is no text; it is damaged")
        self._stack.append(_named(module, name))

    def reduce(self, _: Any) -> None:
        arguments, function = self._stack.pop(), self._stack.pop()
        if not isinstance(function, _Global) or not isinstance(arguments, tuple):
            raise CheckpointError("the pickle calls something that is no function; it is damaged or forged")
        self._stack.append(_call(function.name, arguments))

    def new_object(self, count: int) -> None:
        kind = [self._stack.pop() for _ in range(count)][-1]
        if not isinstance(kind, _Global):
            raise CheckpointError("the pickle makes an object of something that is no class; it is damaged or forged")
        self._stack.append({} if kind.name in _DICTIONARIES else Stub(kind.name))

    def build(self, _: Any) -> None:
        """Drop an object's state: stubs have none, and a state dict's only holds version numbers."""
        self._stack.pop()
        if not isinstance(self._stack[-1], (Stub, dict)):
            raise CheckpointError("the pickle sets the state of something that has none; it is damaged or forged")

    def persistent(self, _: Any) -> None:
        self._stack.append(self._storage(self._stack.pop()))

    def _storage(self, identity: Any) -> object:
        """What a persistent id stands for: a storage, or a class (the legacy format adds its source, dropped here)."""
        if isinstance(identity, tuple) and len(identity) == 4 and identity[0] == "module":
            return identity[1]
        if not isinstance(identity, tuple) or len(identity) not in (5, 6) or identity[0] != "storage":
            raise CheckpointError("the pickle refers to something that is no tensor's storage; it is damaged or forged")
        kind, key, numel = identity[1], identity[2], identity[4]
        home, _, storage = kind.name.rpartition(".") if isinstance(kind, _Global) else ("", "", "")
        if home not in ("torch", "torch.cuda") or storage not in _STORAGES:
            label = kind.name if isinstance(kind, _Global) else type(kind).__name__
            raise CheckpointError(f"a tensor is stored as {label}, which is not read; save it as float32")
        if not isinstance(key, str) or not isinstance(numel, int) or numel < 0 or identity[5:] not in ((), (None,)):
            raise CheckpointError("a tensor's storage is described in a way that cannot be; the file is damaged")
        found = StorageRef(key, _STORAGES[storage], numel)
        if self.storages.setdefault(key, found) != found:
            raise CheckpointError(f"storage {key!r} is described in two ways; the file is damaged")
        return found


_DICTIONARIES = ("collections.OrderedDict", "collections.defaultdict", "collections.Counter")
_LITERALS = frozenset(
    ("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT")
    + ("STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8")
    + ("UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8")
)
_CONSTANTS: dict[str, Callable[[], object]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_DICT": dict,
    "EMPTY_SET": list,  # nothing here looks into a set
}
_ACTIONS: dict[str, Callable[[PickleMachine, Any], None]] = {
    "MARK": PickleMachine.mark,
    "POP": PickleMachine.pop,
    "POP_MARK": PickleMachine.pop_mark,
    "DUP": PickleMachine.dup,
    "MEMOIZE": PickleMachine.put,
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), PickleMachine.put),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), PickleMachine.get),
    "TUPLE": lambda machine, _: machine.tuple_of(None),
    "TUPLE1": lambda machine, _: machine.tuple_of(1),
    "TUPLE2": lambda machine, _: machine.tuple_of(2),
    "TUPLE3": lambda machine, _: machine.tuple_of(3),
    "LIST": PickleMachine.list_of,
    "FROZENSET": PickleMachine.list_of,
    "DICT": PickleMachine.dict_of,
    "APPEND": PickleMachine.append,
    "APPENDS": PickleMachine.appends,
    "ADDITEMS": PickleMachine.appends,
    "SETITEM": PickleMachine.set_item,
    "SETITEMS": PickleMachine.set_items,
    "GLOBAL": PickleMachine.name,
    "STACK_GLOBAL": PickleMachine.stack_name,
    "REDUCE": PickleMachine.reduce,
    "NEWOBJ": lambda machine, _: machine.new_object(2),
    "NEWOBJ_EX": lambda machine, _: machine.new_object(3),
    "BUILD": PickleMachine.build,
    "BINPERSID": PickleMachine.persistent,
}


def _named(module: str, name: str) -> _Global:
    """A name that the pickle mentions. It is never looked up."""
    full = f"{module}.{name}"
    if module.split(".")[0] in _REFUSED_MODULES and full not in _INERT_CALLS and full != "builtins.object":
        raise _refusal(full)
    return _Global(full)


def _call(function: str, arguments: tuple[Any, ...]) -> object:
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
        _fill(target, [item for pair in pairs for item in pair])
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


def _fill(target: object, items: list[Any]) -> None:
    """Set keys and values that alternate in `items`. Keys that are no plain value have no use here and are dropped."""
    if isinstance(target, dict):
        target.update((key, value) for key, value in _pairs(items) if isinstance(key, (str, int, float, bytes)))
    elif not isinstance(target, Stub):
        raise CheckpointError("the pickle sets an item of something that has none; it is damaged or forged")


def _pairs(items: list[Any]) -> Iterator[tuple[Any, Any]]:
    return zip(items[::2], items[1::2], strict=True)


def _refusal(function: str) -> CheckpointError:
    return CheckpointError(
        f"the file asks to run {function!r}, which no set of weights needs; nothing was run. If you trust where it "
        "comes from, save the weights alone there: torch.save(model.state_dict(), 'weights.pth')"
    )
