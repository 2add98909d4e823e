"""Calls of readers to the worker, two at a time, so that consoles always find a place before the queue."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from starlette.requests import Request

from spinescore.runtime.appliance.fault import Fault
from spinescore.runtime.appliance.web.consoles import Busy, Consoles
from spinescore.runtime.appliance.web.problems import RETRY_SOON, Problem, busy, disconnect, status_of
from spinescore.runtime.appliance.work.reviewjob import ReviewJob

__all__ = ["WorkCalls"]

_AT_ONCE, _MOST = 2, 16
_BUSY = "the worker has enough to do; ask again"


class WorkCalls:
    """Has the worker do jobs of readers; used in the event loop."""

    def __init__(self, consoles: Consoles) -> None:
        self._consoles, self._turns, self._count = consoles, asyncio.Semaphore(_AT_ONCE), 0

    @asynccontextmanager
    async def done(self, make: Callable[[str, str], ReviewJob], request: Request) -> AsyncIterator[Path]:
        """Yield the folder of a job that was done; `make` makes it of its key and its folder.

        Raises Problem if it could not be done, GaveUp if the caller left before.
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
        except Busy:
            raise busy(_BUSY) from None
        finally:
            self._count -= 1
