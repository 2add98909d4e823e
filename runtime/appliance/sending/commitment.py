"""Storage Commitment (PS3.4, annex J): an archive is asked to confirm that it keeps what was sent to it.

    sending -> committing -> committed
                  |-> waiting     the archive does not have it: it is sent again
                  |-> parked      the archive will never keep it, or did not answer for 7 days

The archive answers with a report, on the association of the request, on a later one, or on one that it opens to the
node. A report counts if this spool made its transaction, however late it comes; but if it says that the archive does
not have a file, only if the file was sent before the request. Without a report the archive is asked again, in a new
transaction.
"""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import TYPE_CHECKING

from spinescore.runtime.appliance.clock import Clock
from spinescore.runtime.appliance.fault import Fault
from spinescore.runtime.appliance.sending.delivery import (
    DELIVERIES,
    EXPIRES_S,
    Outcome,
    Parcel,
    conclude,
    fault_of,
    parcel_of,
    reason_of,
)
from spinescore.runtime.appliance.store.counts import add
from spinescore.runtime.appliance.store.index import Index
from spinescore.runtime.appliance.store.places import Places

if TYPE_CHECKING:
    from pydicom import Dataset

__all__ = ["Ask", "Committer", "note_report"]

Ask = Callable[[Sequence[Parcel], str], Outcome]  # `sent`: the archive was asked in the transaction of this UID

_ASK_AGAIN_S = 3600.0
_UNREACHABLE_S = 60.0
_SOON_S, _LATEST_S = 30.0, 3600.0  # before an object that was not kept is sent, or asked for, again
_MOST = 64  # objects in one request
_NO_SUCH_OBJECT = 0x0112  # the failure reasons of PS3.3, table C.14-1a
_FOR_EVER = {0x0119: "its class and instance conflict", 0x0122: "it does not support the SOP class"}


class Committer:
    """Asks one archive to confirm what was sent to it. Use it in the thread of its deliveries."""

    def __init__(self, index: Index, clock: Clock, places: Places, destination: str, ask: Ask) -> None:
        self._index, self._clock, self._places = index, clock, places
        self._destination, self._ask = destination, ask

    def step(self) -> bool:
        """Ask for all that is due. Return False if there is nothing to ask for."""
        now = self._clock.now()
        rows = self._index.rows(
            f"{DELIVERIES} WHERE d.destination = ? AND d.state = 'committing' "
            "AND d.next_s <= ? ORDER BY d.id LIMIT ?", self._destination, now, _MOST,
        )  # fmt: skip
        if not rows:
            return False
        late = [row for row in rows if now - row["changed_s"] > EXPIRES_S]  # since it was sent
        for row in late:
            text = f"{self._destination} did not confirm {row['file']} for 7 days"
            _end(self._index, self._clock, row, fault_of("delivery-expired", text))
        asked = [row for row in rows if row not in late]
        if asked:
            self._ask_for(asked)
        return True

    def _ask_for(self, rows: Sequence[sqlite3.Row]) -> None:
        now, transaction = self._clock.now(), f"2.25.{uuid.uuid4().int}"
        with self._index.transaction():  # before the request: its report may come at once
            self._index.insert("commitments", transaction_uid=transaction, destination=self._destination, asked_s=now)
            for row in rows:
                self._index.change("UPDATE deliveries SET next_s = ? WHERE id = ?", now + _ASK_AGAIN_S, row["id"])
        try:
            outcome = self._ask([parcel_of(self._places, row) for row in rows], transaction)
        except Exception as error:  # an archive is a network: nothing that it does may end the service
            outcome = Outcome("later", reason_of(error))
        if outcome.kind == "sent":
            return
        for row in rows:
            if outcome.kind == "refused":
                text = f"{self._destination} was not asked to confirm {row['file']}: {outcome.message}"
                _end(self._index, self._clock, row, fault_of("delivery-refused", text))
            else:
                text = f"{self._destination} cannot be asked to confirm it: {outcome.message}"
                with self._index.transaction():
                    _again(self._index, row, "committing", now + _UNREACHABLE_S, text)


def note_report(places: Places, clock: Clock, report: Dataset) -> None:
    """Note what an archive reports, in any thread. A report of a transaction that is not ours changes nothing.

    Raises `IndexFull` if it could not be noted; the archive has to report again.
    """
    with closing(Index(places.index, places.release_reserve)) as index:
        request = index.one(
            "SELECT * FROM commitments WHERE transaction_uid = ?", str(report.get("TransactionUID", ""))
        )
        if request is None:
            return
        for item in report.get("ReferencedSOPSequence") or ():
            for row in _rows(index, request, item):
                _end(index, clock, row)
        for item in report.get("FailedSOPSequence") or ():
            reason = item.get("FailureReason")
            for row in _rows(index, request, item):
                if row["changed_s"] <= request["asked_s"]:
                    _not_kept(index, clock, row, reason if isinstance(reason, int) else 0)


def _rows(index: Index, request: sqlite3.Row, item: Dataset) -> list[sqlite3.Row]:
    """Return the deliveries of an instance that the destination of a request has not confirmed yet."""
    return index.rows(
        f"{DELIVERIES} WHERE d.destination = ? AND d.sop_instance_uid = ? AND d.state = 'committing'",
        request["destination"], str(item.get("ReferencedSOPInstanceUID", "")),
    )  # fmt: skip


def _not_kept(index: Index, clock: Clock, row: sqlite3.Row, reason: int) -> None:
    """Note why an archive does not keep an instance. It may accept, and lose, each copy: they come ever more rarely."""
    now, archive = clock.now(), row["destination"]
    since_s = now - row["first_s"]
    fault = Fault("delivery-not-kept", f"{archive} does not keep {row['file']} (failure reason 0x{reason:04X})")
    if reason in _FOR_EVER:
        text = f"{archive} does not keep {row['file']}: {_FOR_EVER[reason]}"
        _end(index, clock, row, fault_of("delivery-refused", text))
    elif since_s > EXPIRES_S:
        _end(index, clock, row, fault_of("delivery-expired", f"{fault.message} after 7 days"))
    else:
        state = "waiting" if reason == _NO_SUCH_OBJECT else "committing"
        with index.transaction():
            if _again(index, row, state, now + min(max(_SOON_S, since_s), _LATEST_S), fault.message):
                add(index, "deliveries", archive, "not-kept")
                index.note_fault(clock.date(), fault, row["study"])


def _again(index: Index, row: sqlite3.Row, state: str, next_s: float, message: str) -> bool:
    """Have a file asked for or sent again at a time, within a transaction; False if a report came first."""
    query = "UPDATE deliveries SET state = ?, next_s = ?, message = ? WHERE id = ? AND state = 'committing'"
    return index.change(query, state, next_s, message, row["id"]) > 0


def _end(index: Index, clock: Clock, row: sqlite3.Row, fault: Fault | None = None) -> None:
    """Note that an archive has confirmed a file, or that it is parked for a fault."""
    state, now = "committed" if fault is None else "parked", clock.now()
    with index.transaction():
        changed = index.change(
            "UPDATE deliveries SET state = ?, code = ?, message = ?, changed_s = ? WHERE id = ? AND "
            "state = 'committing'", state, fault and fault.code, fault and fault.message, now, row["id"],
        )  # fmt: skip
        if not changed:  # another report came first
            return
        conclude(index, clock, row, state, fault, "committed")
