"""Deliveries that a person gives up. Results and objects stay in the spool as long as after a delivery."""

from __future__ import annotations

from spinescore.runtime.appliance.clock import Clock
from spinescore.runtime.appliance.seen import audit
from spinescore.runtime.appliance.store.counts import add
from spinescore.runtime.appliance.store.index import Index
from spinescore.runtime.appliance.store.studies import change_state, settle
from spinescore.runtime.text import number_of

__all__ = ["dismiss"]


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
