"""An answer that many clients share, so that their number is no load for the index."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from starlette.concurrency import run_in_threadpool

__all__ = ["Shared"]

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
