"""A child process that lives long: it is started, gets messages, says messages, and is ended.

A message is a JSON object on a line of its own. A child says them on its standard output, and hears them on its
standard input, whose end tells that the parent is gone.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from spinescore.runtime.machine.crashes import crash_silently
from spinescore.runtime.machine.memory import resident_bytes
from spinescore.runtime.machine.processes import (
    end_with_parent,
    ending,
    join_children,
    leave_children,
    without_interrupts,
    worker_command,
)

__all__ = ["Child", "Message", "answering"]

Message = dict[str, Any]

_JOIN_S = 1.0


class Child:
    """One process at a time that runs `main` of a module; it can be started again after it was ended."""

    def __init__(
        self,
        module: str,
        inherited: Sequence[int] = (),
        on_message: Callable[[], None] | None = None,
        *,
        is_quiet: bool = False,
    ) -> None:
        """`inherited` are descriptors that the process keeps open, as that of the spool's lock.

        `on_message` is called in another thread when the process has said something, and when it has ended. What an
        `is_quiet` process writes to standard error is lost.
        """
        self._module, self._inherited, self._is_quiet = module, tuple(inherited), is_quiet
        self._on_message = on_message or (lambda: None)
        self._process: subprocess.Popen[bytes] | None = None
        self._listener: threading.Thread | None = None
        self._said: queue.Queue[Message] = queue.Queue()
        self._lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()  # to write to it; empty at the end

    @property
    def pid(self) -> int | None:
        """The number of the process; None if it was not started."""
        return None if self._process is None else self._process.pid

    def start(self, request: Mapping[str, Any]) -> None:
        """Start the process with a request. The process before must have been ended with `kill`. Raises `OSError`."""
        self._said, self._lines = queue.Queue(), queue.SimpleQueue()
        with without_interrupts():
            self._process = subprocess.Popen(
                worker_command(self._module, json.dumps(request)),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL if self._is_quiet else None,
                pass_fds=() if sys.platform == "win32" else self._inherited,
                creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
            )
        join_children(self._process)
        listening = (self._process, self._said, self._on_message)
        self._listener = threading.Thread(target=_listen, args=listening, name="spinescore-child", daemon=True)
        self._listener.start()
        threading.Thread(target=_tell, args=(self._process, self._lines), name="spinescore-tell", daemon=True).start()

    def send(self, message: object) -> None:
        """Send it a message, without waiting until it reads. One that has ended gets none, which `ended` tells."""
        self._lines.put(json.dumps(message).encode() + b"\n")

    def wake(self) -> None:
        """End the wait in `messages` with an empty message; any thread may call it."""
        self._said.put({})

    def messages(self, wait_s: float = 0.0) -> list[Message]:
        """Return what it said since the last call; wait at most `wait_s` seconds for the first message."""
        messages: list[Message] = []
        with suppress(queue.Empty):
            messages.append(self._said.get(timeout=wait_s) if wait_s > 0 else self._said.get_nowait())
            while True:
                messages.append(self._said.get_nowait())
        return messages

    def ended(self, wait_s: float = 0.0) -> str | None:
        """Return how it ended, in words; None while it runs. What it said before is in `messages` then."""
        process, listener = self._process, self._listener
        if process is None or listener is None:
            return "it was not started"
        listener.join(wait_s)
        if process.poll() is None:
            return None
        leave_children(process)
        listener.join(_JOIN_S)
        return ending(process.wait())

    def memory_bytes(self) -> int:
        """Return the memory that it holds; 0 if it does not run."""
        return 0 if self.pid is None else resident_bytes(self.pid)

    def kill(self, grace_s: float = 0.0, most_s: float | None = None) -> None:
        """End it at once, or after its input has ended and `grace_s` have passed; wait at most `most_s` for its end.

        It may end at any line. One that waits for a disk in the kernel ends later, or never.
        """
        process, self._process = self._process, None
        if process is None:
            return
        self._lines.put(b"")
        with suppress(subprocess.TimeoutExpired):
            process.wait(grace_s)
        process.kill()
        with suppress(subprocess.TimeoutExpired):
            process.wait(most_s)
        leave_children(process)
        if self._listener is not None and self._listener is not threading.current_thread():
            self._listener.join(_JOIN_S)


def _listen(process: subprocess.Popen[bytes], said: queue.Queue[Message], on_message: Callable[[], None]) -> None:
    """Put the messages of a process into a queue until it has ended."""
    assert process.stdout is not None
    with process.stdout:
        for line in process.stdout:
            with suppress(ValueError):  # a message may be cut off by the end of the process
                said.put(json.loads(line))
            on_message()
    process.wait()
    on_message()


def _tell(process: subprocess.Popen[bytes], lines: queue.SimpleQueue[bytes]) -> None:
    """Write lines to a process until an empty one, then close its input."""
    assert process.stdin is not None
    with suppress(OSError), process.stdin as pipe:  # it has ended; a broken pipe has several numbers on Windows
        while line := lines.get():
            pipe.write(line)
            pipe.flush()


def answering(hear: Callable[[Message], None] | None = None) -> Callable[..., None]:
    """Set up this process as a child, and return the function that says a message to the parent.

    The process ends with its parent. `hear` gets the parent's messages, in a thread of its own. Prints of libraries go
    to standard error.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C
    crash_silently()
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # a library's prints must not disturb the answers
    end_with_parent(None if hear is None else lambda line: hear(json.loads(line)))
    writing = threading.Lock()

    def say(**message: Any) -> None:
        with writing:
            answers.write(json.dumps(message) + "\n")
            answers.flush()

    return say
