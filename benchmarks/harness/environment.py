"""The machine and its software: hardware, clocks, versions, memory, and how busy other programs kept it."""

from __future__ import annotations

import os
import platform
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = [
    "NO_FIGURES",
    "Watch",
    "child_stats",
    "hardware",
    "memory_bytes",
    "mib",
    "settings",
    "versions",
    "warnings_of",
]

NO_FIGURES = "this system has no /proc/self/status"

_PROC, _CPU = Path("/proc"), Path("/sys/devices/system/cpu")
_RESTLESS = 0.2  # spread of the networks alone, in shares of their median
_OTHERS = 0.05  # of the cores, taken by other programs or by another guest of the host
_LOADED = 0.5  # processes that want to run, per core, before anything is measured
_PACKAGES = (
    "spinescore", "numpy", "onnx", "onnxruntime", "onnxruntime-gpu", "openvino", "opencv-python-headless", "pydicom",
    "imagecodecs", "pyjpegls", "pylibjpeg", "pylibjpeg-openjpeg", "pylibjpeg-rle", "highdicom", "statsmodels", "torch",
    "triton", "pycuda", "tensorrt", "tensorrt-lean", "tensorrt-rtx-cu13", "nvidia-cudnn-cu13",
)  # fmt: skip


def hardware() -> dict[str, Any]:
    """Return CPU, its kind, cores, system and clocks."""
    from spinescore.runtime.doctor import hardware as known
    from spinescore.runtime.machine.processor import processor_kind

    return {**known(), "kind": processor_kind(), **settings()}


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that matter, as far as they are installed."""
    from importlib import metadata

    # If a package is installed twice, the distribution that is imported comes first.
    installed = {str(one.metadata["Name"]).lower(): one.version for one in reversed(list(metadata.distributions()))}
    packages = {name: installed[name] for name in _PACKAGES if name in installed}
    return {"python": platform.python_version(), **packages}


def settings(cpu: Path = _CPU, proc: Path = _PROC) -> dict[str, Any]:
    """Return the clock now and at most, governor and turbo; each is None if the system does not tell."""
    first = cpu / "cpu0" / "cpufreq"
    clock = _text(first / "scaling_cur_freq")
    seen = re.search(r"^cpu MHz\s*:\s*([\d.]+)", _text(proc / "cpuinfo") or "", re.MULTILINE)
    most = _text(first / "cpuinfo_max_freq")
    no_turbo, boost = _text(cpu / "intel_pstate" / "no_turbo"), _text(cpu / "cpufreq" / "boost")
    turbo = no_turbo == "0" if no_turbo else boost == "1" if boost else None
    return {
        "clock_mhz": round(int(clock) / 1e3) if clock else round(float(seen[1])) if seen else None,
        "most_clock_mhz": round(int(most) / 1e3) if most else None,
        "governor": _text(first / "scaling_governor"),
        "turbo": turbo,
    }


def memory_bytes(status: Path = _PROC / "self" / "status") -> dict[str, int | None]:
    """Return resident and peak resident bytes of a process (this one), None if the system does not tell.

    Linux alone: `getrusage` counts the parent's memory as a child's peak, from before the child's program was loaded.
    """
    text = _text(status) or ""
    matches = {name: re.search(rf"^{field}:\s*(\d+) kB$", text, re.MULTILINE) for name, field in _MEMORY_FIELDS.items()}
    return {name: 1024 * int(match[1]) if match else None for name, match in matches.items()}


def mib(count: float) -> float:
    """Return bytes as MiB, for a record."""
    return round(count / (1 << 20), 1)


_MEMORY_FIELDS = {"resident_bytes": "VmRSS", "peak_bytes": "VmHWM"}


@dataclass(frozen=True)
class _Moment:
    load: float | None
    busy_s: float | None  # of all processors, since the system's start
    stolen_s: float | None
    own_s: float
    at: float


class Watch:
    """Looks at the machine when it is made and when it is asked; this process' children count as its own."""

    def __init__(self, proc: Path = _PROC) -> None:
        self._proc = proc
        self._first = self._moment()

    def conditions(self, cores: int) -> dict[str, Any]:
        """Return load averages, and the shares of `cores` that others took; None if the system does not tell."""
        now, first = self._moment(), self._first
        available = max(cores * (now.at - first.at), 1e-9)
        elsewhere = stolen = None
        if now.busy_s is not None and first.busy_s is not None:
            elsewhere = max(0.0, now.busy_s - first.busy_s - (now.own_s - first.own_s)) / available
        if now.stolen_s is not None and first.stolen_s is not None:
            stolen = max(0.0, now.stolen_s - first.stolen_s) / available
        return {
            "load_average": [first.load, now.load],
            "busy_elsewhere": None if elsewhere is None else round(elsewhere, 3),
            "stolen": None if stolen is None else round(stolen, 3),
            "seconds": round(now.at - first.at, 1),
        }

    def _moment(self) -> _Moment:
        busy = stolen = None
        line = re.match(r"cpu +(.+)", _text(self._proc / "stat") or "")
        if line:  # user, nice, system, idle, iowait, irq, softirq, steal: proc(5)
            ticks = [int(number) for number in line[1].split()[:8]]
            busy, stolen = (sum(ticks[:3]) + sum(ticks[5:7])) / _ticks_per_s(), ticks[7] / _ticks_per_s()
        load = round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None
        # os.times() has the children that have ended; those that live, as decoders, are added.
        living = sum(int(number) for _, fields in child_stats(self._proc) for number in fields[11:15])
        return _Moment(load, busy, stolen, sum(os.times()[:4]) + living / _ticks_per_s(), time.monotonic())


def warnings_of(conditions: Mapping[str, Any], spread: float | None, cores: int) -> list[str]:
    """Return why the figures may not be this machine's best: its load, other programs, and the figures' own spread."""
    reasons = []
    before, others = conditions["load_average"][0], conditions["busy_elsewhere"]
    if before is not None and before > _LOADED * cores:
        reasons.append(f"The machine was loaded before anything was measured: load average {before:g}, {cores} cores.")
    if others is not None and others > _OTHERS:
        reasons.append(f"Other programs took {others:.0%} of the cores meanwhile.")
    if conditions["stolen"] is not None and conditions["stolen"] > _OTHERS:
        reasons.append(f"The host gave {conditions['stolen']:.0%} of the cores to other guests meanwhile.")
    if spread is not None and spread > _RESTLESS:
        reasons.append(
            f"The networks alone, which always do the same work, varied by {spread:.0%} of their median (10th to 90th "
            "percentile)."
        )
    return [f"{reason} Measure again on a quiet machine." for reason in reasons]


def child_stats(proc: Path = _PROC) -> Iterator[tuple[int, list[str]]]:
    """Yield number and fields of each living child of this process, from the third field on (state): proc(5)."""
    for path in proc.glob("[0-9]*/stat"):
        fields = (_text(path) or "").rpartition(")")[2].split()
        if len(fields) > 14 and fields[1] == str(os.getpid()):
            yield int(path.parent.name), fields


def _ticks_per_s() -> int:
    return os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip() or None
    except OSError:
        return None
