"""Storage Commitment (PS3.4, annex J): an archive is asked to confirm that it keeps what was sent to it.

    sending -> committing -> committed
                  |-> waiting     the archive does not have it: it is sent again
                  |-> parked      the archive will never keep it, or did not answer for 7 days

The archive answers with a report, on the association of the request, on a later one, or on one that it opens to the
node. A report counts if this spool made its transaction, however late it comes. Without a report the archive is asked
again, in a new transaction.
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
    fault_of,
    is_superseded,
    note_delivery,
    observe_way,
    parcel_of,
)
from spinescore.runtime.appliance.store.counts import add
from spinescore.runtime.appliance.store.index import Index
from spinescore.runtime.appliance.store.places import Places
from spinescore.runtime.appliance.store.studies import settle
from spinescore.runtime.text import brief

if TYPE_CHECKING:
    from pydicom import Dataset

__all__ = ["Ask", "Committer", "note_report"]

Ask = Callable[[Sequence[Parcel], str], Outcome]  # `sent`: the archive was asked in the transaction of this UID

_ASK_AGAIN_S = 3600.0
_UNREACHABLE_S = 60.0
_SOON_S = 30.0  # before an object that was not kept is sent, or asked for, again
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
        late = [row for row in rows if now - row["first_s"] > EXPIRES_S]
        for row in late:
            text = f"{self._destination} did not confirm {row['file']} for 7 days"
            _change(self._index, self._clock, row, "parked", now, fault_of("delivery-expired", text))
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
            outcome = Outcome("later", brief(error))
        if outcome.kind == "sent":
            return
        for row in rows:
            if outcome.kind == "refused":
                text = f"{self._destination} was not asked to confirm {row['file']}: {outcome.message}"
                _change(self._index, self._clock, row, "parked", now, fault_of("delivery-refused", text))
            else:
                with self._index.transaction():
                    self._index.change("UPDATE deliveries SET next_s = ? WHERE id = ? AND state = 'committing'",
                                       now + _UNREACHABLE_S, row["id"])  # fmt: skip


def note_report(places: Places, clock: Clock, report: Dataset) -> None:
    """Note what an archive reports, in any thread. A report of a transaction that is not ours changes nothing.

    Raises `IndexFull` if it could not be noted; the archive has to report again.
    """
    with closing(Index(places.index, places.release_reserve)) as index:
        made = index.one("SELECT * FROM commitments WHERE transaction_uid = ?", str(report.get("TransactionUID", "")))
        if made is None:
            return
        now = clock.now()
        for item in report.get("ReferencedSOPSequence") or ():
            for row in _rows(index, made["destination"], item):
                _change(index, clock, row, "committed", now)
        for item in report.get("FailedSOPSequence") or ():
            reason = int(item.get("FailureReason") or 0)
            for row in _rows(index, made["destination"], item):
                if reason in _FOR_EVER:
                    text = f"{row['destination']} does not keep {row['file']}: {_FOR_EVER[reason]}"
                    _change(index, clock, row, "parked", now, fault_of("delivery-refused", text))
                else:
                    again = "waiting" if reason == _NO_SUCH_OBJECT else "committing"
                    _change(index, clock, row, again, now + _SOON_S)


def _rows(index: Index, destination: str, item: Dataset) -> list[sqlite3.Row]:
    """Return the deliveries of an instance that this destination has not confirmed yet."""
    return index.rows(
        f"{DELIVERIES} WHERE d.destination = ? AND d.sop_instance_uid = ? AND d.state = 'committing'",
        destination, str(item.get("ReferencedSOPInstanceUID", "")),
    )  # fmt: skip


def _change(
    index: Index, clock: Clock, row: sqlite3.Row, state: str, next_s: float, fault: Fault | None = None
) -> None:
    with index.transaction():
        changed = index.change(
            "UPDATE deliveries SET state = ?, next_s = ?, code = ?, message = ?, changed_s = ? "
            "WHERE id = ? AND state = 'committing'",
            state, next_s, fault and fault.code, fault and fault.message, clock.now(), row["id"],
        )  # fmt: skip
        if changed:
            result = {"waiting": "not-kept", "committing": "not-kept"}.get(state, state)
            add(index, "deliveries", row["destination"], fault.code.removeprefix("delivery-") if fault else result)
        if changed and state == "committed":
            observe_way(index, "committed", row, clock.now())
        if not is_superseded(index, row):
            settle(index, clock, row["study"])
        if changed and state in ("committed", "parked"):
            note_delivery(index, clock, row, fault.code if fault else state)
