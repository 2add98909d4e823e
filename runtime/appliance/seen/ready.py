"""Whether the service is ready: all that it says on that, to systemd, HTTP, Prometheus and `status`, comes from here.

It is ready when its processes live, an accepted engine is warm, index and audit log can be written, objects have room,
and the DICOM node listens if there is one. The reference engine is accepted: until a faster one is, it scores.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from spinescore.runtime.appliance.clock import Clock
from spinescore.runtime.appliance.seen.audit import FOLDER, read_head
from spinescore.runtime.appliance.store.index import Index
from spinescore.runtime.appliance.store.places import Places

__all__ = ["SILENT_S", "Alive", "read_alive", "reasons_against", "why_not_ready", "write_alive"]

_NAME = "alive.json"
_BLOCK = 4096  # bytes, so that a file of one block is always replaced as a whole
_TRIES, _PAUSE_S = 5, 0.02


@dataclass(frozen=True)
class Alive:
    """The processes at a time. A process that does not run, or has said nothing yet, is silent for None seconds."""

    at_s: float  # service seconds
    silent_s: Mapping[str, float | None]  # by process
    worker: Mapping[str, Any]  # its `state` and what belongs to it, and for how long it may be and is silent
    bundle: str  # the start of its hash
    listening: bool | None  # whether the DICOM node listens; None if there is none


def write_alive(places: Places, alive: Alive) -> None:
    """Write the file. Without room, or on a damaged disk, the file that is there grows old, which is seen."""
    text = json.dumps(asdict(alive))
    content = text.ljust(-(-len(text) // _BLOCK) * _BLOCK).encode()
    path = places.root / _NAME
    with suppress(OSError), path.open("r+b" if path.exists() else "xb", buffering=0) as file:
        file.write(content)
        if file.seek(0, 2) > len(content):
            file.truncate(len(content))


def read_alive(places: Places) -> Alive | None:
    """Return what the supervisor wrote last; None if there is nothing to read."""
    for _ in range(_TRIES):
        with suppress(OSError, ValueError, TypeError):  # it is being written, or a later version wrote it
            return _parse(places.root / _NAME)
        time.sleep(_PAUSE_S)
    return None


def _parse(path: Path) -> Alive | None:
    return Alive(**json.loads(path.read_bytes())) if path.exists() else None


SILENT_S = 10.0  # a process that says nothing for so long does not live
_SCORES = ("ready", "scoring")  # states of the worker
_LOG = "look into the service's log"


def why_not_ready(places: Places, index: Index, clock: Clock) -> list[str]:
    """Return a sentence for each reason why the service is not ready; none if it is. In any process."""
    return reasons_against(places, index, read_alive(places), clock.now())


def reasons_against(places: Places, index: Index, alive: Alive | None, now_s: float) -> list[str]:
    """Return the reasons for a sign of life: that of the supervisor's file, or the supervisor's own."""
    return [*_of_processes(alive, now_s), *_of_spool(places, index)]


def _of_processes(alive: Alive | None, now_s: float) -> list[str]:
    if alive is None:
        return ["the supervisor has not started yet; start the service with spinescore serve"]
    if now_s - alive.at_s > SILENT_S:
        return [f"the supervisor is silent for {now_s - alive.at_s:.0f} s; start the service again"]
    reasons = [reason for name, silent_s in alive.silent_s.items() if (reason := _of_process(name, silent_s))]
    worker = dict(alive.worker)
    silent_s = worker.get("silent_s")
    if worker.get("state") not in _SCORES:
        details = [str(worker[name]) for name in ("step", "message") if worker.get(name)]
        reasons.append(f"the worker is {worker.get('state', 'starting')}{': ' * bool(details)}{', '.join(details)}")
    elif silent_s is not None and silent_s > worker.get("limit_s", SILENT_S):
        reasons.append(f"the worker is silent for {silent_s:.0f} s; it is ended if it stays silent")
    if alive.listening is False:
        reasons.append(f"the DICOM node does not listen; {_LOG}")
    return reasons


def _of_process(name: str, silent_s: float | None) -> str | None:
    if silent_s is None:
        return f"the process {name} does not run; {_LOG} if it does not start within a minute"
    if silent_s > SILENT_S:
        return f"the process {name} is silent for {silent_s:.0f} s; it is ended if it stays silent"
    return None


def _of_spool(places: Places, index: Index) -> list[str]:
    reasons = []
    try:
        index.check_writable()
    except sqlite3.Error as error:
        reasons.append(f"the index cannot be written ({error}); look at the spool's disk and its permissions")
    if fault := _fault_of_audit(places, index):
        reasons.append(
            f"the audit log cannot be written ({fault}), and nothing is taken in without it; make it writable"
        )
    if not places.has_room():
        reasons.append("the spool's disk has less free space than its reserve; free space there")
    return reasons


def _fault_of_audit(places: Places, index: Index) -> str | None:
    """Return why no record could be appended to the audit log; None if one could, or the log has not begun."""
    head = read_head(index)
    if head is None:
        return None
    try:
        with (places.root / FOLDER / head.file).open("r+b"):  # which makes no file: it would be that of this user
            return None
    except FileNotFoundError:  # it is begun again, with a record that says so
        return None
    except OSError as error:
        return error.strerror or type(error).__name__
