"""The running service as the routes of HTTP see it, and answers that many clients share."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

from starlette.concurrency import run_in_threadpool

from spinescore.runtime.appliance.clock import Clock
from spinescore.runtime.appliance.configuration.config import Config
from spinescore.runtime.appliance.store.index import Index
from spinescore.runtime.appliance.store.places import Places
from spinescore.runtime.appliance.web.access import Access
from spinescore.runtime.appliance.web.consoles import Consoles

__all__ = ["Shared", "Site"]


@dataclass(frozen=True)
class Site:
    """A running service as its HTTP process sees it."""

    config: Config
    places: Places
    clock: Clock
    access: Access
    consoles: Consoles

    @property
    def is_alone(self) -> bool:
        """Whether it serves consoles alone: no study comes, and no result goes, on another way."""
        return self.config.node is None and not self.config.source and not self.config.destination

    @contextmanager
    def index(self) -> Iterator[Index]:
        """Open the index for this thread. Raises SpineScoreError if it cannot be used."""
        with closing(Index(self.places.index, self.places.release_reserve, make=False)) as index:
            yield index


T = TypeVar("T")

_FRESH_S = 0.5


class Shared(Generic[T]):
    """Calls a function in a thread at most twice a second, and one call at a time, however many clients ask."""

    def __init__(self, ask: Callable[[], T]) -> None:
        self._ask, self._asking, self._asked_s = ask, asyncio.Lock(), float("-inf")

    async def get(self) -> T:
        """Return the answer, at most half a second old. Raises what the function raises."""
        async with self._asking:
            if time.monotonic() - self._asked_s > _FRESH_S:
                self._answer = await run_in_threadpool(self._ask)
                self._asked_s = time.monotonic()
            return self._answer
