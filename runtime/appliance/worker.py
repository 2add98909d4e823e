"""The worker as the dispatcher sees it: a process that is started, given one job at a time, watched, and ended."""

from __future__ import annotations

import json
import mmap
import os
import queue
import subprocess
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from spinescore.runtime.appliance.config import Score
from spinescore.runtime.appliance.resultset import Job
from spinescore.runtime.documents import document_of
from spinescore.runtime.machine.processes import ending, worker_command

__all__ = ["ProcessWorker", "Worker"]

Message = dict[str, Any]


class Worker(Protocol):
    """The verbs of a worker; tests have one without a process."""

    def start(self) -> None:
        """Start it, if it does not run."""

    def send(self, job: Job) -> None:
        """Give it a job."""

    def messages(self, wait_s: float) -> list[Message]:
        """Return what it said since the last call; wait at most so long for the first message."""

    def ended(self) -> str | None:
        """Return how it ended, in words; None while it runs."""

    def memory_bytes(self) -> int:
        """Return the memory that it holds."""

    def kill(self) -> None:
        """End it at once, and wait until it has ended."""


class ProcessWorker:
    """A worker in a process of its own, which holds the spool's lock with this one."""

    def __init__(self, score: Score, inherited: Sequence[int] = ()) -> None:
        self._score, self._inherited = score, tuple(inherited)
        self._process: subprocess.Popen[bytes] | None = None
        self._jobs: int | None = None
        self._said: queue.Queue[Message] = queue.Queue()

    def start(self) -> None:
        read_end, write_end = os.pipe()
        request = {"bundle": self._score.bundle, "device": self._score.device, "strict": self._score.strict,
                   "jobs": read_end}  # fmt: skip
        self._said = queue.Queue()
        try:
            self._process = subprocess.Popen(
                worker_command("spinescore.runtime.appliance.workerprocess", json.dumps(request)),
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=(read_end, *self._inherited),
            )  # fmt: skip
        finally:
            os.close(read_end)
        self._jobs = write_end
        arguments = (self._process, self._said)
        threading.Thread(target=_listen, args=arguments, name="spinescore-worker", daemon=True).start()

    def send(self, job: Job) -> None:
        assert self._jobs is not None
        with suppress(BrokenPipeError):  # it has ended, which `ended` says
            os.write(self._jobs, json.dumps(document_of(job)).encode() + b"\n")

    def messages(self, wait_s: float) -> list[Message]:
        messages = []
        try:
            messages.append(self._said.get(timeout=wait_s))
            while True:
                messages.append(self._said.get_nowait())
        except queue.Empty:
            return messages

    def ended(self) -> str | None:
        if self._process is None:
            return "it was not started"
        status = self._process.poll()
        return None if status is None else ending(status)

    def memory_bytes(self) -> int:
        if self._process is None:
            return 0
        try:
            pages = int(Path(f"/proc/{self._process.pid}/statm").read_text().split()[1])
        except (OSError, IndexError):
            return 0
        return pages * mmap.PAGESIZE

    def kill(self) -> None:
        process, self._process = self._process, None
        if self._jobs is not None:
            os.close(self._jobs)
            self._jobs = None
        if process is not None:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()


def _listen(process: subprocess.Popen[bytes], said: queue.Queue[Message]) -> None:
    """Put the messages of a worker into a queue until it ends."""
    assert process.stdout is not None
    try:
        for line in process.stdout:
            said.put(json.loads(line))
    except ValueError:  # the pipe was closed, or a message was cut off by the worker's end
        pass
