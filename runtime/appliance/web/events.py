"""`GET /v1/events`: server-sent events on each change of a study, from the numbered changes that the index keeps.

The index is asked once for all listeners, and only while there is one. A listener that comes back with `Last-Event-ID`
gets what it missed, also over a restart of the service.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from spinescore.runtime.appliance.fault import Fault
from spinescore.runtime.appliance.store.index import Index
from spinescore.runtime.appliance.web.problems import Problem
from spinescore.runtime.appliance.web.shown import asked
from spinescore.runtime.appliance.web.site import Site
from spinescore.runtime.errors import SpineScoreError

__all__ = ["events_routes"]

_MOST = 16  # listeners
_MOST_WAITING = 1000  # events for one listener that takes none
_POLL_S = 0.5
_SIGN_S = 15.0
_LONGEST_S = 540.0  # then the listener comes again; the connection would be cut off at its limit (`limits`)
_Change = tuple[int, str]  # its number, and the event as it is sent


class _Events:
    """The listeners, and the one task that asks the index for all of them."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._queues: set[asyncio.Queue[_Change]] = set()
        self._last = 0  # the number of the last change that the listeners got
        self._task: asyncio.Task[None] | None = None
        self._begin = asyncio.Lock()

    async def join(self, after: int | None) -> tuple[list[_Change], asyncio.Queue[_Change]]:
        """Return what a new listener missed after the change that it saw last, and its queue. Raises Problem.

        A change may be in both.
        """
        if len(self._queues) >= _MOST:
            text = f"{_MOST} listeners are there already; ask again, or list the studies"
            raise Problem(503, Fault("http-busy", text), {"Retry-After": "30"})
        queue: asyncio.Queue[_Change] = asyncio.Queue(_MOST_WAITING)
        self._queues.add(queue)  # at once: others may come while the index is asked
        try:
            async with self._begin:
                if self._task is None:
                    self._last = await asked(self._site, _newest)
                    self._task = asyncio.ensure_future(self._follow())
            missed = [] if after is None else await asked(self._site, lambda index: _changes(index, after))
        except BaseException:
            self.leave(queue)
            raise
        return missed, queue

    def leave(self, queue: asyncio.Queue[_Change]) -> None:
        """Forget a listener; without any the index is not asked."""
        self._queues.discard(queue)
        if not self._queues and self._task is not None:
            self._task.cancel()
            self._task = None

    def has(self, queue: asyncio.Queue[_Change]) -> bool:
        """Return whether a listener still gets changes; not one that has taken none for long."""
        return queue in self._queues

    async def _follow(self) -> None:
        while True:
            try:
                changes = await asked(self._site, lambda index: _changes(index, self._last))
            except (OSError, sqlite3.Error, SpineScoreError):  # it is busy; the next turn gets them
                changes = []
            for change in changes:
                self._last = change[0]
                for queue in list(self._queues):
                    if queue.full():
                        self._queues.discard(queue)
                    else:
                        queue.put_nowait(change)
            await asyncio.sleep(_POLL_S)


def _newest(index: Index) -> int:
    return int(index.one("SELECT coalesce(max(id), 0) FROM changes")[0])


def _changes(index: Index, after: int) -> list[_Change]:
    rows = index.rows("SELECT * FROM changes WHERE id > ? ORDER BY id LIMIT ?", after, _MOST_WAITING)
    return [(row["id"], _event(row)) for row in rows]


def _event(row: sqlite3.Row) -> str:
    data = json.dumps({"study": row["study"], "state": row["state"], "revision": row["revision"]})
    return f"id: {row['id']}\nevent: study\ndata: {data}\n\n"


def events_routes(site: Site) -> list[Route]:
    """Return the route of events."""
    events = _Events(site)

    async def listen(request: Request) -> Response:
        if request.method == "HEAD":  # it would end only when the stream does
            raise HTTPException(405, headers={"Allow": "GET"})
        text = request.headers.get("last-event-id", "")
        after = int(text) if text.isascii() and text.isdecimal() and len(text) <= 15 else None
        missed, queue = await events.join(after)
        return _Stream(events, missed, queue)

    return [Route("/v1/events", listen)]


class _Stream(StreamingResponse):
    """An answer that goes on until its listener leaves, which is then forgotten in any case."""

    def __init__(self, events: _Events, missed: list[_Change], queue: asyncio.Queue[_Change]) -> None:
        headers = {"X-Accel-Buffering": "no"}  # nginx would collect the events
        super().__init__(_stream(events, missed, queue), headers=headers, media_type="text/event-stream")
        self._events, self._queue = events, queue

    async def __call__(self, scope: object, receive: object, send: object) -> None:
        try:
            await super().__call__(scope, receive, send)  # type: ignore[arg-type]
        finally:
            self._events.leave(self._queue)


async def _stream(events: _Events, missed: list[_Change], queue: asyncio.Queue[_Change]) -> AsyncIterator[str]:
    """Yield the events of a listener, and a comment when there was none for a while."""
    end_s = asyncio.get_running_loop().time() + _LONGEST_S
    yield ": spinescore\n\n" + "".join(event for _, event in missed)
    seen = missed[-1][0] if missed else 0
    while events.has(queue) and asyncio.get_running_loop().time() < end_s:
        try:
            number, event = await asyncio.wait_for(queue.get(), _SIGN_S)
        except asyncio.TimeoutError:
            yield ": \n\n"
            continue
        if number > seen:
            seen = number
            yield event
