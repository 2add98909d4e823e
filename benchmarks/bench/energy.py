"""Energy per study, by Intel's and AMD's RAPL counters or by a Jetson's INA3221 sensors, if there are any."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

__all__ = ["Meter", "Rapl", "Sensors", "energy", "open_meter"]

_CLASS = Path("/sys/class")
_EVERY_S = 0.05  # between two looks at a sensor
_IDLE_S = 2.0
_WHOLE_MODULE = ("VDD_IN", "POM_5V_IN", "VIN")  # rails that feed a Jetson's module as a whole


class Meter(Protocol):
    """Joules between `start` and `stop`. `source` names the counters or rails."""

    source: str

    def start(self) -> None: ...
    def stop(self) -> float: ...


class Rapl:
    """Counters of the processor's packages, in microjoules, which begin anew at their largest value."""

    def __init__(self, folders: list[Path]) -> None:
        """Raises `OSError` or `ValueError` if a counter cannot be read."""
        self.source = f"RAPL, {len(folders)} package{'s' if len(folders) > 1 else ''}"
        self._counters = [(folder / "energy_uj", _number(folder / "max_energy_range_uj")) for folder in folders]
        self.start()

    def start(self) -> None:
        self._first = [_number(path) for path, _ in self._counters]

    def stop(self) -> float:
        """Correct if no counter began anew more than once; even the smallest take many minutes for it."""
        pairs = zip(self._counters, self._first, strict=True)
        return sum((_number(path) - first) % (largest + 1) for (path, largest), first in pairs) / 1e6


class Sensors:
    """Voltage times current of the sensors' rails, read every 50 ms in a thread and summed up over time."""

    def __init__(
        self,
        rails: list[tuple[str, Path, Path]],
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """`rails`: name, file of millivolts, file of milliamperes. Raises `OSError` or `ValueError`."""
        whole = [rail for rail in rails if rail[0].startswith(_WHOLE_MODULE)]
        self._rails, self._clock = whole or rails, clock
        self.source = f"INA3221, {' + '.join(name for name, _, _ in self._rails)}"
        self.watts()

    def watts(self) -> float:
        return sum(_number(volts) * _number(amperes) for _, volts, amperes in self._rails) / 1e6

    def start(self) -> None:
        self._joules, self._seen = 0.0, self._clock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> float:
        self._over.set()
        self._thread.join()
        self._look()
        return self._joules

    def _watch(self) -> None:
        while not self._over.wait(_EVERY_S):
            self._look()

    def _look(self) -> None:
        now = self._clock()
        self._joules, self._seen = self._joules + self.watts() * (now - self._seen), now


def open_meter(root: Path = _CLASS) -> tuple[Meter | None, str]:
    """Return the meter of this machine's energy, or None and the reason."""
    packages = sorted(path for path in root.glob("powercap/*-rapl:*") if path.name.count(":") == 1)
    rails = [rail for chip in sorted(root.glob("hwmon/hwmon*")) for rail in _rails(chip)]
    if not packages and not rails:
        return None, "no RAPL counters (powercap) and no INA3221 sensors (hwmon) on this machine"
    try:
        return (Sensors(rails) if rails else Rapl(packages)), ""
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        place = "INA3221 sensors" if rails else "RAPL counters"
        return None, f"this user cannot read the {place} ({reason or type(error).__name__})"


def energy(
    meter: Meter,
    work: Callable[[], Any],
    seconds: float,
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], None] = time.sleep,
) -> dict[str, Any]:
    """Measure two idle seconds, then studies one after the other for `seconds`."""
    work()
    meter.start()
    began = clock()
    sleep(_IDLE_S)
    idle = meter.stop() / (clock() - began)
    studies = 0
    meter.start()
    began = clock()
    while clock() - began < seconds or not studies:
        work()
        studies += 1
    took = clock() - began
    joules = meter.stop()
    return {
        "source": meter.source,
        "studies": studies,
        "seconds": round(took, 2),
        "joules_per_study": round(joules / studies, 3),
        "watts": round(joules / took, 2),
        "idle_watts": round(idle, 2),
        "reason": None,
    }


def _rails(chip: Path) -> list[tuple[str, Path, Path]]:
    try:
        if (chip / "name").read_text(encoding="ascii").strip() != "ina3221":
            return []
    except OSError:
        return []
    rails = []
    for volts in sorted(chip.glob("in[1-3]_input")):
        number = volts.name[2]
        amperes, label = chip / f"curr{number}_input", chip / f"in{number}_label"
        if amperes.is_file():
            name = label.read_text(encoding="ascii").strip() if label.is_file() else f"rail {number}"
            rails.append((name, volts, amperes))
    return rails


def _number(path: Path) -> int:
    return int(path.read_text(encoding="ascii"))
