"""Actors of Ray that score studies, on this machine or on a cluster. The only module that imports ray.

Paths travel to the actors and rows back, never pixels. A crew (`local`) gives each actor a few studies, and finds the
one that ends or holds up its actor. Ray keeps no state of the run; the files of the shards do.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

from spinescore.runtime.archive.crews import Opened
from spinescore.runtime.archive.layout import ArchiveError
from spinescore.runtime.archive.local import Crew, Outcome, Task
from spinescore.runtime.archive.scoring import Request, read_entry, rows_of_entry
from spinescore.runtime.archive.studylists import Entry
from spinescore.runtime.archive.workerprocess import open_scorer, ready_facts
from spinescore.runtime.documents import read
from spinescore.runtime.errors import SpineScoreError
from spinescore.runtime.machine.child import Message
from spinescore.runtime.machine.processor import core_count

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # else Ray would send statistics to its maker
try:
    import ray
except ImportError as missing:
    raise ArchiveError(
        f'Ray cannot be imported ({missing}); install it: pip install "spinescore[archive-ray]" (Python 3.11 and later)'
    ) from missing

__all__ = ["RayWay"]

_AT_ONCE = 2  # studies of an actor: one is read while the other is scored
_STORE_BYTES = 128 << 20  # of Ray's object store on this machine: rows alone are in it
_OPEN_S = 3600.0  # until an actor has a place on the cluster, and its scorer is open


class _ScoringActor:
    """Holds a scorer. `facts` has the reason instead if the bundle cannot be opened."""

    def __init__(self, request: Message) -> None:
        self._request = read(Request, request)
        self._refused: str | None = None
        try:
            self._scorer = open_scorer(self._request, lambda line: None)
        except SpineScoreError as error:
            self._refused = str(error)

    def facts(self) -> Message:
        return {"refused": self._refused} if self._refused is not None else {"ready": ready_facts(self._scorer)}

    def score(self, document: Message, out: str | None) -> tuple[list[Message], str | None]:
        """Return the rows of a study, and a message if its results could not be written."""
        entry = read(Entry, document)
        study = read_entry(entry, self._request.base)
        return rows_of_entry(entry, study, self._scorer, self._request, out)


class _Actor:
    """An actor with the verbs of a process; its answers are waited for in a thread of its own."""

    def __init__(self, threads: int, request: Message, on_message: Callable[[], None]) -> None:
        remote = ray.remote(num_cpus=threads, max_restarts=0, max_concurrency=_AT_ONCE)(_ScoringActor)
        self._actor, self._on_message = remote.remote(request), on_message
        self._calls: queue.SimpleQueue[tuple[int, Any] | None] = queue.SimpleQueue()
        self._said: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._end: str | None = None
        self._listener = threading.Thread(target=self._listen, name="spinescore-actor", daemon=True)
        self._listener.start()

    def send(self, message: Message, /) -> None:
        self._calls.put((message["task"], self._actor.score.remote(message["entry"], message["out"])))

    def messages(self) -> list[Message]:
        return [self._said.get() for _ in range(self._said.qsize())]

    def ended(self) -> str | None:
        return self._end

    def kill(self, grace_s: float = 0.0, most_s: float | None = None) -> None:
        ray.kill(self._actor)
        self._calls.put(None)
        self._listener.join(most_s)  # later it would begin Ray anew

    def _say(self, message: Message) -> None:
        self._said.put(message)
        self._on_message()

    def _listen(self) -> None:
        self._say(_facts(self._actor))
        try:
            while call := self._calls.get():
                rows, unwritten = ray.get(call[1])
                self._say({"task": call[0], "rows": rows, "unwritten": unwritten})
        except ray.exceptions.RayError as error:
            if isinstance(cause := getattr(error, "cause", None), ArchiveError):
                self._say({"refused": str(cause)})
            self._end = type(error).__name__
            self._on_message()


def _facts(actor: Any) -> Message:
    try:
        facts: Message = ray.get(actor.facts.remote(), timeout=_OPEN_S)
        return facts
    except ray.exceptions.GetTimeoutError:
        return {
            "refused": f"an actor of Ray has opened no bundle for {_OPEN_S:g} s; see whether the cluster has free "
            "cores, and call the same command again"
        }
    except ray.exceptions.RayError as error:
        return {"refused": f"an actor of Ray ended while it opened the bundle ({type(error).__name__})"}


class RayWay:
    """Actors on the cluster at `address`; without one, on this machine."""

    def __init__(
        self,
        workers: int | None,
        threads: int | None,
        timeout_s: float,
        address: str | None,
        noted: Callable[..., None],
    ) -> None:
        self._workers, self._threads, self._timeout_s = workers, threads or 1, timeout_s
        self._address, self._noted, self._count = address, noted, 0

    def facts(self) -> dict[str, Any]:
        return {"actors": self._count, "threads": self._threads, "ray": ray.__version__}

    def outcomes(self, tasks: Iterator[Task], total: int, opened: Opened, request: Request) -> Iterator[Outcome]:
        """Score the studies. Raises ArchiveError if the bundle cannot be opened, or Ray cannot be reached."""
        self._connect()
        request = replace(request, threads=self._threads)

        def note_facts(facts: Message) -> None:
            nonlocal request
            request = replace(opened(facts), threads=self._threads)

        try:
            start, open_s = partial(_Actor, self._threads), 2 * _OPEN_S  # an actor says itself that it does not open
            crew = Crew(request, 1, self._timeout_s, note_facts, lambda line: None, self._noted, start, open_s)
            try:
                crew.wait_until_open()
                cores = int(ray.cluster_resources().get("CPU", 1))
                self._count = min(self._workers or max(1, cores // self._threads), max(1, total))
                crew.resize(self._count, request)
                yield from crew.outcomes(tasks)
            finally:
                crew.close()
        finally:
            ray.shutdown()

    def _connect(self) -> None:
        cores = max(core_count(), (self._workers or 1) * self._threads)
        here = {"num_cpus": cores, "object_store_memory": _STORE_BYTES, "include_dashboard": False}
        options = here if self._address is None else {"address": self._address}
        try:
            ray.init(log_to_driver=False, logging_level="ERROR", **options)
        except Exception as error:  # its errors have no common base
            raise ArchiveError(f"Ray cannot be reached at {self._address or 'this machine'} ({error})") from error
