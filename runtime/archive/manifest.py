"""The manifest of an archive: the scan of its source and the list of its studies, made once or gone on with."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import date, datetime
from pathlib import Path

from spinescore.runtime.archive.dicomweb import WebArchive
from spinescore.runtime.archive.layout import ArchiveError, Catalogue, Places, Shard, read_document, write_document
from spinescore.runtime.archive.progress import Progress
from spinescore.runtime.archive.scan import scan
from spinescore.runtime.archive.studylists import list_studies, read_summary
from spinescore.runtime.archive.walk import Source, open_source

__all__ = ["all_studies", "check_source", "count_studies", "largest_bytes", "make_manifest"]


def make_manifest(
    places: Places,
    kind: str,
    place: str,
    shard_studies: int,
    say: Callable[[str], None],
    since: date | None = None,
) -> None:
    """Scan the source and list its studies, unless that is done; with `since`, look for studies that are new.

    `place` is the absolute path of a folder or a list, or the address of a server. A scan that was ended goes on.
    Raises ArchiveError if the tables are of another source, or a server does not answer, and OSError.
    """
    number = len(places.scans())
    begun = places.catalogue(number).exists()
    if number:
        check_source(places, kind, place, shard_studies)
        if since is None and not begun:
            return
    if not begun:
        day = None if since is None else since.isoformat()
        write_document(places.catalogue(number), Catalogue(kind, place, shard_studies, day))
    check_source(places, kind, place, shard_studies)
    catalogue: Catalogue = read_document(places.catalogue(number), Catalogue)
    since_s = None if catalogue.since is None else datetime.fromisoformat(catalogue.since).timestamp()
    source: Source | WebArchive = open_source(catalogue.kind, Path(catalogue.place), places.tables)
    if catalogue.kind == "dicomweb":
        source = WebArchive(catalogue.place, None if catalogue.since is None else date.fromisoformat(catalogue.since))
    begun_s = time.monotonic()
    scanned = scan(source, places.pieces(number), since_s)
    counts = next(scanned)
    if counts.files:
        say(f"the scan goes on after {counts.files} files")
    progress = Progress(None, "files scanned", say, counts.files)
    for counts in scanned:
        progress.add(counts.files - progress.done)
    earlier = [places.listed(shard) for shard in places.shards()]
    summary = list_studies(places.pieces(number), places.studies(number), source.base, shard_studies, earlier)
    places.note("scanned", scan=number, seconds=round(time.monotonic() - begun_s, 1), files=counts.files, **summary)
    others = ", ".join(f"{count} {code}" for code, count in counts.passed_over.most_common())
    studies = f"{summary['studies']} {'new ' if number else ''}studies"
    passed_over = f"; passed over: {others}" if others else ""
    looked = "" if kind == "dicomweb" else f"{counts.files} files: {counts.radiographs} radiographs, "
    say(f"{looked}{studies}{passed_over}")


def check_source(places: Places, kind: str, place: str, shard_studies: int | None = None) -> None:
    """Raise ArchiveError if the tables are of another source, or have another number of studies in a shard."""
    catalogue: Catalogue = read_document(places.catalogue(0), Catalogue)
    if (catalogue.kind, catalogue.place) != (kind, place):
        raise ArchiveError(
            f"the tables are of the {catalogue.kind} {catalogue.place}, not of {place}: name that source, or another "
            "folder with --out"
        )
    if shard_studies not in (None, catalogue.shard_studies):
        raise ArchiveError(
            f"the tables have {catalogue.shard_studies} studies in a shard: give the same number with --shard-studies"
        )


def count_studies(places: Places, shards: Sequence[Shard]) -> int:
    """Return the number of studies of shards: all have as many, but the last of a scan. Raises ArchiveError."""
    total = 0
    for scan_number in {shard.scan for shard in shards}:
        catalogue: Catalogue = read_document(places.catalogue(scan_number), Catalogue)
        studies, each = read_summary(places.studies(scan_number))["studies"], catalogue.shard_studies
        total += sum(min(each, studies - shard.number * each) for shard in shards if shard.scan == scan_number)
    return total


def all_studies(places: Places) -> int:
    """Return the number of studies of all scans. Raises ArchiveError if a list of studies is missing."""
    listed = count_studies(places, places.shards())
    if listed != (
        studies := sum(read_summary(places.studies(scan_number))["studies"] for scan_number in places.scans())
    ):
        raise ArchiveError(
            f"{places.work} lists {listed} of {studies} studies; bring the other lists back from a backup, or name "
            "another folder with --out"
        )
    return studies


def largest_bytes(places: Places) -> int:
    return max(
        (read_summary(places.studies(scan_number))["largest_bytes"] for scan_number in places.scans()), default=0
    )
