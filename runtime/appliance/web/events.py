"""`GET /v1/events`: server-sent events on each change of a study, from the numbered changes that the index keeps.

The index is asked once for all listeners, and only while there is one. A listener that comes back with `Last-Event-ID`
gets what it missed, also over a restart of the service.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from spinescore.runtime.appliance.fault import Fault
from spinescore.runtime.appliance.store.index import Index
from spinescore.runtime.appliance.web.problems import Problem
from spinescore.runtime.appliance.web.site import Shared, Site
from spinescore.runtime.errors import SpineScoreError

__all__ = ["events_routes"]

_MOST = 16  # listeners
_MOST_MISSED = 1000  # changes that a listener can catch up on
_POLL_S = 0.5
_SIGN_S = 15.0
_LONGEST_S = 540.0  # then the listener comes again; the connection would be cut off at its limit (`limits`)
_Change = tuple[int, str]  # its number, and the event as it is sent


def events_routes(site: Site) -> list[Route]:
    listeners = 0
    changes: deque[_Change] = deque(maxlen=_MOST_MISSED)

    def ask() -> list[_Change]:
        after = changes[-1][0] if changes else 0
        with site.index() as index:
            changes.extend(_changes(index, after))
        return list(changes)

    recent = Shared(ask)

    def leave() -> None:
        nonlocal listeners
        listeners -= 1

    async def listen(request: Request) -> Response:
        nonlocal listeners
        if request.method == "HEAD":  # it would end only when the stream does
            raise HTTPException(405, headers={"Allow": "GET"})
        if listeners >= _MOST:
            text = f"{_MOST} listeners are there already; ask again, or list the studies"
            raise Problem(503, Fault("http-busy", text), {"Retry-After": "30"})
        listeners += 1  # at once: others may come while the index is asked
        try:
            text = request.headers.get("last-event-id", "")
            newest = max((number for number, _ in await recent.get()), default=0)
            # A later one is of another index, from before this one was begun anew.
            seen = min(int(text), newest) if text.isascii() and text.isdecimal() and len(text) <= 15 else newest
        except BaseException:
            leave()
            raise
        return _Stream(_events(recent, seen), leave)

    return [Route("/v1/events", listen)]


def _changes(index: Index, after: int) -> list[_Change]:
    """Return the changes after the one with this number, the last of them if they are many."""
    rows = index.rows("SELECT * FROM changes WHERE id > ? ORDER BY id DESC LIMIT ?", after, _MOST_MISSED)
    return [(row["id"], _event(row)) for row in reversed(rows)]


def _event(row: sqlite3.Row) -> str:
    data = json.dumps({"study": row["study"], "state": row["state"], "revision": row["revision"]})
    return f"id: {row['id']}\nevent: study\ndata: {data}\n\n"


class _Stream(StreamingResponse):
    """An answer that goes on until its listener leaves, which is told to `leave` in any case."""

    def __init__(self, events: AsyncIterator[str], leave: Callable[[], None]) -> None:
        headers = {"X-Accel-Buffering": "no"}  # nginx would collect the events
        super().__init__(events, headers=headers, media_type="text/event-stream")
        self._leave = leave

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._leave()


async def _events(recent: Shared[list[_Change]], seen: int) -> AsyncIterator[str]:
    """Yield the events after the change `seen`, and a comment when there was none for a while."""
    time = asyncio.get_running_loop().time
    end_s = time() + _LONGEST_S
    yield ": spinescore\n\n"
    told_s = time()
    while time() < end_s:
        try:
            changes = [one for one in await recent.get() if one[0] > seen]
        except (OSError, sqlite3.Error, SpineScoreError):  # the index is busy; the next turn gets them
            changes = []
        if changes or time() - told_s > _SIGN_S:
            seen, told_s = max((number for number, _ in changes), default=seen), time()
            yield "".join(event for _, event in changes) or ": \n\n"
        await asyncio.sleep(_POLL_S)
