"""The processes that this package starts: which Python runs them, how they start and end, and when they are needed.

A frozen application (PyInstaller, cx_Freeze) has no Python interpreter. Its own program is started instead, and has to
call `freeze_support` before anything else; the package's PyInstaller hook does that. Without that call all work is done
in the application's process: no decoder has a time limit, and no engine is checked in the background.
"""

from __future__ import annotations

import atexit
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from multiprocessing import spawn
from pathlib import Path
from typing import NoReturn

__all__ = [
    "can_start",
    "end_unused",
    "end_with_parent",
    "ending",
    "freeze_support",
    "interpreter",
    "is_frozen",
    "join_children",
    "join_users",
    "leave_children",
    "leave_users",
    "without_interrupts",
    "worker_command",
]

_WORKER = "--spinescore-worker"  # the first argument of a frozen program that is to be a worker
_WORKERS = (  # an argument can run these functions and no others
    "spinescore.runtime.acceptance.runs:main",
    "spinescore.runtime.appliance.service:main",
    "spinescore.runtime.appliance.work.workerprocess:main",
    "spinescore.runtime.archive.workerprocess:main",
    "spinescore.runtime.opening.builder:main",
    "spinescore.runtime.reading.decoding.worker:main",
)
_supported = False  # whether `freeze_support` was called in this process

_NT_ERROR = 0xC0000000  # Windows ended the process itself if its status is this or higher

_children: set[subprocess.Popen[bytes]] = set()  # these end with this process
_orphaned = threading.Event()  # this process is ending: how its children end does not matter
_users = 0  # the number of open scorers
_enders: list[Callable[[], None]] = []
_counting = threading.Lock()


def interpreter() -> str:
    """Return the path of the Python that runs workers; empty if an application embeds Python and names no program."""
    path = os.fsdecode(spawn.get_executable() or "")
    return path if Path(path).name.lower().startswith(("python", "pypy")) else ""


def can_start() -> bool:
    """Whether a process of this package can be started: a frozen application's only after `freeze_support`."""
    return _supported if is_frozen() else bool(interpreter())


def freeze_support() -> None:
    """Let a frozen application start worker processes. Call it first of all; in other programs it does nothing.

    The program is started again for each worker, with an argument that this function recognises. Then the function does
    the worker's task and ends the process: the code after the call is not run.
    """
    global _supported
    if not is_frozen():
        return
    _supported = True
    if sys.argv[1:2] == [_WORKER]:
        _work(sys.argv[2:])


def _work(arguments: list[str]) -> NoReturn:
    """Do a worker's task and end the process. A fault ends it with status 1, without a window or a traceback."""
    status = 1
    with suppress(Exception):
        task, argument = arguments
        if task in _WORKERS:
            module, function = task.split(":")
            getattr(import_module(module), function)(argument)
            status = 0
    sys.exit(status)


def is_frozen() -> bool:
    """Whether this is a frozen application: its executable is not Python."""
    return bool(getattr(sys, "frozen", False))


def worker_command(module: str, argument: str, function: str = "main") -> list[str]:
    """Return the command of a process that calls `function(argument)` of `module`, with this process' import path."""
    if is_frozen():
        return [sys.executable, _WORKER, f"{module}:{function}", argument]
    start = f"import sys; sys.path[:] = sys.argv[2:]; from {module} import {function}; {function}(sys.argv[1])"
    return [interpreter(), "-c", start, argument, *sys.path]


@contextmanager
def without_interrupts() -> Iterator[None]:
    """Let processes that the block starts hear no Ctrl-C, which at their start would give a traceback.

    Ctrl-C is for their parent. A process inherits the blocked signal from the thread that starts it. On Windows a
    process without a window hears no Ctrl-C anyway.
    """
    if sys.platform == "win32":
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def join_children(process: subprocess.Popen[bytes]) -> None:
    """Have a process end before this one, if this one ends with its parent."""
    _children.add(process)


def leave_children(process: subprocess.Popen[bytes]) -> None:
    """Note that a process has ended. If this one is ending, it does not matter how, and the call never returns."""
    _children.discard(process)
    while _orphaned.is_set():
        time.sleep(1)


def end_with_parent(hear: Callable[[bytes], None] | None = None) -> None:
    """End this process as soon as its standard input ends, which means that the parent is gone or closed the pipe.

    Its own children end first, and half-written files are removed. `hear` gets each line that the parent writes, in
    the thread that waits for the end. If it raises, this process ends, too.
    """
    threading.Thread(target=_wait_for_parent, args=(hear,), daemon=True).start()


def _wait_for_parent(hear: Callable[[bytes], None] | None) -> None:
    text = b""
    with suppress(Exception):
        while piece := os.read(0, 1 << 16):  # not `sys.stdin`: its lock would be held when this process ends by itself
            *lines, text = (text + piece).split(b"\n")
            for line in lines:
                if hear is not None:
                    hear(line)
    _orphaned.set()
    with suppress(Exception):
        for process in tuple(_children):
            process.kill()
            process.wait()
        if files := sys.modules.get("spinescore.runtime.files"):
            files.remove_unfinished()
    os._exit(1)


def ending(status: int) -> str:
    """Return how a process ended, in words."""
    try:
        if status >= _NT_ERROR:
            return f"exit status 0x{status:X}"  # of Windows, as 0xC0000005 for an access violation
        return f"exit status {status}" if status >= 0 else signal.Signals(-status).name
    except ValueError:
        return f"signal {-status}"


def end_unused(end: Callable[[], None]) -> None:
    """Call `end` whenever the last scorer of this process is closed, and when the interpreter ends."""
    _enders.append(end)
    atexit.register(end)


def _forget_users() -> None:
    """Start from zero in a forked child, which has no scorer of its own yet."""
    global _users, _counting
    _users, _counting = 0, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_users)


def join_users() -> None:
    global _users
    with _counting:
        _users += 1


def leave_users() -> None:
    """Count one scorer less; the last one ends the workers that all share."""
    global _users
    with _counting:
        _users -= 1
        last = _users == 0
    for end in _enders if last else ():
        end()
