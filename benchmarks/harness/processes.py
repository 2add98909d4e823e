"""Processes as Linux tells them: those below another one, their processor time and memory."""

from __future__ import annotations

import os
import sys
from pathlib import Path

__all__ = ["descendants", "processes_with", "processor_s", "proportional_bytes"]

_PROC = Path("/proc")


def descendants(ancestor: int | None = None) -> list[int]:
    """Return the processes below one (this one), in the order of their start; none if the system does not tell."""
    parents = {pid: _parent(pid) for pid in (int(folder.name) for folder in _PROC.glob("[0-9]*"))}
    below: set[int] = set()
    waiting = [os.getpid() if ancestor is None else ancestor]
    while waiting:
        pid = waiting.pop()
        children = [child for child, parent in parents.items() if parent == pid]
        below.update(children)
        waiting += children
    return sorted(below)


def processes_with(text: str) -> list[int]:
    """Return the processes with a text in their arguments."""
    commands = ((int(folder.name), _read(folder / "cmdline")) for folder in _PROC.glob("[0-9]*"))
    return [pid for pid, command in commands if text in command]


def processor_s(pid: int) -> float:
    """Return the processor time that a process has used; 0 if it has ended."""
    if sys.platform == "win32":
        return 0.0
    fields = _status(pid)
    return (int(fields[11]) + int(fields[12])) / float(os.sysconf("SC_CLK_TCK")) if fields else 0.0


def proportional_bytes(pid: int) -> int:
    """Return the proportional set size of a process; 0 if it has ended, or if the system does not tell it."""
    lines = _read(_PROC / str(pid) / "smaps_rollup").splitlines()
    return sum(int(line.split()[1]) << 10 for line in lines if line.startswith("Pss:"))


def _parent(pid: int) -> int:
    fields = _status(pid)
    return int(fields[1]) if fields else 0


def _status(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat after the program's name; empty if the process has ended."""
    return _read(_PROC / str(pid) / "stat").rpartition(")")[2].split()


def _read(path: Path) -> str:
    """Return the text of a file about a process; empty if the process has ended."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
