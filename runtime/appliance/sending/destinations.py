"""The destinations of the configuration: opened by the `kind` of their table, and results for those that come and go.

The module of a kind is imported if the kind is used.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Collection
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

_Opener = Callable[[Destination, Config, Clock, Places], Place]


def open_destination(destination: Destination, config: Config, clock: Clock, places: Places) -> Place:
    """Return the place that a table `destination` means. Raises `OSError` for files of TLS."""
    return _OPENERS[destination.kind](destination, config, clock, places)


def _folder(destination: Destination, *_: object) -> Place:
    assert destination.path is not None
    return FolderDestination(destination.name, Path(destination.path))


def _dicom(destination: Destination, config: Config, clock: Clock, places: Places) -> Place:
    from spinescore.runtime.appliance.sending.senddicom import Archive, DicomDestination

    assert destination.host is not None
    assert destination.port is not None
    assert destination.ae_title is not None
    tls = None if destination.tls is None else client_context(destination.tls)
    calling = config.node.ae_title if config.node else Node().ae_title
    archive = Archive(destination.host, destination.port, destination.ae_title, calling, tls)
    return DicomDestination(destination.name, archive, clock, partial(note_report, places, clock))


def _stow(destination: Destination, *_: object) -> Place:
    from spinescore.runtime.appliance.sending.sendstow import StowDestination

    return StowDestination(destination.name, destination.web)


def _orthanc(destination: Destination, *_: object) -> Place:
    from spinescore.runtime.appliance.sending.sendorthanc import OrthancDestination

    return OrthancDestination(destination.name, destination.web)


_OPENERS: dict[str, _Opener] = {"folder": _folder, "dicom": _dicom, "stow": _stow, "orthanc": _orthanc}


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
