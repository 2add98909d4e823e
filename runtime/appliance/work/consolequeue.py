"""The jobs of consoles in the supervisor: they wait here for the worker, before the studies of the queue.

The web process says `{"score": job}`, or `{"review": job}` for a reader's job, and `{"cancel": key}`. It gets one
answer for each job, `{"console": key, "code": null}` or with a code and a message. A new web process begins with
`{"consoles": "none"}`, because the jobs of the one before have nobody who waits for them. No job is tried twice: its
console still has the pixels.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from spinescore.runtime.appliance.fault import Fault
from spinescore.runtime.appliance.work.reviewjob import JOBS, WebJob
from spinescore.runtime.documents import read

__all__ = ["FOR_CONSOLES", "MOST_WAITING", "NOT_READY", "ConsoleQueue"]

FOR_CONSOLES = frozenset({*JOBS, "cancel", "consoles"})  # keys of the web process' messages
MOST_WAITING = 4  # besides the one that is scored

NOT_READY = Fault("not-ready", "the worker has not opened its bundle; ask /health/ready, and send the study again")
_CANCELLED = Fault("cancelled", "the console has disconnected")
_BUSY = Fault("http-busy", f"{MOST_WAITING} studies of consoles wait already; send the study again")


class ConsoleQueue:
    """Hands out one job at a time. `answer` gets the messages for the web process."""

    def __init__(self, answer: Callable[[dict[str, Any]], None]) -> None:
        self._answer = answer
        self._waiting: deque[WebJob] = deque()
        self.current: WebJob | None = None  # the worker has it

    @property
    def is_idle(self) -> bool:
        return self.current is None and not self._waiting

    def hear(self, message: dict[str, Any], *, ready: bool) -> str | None:
        """Take a message of the web process. Return the key of the job that the worker has to cancel, if any."""
        for name in JOBS.keys() & message.keys():
            self._enter(read(JOBS[name], message[name]), ready)
        if "cancel" in message:
            return self._cancel(message["cancel"])
        if "consoles" in message:
            self._waiting.clear()
            return None if self.current is None else self.current.key
        return None

    def _enter(self, job: WebJob, ready: bool) -> None:
        if not ready:
            self._say(job, NOT_READY)
        elif len(self._waiting) >= MOST_WAITING:
            self._say(job, _BUSY)
        else:
            self._waiting.append(job)

    def _cancel(self, key: str) -> str | None:
        """Answer a job that waits, or return its key if the worker has it."""
        if self.current is not None and self.current.key == key:
            return key
        for job in [job for job in self._waiting if job.key == key]:
            self._waiting.remove(job)
            self._say(job, _CANCELLED)
        return None

    def take(self) -> WebJob | None:
        """Return the next job, which is `current` then; None if none waits."""
        if self._waiting:
            self.current = self._waiting.popleft()
        return self.current

    def end(self, fault: Fault | None) -> None:
        """Answer the current job: its answer is in its folder, or `fault` says why there is none."""
        job, self.current = self.current, None
        assert job is not None
        self._say(job, fault)

    def refuse_waiting(self, fault: Fault) -> None:
        while self._waiting:
            self._say(self._waiting.popleft(), fault)

    def _say(self, job: WebJob, fault: Fault | None) -> None:
        code, message = (None, None) if fault is None else (fault.code, fault.message)
        self._answer({"console": job.key, "code": code, "message": message})
