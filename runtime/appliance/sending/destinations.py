"""The destinations of the configuration: opened by the `kind` of their table, and results for those that come and go.

The module of a kind is imported if the kind is used.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection
from functools import partial
from pathlib import Path

from spinescore.runtime.appliance.clock import Clock
from spinescore.runtime.appliance.configuration.config import Config, Destination, Node
from spinescore.runtime.appliance.fault import Fault
from spinescore.runtime.appliance.network import client_context
from spinescore.runtime.appliance.sending.commitment import note_report
from spinescore.runtime.appliance.sending.delivery import DELIVERIES, is_superseded
from spinescore.runtime.appliance.sending.delivery import Destination as Place
from spinescore.runtime.appliance.sending.sendfolder import FolderDestination
from spinescore.runtime.appliance.store.index import Index
from spinescore.runtime.appliance.store.places import Places
from spinescore.runtime.appliance.store.studies import settle

__all__ = ["note_destinations", "open_destination"]

_BATCH = 200


def open_destination(destination: Destination, config: Config, clock: Clock, places: Places) -> Place:
    """Return the place that a table `destination` means. Raises `OSError` for files of TLS."""
    name = destination.name
    if destination.kind in ("stow", "orthanc"):
        from spinescore.runtime.appliance.sending.sendweb import OrthancDestination, StowDestination

        return (StowDestination if destination.kind == "stow" else OrthancDestination)(name, destination.web)
    if destination.kind == "folder":
        return FolderDestination(name, Path(str(destination.path)))
    from spinescore.runtime.appliance.sending.senddicom import Archive, DicomDestination

    tls = None if destination.tls is None else client_context(destination.tls)
    calling = config.node.ae_title if config.node else Node().ae_title
    archive = Archive(str(destination.host), destination.port or 0, str(destination.ae_title), calling, tls)
    return DicomDestination(name, archive, clock, partial(note_report, places, clock))


def note_destinations(index: Index, clock: Clock, names: Collection[str]) -> None:
    """Park what is to go to a destination that the configuration has no more; what waits for one of `names` goes on."""
    gone = "d.state IN ('waiting', 'sending', 'committing') AND d.destination NOT IN (SELECT value FROM json_each(?))"
    back = "d.state = 'parked' AND d.code = 'destination-removed' AND d.destination IN (SELECT value FROM json_each(?))"
    for condition, state in ((gone, "parked"), (back, "waiting")):
        while rows := index.rows(f"{DELIVERIES} WHERE {condition} LIMIT ?", json.dumps(list(names)), _BATCH):
            with index.transaction():
                for row in rows:
                    _move(index, clock, row, state)


def _move(index: Index, clock: Clock, row: sqlite3.Row, state: str) -> None:
    text = (f"the destination {row['destination']} is not in the configuration any more; add it again under this name, "
            f"and start the service, or call spinescore study dismiss {row['study']}")  # fmt: skip
    fault = Fault("destination-removed", text) if state == "parked" else None
    now = clock.now()
    index.change(
        "UPDATE deliveries SET state = ?, code = ?, message = ?, unclear = max(unclear, state IN ('sending', "
        "'committing')), first_s = ?, next_s = ?, changed_s = ? WHERE id = ?", state, fault and fault.code,
        fault and fault.message, now, now, now, row["id"],
    )  # fmt: skip
    if not is_superseded(index, row):
        settle(index, clock, row["study"])
