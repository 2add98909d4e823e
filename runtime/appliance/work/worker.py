"""The worker as the dispatcher sees it: a process that is started, given one job at a time, watched, and ended."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from spinescore.runtime.appliance.configuration.config import Score
from spinescore.runtime.appliance.store.resultset import Job
from spinescore.runtime.appliance.work.reviewjob import WebJob, name_of
from spinescore.runtime.documents import document_of
from spinescore.runtime.machine.child import Child, Message

__all__ = ["ProcessWorker", "Worker"]


class Worker(Protocol):
    """The verbs of a worker; tests have one without a process."""

    def open(self) -> None:
        """Start it, and have it open the bundle."""

    def give(self, job: Job) -> None:
        """Give it a job."""

    def give_console(self, job: WebJob) -> None:
        """Give it the job of a console or a reader."""

    def cancel(self, key: str) -> None:
        """Have it give up the job of a console or a reader, if it has not finished it."""

    def messages(self, wait_s: float = 0.0) -> list[Message]:
        """Return what it said since the last call; wait at most `wait_s` seconds for the first message."""

    def ended(self) -> str | None:
        """Return how it ended, in words; None while it runs."""

    def memory_bytes(self) -> int:
        """Return the memory that it holds."""

    def kill(self) -> None:
        """End it at once, and wait until it has ended."""


class ProcessWorker(Child):
    """A worker in a process of its own, which holds the spool's lock with this one."""

    def __init__(self, score: Score, inherited: Sequence[int] = ()) -> None:
        super().__init__("spinescore.runtime.appliance.work.workerprocess", inherited)
        self._score = score

    def open(self) -> None:
        """Start the process and have it open the bundle."""
        self.start({"bundle": self._score.bundle, "device": self._score.device, "strict": self._score.strict})

    def give(self, job: Job) -> None:
        """Give it a job."""
        self.send({"study": document_of(job)})

    def give_console(self, job: WebJob) -> None:
        """Give it the job of a console or a reader."""
        self.send({name_of(job): document_of(job)})

    def cancel(self, key: str) -> None:
        """Have it give up the job of a console or a reader, if it has not finished it."""
        self.send({"cancel": key})
