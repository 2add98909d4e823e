"""Reads PyTorch's pickles without unpickling: nothing is imported or called.

A pickle is a program for a small stack machine. Python's own unpickler imports and calls the names in the program. The
machine here cannot: a name stays a name, and a call becomes a tensor or a plain container if it is in a table
(`pickle_names`). Everything else in a checkpoint (an optimizer, NumPy scalars, settings, objects of any class) becomes
an inert stub. Opcodes: `pickletools` of the standard library.
"""

from __future__ import annotations

import io
import pickletools
from collections.abc import Callable
from typing import Any

from spinescore.export.pickle_names import (
    Global,
    StorageRef,
    Stub,
    call,
    copied,
    fill,
    instance,
    name_of,
    storage_of,
)
from spinescore.runtime.errors import CheckpointError

__all__ = ["MAX_STEPS", "PickleMachine"]

MAX_STEPS = 2_000_000  # opcodes, and items that calls copy; a checkpoint of HRNet with its optimizer has 200,000


class PickleMachine:
    """The pickle machine: a stack, a memo, and the opcodes that data needs. It imports nothing and calls nothing."""

    def __init__(self) -> None:
        self.storages: dict[str, StorageRef] = {}
        self._stack: list[Any] = []
        self._below: list[list[Any]] = []  # the stacks under each open mark
        self._memo: dict[int, Any] = {}
        self._steps = 0

    def run(self, stream: io.BytesIO) -> Any:
        """Run one pickle from the stream's position and return its object; the stream then stands after it."""
        for opcode, argument, _ in pickletools.genops(stream):
            self._spend(1)
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

    def _spend(self, steps: int) -> None:
        self._steps += steps
        if self._steps > MAX_STEPS:
            raise CheckpointError(f"the pickle has more than {MAX_STEPS} steps; save only model.state_dict()")

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
        items = self._pop_mark()
        self._stack.append(items)

    def dict_of(self, _: Any) -> None:
        target: dict[Any, Any] = {}
        fill(target, self._pop_mark())
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
        fill(self._stack[-1], [key, value])

    def set_items(self, _: Any) -> None:
        items = self._pop_mark()
        fill(self._stack[-1], items)

    def name(self, argument: str) -> None:
        self._stack.append(name_of(*argument.split(" ", 1)))

    def stack_name(self, _: Any) -> None:
        name, module = self._stack.pop(), self._stack.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise CheckpointError("the pickle names an object by something that is no text; it is damaged")
        self._stack.append(name_of(module, name))

    def reduce(self, _: Any) -> None:
        arguments, function = self._stack.pop(), self._stack.pop()
        if not isinstance(function, (Global, Stub)) or not isinstance(arguments, tuple):
            raise CheckpointError("the pickle calls something that is no function; it is damaged or forged")
        self._call(function, arguments)

    def _call(self, function: Global | Stub, arguments: tuple[Any, ...]) -> None:
        if isinstance(function, Stub):  # the result of a call that was not made
            self._stack.append(Stub(function.made_by, called=True))
            return
        self._spend(copied(function.name, arguments))
        self._stack.append(call(function.name, arguments))

    def new_object(self, count: int) -> None:
        self._instance([self._stack.pop() for _ in range(count)][-1])

    def _instance(self, kind: object) -> None:
        if not isinstance(kind, (Global, Stub)):
            raise CheckpointError("the pickle makes an object of something that is no class; it is damaged or forged")
        self._stack.append(instance(kind))

    def old_object(self, name: str | None) -> None:
        """Push an object of a Python 2 class, which the opcode names or which is first on the stack."""
        items = self._pop_mark()
        self._instance(name_of(*name.split(" ", 1)) if name is not None else items[0])

    def build(self, _: Any) -> None:
        """Drop an object's state: stubs have none, and a state dict's only holds version numbers."""
        self._stack.pop()
        if not isinstance(self._stack[-1], (Stub, dict)):
            raise CheckpointError("the pickle sets the state of something that has none; it is damaged or forged")

    def persistent(self, _: Any) -> None:
        self._stack.append(self._storage(self._stack.pop()))

    def _storage(self, identity: Any) -> object:
        storage = storage_of(identity)
        if isinstance(storage, StorageRef) and self.storages.setdefault(storage.key, storage) != storage:
            raise CheckpointError(f"storage {storage.key!r} is described in two ways; the file is damaged")
        return storage


_LITERALS = frozenset(
    """
    INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT STRING BINSTRING SHORT_BINSTRING
    BINBYTES SHORT_BINBYTES BINBYTES8 BYTEARRAY8 UNICODE SHORT_BINUNICODE BINUNICODE BINUNICODE8
    """.split()  # noqa: SIM905
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
    "INST": PickleMachine.old_object,
    "OBJ": PickleMachine.old_object,
    "NEWOBJ_EX": lambda machine, _: machine.new_object(3),
    "BUILD": PickleMachine.build,
    "BINPERSID": PickleMachine.persistent,
}
