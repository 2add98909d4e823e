"""A child process of the supervisor: it is started, gets messages, says messages, and is ended at once.

A message is a JSON object on a line of its own. A child says them on its standard output. It gets them through a pipe;
the number of its descriptor is the field `pipe` of the request that it is started with.
"""

from __future__ import annotations

import json
import mmap
import os
import queue
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from spinescore.runtime.machine.processes import end_with_parent, ending, worker_command

__all__ = ["Child", "Message", "answering"]

Message = dict[str, Any]

_JOIN_S = 1.0


class Child:
    """One process at a time that runs `main` of a module; it can be started again after it was ended."""

    def __init__(self, module: str, inherited: Sequence[int] = ()) -> None:
        """`inherited` are descriptors that the process keeps open, as that of the spool's lock."""
        self._module, self._inherited = module, tuple(inherited)
        self._process: subprocess.Popen[bytes] | None = None
        self._listener: threading.Thread | None = None
        self._pipe: int | None = None
        self._said: queue.Queue[Message] = queue.Queue()

    @property
    def pid(self) -> int | None:
        """The number of the process; None if it was not started."""
        return None if self._process is None else self._process.pid

    def start(self, request: Mapping[str, Any]) -> None:
        """Start the process with a request. The process before must have been ended with `kill`."""
        read_end, write_end = os.pipe()
        self._said = queue.Queue()
        try:
            command = worker_command(self._module, json.dumps({**request, "pipe": read_end}))
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                             pass_fds=(read_end, *self._inherited))  # fmt: skip
        except BaseException:
            os.close(write_end)
            raise
        finally:
            os.close(read_end)
        self._pipe = write_end
        arguments = (self._process, self._said)
        self._listener = threading.Thread(target=_listen, args=arguments, name="spinescore-child", daemon=True)
        self._listener.start()

    def send(self, message: object) -> None:
        """Send it a message. A process that has ended gets none, which `ended` tells."""
        assert self._pipe is not None
        with suppress(BrokenPipeError):
            os.write(self._pipe, json.dumps(message).encode() + b"\n")

    def messages(self, wait_s: float = 0.0) -> list[Message]:
        """Return what it said since the last call; wait at most `wait_s` seconds for the first message."""
        messages: list[Message] = []
        with suppress(queue.Empty):
            messages.append(self._said.get(timeout=wait_s) if wait_s > 0 else self._said.get_nowait())
            while True:
                messages.append(self._said.get_nowait())
        return messages

    def ended(self) -> str | None:
        """Return how it ended, in words; None while it runs."""
        if self._process is None:
            return "it was not started"
        status = self._process.poll()
        return None if status is None else ending(status)

    def memory_bytes(self) -> int:
        """Return the memory that it holds; 0 if it does not run."""
        try:
            pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        except (OSError, IndexError):
            return 0
        return pages * mmap.PAGESIZE

    def kill(self) -> None:
        """End it at once, and wait until it has ended. It may end at any line."""
        process, self._process = self._process, None
        if self._pipe is not None:
            os.close(self._pipe)
            self._pipe = None
        if process is None:
            return
        process.kill()
        process.wait()
        if self._listener is not None:
            self._listener.join(_JOIN_S)
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()


def _listen(process: subprocess.Popen[bytes], said: queue.Queue[Message]) -> None:
    """Put the messages of a process into a queue until it ends."""
    assert process.stdout is not None
    with suppress(ValueError):  # the pipe was closed, or a message was cut off by the end of the process
        for line in process.stdout:
            said.put(json.loads(line))


def answering() -> Callable[..., None]:
    """Set up this process as a child, and return the function that says a message to the parent.

    The process ends with its parent. Prints of libraries go to standard error. Files that it makes are its user's.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # a library's prints must not disturb the answers
    end_with_parent()
    os.umask(0o077)
    writing = threading.Lock()

    def say(**message: Any) -> None:
        with writing:
            answers.write(json.dumps(message) + "\n")
            answers.flush()

    return say
