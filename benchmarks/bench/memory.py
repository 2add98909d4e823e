"""A process's own memory, and a GPU's memory that is in use."""

from __future__ import annotations

import re
from pathlib import Path

__all__ = ["NO_FIGURES", "device_in_use_bytes", "memory_bytes"]

NO_FIGURES = "this system has no /proc/self/status"

_STATUS = Path("/proc/self/status")


def memory_bytes(status: Path = _STATUS) -> dict[str, int | None]:
    """Resident and peak resident bytes of this process, None where the system does not tell.

    Linux alone: `getrusage` counts the parent's memory as a child's peak, from before the child's program was loaded.
    """
    try:
        text = status.read_text(encoding="ascii")
    except OSError:
        return {"resident_bytes": None, "peak_bytes": None}
    return {"resident_bytes": _kib(text, "VmRSS"), "peak_bytes": _kib(text, "VmHWM")}


def device_in_use_bytes() -> int | None:
    """Bytes of the first GPU's memory that all processes together use; None where the driver does not tell."""
    from spinescore.benchmarks.gpu.machine import Driver
    from spinescore.benchmarks.gpu.record import Skipped

    try:
        free, total = Driver().memory()
    except Skipped:
        return None
    return total - free


def _kib(text: str, name: str) -> int | None:
    found = re.search(rf"^{name}:\s*(\d+) kB$", text, re.MULTILINE)
    return 1024 * int(found[1]) if found else None
