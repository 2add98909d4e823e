"""Deliveries: each result file to each destination once, tried again until it is there or a person has to look.

    waiting -> sending -> sent        or committing, for archives that are asked to confirm it (`commitment`)
                   |-> waiting        the destination is not reachable; tried again after 5 s to 15 min, for 7 days
                   |-> parked         it refused the file, or was not reachable for 7 days
    waiting -> cancelled              a later revision of the study takes the place of this one
    waiting, parked -> dismissed      a person has given it up (`spinescore study dismiss`)

A row that was `sending` when its process ended has an unclear outcome: the destination is asked before anything is
sent again, as a second copy is not harmless in every archive. A destination that cannot answer that for a day gets the
file again. The list of a result set (`set.json`) goes last.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from spinescore.runtime.appliance.clock import Clock
from spinescore.runtime.appliance.fault import Denied, Fault, Unsent
from spinescore.runtime.appliance.seen import audit
from spinescore.runtime.appliance.store.counts import add, observe
from spinescore.runtime.appliance.store.index import Index
from spinescore.runtime.appliance.store.places import Places
from spinescore.runtime.appliance.store.studies import settle
from spinescore.runtime.files import file_sha256
from spinescore.runtime.text import brief

__all__ = ["DELIVERIES", "EXPIRES_S", "SENT", "Deliverer", "Destination", "Outcome", "Parcel", "conclude", "fault_of",
           "is_superseded", "parcel_of", "reason_of"]  # fmt: skip

_FIRST_WAIT_S, _LONGEST_WAIT_S = 5.0, 900.0
_NOTE_AGAIN_S = 3600.0
_ASKED_S = 86400.0  # for so long a destination is asked that cannot say whether it has a file
DELIVERIES = (  # rows for `parcel_of`
    "SELECT d.*, s.id AS study, s.uid, s.last_s, r.revision AS of_revision, r.made_s FROM deliveries d "
    "JOIN results r USING (input_key) JOIN studies s ON s.id = r.study"
)
EXPIRES_S = 7 * 86400.0


@dataclass(frozen=True)
class Parcel:
    """One result file to deliver. `sop_instance_uid` is None for a file that is no DICOM."""

    path: Path
    kind: str
    sha256: str
    sop_instance_uid: str | None
    study_instance_uid: str
    revision: int


@dataclass(frozen=True)
class Outcome:
    """The outcome of one attempt. `message` gives the reason, without patient data.

    `cancelled`: the destination does not have the file, and a later revision has taken its place.
    """

    kind: Literal["sent", "refused", "later", "cancelled"]
    message: str = ""


SENT = Outcome("sent")


class Destination:
    """A place that gets results. `send` and `holds` may raise anything, which counts as `later`.

    After `Unsent` the place certainly has no more than before; after anything else the outcome is unclear.
    """

    name: str

    def send(self, parcel: Parcel) -> Outcome:
        """Send a file: `sent` if it is stored there, `refused` if it never will be, `later` if it may be later."""
        raise NotImplementedError

    def holds(self, parcel: Parcel) -> bool | None:
        """Return whether the destination has the file already; None if it cannot say now."""
        raise NotImplementedError

    def clear(self) -> None:
        """Remove what an earlier process left there. Called once, before anything is sent. By default nothing."""

    def rest(self) -> None:
        """Nothing is due now: let go of what need not be held meanwhile. By default nothing is held."""


class Deliverer:
    """Delivers to one destination, one file after the other. Use it in one thread."""

    def __init__(
        self, index: Index, clock: Clock, places: Places, destination: Destination, *, confirms: bool = False
    ) -> None:
        """With `confirms` the destination is asked later whether it keeps each instance (`commitment`)."""
        self._confirms = confirms
        self._index, self._clock, self._places, self._destination = index, clock, places, destination
        self._unreached = 0  # attempts since the destination was there
        self._held_until_s = 0.0  # until then it is left alone
        self._noted_s: dict[str, float] = {}  # when a fault of the destination was last noted, by its code
        self._is_open = True  # whether a row may be `sending` though no attempt is under way

    def recover(self) -> None:
        """Note that the outcome of a delivery that was under way is unclear.

        What waits for a confirmation is `sent` if the destination is not asked to confirm any more.
        """
        with self._index.transaction():
            self._index.change("UPDATE deliveries SET state = 'waiting', unclear = 1 WHERE destination = ? AND "
                               "state = 'sending'", self._destination.name)  # fmt: skip
            if not self._confirms:
                self._end_confirmations()
        self._is_open = False

    def _end_confirmations(self) -> None:
        rows = self._index.rows(f"{DELIVERIES} WHERE d.destination = ? AND d.state = 'committing'",
                                self._destination.name)  # fmt: skip
        for row in rows:
            self._index.change("UPDATE deliveries SET state = 'sent' WHERE id = ?", row["id"])
            if not is_superseded(self._index, row):
                settle(self._index, self._clock, row["study"])

    def step(self) -> bool:
        """Deliver the next file. Return False if there is none, or the destination has to be left alone for now.

        Raises `IndexFull` if the index cannot be written. The outcome is unclear then, and is asked for.
        """
        if self._is_open:
            self.recover()
        row = self._claim()
        if row is None:
            return False
        self._is_open = True
        outcome, unclear, fault = self._attempt(row)
        self._finish(row, outcome, unclear)
        if fault is not None:
            self._note(fault)
        return True

    def _attempt(self, row: sqlite3.Row) -> tuple[Outcome, int, Fault | None]:
        """Return the outcome, whether the destination may have the file, and the fault to note."""
        name, unclear = self._destination.name, 1
        before, self._unreached = self._unreached, 0
        try:
            outcome = self._try(row, parcel_of(self._places, row))
            unclear = int(outcome.kind == "later")
        except Unsent as error:
            self._unreached = before + 1
            # Results that were superseded meanwhile are asked for next, and cancelled.
            unclear = int(row["unclear"] or is_superseded(self._index, row))
            outcome = Outcome("later", str(error))
            if isinstance(error, Denied):
                return outcome, unclear, Fault("credential-refused", f"the destination {name}: {error}")
        except Exception as error:  # a destination is a network: nothing that it does may end the service
            outcome = Outcome("later", reason_of(error))
        if outcome.kind != "later" or not (row["attempts"] or before):
            return outcome, unclear, None
        text = f"the destination {name}: {outcome.message}; it is tried again"
        return outcome, unclear, Fault("destination-unreachable", text)

    def _note(self, fault: Fault) -> None:
        """Note a fault of the destination for `status`, not at each attempt: all is delivered when it is mended."""
        now = self._clock.now()
        if now - self._noted_s.get(fault.code, -_NOTE_AGAIN_S) >= _NOTE_AGAIN_S:
            with self._index.transaction():
                self._index.note_fault(self._clock.date(), fault)
            self._noted_s[fault.code] = now

    def _claim(self) -> sqlite3.Row | None:
        """Return the row to deliver now, which is `sending` then."""
        now = self._clock.now()
        if now < self._held_until_s:
            return None
        row: sqlite3.Row | None = self._index.one(
            f"{DELIVERIES} WHERE d.destination = ? AND d.state = 'waiting' AND "
            "d.next_s <= ? AND (d.kind != 'set' OR NOT EXISTS (SELECT 1 FROM deliveries o WHERE o.input_key = "
            "d.input_key AND o.destination = d.destination AND o.kind != 'set' AND o.state IN ('waiting', 'sending'))) "
            "ORDER BY d.next_s, d.id LIMIT 1", self._destination.name, now,
        )  # fmt: skip
        if row is None:
            return None
        with self._index.transaction():
            claimed = self._index.change(
                "UPDATE deliveries SET state = 'sending', attempts = attempts + 1, changed_s = ? WHERE id = ? AND "
                "state = 'waiting'", now, row["id"],
            )  # fmt: skip
        return row if claimed else None

    def _try(self, row: sqlite3.Row, parcel: Parcel) -> Outcome:
        try:
            if file_sha256(parcel.path) != parcel.sha256:
                return Outcome("refused", "the file is damaged in the spool")
        except FileNotFoundError:
            return Outcome("refused", "the file is not in the spool any more")
        if row["unclear"]:
            is_held = self._destination.holds(parcel)
            if is_held is None and self._clock.now() - row["first_s"] < _ASKED_S:
                return Outcome("later", "the destination cannot say whether it has the file")
            if is_held:
                return SENT
            if is_superseded(self._index, row):
                return Outcome("cancelled")
        return self._destination.send(parcel)

    def _finish(self, row: sqlite3.Row, outcome: Outcome, unclear: int) -> None:
        now, name = self._clock.now(), self._destination.name
        state, next_s = str(outcome.kind), now
        fault: Fault | None = None
        if outcome.kind == "refused":
            fault = fault_of("delivery-refused", f"{name} refused {row['file']}: {outcome.message}")
        elif outcome.kind == "later":
            state, next_s = "waiting", now + _wait_s(row["attempts"])
            if now - row["first_s"] > EXPIRES_S:
                fault = fault_of("delivery-expired", f"{name} was not reachable for 7 days ({outcome.message})")
        elif outcome.kind == "sent" and self._confirms and row["sop_instance_uid"]:
            state = "committing"
        if fault is not None:
            state = "parked"
        with self._index.transaction():
            self._index.change(
                "UPDATE deliveries SET state = ?, unclear = ?, next_s = ?, code = ?, message = ?, changed_s = ? "
                "WHERE id = ?", state, unclear, next_s, fault and fault.code,
                fault.message if fault else outcome.message, now, row["id"],
            )  # fmt: skip
            end = "delivered" if outcome.kind == "sent" else None
            conclude(self._index, self._clock, row, outcome.kind, fault, end, outcome.message)
        self._is_open = False
        # The file's own attempts do not count: one that the destination cannot take must not hold up the others.
        self._held_until_s = now + _wait_s(max(0, self._unreached - 1)) if outcome.kind == "later" else 0.0


def _wait_s(attempts: int) -> float:
    return min(_LONGEST_WAIT_S, _FIRST_WAIT_S * (1 << min(attempts, 10)))


def parcel_of(places: Places, row: sqlite3.Row) -> Parcel:
    """Return the file that a row of the deliveries is about, with its study's UID and revision."""
    path = places.results / row["input_key"] / row["file"]
    return Parcel(path, row["kind"], row["sha256"], row["sop_instance_uid"], row["uid"], row["of_revision"])


def conclude(
    index: Index, clock: Clock, row: sqlite3.Row, result: str, fault: Fault | None, end: str | None,
    reason: str | None = None,
) -> None:  # fmt: skip
    """Count the result of a delivery within a transaction, and note what it means for its study.

    `end` is the event of its end, if that was reached. It is timed, unless it was delivered again by hand.
    """
    add(index, "deliveries", row["destination"], fault.code.removeprefix("delivery-") if fault else result)
    superseded = is_superseded(index, row)
    if end and not fault and row["first_s"] <= row["made_s"] and not superseded:
        observe(index, f"received_to_{end}_seconds", clock.now() - row["last_s"], row["destination"])
    if not superseded:
        settle(index, clock, row["study"])
    if event := fault.code if fault else end:
        audit.note(index, clock, event, study=row["study"], destination=row["destination"], file=row["file"],
                   input_key=row["input_key"], sha256=row["sha256"], sop_instance_uid=row["sop_instance_uid"],
                   reason=reason if fault else None)  # fmt: skip


def is_superseded(index: Index, row: sqlite3.Row) -> bool:
    """Return whether a later revision of the study has taken the place of a delivery's results."""
    query = "SELECT 1 FROM studies WHERE id = ? AND input_key = ?"
    return index.one(query, row["study"], row["input_key"]) is None


def reason_of(error: Exception) -> str:
    """Return the reason that an error gives; those of our own are sentences already."""
    return str(error) if type(error) in (ConnectionError, Unsent, Denied) else brief(error)


def fault_of(code: str, text: str) -> Fault:
    """Return the fault of a delivery that is parked."""
    return Fault(code, f"{text}; correct that, then call spinescore study deliver")
