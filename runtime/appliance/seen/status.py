"""The state of the appliance as an operator sees it, read from the index, and what an operator can do with a study."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from typing import Any

from spinescore.runtime.appliance.clock import Clock
from spinescore.runtime.appliance.seen import audit
from spinescore.runtime.appliance.seen.ready import read_alive, why_not_ready
from spinescore.runtime.appliance.store.counts import add, counters, tally
from spinescore.runtime.appliance.store.index import Index
from spinescore.runtime.appliance.store.places import Places, is_running
from spinescore.runtime.appliance.store.quarantine import quarantine_bytes
from spinescore.runtime.appliance.store.studies import STATES, change_state, settle
from spinescore.runtime.appliance.store.summaries import LATEST
from spinescore.runtime.codes import CODES
from spinescore.runtime.text import number_of

__all__ = ["SCHEMA", "deliver_again", "dismiss", "find_study", "list_studies", "oldest_waiting_s", "parked_by_code",
           "retry", "show_study", "status", "studies_by_state"]  # fmt: skip

SCHEMA = "spinescore.appliance-status/1"

_LAST_FAULTS = 10
_WAITING = "('collecting', 'due', 'scoring', 'delivering')"
_BY = "spinescore"  # who made a revision, if no reader did
_STUDIES = (  # with the summary of their newest results, and the last verdict on their revision
    "SELECT s.*, u.study_date, u.total, u.findings, (SELECT verdict FROM reviews v WHERE v.study = s.id AND v.revision "
    "= s.revision ORDER BY v.id DESC LIMIT 1) AS reviewed, EXISTS (SELECT 1 FROM summaries p JOIN results q "
    "USING (input_key) WHERE p.patient_key = u.patient_key AND q.study != s.id AND q.scored = 1 AND q.removed = 0 "
    f"AND q.input_key = {LATEST.format(study='q.study')} AND (p.study_date, q.study) < (u.study_date, s.id)) "
    f"AS has_prior FROM studies s LEFT JOIN summaries u ON u.input_key = {LATEST.format(study='s.id')}"
)


def status(places: Places, index: Index, clock: Clock) -> dict[str, Any]:
    """Return the whole state as a JSON document (`spinescore.appliance-status/1`), without patient data."""
    faults = index.rows("SELECT * FROM faults ORDER BY id DESC LIMIT ?", _LAST_FAULTS)
    running = is_running(places)
    alive = read_alive(places) if running else None
    reasons = why_not_ready(places, index, clock) if running else ["the service does not run; start it"]
    return {
        "schema": SCHEMA,
        "running": running,
        "ready": not reasons,
        "not_ready": reasons,
        "worker": dict(alive.worker) if alive else {"state": "starting" if running else "not running"},
        "studies": studies_by_state(index),
        "parked": parked_by_code(index),
        "oldest_waiting_s": oldest_waiting_s(index, clock),
        "received_objects": sum(map(int, counters(index, "received_instances").values())),
        "not_radiographs": {code: int(count) for (code,), count in counters(index, "not_radiographs").items()},
        "quarantined": index.one("SELECT count(*) AS n FROM quarantine")["n"],
        "quarantine_bytes": quarantine_bytes(places),
        "quarantine_removed": int(sum(counters(index, "quarantine_removed").values())),
        "destinations": _destinations(index),
        "free_bytes": places.free_bytes(),
        "reserve_bytes": places.reserve_bytes,
        "has_room": places.has_room(),
        "last_faults": [
            {"at": row["at"], "code": row["code"], "message": row["message"], "study": row["study"],
             "next_step": CODES[row["code"]].next_step} for row in faults
        ],
    }  # fmt: skip


def studies_by_state(index: Index) -> dict[str, int]:
    """Return the number of studies in each state, without those that have left the index."""
    counts = tally(index, "studies:")
    return {state: counts.get(state, 0) for state in STATES}


def parked_by_code(index: Index) -> dict[str, int]:
    rows = index.rows("SELECT code, count(*) AS n FROM studies WHERE state = 'parked' GROUP BY code")
    return {row["code"]: row["n"] for row in rows}


def oldest_waiting_s(index: Index, clock: Clock) -> float | None:
    """Return the seconds since the last object of the oldest study that is not finished; None if all are."""
    oldest = index.one(f"SELECT min(last_s) AS s FROM studies WHERE state IN {_WAITING}")["s"]
    return None if oldest is None else round(max(0.0, clock.now() - oldest), 1)


def _destinations(index: Index) -> dict[str, dict[str, int]]:
    names = [row["kind"] for row in index.rows("SELECT DISTINCT kind FROM tallies WHERE kind LIKE 'deliveries:%'")]
    counts = {name.partition(":")[2]: tally(index, name) for name in names}
    return {name: of_state for name, of_state in counts.items() if of_state}


def list_studies(
    index: Index,
    state: str | None = None,
    *,
    since: str | None = None,
    before: str | None = None,
    below: int | None = None,
    most: int = -1,
) -> list[dict[str, Any]]:
    """Return the studies, the newest first, all or `most` of them; those of a state, or `below` a number.

    They came at `since` or later, and earlier than `before`: times as the index has them, in UTC, in ISO 8601.
    """
    rows = index.rows(
        f"{_STUDIES} WHERE (?1 IS NULL OR s.state = ?1) AND (?2 IS NULL OR s.received_at >= ?2) AND "
        "(?3 IS NULL OR s.received_at < ?3) AND (?4 IS NULL OR s.id < ?4) ORDER BY s.id DESC LIMIT ?5",
        state, since, before, below, most,
    )  # fmt: skip
    return [_study(row) for row in rows]


def _study(row: sqlite3.Row) -> dict[str, Any]:
    return {"study": row["id"], "study_instance_uid": row["uid"], "state": row["state"], "revision": row["revision"],
            "code": row["code"], "message": row["message"], "received_at": row["received_at"],
            "study_date": row["study_date"], "total": json.loads(row["total"] or "null"),
            "findings": json.loads(row["findings"] or "[]"), "reviewed": row["reviewed"],
            "has_prior": bool(row["has_prior"])}  # fmt: skip


def find_study(index: Index, name: str) -> int | None:
    """Return the number of a study that is named by its number or its Study Instance UID; None if there is none."""
    row = index.one("SELECT id FROM studies WHERE uid = ?", name)
    if row is None and name.isascii() and name.isdecimal():
        row = index.one("SELECT id FROM studies WHERE id = ?", int(name[:18]))
    return None if row is None else int(row["id"])


def show_study(index: Index, study: int) -> dict[str, Any]:
    objects = index.rows("SELECT * FROM objects WHERE study = ? ORDER BY received_s", study)
    results = index.rows("SELECT * FROM results WHERE study = ? ORDER BY revision, made_s", study)
    deliveries = index.rows("SELECT d.* FROM deliveries d JOIN results r USING (input_key) WHERE r.study = ? "
                            "ORDER BY d.id", study)  # fmt: skip
    names = {
        "objects": (objects, ("sop_instance_uid", "sha256", "region", "bytes", "received_at", "removed")),
        "results": (results, ("input_key", "revision", "scored", "code", "made_at", "removed")),
        "deliveries": (deliveries, ("input_key", "file", "destination", "state", "attempts", "code", "message")),
    }
    parts = {name: [{key: row[key] for key in keys} for row in rows] for name, (rows, keys) in names.items()}
    one = _study(index.one(f"{_STUDIES} WHERE s.id = ?", study))
    return {**one, **parts, "revisions": _revisions(index, study)}


def _revisions(index: Index, study: int) -> list[dict[str, Any]]:
    """Return the revisions that were scored, and those that wait with a correction.

    `by` is the reader whose correction began the revision, or this program; `unreadable` and `readable` are the regions
    that the correction says that of. `reader` and `comment` are those of its last verdict.
    """
    results = {row["revision"]: row for row in index.rows(
        "SELECT r.*, u.total FROM results r LEFT JOIN summaries u USING (input_key) WHERE r.study = ? "
        "ORDER BY r.revision, r.made_s", study)}  # fmt: skip
    makers, last = dict[int, sqlite3.Row](), dict[int, sqlite3.Row]()
    for row in index.rows("SELECT * FROM reviews WHERE study = ? ORDER BY id", study):
        last[row["revision"]] = row
        if row["correction"] is not None:
            makers[row["revision"]] = row
    revisions = []
    for number in sorted({*results, *makers}):
        result, verdict, maker = results.get(number), last.get(number), makers.get(number)
        correction = json.loads(maker["correction"]) if maker else {}
        revisions.append({
            "revision": number,
            "made_at": result and result["made_at"],
            "by": maker["reader"] if maker else _BY,
            "unreadable": correction.get("unreadable", []),
            "readable": correction.get("readable", []),
            "verdict": verdict and verdict["verdict"],
            "reader": verdict and verdict["reader"],
            "comment": verdict and verdict["comment"],
            "total": None if result is None else json.loads(result["total"] or "null"),
            "input_key": result and result["input_key"],
        })  # fmt: skip
    return revisions


def retry(index: Index, clock: Clock, study: int, *, user: str | None = None) -> str:
    """Have a parked study scored again, and return a sentence on it. Results that are there are not made again.

    `user` is named in the audit log; without it the user of this process is.
    """
    with index.transaction():
        row = index.one("SELECT * FROM studies WHERE id = ?", study)
        if row["state"] not in ("parked", "dismissed"):
            return f"study {study} is {row['state']}, not parked; nothing was changed"
        if index.one("SELECT 1 FROM results WHERE input_key = ?", row["input_key"]) is not None:
            return f"study {study} has its results; call spinescore study deliver {study}"
        index.change("UPDATE studies SET attempts = 0, interruptions = 0 WHERE id = ?", study)
        change_state(index, clock, study, "due")
        audit.note(index, clock, "retried", study=study, user=user or audit.operator())
    return f"study {study} is due again"


def deliver_again(
    index: Index,
    clock: Clock,
    study: int,
    destination: str | None = None,
    *,
    among: Iterable[str] | None = None,
    user: str | None = None,
) -> str:
    """Have the results of a study delivered again, and return a sentence on it.

    To all destinations, or those `among` the names: what is for one that the configuration does not have any more
    would wait for ever. A file that the destination may have is asked for first, so that no second copy is sent.
    `user` as in `retry`.
    """
    names = json.dumps(None if among is None else list(among))
    now = clock.now()
    with index.transaction():
        row = index.one("SELECT * FROM studies WHERE id = ?", study)
        count = index.change(
            "UPDATE deliveries SET state = 'waiting', unclear = max(unclear, attempts > 0), first_s = ?, "
            "next_s = ?, code = NULL, message = NULL, changed_s = ? WHERE input_key = ? AND state IN "
            "('parked', 'dismissed', 'sent', 'committed', 'waiting') AND sha256 != '' AND "
            "(? IS NULL OR destination = ?) AND (? = 'null' OR destination IN (SELECT value FROM json_each(?))) "
            "AND input_key NOT IN (SELECT input_key FROM results WHERE removed = 1)",
            now, now, now, row["input_key"], destination, destination, names, names,
        )  # fmt: skip
        if count:
            change_state(index, clock, study, "delivering")
            audit.note(index, clock, "delivered-again", study=study, destination=destination, files=count,
                       user=user or audit.operator())  # fmt: skip
    if not count:
        return f"study {study} is {row['state']} and has no results to deliver again now; nothing was changed"
    return f"{number_of(count, 'file')} of study {study} will be delivered again where missing"


def dismiss(index: Index, clock: Clock, study: int, destination: str | None = None, *, user: str | None = None) -> str:
    """Give up the deliveries of a study that wait or are parked, and return a sentence on it.

    Only those to `destination`, if it is given; the configuration need not have it any more. A parked study without
    such deliveries is given up as a whole. `study deliver` and `study retry` take up again what was given up. `user`
    is named in the audit log; without it the user of this process is.
    """
    now = clock.now()
    with index.transaction():
        row = index.one("SELECT * FROM studies WHERE id = ?", study)
        deliveries = index.rows(
            "SELECT * FROM deliveries WHERE input_key IN (SELECT input_key FROM results WHERE study = ?) AND "
            "state IN ('parked', 'waiting', 'committing') AND (? IS NULL OR destination = ?)",
            study, destination, destination,
        )  # fmt: skip
        for one in deliveries:
            index.change("UPDATE deliveries SET state = 'dismissed', changed_s = ? WHERE id = ?", now, one["id"])
            add(index, "deliveries", one["destination"], "dismissed")
        if any(one["input_key"] == row["input_key"] for one in deliveries):
            if row["state"] == "parked":  # perhaps with the code of another delivery, or not any more
                change_state(index, clock, study, "delivering")
            settle(index, clock, study)
        elif row["state"] == "parked" and destination is None:
            index.change("UPDATE studies SET state = 'dismissed', changed_s = ? WHERE id = ?", now, study)
        elif not deliveries:
            return f"study {study} is {row['state']} and has no delivery that waits or is parked; nothing was changed"
        audit.note(index, clock, "dismissed", study=study, destination=destination, files=len(deliveries),
                   user=user or audit.operator())  # fmt: skip
    what = f"the delivery of {number_of(len(deliveries), 'file')} of study {study}" if deliveries else f"study {study}"
    return f"{what} is dismissed; spinescore study show {study} shows what is left"
