"""The work before a service's processes start, and from time to time, so that nothing is lost or left over."""

from __future__ import annotations

import shutil
import sys
from functools import partial
from pathlib import Path

from spinescore.runtime.appliance.clock import Clock
from spinescore.runtime.appliance.configuration.config import SpoolPart
from spinescore.runtime.appliance.fault import Fault, Refused
from spinescore.runtime.appliance.seen import audit
from spinescore.runtime.appliance.sending.delivery import EXPIRES_S
from spinescore.runtime.appliance.store.index import Index
from spinescore.runtime.appliance.store.objects import read_identity
from spinescore.runtime.appliance.store.past import FINISHED, forget, past_content
from spinescore.runtime.appliance.store.places import Places
from spinescore.runtime.appliance.store.quarantine import limit_quarantine, recover_quarantine
from spinescore.runtime.appliance.store.reviews import note_scored
from spinescore.runtime.appliance.store.studies import note_object
from spinescore.runtime.appliance.store.summaries import fill_summaries
from spinescore.runtime.durable import patiently
from spinescore.runtime.files import file_sha256

__all__ = ["clean", "recover"]

_HELD = "(SELECT r.study FROM results r JOIN deliveries d USING (input_key) WHERE d.state = 'held')"
_HOUR_S, _DAY_S = 3600.0, 86400.0
_BATCH = 500  # in one transaction
_OPEN = "('waiting', 'sending', 'committing', 'parked', 'held')"  # states of deliveries whose files are still needed


def recover(places: Places, index: Index, clock: Clock) -> None:
    """Bring spool and index together after a service ended at any line. Call it under the lock.

    Parts and views are removed. Objects that the index does not have were never acknowledged, and are indexed now. A
    study whose scoring was interrupted is due again.
    """
    for path in (*places.incoming.iterdir(), *places.views.iterdir()):
        patiently(partial(shutil.rmtree, path) if path.is_dir() else path.unlink)
    _index_objects(places, index, clock)
    recover_quarantine(places, index, clock)
    with index.transaction():
        index.change("UPDATE associations SET closed_s = ? WHERE closed_s IS NULL", clock.now())
        index.change("UPDATE studies SET state = 'due', interruptions = interruptions + 1 WHERE state = 'scoring'")
    needed = {row["input_key"] for row in index.rows("SELECT input_key FROM results WHERE removed = 0 UNION "
                                                     "SELECT input_key FROM studies WHERE state = 'due'")}  # fmt: skip
    for folder in places.results.iterdir():
        if folder.name not in needed:
            _remove_folder(places, folder)
    fill_summaries(places, index)


def _index_objects(places: Places, index: Index, clock: Clock) -> None:
    for path in sorted(places.objects.glob("*/*.dcm")):
        row = index.one("SELECT removed FROM objects WHERE sha256 = ?", path.stem)
        if row is not None and not row["removed"]:
            continue
        if row is not None or file_sha256(path) != path.stem:
            path.unlink()
            continue
        try:
            identity = read_identity(path)
        except Refused:
            path.unlink()
            continue
        query = "SELECT 1 FROM objects WHERE sop_instance_uid = ?"
        past = past_content(index, identity.sop_instance_uid, path.stem)
        if past:
            path.unlink()
            continue
        if past is False or index.one(query, identity.sop_instance_uid) is not None:
            path.replace(places.quarantine / path.name)
            continue
        with index.transaction():
            study = note_object(index, clock, identity, path.stem, path.stat().st_size, None)
            audit.note(index, clock, "recovered", sha256=path.stem, sop_instance_uid=identity.sop_instance_uid,
                       study_instance_uid=identity.study_uid, study=study, code=identity.code)  # fmt: skip


def clean(places: Places, index: Index, clock: Clock, keep: SpoolPart) -> list[Fault]:
    """Remove objects, results and rows some time after their last delivery, but none that may still be needed.

    Returns the faults that a person has to know.
    """
    now = clock.now()
    with index.transaction():
        index.keep("latest_s", repr(now))
        index.change("DELETE FROM commitments WHERE asked_s < ?", now - 2 * EXPIRES_S)
        index.change("DELETE FROM associations WHERE closed_s < ? AND NOT EXISTS (SELECT 1 FROM objects o JOIN studies "
                     "s ON s.id = o.study WHERE o.association = associations.id AND s.state = 'collecting') "
                     "AND id < (SELECT max(id) FROM associations)", now - _DAY_S)  # fmt: skip
    _clean_objects(places, index, now - keep.objects_h * _HOUR_S)
    _clean_results(places, index, now - keep.results_d * _DAY_S)
    _clean_console(places, now - keep.results_d * _DAY_S)
    fault = limit_quarantine(places, index, clock, keep)
    forget(index, clock, now - keep.index_d * _DAY_S)
    note_scored(index)
    places.fill_reserve()
    return [] if fault is None else [fault]


def _clean_objects(places: Places, index: Index, before_s: float) -> None:
    """Remove objects. A file goes while the index is locked, so that none goes that arrives again at this moment."""
    query = (
        "SELECT o.sha256 FROM objects o LEFT JOIN studies s ON s.id = o.study WHERE o.removed = 0 AND "
        f"((s.state IN {FINISHED} AND s.changed_s < ?1 AND s.id NOT IN {_HELD}) OR "
        "(o.study IS NULL AND o.received_s < ?1)) LIMIT ?2"
    )
    while index.one(query, before_s, 1) is not None:
        with index.transaction():
            rows = index.rows(query, before_s, _BATCH)  # again: something may have changed
            for row in rows:
                index.change("UPDATE objects SET removed = 1 WHERE sha256 = ?", row["sha256"])
                places.object(row["sha256"]).unlink(missing_ok=True)


def _clean_results(places: Places, index: Index, before_s: float) -> None:
    query = (
        "SELECT r.input_key FROM results r JOIN studies s ON s.id = r.study WHERE r.removed = 0 AND r.made_s < ?1 AND "
        f"NOT EXISTS (SELECT 1 FROM deliveries d WHERE d.input_key = r.input_key AND (d.state IN {_OPEN} OR "
        f"d.changed_s >= ?1)) AND (s.input_key IS NOT r.input_key OR (s.state IN {FINISHED} AND "
        "s.changed_s < ?1)) LIMIT ?2"
    )
    while index.one(query, before_s, 1) is not None:
        with index.transaction():
            rows = index.rows(query, before_s, _BATCH)  # again: something may have changed
            for row in rows:
                index.change("UPDATE results SET removed = 1 WHERE input_key = ?", row["input_key"])
        for row in rows:
            _remove_folder(places, places.results / row["input_key"])


def _clean_console(places: Places, before_s: float) -> None:
    """Remove results of consoles; their keys begin with the service seconds of the call."""
    for folder in places.console.iterdir():
        seconds = folder.name.partition("-")[0]
        if not seconds.isdecimal() or int(seconds) < before_s:
            try:
                _remove_folder(places, folder)
            except PermissionError:
                if sys.platform != "win32":
                    raise  # there a program may hold a file for long; the next turn tries again


def _remove_folder(places: Places, folder: Path) -> None:
    """Remove a result folder; after a crash in between, either all of it is there or only a part in `incoming`."""
    if folder.is_dir():
        aside = places.incoming / f"{folder.name}.removed"
        patiently(lambda: folder.replace(aside))
        patiently(lambda: shutil.rmtree(aside))
