"""Shards while they are scored: the rows of their studies, until all are there and the file is written."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from spinescore.runtime.archive.layout import Places, Shard, readable
from spinescore.runtime.archive.manifest import count_studies
from spinescore.runtime.archive.studylists import Entry, read_list
from spinescore.runtime.durable import write_whole
from spinescore.runtime.followup.archivefiles import parquet_of, read_rows
from spinescore.runtime.followup.archivetables import Row

__all__ = ["OpenShards", "Work", "codes_of", "work_of"]


@dataclass(frozen=True)
class Work:
    """The studies of a shard to score, and the rows of its others, which stay as they are."""

    shard: Shard
    entries: tuple[Entry, ...]
    kept: tuple[Row, ...] = ()


def work_of(places: Places, shards: Iterable[Shard], retry: str | None = None) -> Iterator[Work]:
    """Yield the work of each shard without a file. With `retry`, of each file the studies with that code.

    Raises ValueError for a file that is no table, and ArchiveError for a list of studies that is damaged.
    """
    written = places.written()
    for shard in shards:
        if shard not in written:
            yield Work(shard, _entries(places, shard))
        elif retry is not None:
            rows = read_rows(places.table(shard))
            again = {row["number"] for row in rows if row["row"] == "not-scored" and row["code"] == retry}
            if again:
                entries = tuple(entry for entry in _entries(places, shard) if entry.number in again)
                yield Work(shard, entries, tuple(row for row in rows if row["number"] not in again))


def _entries(places: Places, shard: Shard) -> tuple[Entry, ...]:
    """Return the studies of a shard. Raises ArchiveError unless all are there."""
    path = places.listed(shard)
    entries, count = read_list(path), count_studies(places, [shard])
    if [entry.number for entry in entries] != list(range(count)):
        with readable(path):
            raise ValueError(f"it lists {len(entries)} of {count} studies")
    return entries


def codes_of(rows: Iterable[Row]) -> list[str]:
    """Return the code of each study or file that was not scored."""
    return [row["code"] for row in rows if row["row"] == "not-scored"]


class OpenShards:
    """The shards that have begun; a shard is written as soon as its last study is there."""

    def __init__(self, places: Places) -> None:
        self._places = places
        self._open: dict[Shard, tuple[set[int], list[Row]]] = {}

    def begin(self, work: Work) -> None:
        """Expect the rows of these studies."""
        self._open[work.shard] = {entry.number for entry in work.entries}, list(work.kept)

    def add(self, shard: Shard, number: int, rows: list[Row]) -> bool:
        """Take the rows of a study; return whether the shard's file was written now. Raises OSError."""
        waiting, all_rows = self._open[shard]
        waiting.discard(number)
        all_rows += rows
        if waiting:
            return False
        del self._open[shard]
        all_rows.sort(key=lambda row: row["number"])  # rows of one study stay in their order
        write_whole(self._places.table(shard), parquet_of(all_rows))
        return True
