"""The scan of an archive: which files are radiographs, by their headers alone, and the study of each.

What was read is written in pieces of `PIECE_FILES` files, each by temporary file and rename. A scan that was ended goes
on after its last piece. Memory holds one piece, and the names in the folders on the path to it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spinescore.runtime.archive.layout import readable
from spinescore.runtime.archive.walk import Place, Source, check_there
from spinescore.runtime.durable import write_whole
from spinescore.runtime.files import open_regular
from spinescore.runtime.reading.dicomfile import open_file
from spinescore.runtime.reading.inputs import Item
from spinescore.runtime.reading.memory import MAX_PIXELS
from spinescore.runtime.reading.onefile import load

if TYPE_CHECKING:
    from spinescore.runtime.archive.dicomweb import WebArchive

__all__ = ["PIECE_FILES", "Scanned", "piece_files", "read_head", "records", "scan"]

PIECE_FILES = 1000
_THREADS = 8  # they wait for disks and networks more than they compute
_DICOM_MARK_AT = 128
_UNREADABLE = "file-unreadable"

Record = dict[str, Any]  # path, bytes, and either the study and the SOP instance of a radiograph, or a code


@dataclass
class Scanned:
    """How many files a scan has looked at, how many of them are of studies, and why the others are not."""

    files: int = 0
    radiographs: int = 0
    passed_over: Counter[str] = field(default_factory=Counter)

    def add(self, head: Record) -> None:
        self.files += head["files"]
        self.radiographs += head["radiographs"]
        self.passed_over.update(head["passed_over"])


def scan(source: Source | WebArchive, folder: Path, since_s: float | None) -> Iterator[Scanned]:
    """Read the headers of all files that are not in `folder` yet; yield the counts of all, at first and at each piece.

    With `since_s` (seconds since 1970), files that were last changed before are passed over unread. A server gives
    records instead of files. Raises OSError if the source's list cannot be read, or a piece cannot be written, and
    ArchiveError if the folder is gone or empty, or a server cannot be reached.
    """
    counts, pieces = Scanned(), piece_files(folder)
    after: Place = ()
    for piece in pieces:
        head = read_head(piece)
        counts.add(head)
        after = tuple(head["last"])
    yield counts
    if source.kind == "folder":
        check_there(source.base)
    entries: Iterator[tuple[Place, Any]] = source.files(after)
    number = len(pieces)
    look = partial(_look, source.base, since_s)
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="spinescore-scan") as pool:
        while batch := list(islice(entries, PIECE_FILES)):
            given = [file for _, file in batch]
            looked = given if source.kind == "dicomweb" else list(pool.map(look, given))
            if any(record.get("code") == _UNREADABLE for record in looked):
                check_there(source.base)
            counts.add(_write(folder / f"{number:06}.jsonl", batch[-1][0], looked))
            number += 1
            yield counts


def piece_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.jsonl"))


def records(folder: Path) -> Iterator[Record]:
    """Yield a record for each radiograph, and for each file that may be one and cannot be read.

    Raises ArchiveError for a damaged piece.
    """
    for piece in piece_files(folder):
        with readable(piece):
            _, *lines = map(json.loads, piece.read_text(encoding="ascii").splitlines())
        yield from lines


def read_head(piece: Path) -> Record:
    """Return the first line of a piece: its counts, and the place of its last file. Raises ArchiveError."""
    with readable(piece), piece.open(encoding="ascii") as file:
        head = json.loads(file.readline())
        return {name: head[name] for name in ("last", "files", "radiographs", "passed_over")}


def _write(path: Path, last: Place, looked: list[Record]) -> Record:
    kept = [record for record in looked if "path" in record]
    head = {
        "last": last,
        "files": len(looked),
        "radiographs": sum("code" not in record for record in kept),
        "passed_over": dict(sorted(Counter(record["code"] for record in looked if "path" not in record).items())),
    }
    write_whole(path, "".join(json.dumps(line) + "\n" for line in (head, *kept)).encode("ascii"))
    return head


def _look(base: Path, since_s: float | None, path: str) -> Record:
    """Return the record of a file; without its path, if it is no radiograph."""
    file = base / path
    try:
        if since_s is not None and file.stat().st_mtime < since_s:
            return {"code": "older"}
        item = Item(file.name, True, lambda: open_file(file, file.name), path)
        loaded = load(item, MAX_PIXELS, None, header_only=True)
        facts, reject = loaded.facts, loaded.reject
        if reject is None or (facts.study_instance_uid is not None and not loaded.skipped):
            return {
                "path": path, "study": facts.study_instance_uid, "sop": facts.sop_instance_uid,
                "bytes": loaded.byte_count or 0, "patient": facts.patient_key, "day": facts.study_date,
            }  # fmt: skip
        if not loaded.skipped or (reject.code == "not-dicom" and _is_marked(file)):
            return {"path": path, "code": reject.code}
        return {"code": reject.code}
    except OSError:
        return {"path": path, "code": _UNREADABLE}


def _is_marked(file: Path) -> bool:
    """Return whether a file has the mark of DICOM. Raises OSError if it cannot be read."""
    with open_regular(file) as opened:
        opened.seek(_DICOM_MARK_AT)
        return opened.read(4) == b"DICM"
