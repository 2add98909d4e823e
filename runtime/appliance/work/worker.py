"""The worker as the dispatcher sees it: a process that is started, given one job at a time, watched, and ended."""

from __future__ import annotations

from collections.abc import Sequence

from spinescore.runtime.appliance.configuration.config import Score
from spinescore.runtime.appliance.store.resultset import Job
from spinescore.runtime.appliance.work.reviewjob import WebJob, name_of
from spinescore.runtime.documents import document_of
from spinescore.runtime.machine.child import Child

__all__ = ["ProcessWorker"]


class ProcessWorker(Child):
    """A worker in a process of its own, which holds the spool's lock with this one."""

    def __init__(self, score: Score, bundle_sha256: str, inherited: Sequence[int] = ()) -> None:
        """`bundle_sha256` is the hash of the bundle that the service began with; the worker opens no other."""
        super().__init__("spinescore.runtime.appliance.work.workerprocess", inherited)
        self._score, self._bundle_sha256 = score, bundle_sha256

    def open(self) -> None:
        """Start the process and have it open the bundle."""
        score = self._score
        self.start({"bundle": score.bundle, "sha256": self._bundle_sha256, "device": score.device,
                    "strict": score.strict})  # fmt: skip

    def give(self, job: Job) -> None:
        """Give it a job."""
        self.send({"study": document_of(job)})

    def give_console(self, job: WebJob) -> None:
        """Give it the job of a console or a reader."""
        self.send({name_of(job): document_of(job)})

    def cancel(self, key: str) -> None:
        """Have it give up the job of a console or a reader, if it has not finished it."""
        self.send({"cancel": key})
