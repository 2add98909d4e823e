"""Studies that are long finished: their rows leave the index, and little is kept that has them scored no second time.

For each object of such a study stay 16 bytes of the SHA-256 of its SOP Instance UID, and 16 bytes of that of its
content; for the study stay 16 bytes of the SHA-256 of its UID, and its last revision. So an object that comes again is
still known, another one under its UID is still put into quarantine, and a late image begins the next revision.
"""

from __future__ import annotations

import hashlib

from spinescore.runtime.appliance.clock import Clock
from spinescore.runtime.appliance.seen import audit
from spinescore.runtime.appliance.store.index import Index

__all__ = ["FINISHED", "forget", "past_content", "past_revision"]

FINISHED = "('scored', 'delivered', 'dismissed')"  # in SQL: states of studies whose objects are not needed any more

_STUDIES, _BATCHES = 200, 5  # in one transaction, and at most so many transactions in a call
_DIGEST_BYTES = 16


def past_content(index: Index, sop_instance_uid: str, sha256: str) -> bool | None:
    """Return whether a past object with this UID had this content; None if the UID belongs to none."""
    row = index.one("SELECT content FROM past_objects WHERE instance = ?", _digest(sop_instance_uid))
    return None if row is None else bool(row["content"] == bytes.fromhex(sha256)[:_DIGEST_BYTES])


def past_revision(index: Index, study_uid: str) -> int:
    """Return the last revision of a past study; 0 if there is none of this UID."""
    row = index.one("SELECT revision FROM past_studies WHERE study = ?", _digest(study_uid))
    return 0 if row is None else int(row["revision"])


def forget(index: Index, clock: Clock, before_s: float) -> int:
    """Move studies that were finished before a time out of the index; return their number.

    A study stays as long as a file of it is in the spool, or a delivery of it is open or parked. The newest study and
    the newest association stay, so that their numbers are given to no other.
    """
    count = 0
    for _ in range(_BATCHES):
        with index.transaction():
            studies = index.rows(
                f"SELECT id, uid, revision FROM studies WHERE state IN {FINISHED} AND changed_s < ? AND "
                "id < (SELECT max(id) FROM studies) AND "
                "NOT EXISTS (SELECT 1 FROM objects o WHERE o.study = studies.id AND o.removed = 0) AND "
                "NOT EXISTS (SELECT 1 FROM results r WHERE r.study = studies.id AND (r.removed = 0 OR EXISTS "
                "(SELECT 1 FROM deliveries d WHERE d.input_key = r.input_key AND d.state NOT IN "
                "('sent', 'committed', 'cancelled', 'dismissed')))) LIMIT ?", before_s, _STUDIES,
            )  # fmt: skip
            for study in studies:
                _forget_study(index, study["id"], study["uid"], study["revision"])
            others = index.change(
                "DELETE FROM objects WHERE study IS NULL AND removed = 1 AND received_s < ?", before_s
            )
            if studies or others:
                audit.note(index, clock, "forgotten", studies=[study["id"] for study in studies], other_objects=others)
        count += len(studies)
        if len(studies) < _STUDIES:
            break
    return count


def _forget_study(index: Index, study: int, uid: str, revision: int) -> None:
    objects = index.rows("SELECT sop_instance_uid, sha256 FROM objects WHERE study = ?", study)
    for one in objects:
        index.change("INSERT OR REPLACE INTO past_objects VALUES (?, ?)", _digest(one["sop_instance_uid"]),
                     bytes.fromhex(one["sha256"])[:_DIGEST_BYTES])  # fmt: skip
    index.change("INSERT OR REPLACE INTO past_studies VALUES (?, ?)", _digest(uid), revision)
    for table in ("deliveries", "summaries"):
        index.change(f"DELETE FROM {table} WHERE input_key IN (SELECT input_key FROM results WHERE study = ?)", study)
    for table in ("results", "objects", "reviews"):
        index.change(f"DELETE FROM {table} WHERE study = ?", study)
    index.change("DELETE FROM studies WHERE id = ?", study)


def _digest(uid: str) -> bytes:
    return hashlib.sha256(uid.encode()).digest()[:_DIGEST_BYTES]
