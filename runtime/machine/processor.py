"""The CPU: its name, and its kind, which decides how networks run on it. Uses the standard library only."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path

__all__ = ["core_count", "instruction_sets", "processor_kind", "processor_name"]

# Instruction sets that decide how networks run on a CPU: the name in Linux -> the common name.
_SETS = {
    "avx2": "avx2",
    "avx512f": "avx512",
    "avx512_vnni": "avx512-vnni",
    "avx_vnni": "avx-vnni",
    "avx512_bf16": "avx512-bf16",
    "amx_int8": "amx-int8",
    "amx_bf16": "amx-bf16",
    "asimddp": "dotprod",
    "i8mm": "i8mm",
    "bf16": "bf16",
    "sve": "sve",
}
_ARCHITECTURES = {"amd64": "x86-64", "x86_64": "x86-64", "arm64": "aarch64"}
_FACTS = Path("/proc/cpuinfo")
_BOARD = Path("/proc/device-tree/model")
_SIBLINGS = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"


def processor_name() -> str:
    """Return the board's name if a device tree has it (on ARM, processors have no name); else the processor's."""
    if board := _text(_BOARD).strip("\0 \n"):
        return board
    name = re.search(r"^(?:model name|Hardware|Model)\s*:\s*(.+)$", _text(_FACTS), re.MULTILINE)
    return name[1].strip() if name else platform.processor() or platform.machine() or "CPU"


def core_count() -> int:
    """Return the number of cores that this process may use; threads of one core count once if the system lists them."""
    if not hasattr(os, "sched_getaffinity"):  # Windows and macOS
        return os.cpu_count() or 1
    allowed = sorted(os.sched_getaffinity(0))
    try:
        return len({Path(_SIBLINGS.format(number)).read_text(encoding="ascii") for number in allowed})
    except OSError:
        return len(allowed)


def instruction_sets() -> tuple[str, ...]:
    """Return those that decide how networks run on a CPU; none if the system does not list them (Windows, macOS)."""
    flags = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", _text(_FACTS), re.MULTILINE)
    names = set(flags[1].split()) if flags else set()
    if "avx512_vnni" in names:
        names.discard("avx_vnni")  # the same instructions in a shorter encoding, which engines then do not use
    return tuple(name for flag, name in _SETS.items() if flag in names)


def processor_kind() -> str:
    """Return architecture and instruction sets, as `x86-64 avx2 avx512 avx512-vnni`. CPUs of one kind run alike.

    If the system lists no instruction sets, the processor's family and model take their place.
    """
    machine = platform.machine().lower()
    architecture = _ARCHITECTURES.get(machine, machine or "cpu")
    return " ".join([architecture, *(instruction_sets() or (platform.processor(),))]).strip()


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
