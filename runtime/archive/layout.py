"""The files in the folder of the tables: their names, and the documents that say what all shards share."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

from spinescore.runtime.documents import document_of, read
from spinescore.runtime.durable import try_lock
from spinescore.runtime.errors import SpineScoreError
from spinescore.runtime.files import write_atomic
from spinescore.runtime.followup.archivefiles import MARK
from spinescore.runtime.jsonfile import read_json

__all__ = ["ArchiveError", "Catalogue", "Places", "Settings", "Shard", "read_document", "readable", "write_document"]

_SHARD = re.compile(r"shard-(\d{4})-(\d{6})")


class ArchiveError(SpineScoreError):
    """The tables of an archive cannot be begun or continued as the call asks."""


@dataclass(frozen=True)
class Catalogue:
    """The source of one scan, and the number of studies of a shard (`spinescore.archive-source/1`)."""

    kind: str
    place: str
    shard_studies: int
    since: str | None = None  # only files changed since this day were looked at
    schema: Literal["spinescore.archive-source/1"] = "spinescore.archive-source/1"


@dataclass(frozen=True)
class Settings:
    """The facts that decide the rows of every shard (`spinescore.archive/1`). A call that differs is refused."""

    bundle: str
    bundle_sha256: str
    device: str
    engine: str | None
    precision: str | None
    localizer: str | None
    max_imputed: int
    strict: bool
    identifiers: bool
    patient_key_check: str  # differs if SPINESCORE_PATIENT_KEY does
    schema: Literal["spinescore.archive/1"] = "spinescore.archive/1"


@dataclass(frozen=True, order=True)
class Shard:
    """The name of a shard: which scan listed its studies, and its number in that scan."""

    scan: int
    number: int

    def __str__(self) -> str:
        return f"{self.scan:04}-{self.number:06}"


@dataclass(frozen=True)
class Places:
    """The paths below the folder of the tables."""

    tables: Path

    @property
    def work(self) -> Path:
        return self.tables / "work"

    @property
    def settings(self) -> Path:
        return self.tables / MARK

    @property
    def log(self) -> Path:
        return self.work / "log.jsonl"

    def catalogue(self, scan: int) -> Path:
        """The document about the source of a scan. It is there when the scan has begun."""
        return self.work / f"scan-{scan:04}.json"

    def pieces(self, scan: int) -> Path:
        """The folder of what a scan has read so far."""
        return self.work / f"scan-{scan:04}"

    def studies(self, scan: int) -> Path:
        """The folder of the studies that a scan listed, a file for each shard. It is there when the scan is done."""
        return self.work / f"studies-{scan:04}"

    def listed(self, shard: Shard) -> Path:
        return self.studies(shard.scan) / f"{shard.number:06}.jsonl"

    def table(self, shard: Shard) -> Path:
        """The file of a shard's tables. It is there when the shard is done."""
        return self.tables / f"shard-{shard}.parquet"

    def results(self, shard: Shard) -> Path:
        return self.tables / "results" / str(shard)

    def scans(self) -> list[int]:
        """Return the numbers of the scans that are done, in their order."""
        names = (re.fullmatch(r"studies-(\d{4})", path.name) for path in self.work.glob("studies-*"))
        return sorted(int(match[1]) for match in names if match)

    def shards(self) -> list[Shard]:
        return [
            Shard(scan, int(path.stem)) for scan in self.scans() for path in sorted(self.studies(scan).glob("*.jsonl"))
        ]

    def written(self) -> set[Shard]:
        """Return the shards that have a file of tables."""
        names = (_SHARD.fullmatch(path.stem) for path in self.tables.glob("shard-*.parquet"))
        return {Shard(int(match[1]), int(match[2])) for match in names if match}

    @contextmanager
    def locked(self, name: str, shared: bool = False) -> Iterator[None]:
        """Hold a lock of this folder: alone, or beside others that share it. Raises ArchiveError if another has it."""
        self.work.mkdir(parents=True, exist_ok=True)
        with (self.work / f"{name}.lock").open("ab+") as file:
            try:
                is_held = try_lock(file.fileno(), shared)
            except OSError:  # a file system without locks
                is_held = True
            if not is_held:
                raise ArchiveError(
                    f"another run is at work on the tables in {self.tables}; wait for its end, or end it, and call the "
                    "same command again"
                )
            yield

    def note(self, event: str, **facts: Any) -> None:
        """Add a line to the log, which has the times and the facts of machines. A full disk costs the line only."""
        line = json.dumps({"time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "event": event, **facts})
        with suppress(OSError):
            self.work.mkdir(parents=True, exist_ok=True)
            with self.log.open("a", encoding="utf-8") as file:
                file.write(line + "\n")


def read_document(path: Path, kind: type[Any]) -> Any:
    """Return a document of this folder. Raises ArchiveError if it is not one."""
    with readable(path):
        return read(kind, read_json(path))


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Raise ArchiveError if the block fails to read a file of this folder, or the file is damaged."""
    try:
        yield
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ArchiveError(
            f"{path} cannot be used ({error}); bring it back from a backup, or name another folder with --out"
        ) from None


def write_document(path: Path, document: Any) -> None:
    """Write a document unless another process, perhaps on another machine, has written it first. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
        temporary = write_atomic(Path(folder) / path.name, json.dumps(document_of(document), indent=1) + "\n")
        try:
            os.link(temporary, path)
        except FileExistsError:
            pass
        except OSError:  # some network shares have no hard links
            if not path.exists():
                temporary.replace(path)
