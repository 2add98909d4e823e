"""The machine while it measures: clocks, governor, load, and how much of it other programs had."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Watch", "settings", "warnings_of"]

_PROC, _CPU = Path("/proc"), Path("/sys/devices/system/cpu")
_RESTLESS = 0.2  # spread of the networks alone, in shares of their median
_OTHERS = 0.05  # of the cores, taken by other programs or by another guest of the host
_LOADED = 0.5  # processes that want to run, per core, before anything is measured


def settings(cpu: Path = _CPU, proc: Path = _PROC) -> dict[str, Any]:
    """Clock now and at most, governor and turbo; each is None where the system does not tell."""
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
        """Shares are of what `cores` could do in the time; None where the system does not tell."""
        now, first = self._moment(), self._first
        could = max(cores * (now.at - first.at), 1e-9)
        elsewhere = stolen = None
        if now.busy_s is not None and first.busy_s is not None:
            elsewhere = max(0.0, now.busy_s - first.busy_s - (now.own_s - first.own_s)) / could
        if now.stolen_s is not None and first.stolen_s is not None:
            stolen = max(0.0, now.stolen_s - first.stolen_s) / could
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
        own = sum(os.times()[:4]) + _children_s(self._proc)
        return _Moment(load, busy, stolen, own, time.monotonic())


def warnings_of(conditions: Mapping[str, Any], spread: float | None, cores: int) -> list[str]:
    """Why the figures may not be this machine's best: by its load before, and by what the figures say themselves."""
    found = []
    before, others = conditions["load_average"][0], conditions["busy_elsewhere"]
    if before is not None and before > _LOADED * cores:
        found.append(f"The machine was loaded before anything was measured: load average {before:g}, {cores} cores.")
    if others is not None and others > _OTHERS:
        found.append(f"Other programs took {others:.0%} of the cores meanwhile.")
    if conditions["stolen"] is not None and conditions["stolen"] > _OTHERS:
        found.append(f"The host gave {conditions['stolen']:.0%} of the cores to others meanwhile.")
    if spread is not None and spread > _RESTLESS:
        found.append(
            f"The networks alone, which always do the same, varied by {spread:.0%} of their median (10th to 90th "
            "percentile)."
        )
    return [f"{text} Measure again on a quiet machine." for text in found]


def _children_s(proc: Path) -> float:
    """Processor time of this process' living children, as those that decode; what has ended stands in os.times()."""
    ticks = 0
    for path in proc.glob("[0-9]*/stat"):
        fields = (_text(path) or "").rpartition(")")[2].split()  # from the third on: state, parent, ..: proc(5)
        if len(fields) > 14 and fields[1] == str(os.getpid()):
            ticks += sum(int(number) for number in fields[11:15])
    return ticks / _ticks_per_s()


def _ticks_per_s() -> int:
    return os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip() or None
    except OSError:
        return None
