"""The memory that this process may use, and that a process holds. The standard library alone."""

from __future__ import annotations

import mmap
import os
import sys
from contextlib import suppress
from pathlib import Path

__all__ = ["memory_bytes", "resident_bytes"]

_UNKNOWN_MEMORY = 4 << 30  # assumed if the machine does not tell its memory
_CGROUP = Path("/sys/fs/cgroup/memory.max")


def memory_bytes() -> int:
    """Return the memory of the machine, or less if a container or `ulimit -v` allows less."""
    limits = [_UNKNOWN_MEMORY]
    if sys.platform != "win32":
        import resource

        limits.append(resource.getrlimit(resource.RLIMIT_AS)[0])
        with suppress(OSError, ValueError):
            limits[0] = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        with suppress(OSError, ValueError):
            limits.append(int(_CGROUP.read_text(encoding="ascii")))
    return min(limit for limit in limits if limit > 0)  # -1 means no limit


def resident_bytes(pid: int | str = "self") -> int:
    """Return the resident memory of a process; 0 if it does not run, or the system does not tell it."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    except (OSError, IndexError, ValueError):
        return 0
    return pages * mmap.PAGESIZE
