"""A study's state, and how received objects change it. Everything here is one row of the index, changed at once.

    collecting -> due -> scoring -> scored -> delivering -> delivered        parked(code) from any of them
                                                                             parked -> dismissed

- collecting: objects arrive. due: it may be scored. scoring: the worker has it.
- scored: its results are kept, and no destination gets them, or none before a reader has accepted them. delivering:
  some are not delivered yet.
- parked: something has to be done by hand (`spinescore study retry`, `spinescore study deliver`).
- dismissed: a person has given up what was parked or waited (`spinescore study dismiss`).

A radiograph that arrives when a study is beyond `due` begins a new revision: the study collects again, and deliveries
of the earlier revision that have not begun are cancelled. So does one that arrives before a reader's correction was
scored, as the reader did not see it. A correction (`reviews`) begins a revision that is due at once.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterable

from spinescore.runtime.appliance.clock import Clock
from spinescore.runtime.appliance.configuration.config import StudyTimes
from spinescore.runtime.appliance.fault import Fault
from spinescore.runtime.appliance.seen import audit
from spinescore.runtime.appliance.store.counts import add
from spinescore.runtime.appliance.store.index import Index
from spinescore.runtime.appliance.store.objects import Identity
from spinescore.runtime.appliance.store.past import past_revision
from spinescore.runtime.study import REGIONS

__all__ = ["STATES", "advance", "cancel_deliveries", "change_state", "input_key", "is_due", "note_object", "park",
           "settle"]  # fmt: skip

STATES = ("collecting", "due", "scoring", "scored", "delivering", "delivered", "parked", "dismissed")


def note_object(
    index: Index, clock: Clock, identity: Identity, sha256: str, size: int, association: int | None
) -> int | None:
    """Note a stored object and its study within a transaction; return the study's number.

    An object that is no radiograph changes no study: results of this program that come back would otherwise have
    their study scored again without end.
    """
    now, at = clock.now(), clock.date().isoformat(timespec="seconds")
    is_new = index.one("SELECT 1 FROM objects WHERE sha256 = ?", sha256) is None
    study = _note_study(index, identity.study_uid, now, at, is_new=is_new) if identity.code is None else None
    if not index.change("UPDATE objects SET removed = 0 WHERE sha256 = ?", sha256):
        index.insert(
            "objects", sha256=sha256, sop_instance_uid=identity.sop_instance_uid, sop_class_uid=identity.sop_class_uid,
            study_uid=identity.study_uid, region=identity.region, bytes=size, code=identity.code, study=study,
            association=association, received_s=now, received_at=at,
        )  # fmt: skip
        add(index, "received_instances")
        if identity.code is not None:
            add(index, "not_radiographs", identity.code)
    return study


def _note_study(index: Index, uid: str, now: float, at: str, *, is_new: bool) -> int:
    row = index.one("SELECT id, state, code, revision FROM studies WHERE uid = ?", uid)
    if row is None:
        return index.insert("studies", uid=uid, revision=past_revision(index, uid) + 1, state="collecting", attempts=0,
                            interruptions=0, last_s=now, changed_s=now, received_at=at)  # fmt: skip
    number = int(row["id"])
    begun = row["state"] not in ("collecting", "due") and row["code"] not in ("object-missing", "object-damaged")
    begun = begun or (is_new and _is_corrected(index, number, row["revision"]))
    index.change(
        "UPDATE studies SET revision = revision + ?, state = 'collecting', code = NULL, message = NULL, "
        "input_key = NULL, attempts = 0, interruptions = 0, last_s = ?, changed_s = ? WHERE id = ?",
        int(begun), now, now, number,
    )  # fmt: skip
    if begun:
        cancel_deliveries(index, now, number)
    return number


def _is_corrected(index: Index, study: int, revision: int) -> bool:
    """Return whether a reader's correction began a revision."""
    query = "SELECT 1 FROM reviews WHERE study = ? AND revision = ? AND correction IS NOT NULL"
    return index.one(query, study, revision) is not None


def cancel_deliveries(index: Index, now: float, study: int) -> None:
    """Cancel the deliveries of a study that have not begun, within a transaction: a new revision takes their place."""
    index.change(
        "UPDATE deliveries SET state = 'cancelled', changed_s = ? WHERE state IN ('waiting', 'parked', 'held') "
        "AND unclear = 0 AND input_key IN (SELECT input_key FROM results WHERE study = ?)", now, study,
    )  # fmt: skip


def advance(index: Index, clock: Clock, times: StudyTimes) -> None:
    """Make every collecting study due that need not wait any longer."""
    for row in index.rows("SELECT * FROM studies WHERE state = 'collecting'"):
        if not is_due(index, row, times, clock.now()):
            continue
        with index.transaction():  # unless an object arrived meanwhile
            index.change("UPDATE studies SET state = 'due', changed_s = ? WHERE id = ? AND state = 'collecting' "
                         "AND last_s = ?", clock.now(), row["id"], row["last_s"])  # fmt: skip


def is_due(index: Index, study: sqlite3.Row, times: StudyTimes, now: float) -> bool:
    """Return whether a collecting study may be scored.

    An open association that delivered to it holds it, at most `hold_s` after the study's last object. Otherwise it is
    due when both regions are there and nothing came for `quiet_complete_s`, or when nothing came for `quiet_s` from
    any association that delivered to it.
    """
    associations = index.rows(
        "SELECT last_s, closed_s FROM associations WHERE id IN (SELECT association FROM objects WHERE study = ?)",
        study["id"],
    )
    since_object_s = now - study["last_s"]
    if any(row["closed_s"] is None for row in associations) and since_object_s < times.hold_s:
        return False
    latest_s = max([study["last_s"], *(max(row["last_s"], row["closed_s"] or 0.0) for row in associations)])
    if since_object_s >= times.hold_s or now - latest_s >= times.quiet_s:
        return True
    regions = index.rows("SELECT DISTINCT region FROM objects WHERE study = ? AND region IS NOT NULL", study["id"])
    return len(regions) == len(REGIONS) and now - latest_s >= times.quiet_complete_s


def input_key(bundle_sha256: str, settings: object, objects: Iterable[tuple[str, str]]) -> str:
    """Return the name of a study's scoring: the hash of all that the result depends on.

    `objects` are pairs of SOP Instance UID and content hash, in any order.
    """
    document = {"bundle": bundle_sha256, "settings": settings, "objects": sorted(map(list, objects))}
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def change_state(index: Index, clock: Clock, study: int, state: str) -> None:
    index.change("UPDATE studies SET state = ?, code = NULL, message = NULL, changed_s = ? WHERE id = ?",
                 state, clock.now(), study)  # fmt: skip


def park(index: Index, clock: Clock, study: int, fault: Fault) -> None:
    """Park a study within a transaction: it waits for a person."""
    index.change("UPDATE studies SET state = 'parked', code = ?, message = ?, changed_s = ? WHERE id = ?",
                 fault.code, fault.message, clock.now(), study)  # fmt: skip
    index.note_fault(clock.date(), fault, study)
    audit.note(index, clock, "parked", study=study, code=fault.code)


def settle(index: Index, clock: Clock, study: int) -> None:
    """Set the state of a study whose results are there, within a transaction, from the states of its deliveries."""
    row = index.one("SELECT * FROM studies WHERE id = ?", study)
    if row["state"] == "collecting":
        return
    deliveries = index.rows(
        "SELECT d.* FROM deliveries d JOIN results r USING (input_key) WHERE r.study = ? AND r.input_key = ? "
        "AND d.state != 'cancelled' ORDER BY d.id", study, row["input_key"],
    )  # fmt: skip
    parked = [one for one in deliveries if one["state"] == "parked"]
    if any(one["state"] in ("waiting", "sending", "committing") for one in deliveries):
        state = "delivering"
    elif any(one["state"] == "held" for one in deliveries):
        state = "scored"
    elif parked:
        if row["state"] != "parked":
            park(index, clock, study, Fault(parked[0]["code"], parked[0]["message"]))
        return
    elif any(one["state"] == "dismissed" for one in deliveries):
        state = "dismissed"
    else:
        state = "delivered" if deliveries else "scored"
    if state != row["state"]:
        change_state(index, clock, study, state)
