"""Verdicts of readers on a study's results: accepted, corrected, or that a region cannot be read, or can be again.

A correction begins a revision, which is scored with it and with the corrections of the revision that the reader saw
(its `base`). A radiograph that comes later begins a revision without corrections. Each verdict is a row of the index;
it is on the disk before the reader is told that it was taken. A version of this program that knows no corrections would
score without them: while one waits to be scored, earlier versions refuse the index.
"""

from __future__ import annotations

import json
import sqlite3
from typing import Literal

from spinescore.runtime.appliance.clock import Clock
from spinescore.runtime.appliance.fault import Fault
from spinescore.runtime.appliance.seen import audit
from spinescore.runtime.appliance.store.counts import add
from spinescore.runtime.appliance.store.index import Index
from spinescore.runtime.appliance.store.studies import cancel_deliveries, settle
from spinescore.runtime.appliance.store.summaries import LATEST
from spinescore.runtime.documents import document_of, read
from spinescore.runtime.scoring.correction import Correction

__all__ = [
    "VERDICTS",
    "Conflict",
    "Verdict",
    "accept",
    "corrections_left",
    "corrections_of",
    "latest",
    "note_scored",
    "take_correction",
]

Verdict = Literal["accepted", "corrected", "unreadable", "readable"]
VERDICTS: tuple[Verdict, ...] = ("accepted", "corrected", "unreadable", "readable")

_AGAIN = "look at the study again before you correct it"


class Conflict(Exception):
    """A verdict on results that are not the study's newest ones, or are not there."""

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence)
        self.fault = Fault("review-conflict", sentence)


def latest(index: Index, study: int, revision: int) -> sqlite3.Row:
    """Return the study's newest results, if they are of this revision and a reader may judge them now.

    A study whose corrected revision could not be scored may be corrected anew. Raises Conflict.
    """
    row = index.one("SELECT * FROM studies WHERE id = ?", study)
    results: sqlite3.Row | None = index.one(
        f"SELECT * FROM results WHERE input_key = {LATEST.format(study='?')}", study
    )
    if row["state"] in ("collecting", "due", "scoring"):
        raise Conflict(f"study {study} is {row['state']}, and gets a new revision; {_AGAIN}")
    if results is None or results["revision"] != revision:
        newest = "none yet" if results is None else f"revision {results['revision']}"
        raise Conflict(
            f"the newest results of study {study} are not those of revision {revision} but {newest}; {_AGAIN}"
        )
    if results["removed"]:
        raise Conflict(f"the results of study {study} were removed after their time; have the study sent again")
    if row["input_key"] != results["input_key"]:
        failed = index.one("SELECT 1 FROM reviews WHERE study = ? AND revision = ? AND correction IS NOT NULL",
                           study, row["revision"])  # fmt: skip
        if failed is None or row["code"] == "object-missing":
            text = f"revision {row['revision']} of study {study} waits ({row['code']}): {row['message']}"
            raise Conflict(f"{text}; after that, {_AGAIN}")
    return results


def take_correction(index: Index, clock: Clock, study: int, revision: int, correction: Correction) -> int:
    """Begin a revision with a correction of the newest one, and return its number. Raises Conflict."""
    regions = correction.unreadable or correction.readable
    verdict: Verdict = "unreadable" if correction.unreadable else "readable" if regions else "corrected"
    now = clock.now()
    with index.transaction():
        latest(index, study, revision)
        index.change(
            "UPDATE studies SET revision = revision + 1, state = 'due', code = NULL, message = NULL, input_key = NULL, "
            "attempts = 0, interruptions = 0, last_s = ?, changed_s = ? WHERE id = ?", now, now, study,
        )  # fmt: skip
        cancel_deliveries(index, now, study)
        new = int(index.one("SELECT revision FROM studies WHERE id = ?", study)["revision"])
        index.insert("reviews", study=study, revision=new, base=revision, verdict=verdict, reader=correction.reader,
                     at=correction.at, comment=correction.comment,
                     correction=json.dumps(document_of(correction)))  # fmt: skip
        index.mark_unfinished(True)
        add(index, "reviews", verdict)
        points = sum(map(len, correction.points.values()))
        audit.note(index, clock, verdict, study=study, revision=new, reader=correction.reader, points=points or None,
                   grades=len(correction.grades) or None, regions=len(regions) or None)  # fmt: skip
    return new


def note_scored(index: Index) -> None:
    """Let earlier versions open the index again if no correction waits to be scored. Called now and then."""
    if index.is_unfinished:
        with index.transaction():
            waiting = index.one(
                "SELECT 1 FROM reviews v JOIN studies s ON s.id = v.study AND s.revision = v.revision WHERE "
                "v.correction IS NOT NULL AND s.state != 'dismissed' AND "
                "NOT EXISTS (SELECT 1 FROM results r WHERE r.input_key = s.input_key)"
            )
            index.mark_unfinished(waiting is not None)


def accept(index: Index, clock: Clock, study: int, revision: int, reader: str, comment: str | None, at: str) -> None:
    """Keep that a reader accepts the newest results; those that waited for that are delivered. Raises Conflict."""
    now = clock.now()
    with index.transaction():
        key = latest(index, study, revision)["input_key"]
        if index.one("SELECT 1 FROM studies WHERE id = ? AND input_key = ?", study, key) is None:
            raise Conflict(f"study {study} has a correction that could not be scored; {_AGAIN}")
        index.insert("reviews", study=study, revision=revision, base=revision, verdict="accepted", reader=reader,
                     at=at, comment=comment)  # fmt: skip
        held = index.change("UPDATE deliveries SET state = 'waiting', first_s = ?, next_s = ?, changed_s = ? WHERE "
                            "input_key = ? AND state = 'held'", now, now, now, key)  # fmt: skip
        if held:
            settle(index, clock, study)
        add(index, "reviews", "accepted")
        audit.note(index, clock, "accepted", study=study, revision=revision, reader=reader)


def corrections_of(index: Index, study: int, revision: int) -> tuple[Correction, ...]:
    """Return the corrections that a revision is scored with, the earliest first."""
    corrections: list[Correction] = []
    while True:
        row = index.one("SELECT base, correction FROM reviews WHERE study = ? AND revision = ? AND correction IS NOT "
                        "NULL", study, revision)  # fmt: skip
        if row is None:
            return tuple(reversed(corrections))
        corrections.append(read(Correction, json.loads(row["correction"])))
        revision = row["base"]


def corrections_left(index: Index, study: int, revision: int) -> tuple[Correction, ...]:
    """Return the corrections of the revision before that do not count in one that a later radiograph began."""
    row = index.one("SELECT max(revision) AS revision FROM reviews WHERE study = ? AND correction IS NOT NULL", study)
    if row["revision"] is None or row["revision"] >= revision:
        return ()
    return corrections_of(index, study, row["revision"])
