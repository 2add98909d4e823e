"""Studies that are read when they are accessed, so that one at a time is in memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from typing import overload

from spinescore.runtime.study import Study

__all__ = ["StudiesOnDemand"]

_AHEAD_BYTES = 16 << 20  # of pixels; a larger study is not read ahead


class StudiesOnDemand(Sequence[Study]):
    """A sequence of studies; each access reads a study anew. The caller must close it, because it holds archives open.

    `heads` are the studies without radiographs, known from the headers. While the caller works on a study, the next one
    is read ahead if it is small.
    """

    def __init__(
        self, heads: Sequence[Study], byte_counts: Sequence[int], read: Callable[[int], Study], opened: ExitStack
    ) -> None:
        """`read` reads a study by its number, `byte_counts` has the bytes of their pixels, `close` closes `opened`."""
        self.heads: Sequence[Study] = heads
        self._byte_counts, self._read, self._opened = byte_counts, read, opened
        self.ahead_bytes = _AHEAD_BYTES  # 0: no study is read ahead
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
        """Return this sequence; from now on `change` is applied to each study when it is accessed."""
        before = self._changes
        self._changes = lambda study: change(before(study))
        return self

    def close(self) -> None:
        """Drop the study that was read ahead, and close archives. A second call does nothing."""
        self._ahead = None
        self._opened.close()
