"""The appliance's time: seconds that never jump, for every decision; the date on the wall, for records only.

Service seconds are the machine's monotonic seconds plus an offset that the index keeps. They go on across restarts of
the service. After a restart of the machine they continue from the latest time in the index: the time in between does
not count. So a changed date makes no study due, no delivery too old and no file ready for removal.
"""

from __future__ import annotations

import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Protocol

from spinescore.runtime.appliance.store.index import Index

__all__ = ["Clock", "ServiceClock", "read_clock", "start_clock"]

_BOOT = Path("/proc/sys/kernel/random/boot_id")
_LATEST = """
    SELECT max(t) AS t FROM (SELECT max(changed_s) AS t FROM studies UNION ALL SELECT max(last_s) FROM studies
    UNION ALL SELECT max(changed_s) FROM deliveries UNION ALL SELECT max(received_s) FROM objects
    UNION ALL SELECT CAST(value AS REAL) FROM facts WHERE name = 'latest_s')
"""


class Clock(Protocol):
    def now(self) -> float:
        """Return the service seconds."""

    def date(self) -> datetime:
        """Return the date and time on the wall, in UTC."""


class ServiceClock:
    """The clock of a running service; every process of it has the same offset."""

    def __init__(self, offset_s: float) -> None:
        self._offset_s = offset_s

    def now(self) -> float:
        return time.monotonic() + self._offset_s

    def date(self) -> datetime:
        return datetime.now(timezone.utc)


def start_clock(index: Index) -> ServiceClock:
    """Return the clock, and keep its offset in the index. The supervisor calls this at its start."""
    boot = _boot()
    if not boot or index.fact("boot") != boot:
        offset_s = _next_offset_s(index)
        with index.transaction():
            index.keep("boot", boot)
            index.keep("offset_s", repr(offset_s))
    return read_clock(index)


def read_clock(index: Index) -> ServiceClock:
    """Return the clock that the supervisor started.

    If the machine was started since, and the service was not, the clock goes on from the latest time as at its start.
    """
    boot, kept = _boot(), index.fact("boot")
    if boot and kept and boot != kept:
        return ServiceClock(_next_offset_s(index))
    return ServiceClock(float(index.fact("offset_s") or 0.0))


def _boot() -> str:
    """Return the name of this run of the machine; empty if the system gives none."""
    return _BOOT.read_text().strip() if _BOOT.exists() else ""


def _next_offset_s(index: Index) -> float:
    return float(index.one(_LATEST)["t"] or 0.0) - time.monotonic()
