"""Gives studies to the worker, one at a time, and ends a worker that is silent, has crashed, or holds too much memory.

A study whose worker crashed, was silent or grew too large is tried once more, and then parked. All other studies go on.
A console's job goes before the studies, but does not interrupt the one that is being scored. It is answered before
anything is written to the index, and is not tried again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from spinescore.runtime.appliance.clock import Clock
from spinescore.runtime.appliance.configuration.config import Score
from spinescore.runtime.appliance.fault import Fault
from spinescore.runtime.appliance.seen.ready import SILENT_S
from spinescore.runtime.appliance.store.counts import add
from spinescore.runtime.appliance.store.index import Index, IndexFull
from spinescore.runtime.appliance.store.places import Places
from spinescore.runtime.appliance.store.resultset import Job
from spinescore.runtime.appliance.work.consolequeue import NOT_READY, ConsoleQueue
from spinescore.runtime.appliance.work.reviewjob import WebJob, name_of
from spinescore.runtime.appliance.work.scorequeue import ScoreQueue
from spinescore.runtime.caller import PREFIX
from spinescore.runtime.documents import document_of
from spinescore.runtime.machine.child import Child

__all__ = ["Dispatcher", "ProcessWorker"]


class ProcessWorker(Child):
    """A worker in a process of its own, which holds the spool's lock with this one."""

    def __init__(self, score: Score, bundle_sha256: str, inherited: Sequence[int] = ()) -> None:
        """`bundle_sha256` is the hash of the bundle that the service began with; the worker opens no other."""
        super().__init__("spinescore.runtime.appliance.work.workerprocess", inherited)
        self._score, self._bundle_sha256 = score, bundle_sha256

    def open(self) -> None:
        score = self._score
        self.start({"bundle": score.bundle, "sha256": self._bundle_sha256, "device": score.device,
                    "strict": score.strict})  # fmt: skip

    def give(self, job: Job) -> None:
        self.send({"study": document_of(job)})

    def give_console(self, job: WebJob) -> None:
        self.send({name_of(job): document_of(job)})

    def cancel(self, key: str) -> None:
        """Have it give up the job of a console or a reader, if it has not finished it."""
        self.send({"cancel": key})


_OPENING_S = 600.0  # that a worker may be silent while it opens its bundle
_FULL_S = 5.0  # between two studies when the disk was full
_FIRST_WAIT_S, _LONGEST_WAIT_S = 1.0, 60.0


class Dispatcher:
    """Moves studies from `collecting` to their results; `step` is called again and again, in one thread."""

    def __init__(
        self, queue: ScoreQueue, worker: ProcessWorker, index: Index, places: Places, clock: Clock, score: Score,
        consoles: ConsoleQueue | None = None,
    ) -> None:  # fmt: skip
        self._queue, self._worker, self._index, self._places = queue, worker, index, places
        self._clock, self._score = clock, score
        self._consoles = consoles or ConsoleQueue(lambda message: None)
        self._job: Job | None = None
        self._outcome: Callable[[], None] | None = None  # of the job; kept until the index has it
        self._idle_until_s = clock.now()
        self._ready = self._started = False
        self._heard_s = self._start_s = self._given_s = clock.now()
        self._failures = 0  # of the worker, since it last finished a study or became ready
        self._shown: dict[str, Any] = {"state": "starting"}

    @property
    def is_ready(self) -> bool:
        """Whether the worker has opened its bundle."""
        return self._ready

    def moved_since(self, before_s: float) -> bool:
        """Return whether the worker has said something since then. Until its bundle is open, it need not."""
        return not self._ready or self._heard_s > before_s

    @property
    def is_busy(self) -> bool:
        """Whether the worker has a study, or a console waits for it."""
        return self._job is not None or not self._consoles.is_idle

    def hear_console(self, message: dict[str, Any]) -> None:
        """Take a message of the web process on a console's job."""
        key = self._consoles.hear(message, ready=self._ready)
        if key is not None:
            self._worker.cancel(key)
        self._serve_consoles()

    @property
    def shown(self) -> dict[str, Any]:
        """The worker's state as people see it, for how long it is silent, and for how long it may be."""
        busy_s = self._score.timeout_s if self.is_busy else SILENT_S
        silent_s = round(self._clock.now() - self._heard_s, 1)
        return {**self._shown, "silent_s": silent_s, "limit_s": busy_s if self._ready else _OPENING_S}

    def step(self, wait_s: float = 0.0) -> None:
        """Listen to the worker for at most `wait_s` seconds, and do all that can be done now."""
        for message in self._worker.messages(wait_s) if self._started else ():
            if message:  # an empty one only ends the wait
                self._heard_s = self._clock.now()
                self._hear(message)
        self._watch()
        self._serve_consoles()
        if self._outcome is not None:
            self._outcome()  # if the disk is full it raises, and is called again at the next step
            self._job = self._outcome = None
        self._queue.advance()
        if self._is_free() and self._clock.now() >= self._idle_until_s and self._places.has_room():
            self._take()

    def _is_free(self) -> bool:
        """Return whether the worker can get a job; the index may not have the outcome of the one before yet."""
        return self._ready and (self._job is None or self._outcome is not None) and self._consoles.current is None

    def _serve_consoles(self) -> None:
        """Give the worker the next job of a console, if it is free."""
        job = self._consoles.take() if self._is_free() else None
        if job is not None:
            self._heard_s = self._clock.now()
            self._worker.give_console(job)

    def _take(self) -> None:
        taken = self._queue.take()
        if taken is None:
            return
        self._job, done = taken
        if done:  # it is not scored again
            self._outcome = partial(self._queue.finished, self._job)
            return
        self._heard_s = self._given_s = self._clock.now()
        self._worker.give(self._job)
        self._show(state="scoring", study=self._job.study)

    def close(self) -> None:
        """End the worker; the study that it has is due again."""
        self._worker.kill()
        self._refuse_consoles(NOT_READY)
        if self._outcome is not None:
            self._outcome()
        elif self._job is not None:
            self._queue.give_back(self._job)
        self._job, self._outcome, self._ready, self._started = None, None, False, False

    def _refuse_consoles(self, fault: Fault) -> None:
        """Answer every console, the one whose job the worker has and those that wait."""
        if self._consoles.current is not None:
            self._consoles.end(fault)
        self._consoles.refuse_waiting(fault)

    def _hear(self, message: dict[str, Any]) -> None:
        job, console = self._job, self._consoles.current
        if "ready" in message:
            self._ready, self._failures = True, 0
            self._show(state="ready", **({"engine": message["engine"]} if "engine" in message else {}))
        elif "refused" in message:
            self._show(state="refused", message=message["refused"])
        elif "check" in message:
            self._shown["check"] = message["check"]
        elif message.get("checking") is False:
            self._shown.pop("check", None)
        elif "beat" in message and not self._ready:
            self._show(state="opening", step=message["beat"].removeprefix(PREFIX))
        elif console is not None and message.get("answered") == console.key:
            code = message["code"]
            self._consoles.end(None if code is None else Fault(code, message["message"]))
            self._failures = 0
            if message["engine"] not in ("", self._shown.get("engine")):
                self._show(state="ready", engine=message["engine"])
        elif job is not None and message.get("done") == job.input_key:
            scoring_s, engine = self._clock.now() - self._given_s, message["engine"]
            self._outcome = partial(self._queue.finished, job, engine, scoring_s=scoring_s)
            self._failures = 0
            self._show(state="ready", engine=message["engine"] or self._shown.get("engine"))
        elif job is not None and message.get("failed") == job.input_key:
            if message["code"] == "no-space":
                self._outcome = partial(self._queue.give_back, job)
                self._idle_until_s = self._clock.now() + _FULL_S
            else:
                fault = Fault(message["code"], message["message"])
                self._outcome = partial(self._queue.failed, job, fault, again=message["again"])
            self._show(state="ready")

    def _watch(self) -> None:
        """Start the worker, or end it for its faults."""
        now = self._clock.now()
        if not self._started:
            if now >= self._start_s:
                self._worker.open()
                self._started, self._heard_s = True, now
            return
        ended = self._worker.ended()
        silent_s, limit_s = now - self._heard_s, self._score.timeout_s if self._ready else _OPENING_S
        megabytes = self._worker.memory_bytes() >> 20
        if ended is not None:
            doing = " while it scored the study" if self.is_busy else ""
            self._restart(Fault("worker-crashed", f"the worker ended{doing} ({ended})"))
        elif silent_s > limit_s:
            self._restart(Fault("worker-timeout", f"the worker was silent for {limit_s:g} s (score.timeout_s)"))
        elif megabytes > self._score.memory_mb:
            text = f"the worker held {megabytes} MiB of memory (score.memory_mb is {self._score.memory_mb})"
            self._restart(Fault("worker-memory", text))

    def _restart(self, fault: Fault) -> None:
        """End the worker and blame its study. A worker that fails again and again is started later and later."""
        self._worker.kill()
        if self._consoles.current is not None:
            self._consoles.end(fault)
        elif self._job is not None and self._outcome is None:
            self._outcome = partial(self._queue.failed, self._job, fault, again=True)
        if not self._ready:
            self._consoles.refuse_waiting(NOT_READY)
        with suppress(IndexFull), self._index.transaction():
            add(self._index, "worker_restarts", fault.code)
        wait_s = 0.0 if self._ready else min(_LONGEST_WAIT_S, _FIRST_WAIT_S * 2 ** min(self._failures, 10))
        self._ready = self._started = False
        self._failures += 1
        self._start_s = self._clock.now() + wait_s
        if self._shown.get("state") != "refused":
            self._show(state="restarting", message=fault.message)

    def _show(self, state: str, **facts: Any) -> None:
        """Set the worker's state as people see it. It keeps its engine as long as it can score with it."""
        kept = ("engine", "check") if state in ("ready", "scoring") else ("check",)
        self._shown = {"state": state, **{name: self._shown[name] for name in kept if name in self._shown}, **facts}
