"""The studies of a scan, in lists of as many as a shard has.

Files of one study belong together, wherever they lie. SQLite sorts them in a file, so that memory does not grow with
their number. The lists appear all at once, by the rename of their folder.
"""

from __future__ import annotations

import errno
import filecmp
import json
import os
import shutil
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

from spinescore.runtime.archive.layout import readable
from spinescore.runtime.archive.scan import Record, records
from spinescore.runtime.documents import read
from spinescore.runtime.durable import move, write_new

__all__ = ["SUMMARY", "Entry", "list_studies", "read_list", "read_summary"]

SUMMARY = "summary.json"  # the number of studies, and the bytes of the largest one

_CACHE_KB = 32 << 10
_SCHEMA = """
create table listed (study text primary key) without rowid;
create table file (study text, path text, sop text, bytes integer, code text, patient text, day text);
"""


@dataclass(frozen=True)
class Entry:
    """One study to score, by its files; or one file without a study, which has a code if it cannot be read.

    `number` is its place in its shard. `bytes` is the size of its pixels in memory. `patient` is None also if its files
    name several patients.
    """

    number: int
    study: str | None
    files: tuple[str, ...]
    bytes: int = 0
    code: str | None = None
    patient: str | None = None
    day: str | None = None  # YYYYMMDD


def list_studies(scanned: Path, folder: Path, base: Path, count: int, earlier: Iterable[Path] = ()) -> dict[str, int]:
    """Write the lists of `count` studies each into `folder`, and return their `SUMMARY`.

    Studies in `earlier` lists are left out. `base` is the folder to which paths are relative. Raises OSError, and
    ArchiveError if what was scanned is damaged.
    """
    part, database = folder.with_name(f"{folder.name}.part"), folder.with_name(f"{folder.name}.sqlite")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    database.unlink(missing_ok=True)
    with _disk_errors(database), closing(sqlite3.connect(database, isolation_level=None)) as sorter:
        for word in (f"cache_size=-{_CACHE_KB}", "journal_mode=off", "synchronous=off", "temp_store=file"):
            sorter.execute(f"pragma {word}")
        sorter.executescript(_SCHEMA)
        sorter.execute("begin")
        entries = (entry for path in earlier for entry in read_list(path))
        listed = ((json.dumps(entry.study),) for entry in entries if entry.study is not None)
        sorter.executemany("insert or ignore into listed values (?)", listed)
        sorter.executemany("insert into file values (?, ?, ?, ?, ?, ?, ?)", map(_row, records(scanned)))
        sorter.execute("commit")
        summary = _write(part, _entries(sorter, base), count)
    database.unlink()
    move(part, folder)
    return summary


def read_list(path: Path) -> tuple[Entry, ...]:
    """Return the studies of a list. Raises ArchiveError if it is damaged."""
    with readable(path):
        return tuple(read(Entry, json.loads(line)) for line in path.read_text(encoding="ascii").splitlines())


def read_summary(folder: Path) -> dict[str, int]:
    """Return the number of studies of lists, and the bytes of the largest one. Raises ArchiveError."""
    path = folder / SUMMARY
    with readable(path):
        summary = json.loads(path.read_text(encoding="ascii"))
        return {name: int(summary[name]) for name in ("studies", "largest_bytes")}


@contextmanager
def _disk_errors(database: Path) -> Iterator[None]:
    """Turn SQLite's errors into those of the system, for which there is a message."""
    try:
        yield
    except sqlite3.Error as error:
        number = errno.ENOSPC if "full" in str(error) else errno.EIO
        raise OSError(number, os.strerror(number), str(database)) from error


def _row(record: Record) -> tuple[Any, ...]:
    """Return the row of a file. Texts are kept as JSON, since names of files, and headers, may not be Unicode."""
    study, path, sop = (record.get(name) for name in ("study", "path", "sop"))
    texts = (None if study is None else json.dumps(study), json.dumps(path), None if sop is None else json.dumps(sop))
    return (*texts, record.get("bytes", 0), *(record.get(name) for name in ("code", "patient", "day")))


def _entries(sorter: sqlite3.Connection, base: Path) -> Iterator[dict[str, Any]]:
    """Yield the studies in the order of their UIDs, then the files without a study in the order of their paths."""
    rows = sorter.execute(
        "select * from file where study is not null and study not in (select study from listed) order by study, path"
    )
    for study, group in groupby(rows, key=itemgetter(0)):
        files = list(group)
        distinct = _distinct(((json.loads(file[1]), file[2], file[3]) for file in files), base)
        patients = {file[5] for file in files} - {None}
        yield {
            "study": json.loads(study),
            "files": [path for path, _ in distinct],
            "bytes": sum(size for _, size in distinct),
            "patient": patients.pop() if len(patients) == 1 else None,
            "day": next((file[6] for file in files if file[6] is not None), None),
        }
    for _, path, _, size, code, patient, day in sorter.execute("select * from file where study is null order by path"):
        yield {"study": None, "files": [json.loads(path)], "bytes": size, "code": code, "patient": patient, "day": day}


def _distinct(files: Iterable[tuple[str, str | None, int]], base: Path) -> list[tuple[str, int]]:
    """Return path and size of a study's files without exact copies of a file with the same SOP Instance UID."""
    kept: list[tuple[str, int]] = []
    by_object: dict[tuple[str, int], list[str]] = {}
    for path, sop, size in files:
        if any(path == other for other, _ in kept):  # a server names a study once for each modality
            continue
        namesakes = by_object.setdefault((sop, size), []) if sop is not None else []
        if not any(_same(base / path, base / other) for other in namesakes):
            kept.append((path, size))
            namesakes.append(path)
    return kept


def _same(first: Path, second: Path) -> bool:
    try:
        return filecmp.cmp(first, second, shallow=False)
    except OSError:
        return False


def _write(folder: Path, entries: Iterator[dict[str, Any]], count: int) -> dict[str, int]:
    studies = largest = 0
    for number, group in groupby(enumerate(entries), key=lambda numbered: numbered[0] // count):
        listed = [Entry(place % count, **entry) for place, entry in group]
        lines = "".join(json.dumps(asdict(entry)) + "\n" for entry in listed)
        write_new(folder / f"{number:06}.jsonl", lines.encode("ascii"))
        studies, largest = studies + len(listed), max(largest, *(entry.bytes for entry in listed))
    summary = {"studies": studies, "largest_bytes": largest}
    write_new(folder / SUMMARY, json.dumps(summary).encode("ascii"))
    return summary
