"""The jobs of consoles and readers in the web process: it hands them to the supervisor, and waits for their answers.

Every job that was handed over gets exactly one answer, also one that was cancelled; only then its folder is removed, as
the worker may be reading there. A folder that an earlier web process left is removed at the start.
"""

from __future__ import annotations

import asyncio
import secrets
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from starlette.requests import ClientDisconnect, Request

from spinescore.runtime import durable
from spinescore.runtime.appliance.clock import Clock
from spinescore.runtime.appliance.fault import Fault
from spinescore.runtime.appliance.store.places import Places
from spinescore.runtime.appliance.web.problems import RETRY_SOON, Problem, busy, disconnect, status_of
from spinescore.runtime.appliance.work.consolejob import RESULTS, SUFFIX, ConsoleJob, remove_folders
from spinescore.runtime.appliance.work.consolequeue import MOST_WAITING
from spinescore.runtime.appliance.work.reviewjob import ReviewJob, WebJob, name_of
from spinescore.runtime.documents import document_of

__all__ = ["Consoles", "WorkCalls"]

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 60.0

Outcome = tuple[str | None, str | None]  # a code and a sentence; both None if the study was scored


class Consoles:
    """Calls of consoles; used in the event loop, but for `hear`, which another thread may call."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._answers: dict[str, asyncio.Future[Outcome]] = {}
        self._calls = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._keeping: dict[str, asyncio.Task[None]] = {}

    def open(self, places: Places, clock: Clock, say: Callable[..., None]) -> Consoles:
        """Begin with nothing: what an earlier process left is removed. `say` tells the supervisor."""
        self._places, self._clock, self._say = places, clock, say
        remove_folders(places)
        say(consoles="none")
        return self

    def hear(self, message: dict[str, Any]) -> None:
        if "console" in message and self._loop is not None:
            self._loop.call_soon_threadsafe(self._end, message["console"], (message["code"], message["message"]))

    def _end(self, key: str, outcome: Outcome) -> None:
        answer = self._answers.get(key)
        if answer is not None and not answer.done():
            answer.set_result(outcome)

    @asynccontextmanager
    async def call(self) -> AsyncIterator[tuple[str, Path]]:
        """Yield the key of a call and a folder for its files, which is removed at the end. Raises Problem."""
        self._loop = asyncio.get_running_loop()
        if self._calls > MOST_WAITING:
            raise busy(_BUSY)
        key = f"{int(self._clock.now())}-{secrets.token_hex(16)}"
        folder = self._places.incoming / f"{key}{SUFFIX}"
        self._calls += 1
        try:
            folder.mkdir(mode=0o700)
            yield key, folder
        finally:
            self._calls -= 1
            self._spawn(self._remove(key, folder))

    async def _remove(self, key: str, folder: Path) -> None:
        """Remove the folder of a call when nobody needs it."""
        if key in self._answers:
            await asyncio.wait([self._answers[key]])
        if key in self._keeping:
            await asyncio.wait([self._keeping[key]])
        self._answers.pop(key, None)
        self._keeping.pop(key, None)
        await asyncio.to_thread(shutil.rmtree, folder, True)
        pause_s = _FIRST_PAUSE_S
        while folder.exists():  # Windows removes no file that the worker still maps, or a virus scanner reads
            await asyncio.sleep(pause_s)
            await asyncio.to_thread(shutil.rmtree, folder, True)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    def _spawn(self, work: Any) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.ensure_future(work)
        self._tasks.add(task)  # the loop itself keeps no task alive
        task.add_done_callback(self._tasks.discard)
        return task

    async def score(self, job: WebJob, disconnected: Awaitable[None]) -> Outcome:
        """Have a job done. Raises ClientDisconnect, after the job was cancelled, if `disconnected` ends before."""
        answer: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._answers[job.key] = answer
        self._say(**{name_of(job): document_of(job)})
        gone = asyncio.ensure_future(disconnected)
        either: list[asyncio.Future[Any]] = [answer, gone]
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        finally:
            gone.cancel()
            if not answer.done():
                self._say(cancel=job.key)
        if not answer.done():
            raise ClientDisconnect
        return answer.result()

    def keep(self, job: ConsoleJob) -> None:
        """Give the results of a job their place as soon as they are on the disk, while the caller has its answer."""
        self._keeping[job.key] = self._spawn(asyncio.to_thread(self._keep, job))

    def _keep(self, job: ConsoleJob) -> None:
        part = Path(job.folder) / RESULTS
        durable.sync_tree(part)
        durable.move(part, self._places.console / job.key)

    async def results(self, key: str) -> Path:
        """Return the folder of a key's results, which may not be there. It waits for those that are being kept."""
        keeping = self._keeping.get(key)
        if keeping is not None:
            await asyncio.wait([keeping])
        return self._places.console / key


_AT_ONCE, _MOST = 2, 16
_BUSY = "the worker has enough to do; ask again"


class WorkCalls:
    """Has the worker do jobs of readers; used in the event loop."""

    def __init__(self, consoles: Consoles) -> None:
        self._consoles, self._turns, self._count = consoles, asyncio.Semaphore(_AT_ONCE), 0

    @asynccontextmanager
    async def done(self, make: Callable[[str, str], ReviewJob], request: Request) -> AsyncIterator[Path]:
        """Yield the folder of a job that was done; `make` makes it of its key and its folder.

        Raises Problem if it could not be done, ClientDisconnect if the caller left before.
        """
        if self._count >= _MOST:
            raise busy(_BUSY)
        self._count += 1
        try:
            async with self._turns, self._consoles.call() as (key, folder):
                code, message = await self._consoles.score(make(key, str(folder)), disconnect(request.receive))
                if code is not None:
                    status = status_of(code)
                    raise Problem(status, Fault(code, message or ""), RETRY_SOON if status == 503 else None)
                yield folder
        finally:
            self._count -= 1
