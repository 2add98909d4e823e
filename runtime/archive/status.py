"""The state of an archive's folder: its studies, how many are scored, and why others are not."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass

from spinescore.runtime.archive.layout import Places
from spinescore.runtime.archive.manifest import all_studies
from spinescore.runtime.archive.scan import piece_files, read_head
from spinescore.runtime.followup.archivefiles import read_codes

__all__ = ["Status", "status_of"]


@dataclass(frozen=True)
class Status:
    """`codes` counts studies and files that were not scored.

    `scanning` is how many files an unfinished scan has looked at; None if there is none.
    """

    studies: int
    shards: int
    shards_written: int
    scored: int
    codes: dict[str, int]
    scanning: int | None

    def document(self) -> str:
        return json.dumps({"schema": "spinescore.archive-status/1", **asdict(self)}, indent=2)

    def text(self) -> str:
        lines = [
            f"studies      {self.studies}",
            f"shards       {self.shards_written} of {self.shards} written",
            f"scored       {self.scored}",
            f"not scored   {sum(self.codes.values())}",
            *(f"  {code:<20} {count}" for code, count in self.codes.items()),
        ]
        if self.scanning is not None:
            lines.append(f"a scan is not done: {self.scanning} files so far")
        return "\n".join(lines)


def status_of(places: Places) -> Status:
    """Return the status. Raises ValueError for a file of tables that cannot be read, and ArchiveError for a list."""
    scored, codes, written = 0, Counter[str](), sorted(places.written())
    for shard in written:
        count, others = read_codes(places.table(shard))
        scored += count
        codes.update(others)
    scans = places.scans()
    scanning = None
    if places.catalogue(len(scans)).exists():
        scanning = sum(read_head(piece)["files"] for piece in piece_files(places.pieces(len(scans))))
    return Status(all_studies(places), len(places.shards()), len(written), scored, dict(codes.most_common()), scanning)
