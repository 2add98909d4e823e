"""Actors of Ray that score studies, on this machine or on a cluster. The only module that imports ray.

Paths travel to the actors and rows back, never pixels. An actor gets a few studies at a time. If it is lost, their list
is halved and scored again, until one study is left that ends its actor twice: that one gets a code in place of rows.
Ray keeps no state of the run; the files of the shards do.
"""

from __future__ import annotations

import json
import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from spinescore.runtime.archive.crews import Opened
from spinescore.runtime.archive.layout import ArchiveError
from spinescore.runtime.archive.local import Outcome, Task
from spinescore.runtime.archive.scoring import Request, read_entry, rows_of_entry
from spinescore.runtime.archive.studylists import Entry
from spinescore.runtime.archive.workerprocess import open_scorer, ready_facts
from spinescore.runtime.documents import document_of, read
from spinescore.runtime.errors import SpineScoreError
from spinescore.runtime.machine.processor import core_count

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # else Ray would send statistics to its maker
try:
    import ray
except ImportError as missing:
    raise ArchiveError(
        f'Ray cannot be imported ({missing}); install it: pip install "spinescore[archive-ray]" (Python 3.11 and later)'
    ) from missing

__all__ = ["RayWay"]

_BATCH = 8  # studies; a round trip takes milliseconds
_STORE_BYTES = 128 << 20  # of Ray's object store on this machine: rows alone are in it
_OPEN_S = 3600.0  # until an actor has a place on the cluster, and its scorer is open
_TICK_S = 1.0


class _ScoringActor:
    """Holds a scorer. `facts` has the reason instead if the bundle cannot be opened."""

    def __init__(self, request: str) -> None:
        self._request = read(Request, json.loads(request))
        self._refused: str | None = None
        try:
            self._scorer = open_scorer(self._request, lambda line: None)
        except SpineScoreError as error:
            self._refused = str(error)

    def facts(self) -> dict[str, Any]:
        return {"refused": self._refused} if self._refused is not None else ready_facts(self._scorer)

    def score(self, studies: list[tuple[dict[str, Any], str | None]]) -> list[tuple[list[dict[str, Any]], str | None]]:
        """Return the rows of each study, and a message if its results could not be written."""
        entries = [read(Entry, document) for document, _ in studies]
        base = self._request.base
        answers: list[tuple[list[dict[str, Any]], str | None]] = []
        with ThreadPoolExecutor(1, "spinescore-ahead") as pool:
            ahead = pool.submit(read_entry, entries[0], base)
            for number, entry in enumerate(entries):
                study = ahead.result()
                if number + 1 < len(entries):
                    ahead = pool.submit(read_entry, entries[number + 1], base)
                answers.append(rows_of_entry(entry, study, self._scorer, self._request, studies[number][1]))
        return answers


@dataclass(frozen=True)
class _Batch:
    """Studies for one call of an actor. `again` says that it is one study that ended its actor already."""

    tasks: tuple[Task, ...]
    again: bool = False

    def parts(self) -> list[_Batch]:
        """Return the batches to try when an actor was lost with this one; none if its study is the reason."""
        if len(self.tasks) == 1:
            return [] if self.again else [replace(self, again=True)]
        half = len(self.tasks) // 2
        return [_Batch(self.tasks[:half]), _Batch(self.tasks[half:])]


@dataclass(eq=False)
class _Running:
    """A call that an actor works on."""

    actor: Any
    batch: _Batch
    began_s: float


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
        self._batches: deque[_Batch] = deque()  # of actors that were lost
        self._idle: list[Any] = []  # actors
        self._running: dict[Any, _Running] = {}

    def facts(self) -> dict[str, Any]:
        """Return the number of actors and the threads of each."""
        return {"actors": self._count, "threads": self._threads, "ray": ray.__version__}

    def outcomes(self, tasks: Iterator[Task], total: int, opened: Opened, request: Request) -> Iterator[Outcome]:
        """Score the studies. Raises ArchiveError if the bundle cannot be opened, or Ray cannot be reached."""
        self._connect()
        try:
            self._opened = opened
            self._open(1, request)
            cores = int(ray.cluster_resources().get("CPU", 1))
            self._count = min(self._workers or max(1, cores // self._threads), max(1, total))
            self._open(self._count - 1, self._request)
            yield from self._score(tasks)
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

    def _open(self, count: int, request: Request) -> None:
        """Start actors, and wait until each has opened its scorer. Raises ArchiveError if one cannot."""
        remote = ray.remote(num_cpus=self._threads, max_restarts=0)(_ScoringActor)
        text = json.dumps(document_of(replace(request, threads=self._threads)))
        for actor in [remote.remote(text) for _ in range(count)]:
            self._request = self._opened(_facts(actor))
            self._idle.append(actor)

    def _score(self, tasks: Iterator[Task]) -> Iterator[Outcome]:
        while True:
            while self._idle and (batch := self._next(tasks)) is not None:
                actor = self._idle.pop()
                reference = actor.score.remote([(document_of(task.entry), task.out) for task in batch.tasks])
                self._running[reference] = _Running(actor, batch, time.monotonic())
            if not self._running:
                return
            done, _ = ray.wait(list(self._running), num_returns=1, timeout=_TICK_S)
            for reference in done:
                yield from self._done(reference)
            yield from self._silent()

    def _next(self, tasks: Iterator[Task]) -> _Batch | None:
        if self._batches:
            return self._batches.popleft()
        batch = tuple(islice(tasks, _BATCH))
        return _Batch(batch) if batch else None

    def _done(self, reference: Any) -> Iterator[Outcome]:
        call = self._running.pop(reference)
        try:
            answers = ray.get(reference)
        except ray.exceptions.RayError as error:
            if isinstance(cause := getattr(error, "cause", None), ArchiveError):
                raise ArchiveError(str(cause)) from None
            yield from self._lost(call, "worker-crashed", type(error).__name__)
            return
        self._idle.append(call.actor)
        for task, (rows, unwritten) in zip(call.batch.tasks, answers, strict=True):
            yield Outcome(task, rows, message=unwritten)

    def _silent(self) -> Iterator[Outcome]:
        """End the actors that have taken too long for their studies."""
        for reference, call in list(self._running.items()):
            if time.monotonic() - call.began_s > self._timeout_s * len(call.batch.tasks):
                del self._running[reference]
                yield from self._lost(call, "worker-timeout", "silent")

    def _lost(self, call: _Running, code: str, how: str) -> Iterator[Outcome]:
        ray.kill(call.actor)
        self._noted("worker ended", how=how, alone=call.batch.again, studies=len(call.batch.tasks))
        self._open(1, self._request)
        parts = call.batch.parts()
        self._batches.extend(parts)
        if not parts:
            yield Outcome(call.batch.tasks[0], [], code, how)


def _facts(actor: Any) -> dict[str, Any]:
    try:
        facts: dict[str, Any] = ray.get(actor.facts.remote(), timeout=_OPEN_S)
    except ray.exceptions.GetTimeoutError as error:
        raise ArchiveError(
            f"an actor of Ray has opened no bundle for {_OPEN_S:g} s; see whether the cluster has free cores, and call "
            "the same command again"
        ) from error
    except ray.exceptions.RayError as error:
        raise ArchiveError(f"an actor of Ray ended while it opened the bundle ({type(error).__name__})") from error
    if "refused" in facts:
        raise ArchiveError(facts["refused"])
    return facts
