"""The run of an archive: the shards that are still to do are scored, and their tables written."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from spinescore.runtime.archive.crews import Outcomes
from spinescore.runtime.archive.layout import (
    ArchiveError,
    Places,
    Settings,
    Shard,
    read_document,
    readable,
    write_document,
)
from spinescore.runtime.archive.local import Outcome, Task
from spinescore.runtime.archive.manifest import all_studies, count_studies
from spinescore.runtime.archive.progress import Progress
from spinescore.runtime.archive.scoring import Request, not_scored, parsed_rows
from spinescore.runtime.archive.studylists import Entry, read_list
from spinescore.runtime.durable import write_whole
from spinescore.runtime.files import write_atomic
from spinescore.runtime.followup.archivefiles import parquet_of, read_rows
from spinescore.runtime.followup.archivetables import Row, archive_dictionary
from spinescore.runtime.scoring.report import BundleInfo

__all__ = ["Part", "score_archive"]

_MOST_LOST = 20  # studies in a row that end their process; so many are not all to blame

Say = Callable[[str], None]
Part = tuple[int, int]  # i of n, i from 1 on

# The option that changes each setting.
_OPTIONS = {
    "bundle": "--bundle",
    "bundle_sha256": "--bundle",
    "device": "--device",
    "engine": "--networks",
    "precision": "--precision",
    "localizer": "--localizer",
    "max_imputed": "--max-imputed",
    "strict": "--strict",
    "identifiers": "--identifiers",
    "patient_key_check": "SPINESCORE_PATIENT_KEY",
}


def score_archive(
    places: Places, request: Request, way: Outcomes, say: Say, part: Part = (1, 1), retry: str | None = None
) -> int:
    """Score the studies of all shards of this part that are still to do, and write their tables.

    Return how many of them lack results that were asked for. `part` (i, n) takes every n-th shard. With `retry`,
    studies with that code are scored again. Raises ArchiveError, also if the tables were begun with other options,
    ValueError for a file that is no table, and OSError if a table cannot be written.
    """
    all_studies(places)
    shards = [shard for number, shard in enumerate(places.shards()) if number % part[1] == part[0] - 1]
    written = places.written()
    total = count_studies(places, [shard for shard in shards if shard not in written])
    works = _work_of(places, shards, retry)
    if retry is not None:
        again = list(works)
        total, works = sum(len(work.entries) for work in again), iter(again)
    run = _Run(places, request, say, total)
    if part[1] == 1:  # else another machine may be writing
        for unfinished in places.tables.glob(".shard-*.tmp"):
            unfinished.unlink(missing_ok=True)
    if not total:
        return 0
    # pyarrow loads pandas with its first table, if that is installed: a second of a core, while scorers are opened.
    threading.Thread(target=parquet_of, args=([],), name="spinescore-tables").start()
    try:
        for outcome in way.outcomes(run.tasks(works), total, run.opened, run.request):
            run.take(outcome)
    finally:
        places.note("ended", studies=dict(run.studies), **way.facts())
    return run.unwritten


@dataclass(frozen=True)
class _Work:
    """The studies of a shard to score, and the rows of its others, which stay as they are."""

    shard: Shard
    entries: tuple[Entry, ...]
    kept: tuple[Row, ...] = ()


def _work_of(places: Places, shards: Iterable[Shard], retry: str | None = None) -> Iterator[_Work]:
    """Yield the work of each shard without a file. With `retry`, of each file the studies with that code.

    Raises ValueError for a file that is no table, and ArchiveError for a list of studies that is damaged.
    """
    written = places.written()
    for shard in shards:
        if shard not in written:
            yield _Work(shard, _entries(places, shard))
        elif retry is not None:
            rows = read_rows(places.table(shard))
            again = {row["number"] for row in rows if row["row"] == "not-scored" and row["code"] == retry}
            if again:
                entries = tuple(entry for entry in _entries(places, shard) if entry.number in again)
                yield _Work(shard, entries, tuple(row for row in rows if row["number"] not in again))


def _entries(places: Places, shard: Shard) -> tuple[Entry, ...]:
    """Return the studies of a shard. Raises ArchiveError unless all are there."""
    path = places.listed(shard)
    entries, count = read_list(path), count_studies(places, [shard])
    if [entry.number for entry in entries] != list(range(count)):
        with readable(path):
            raise ValueError(f"it lists {len(entries)} of {count} studies")
    return entries


class _Run:
    """The state of one run: the shards that have begun, and the facts of the first scorer."""

    def __init__(self, places: Places, request: Request, say: Say, total: int) -> None:
        self._places, self._say = places, say
        self._open: dict[Shard, tuple[set[int], list[Row]]] = {}  # the studies that are still to come, and the rows
        self.studies: Counter[str] = Counter()  # by code; `scored` for those with grades
        self.unwritten = 0  # studies that lack results
        self._total, self._lost = total, 0
        self._progress: Progress | None = None  # its time begins when the first scorer is open
        self._stored: Settings | None = None
        if places.settings.exists():
            stored = self._stored = read_document(places.settings, Settings)
            _check_request(stored, request)
            engine, precision = request.engine or stored.engine, request.precision or stored.precision
            request = replace(request, engine=engine, precision=precision, build="no")
        self.request = request
        self._bundle: BundleInfo | None = None

    def tasks(self, works: Iterator[_Work]) -> Iterator[Task]:
        """Yield the studies of each shard, which begins with its first study."""
        for work in works:
            self._open[work.shard] = {entry.number for entry in work.entries}, list(work.kept)
            out = str(self._places.results(work.shard)) if self.request.formats else None
            for entry in work.entries:
                yield Task(work.shard, entry, out)

    def opened(self, facts: dict[str, Any]) -> Request:
        """Compare a scorer that is open with the tables; return the request for others, which names its engine."""
        bundle, request = facts["bundle"], self.request
        settings = Settings(
            bundle["name"], bundle["sha256"], facts["device"], facts["engine"], facts["precision"],
            request.localizer, request.max_imputed, request.strict, request.identifiers, facts["patient_key_check"],
        )  # fmt: skip
        if self._stored is None:
            write_document(self._places.settings, settings)
            write_atomic(self._places.tables / "columns.csv", archive_dictionary())
            self._stored = read_document(self._places.settings, Settings)
        _check_settings(self._stored, settings)
        self._progress = self._progress or Progress(self._total, "studies", self._say)
        self._bundle = BundleInfo(**{**bundle, "rules": None})
        self._places.note("opened", **{name: facts[name] for name in ("device", "engine", "precision", "name")})
        self.request = replace(request, engine=facts["engine"], precision=facts["precision"], build="no")
        return self.request

    def take(self, outcome: Outcome) -> None:
        """Put the rows of a study into its shard, and write the shard as soon as its last study is there.

        Raises OSError, and ArchiveError if too many studies in a row ended their process.
        """
        task, entry = outcome.task, outcome.task.entry
        rows = parsed_rows(outcome.rows, entry.number)
        assert self._bundle is not None
        assert self._progress is not None
        self._lost = 0 if outcome.code is None else self._lost + 1
        if self._lost > _MOST_LOST:
            raise ArchiveError(
                f"{self._lost} studies in a row ended their process ({outcome.code}, {outcome.message}); look for "
                "a fault of this machine or of the archive's disk, and call the same command again"
            )
        if outcome.code is not None:
            rows = [{"number": entry.number, **not_scored(entry, outcome.code, self._bundle, self.request.identifiers)}]
            facts = {"shard": str(task.shard), "number": entry.number, "code": outcome.code, "how": outcome.message}
            self._places.note("not scored", **facts)
        elif outcome.message is not None:
            self.unwritten += 1
            self._say(f"study {entry.number} of shard {task.shard}: not written: {outcome.message}")
        self.studies.update([row["code"] for row in rows if row["row"] == "not-scored"] or ["scored"])
        waiting, shard_rows = self._open[task.shard]
        waiting.discard(entry.number)
        shard_rows += rows
        if not waiting:
            del self._open[task.shard]
            shard_rows.sort(key=lambda row: row["number"])  # rows of one study stay in their order
            write_whole(self._places.table(task.shard), parquet_of(shard_rows))
            self._places.note("written", shard=str(task.shard))
        self._progress.add()


def _check_request(stored: Settings, request: Request) -> None:
    """Compare what a request states with the tables, before a scorer is opened, or none if all is done."""
    stated = {name: getattr(request, name) for name in ("localizer", "max_imputed", "strict", "identifiers")}
    chosen = {name: getattr(request, name) or getattr(stored, name) for name in ("engine", "precision")}
    _check_settings(stored, replace(stored, **stated, **chosen))


def _check_settings(stored: Settings, now: Settings) -> None:
    for name, option in _OPTIONS.items():
        before, value = (getattr(one, name) for one in (stored, now))
        if before != value:
            shown = "" if name == "patient_key_check" else f" ({name} was {before}, and is {value} now)"
            raise ArchiveError(
                f"the tables were begun with another {option}{shown}: give the same, or another folder with --out"
            )
