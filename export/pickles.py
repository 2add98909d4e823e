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

from spinescore.export.pickle_names import Global, StorageRef, Stub, call, copied, fill, instance, name_of, storage_of
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
            if name == "STOP":
                return self._stack.pop()
            if name in _LITERALS:
                self._stack.append(argument)
            elif name in _CONSTANTS:
                self._stack.append(_CONSTANTS[name]())
            elif name in _MADE:
                made = self._made(name, argument)
                self._stack.append(made)  # on the stack as it is now: a mark exchanges it
            else:
                self._change(name, argument)
        raise CheckpointError("the pickle has no end; the file is truncated, get it again")

    def _spend(self, steps: int) -> None:
        self._steps += steps
        if self._steps > MAX_STEPS:
            raise CheckpointError(f"the pickle has more than {MAX_STEPS} steps; save only model.state_dict()")

    def _pop_mark(self) -> list[Any]:
        items = self._stack
        self._stack = self._below.pop()
        return items

    def _pop(self, count: int) -> list[Any]:
        return [self._stack.pop() for _ in range(count)][::-1]

    def _change(self, name: str, argument: Any) -> None:
        """Run an opcode that moves objects between the stack, its marks and the memo, or changes one on the stack."""
        match name:
            case "PROTO" | "FRAME":
                pass
            case "MARK":
                self._below.append(self._stack)
                self._stack = []
            case "POP" if self._stack:
                self._stack.pop()
            case "POP" | "POP_MARK":
                self._pop_mark()
            case "DUP" | "GET" | "BINGET" | "LONG_BINGET":
                self._stack.append(self._stack[-1] if name == "DUP" else self._memo[argument])
            case "MEMOIZE" | "PUT" | "BINPUT" | "LONG_BINPUT":
                self._memo[len(self._memo) if name == "MEMOIZE" else argument] = self._stack[-1]
            case "APPEND" | "APPENDS" | "ADDITEMS":
                items = self._pop(1) if name == "APPEND" else self._pop_mark()
                if isinstance(self._stack[-1], list):
                    self._stack[-1].extend(items)
                elif not isinstance(self._stack[-1], Stub):
                    raise CheckpointError("the pickle appends to something that is no list; it is damaged")
            case "SETITEM" | "SETITEMS":
                items = self._pop(2) if name == "SETITEM" else self._pop_mark()
                fill(self._stack[-1], items)
            case (
                "BUILD"
            ):  # an object's state is dropped: stubs have none, and a state dict's only holds version numbers
                self._stack.pop()
                if not isinstance(self._stack[-1], (Stub, dict)):
                    raise CheckpointError("the pickle sets the state of something that has none; it is damaged")
            case _:
                raise CheckpointError(f"the pickle uses the opcode {name}, which no set of weights needs")

    def _made(self, name: str, argument: Any) -> object:
        """Return the object that an opcode makes of what is on the stack, which is taken off."""
        match name:
            case "TUPLE":
                return tuple(self._pop_mark())
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                return tuple(self._pop(int(name[-1])))
            case "DICT":
                target: dict[Any, Any] = {}
                fill(target, self._pop_mark())
                return target
            case "GLOBAL":
                return name_of(*argument.split(" ", 1))
            case "STACK_GLOBAL":
                parts = self._pop(2)
                if not all(isinstance(part, str) for part in parts):
                    raise CheckpointError("the pickle names an object by something that is no text; it is damaged")
                return name_of(*parts)
            case "REDUCE":
                return self._result(*self._pop(2))
            case "NEWOBJ" | "NEWOBJ_EX":
                return _instance(self._pop(2 if name == "NEWOBJ" else 3)[0])
            case "INST" | "OBJ":  # an object of a Python 2 class, which the opcode names or which is first
                items = self._pop_mark()
                return _instance(items[0] if argument is None else name_of(*argument.split(" ", 1)))
            case "BINPERSID":
                storage = storage_of(self._stack.pop())
                if isinstance(storage, StorageRef) and self.storages.setdefault(storage.key, storage) != storage:
                    raise CheckpointError(f"storage {storage.key!r} is described in two ways; the file is damaged")
                return storage
        return self._pop_mark()  # LIST, FROZENSET: nothing here looks into a set

    def _result(self, function: object, arguments: object) -> object:
        """Return what a call stands for; nothing is called."""
        if not isinstance(function, (Global, Stub)) or not isinstance(arguments, tuple):
            raise CheckpointError("the pickle calls something that is no function; it is damaged or forged")
        if isinstance(function, Stub):  # the result of a call that was not made
            return Stub(function.made_by, called=True)
        self._spend(copied(function.name, arguments))
        return call(function.name, arguments)


def _instance(kind: object) -> object:
    if not isinstance(kind, (Global, Stub)):
        raise CheckpointError("the pickle makes an object of something that is no class; it is damaged or forged")
    return instance(kind)


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
_MADE = frozenset(
    """
    TUPLE TUPLE1 TUPLE2 TUPLE3 LIST FROZENSET DICT GLOBAL STACK_GLOBAL REDUCE NEWOBJ NEWOBJ_EX INST OBJ BINPERSID
    """.split()  # noqa: SIM905
)
