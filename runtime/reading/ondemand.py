"""Studies of one call that are read when they are asked for, so that one at a time is in memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from typing import overload

from spinescore.runtime.study import Study

__all__ = ["StudiesOnDemand"]

_AHEAD_BYTES = 16 << 20  # of pixels: a larger study is read when its turn comes


class StudiesOnDemand(Sequence[Study]):
    """A sequence whose items are read each time they are asked for. Close it: it holds archives open.

    `heads` are the studies without radiographs, which were known when the headers were read. While a study is worked
    on, the next one is read if it is small.
    """

    def __init__(
        self, heads: Sequence[Study], byte_counts: Sequence[int], read: Callable[[int], Study], opened: ExitStack
    ) -> None:
        """`read` reads a study by its number, `byte_counts` are their pixels'; `opened` is closed with this."""
        self.heads: Sequence[Study] = heads
        self._byte_counts, self._read, self._opened = byte_counts, read, opened
        self.ahead_bytes = _AHEAD_BYTES  # 0 leaves the machine to the study that is worked on
        self._changes: Callable[[Study], Study] = lambda study: study
        self._pool = opened.enter_context(ThreadPoolExecutor(1, "spinescore-ahead"))
        self._ahead: tuple[int, Future[Study]] | None = None

    def __len__(self) -> int:
        return len(self.heads)

    @overload
    def __getitem__(self, number: int) -> Study: ...
    @overload
    def __getitem__(self, number: slice) -> list[Study]: ...
    def __getitem__(self, number: int | slice) -> Study | list[Study]:
        if isinstance(number, slice):
            return [self[one] for one in range(len(self))[number]]
        number = range(len(self))[number]
        ahead, self._ahead = self._ahead, None
        study = ahead[1].result() if ahead is not None and ahead[0] == number else self._read(number)
        following = number + 1
        if following < len(self) and self._byte_counts[following] < self.ahead_bytes:
            self._ahead = following, self._pool.submit(self._read, following)
        return self._changes(study)

    def changed(self, change: Callable[[Study], Study]) -> StudiesOnDemand:
        """This sequence, with each study changed when it is asked for."""
        before = self._changes
        self._changes = lambda study: change(before(study))
        return self

    def close(self) -> None:
        """Forget what was read ahead, and close archives. Closing twice is no error."""
        self._ahead = None
        self._opened.close()
