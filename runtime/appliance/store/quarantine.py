"""Objects that are kept apart, as each has the SOP Instance UID of another object and other content.

A person compares the two. Until then a file stays at most `quarantine_d` days. If there are more files than the
settings allow, the oldest ones go first.
"""

from __future__ import annotations

import os
from contextlib import suppress

from spinescore.runtime.appliance.clock import Clock
from spinescore.runtime.appliance.configuration.config import SpoolPart
from spinescore.runtime.appliance.fault import Fault, Refused
from spinescore.runtime.appliance.seen import audit
from spinescore.runtime.appliance.store.counts import add
from spinescore.runtime.appliance.store.index import Index
from spinescore.runtime.appliance.store.objects import read_identity
from spinescore.runtime.appliance.store.places import Places
from spinescore.runtime.text import number_of

__all__ = ["MOST_FILES", "limit_quarantine", "note_quarantined", "quarantine_bytes", "recover_quarantine"]

MOST_FILES = 10_000  # each is looked at once a minute

_BATCH = 100  # in one transaction, and in one record of the audit log
_DAY_S, _GB = 86400.0, 1e9


def note_quarantined(index: Index, clock: Clock, sha256: str, sop_instance_uid: str) -> bool:
    """Note a file that is in quarantine, within a transaction. Return False if it is noted already."""
    if index.one("SELECT 1 FROM quarantine WHERE sha256 = ?", sha256) is not None:
        return False
    index.insert("quarantine", sha256=sha256, sop_instance_uid=sop_instance_uid,
                 received_at=clock.date().isoformat(timespec="seconds"), received_s=clock.now())  # fmt: skip
    return True


def recover_quarantine(places: Places, index: Index, clock: Clock) -> None:
    """Note the files that an earlier service put there and could not note."""
    for sha256 in sorted(_sizes(places)):
        if index.one("SELECT 1 FROM quarantine WHERE sha256 = ?", sha256) is None:
            try:
                uid = read_identity(places.quarantined(sha256)).sop_instance_uid
            except Refused:  # a file of somebody else
                continue
            with index.transaction():
                note_quarantined(index, clock, sha256, uid)
                audit.note(index, clock, "quarantined", sha256=sha256, sop_instance_uid=uid)


def quarantine_bytes(places: Places) -> int:
    return sum(_sizes(places).values())


def limit_quarantine(places: Places, index: Index, clock: Clock, keep: SpoolPart) -> Fault | None:
    """Remove the oldest files beyond the limits; return a fault if there were any.

    The rows of files that a person took out are removed, too.
    """
    now, sizes = clock.now(), _sizes(places)
    rows = index.rows("SELECT sha256, received_s FROM quarantine ORDER BY received_s IS NULL, received_s, rowid")
    unknown = [row["sha256"] for row in rows if row["received_s"] is None]  # a version without the limits noted them
    taken_out = [row["sha256"] for row in rows if row["sha256"] not in sizes]
    if unknown or taken_out:
        with index.transaction():
            for sha256 in unknown:
                index.change("UPDATE quarantine SET received_s = ? WHERE sha256 = ?", now, sha256)
            for sha256 in taken_out:
                index.change("DELETE FROM quarantine WHERE sha256 = ?", sha256)
    files = [row for row in rows if row["sha256"] in sizes]
    count, total, beyond = len(files), sum(sizes[row["sha256"]] for row in files), list[str]()
    for row in files:
        is_old = row["received_s"] is not None and now - row["received_s"] > keep.quarantine_d * _DAY_S
        if not is_old and count <= MOST_FILES and total <= keep.quarantine_gb * _GB:
            break
        beyond.append(row["sha256"])
        count, total = count - 1, total - sizes[row["sha256"]]
    for place in range(0, len(beyond), _BATCH):
        _remove(places, index, clock, beyond[place : place + _BATCH])
    return _note_removed(index, clock, len(beyond), keep) if beyond else None


def _remove(places: Places, index: Index, clock: Clock, sha256s: list[str]) -> None:
    """Remove files while the index is locked, so that none goes that arrives again at this moment."""
    with index.transaction():
        audit.note(index, clock, "quarantine-removed", objects_sha256=sha256s)
        add(index, "quarantine_removed", by=len(sha256s))
        for sha256 in sha256s:
            index.change("DELETE FROM quarantine WHERE sha256 = ?", sha256)
            places.quarantined(sha256).unlink(missing_ok=True)


def _note_removed(index: Index, clock: Clock, count: int, keep: SpoolPart) -> Fault:
    """Keep one fault in the place of the one before: under a flood there is one a minute."""
    text = (
        f"{number_of(count, 'object')} of quarantine/ went, the oldest first: it keeps {keep.quarantine_gb:g} GB "
        f"(spool.quarantine_gb), {MOST_FILES} files, and each for {keep.quarantine_d:g} days (spool.quarantine_d)"
    )
    fault = Fault("quarantine-removed", text)
    with index.transaction():
        index.change("DELETE FROM faults WHERE code = ?", fault.code)
        index.note_fault(clock.date(), fault)
    return fault


def _sizes(places: Places) -> dict[str, int]:
    """Return the bytes of each file in quarantine, by the hash that it is named for."""
    sizes = {}
    with os.scandir(places.quarantine) as entries:
        for entry in entries:
            if entry.name.endswith(".dcm"):
                with suppress(FileNotFoundError):  # it was removed meanwhile
                    sizes[entry.name.removesuffix(".dcm")] = entry.stat(follow_symlinks=False).st_size
    return sizes
