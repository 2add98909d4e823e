"""The supervisor's sign of life: a small file in the spool that says how each process is, written once a second.

It is no part of the index, as each commit there waits for the disk. It is written in place and not synced: it means
nothing after a crash, and needs no room on a full disk.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from spinescore.runtime.appliance.store.places import Places

__all__ = ["Alive", "read_alive", "write_alive"]

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
