"""The file of the checks: each is written as soon as it is done, so that a crash loses nothing."""

from __future__ import annotations

import json
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spinescore.benchmarks.harness import timing
from spinescore.benchmarks.harness.record import to_json
from spinescore.runtime.devices.cudacontext import NOT_AVAILABLE
from spinescore.runtime.errors import DeviceError
from spinescore.runtime.files import write_atomic
from spinescore.runtime.text import table

__all__ = [
    "FAILED",
    "PASSED",
    "SCHEMA",
    "SKIPPED",
    "Failed",
    "Record",
    "Skipped",
    "outcome",
    "percentiles",
    "text_table",
]

SCHEMA = "spinescore.gpu/1"
PASSED, FAILED, SKIPPED = "passed", "failed", "skipped"

Figures = dict[str, Any]
_LONGEST_REASON = 1500
_WIDEST = 180  # characters of the table's last column


class Skipped(Exception):
    """A check that cannot run here; the message is the reason."""


class Failed(Exception):
    """A check with a wrong answer: the message names the fault, `figures` its size."""

    def __init__(self, reason: str, figures: Figures | None = None) -> None:
        super().__init__(reason)
        self.figures = figures or {}


@dataclass
class Record:
    """The document in `path`, written anew with every entry. `end` is the monotonic time at which the part ends."""

    path: Path
    document: dict[str, Any]
    part: str = ""
    end: float = float("inf")

    @classmethod
    def start(cls, path: Path, head: Mapping[str, Any]) -> Record:
        record = cls(path, {"schema": SCHEMA, **head, "finished": False, "parts": [], "checks": []})
        record.write()
        return record

    @classmethod
    def resume(cls, path: Path, part: str = "", seconds: float = float("inf")) -> Record:
        return cls(path, json.loads(path.read_text(encoding="utf-8")), part, time.monotonic() + seconds)

    @property
    def left_s(self) -> float:
        return self.end - time.monotonic()

    def within(self, seconds: float) -> float:
        """Return the monotonic time at which a check that may take `seconds` must stop, at most the part's end."""
        return min(time.monotonic() + seconds, self.end)

    def figures_of(self, name: str) -> Figures | None:
        """Return the figures of the latest check of that name; None if it did not pass or was not run."""
        checks = [check for check in self.document["checks"] if check["name"] == name]
        return checks[-1]["figures"] if checks and checks[-1]["status"] == PASSED else None

    def write(self) -> None:
        write_atomic(self.path, to_json(_plain(self.document)))

    def add(self, name: str, status: str, figures: Figures, reason: str | None = None, seconds: float = 0.0) -> None:
        """Add a check. `reason` says why it failed or was skipped, or why a passed one was cut short."""
        entry = {"part": self.part, "name": name, "status": status, "figures": figures, "reason": reason}
        self.document["checks"].append({**entry, "seconds": round(seconds, 3)})
        self.write()

    def check(self, name: str, run: Callable[[], Figures]) -> Figures | None:
        """Run one check and add its outcome, whatever it raises. Returns its figures if it passed.

        A check that stopped early returns a figure `cut`, which becomes the reason.
        """
        if self.left_s <= 0:
            self.add(name, SKIPPED, {}, "the time of this part was over")
            return None
        started = time.monotonic()
        figures: Figures = {}
        status, reason = PASSED, None
        try:
            figures = run()
            reason = figures.pop("cut", None)
        except Exception as error:
            status, reason = outcome(error)
            figures = error.figures if isinstance(error, Failed) else {}
        self.add(name, status, figures, reason and reason[:_LONGEST_REASON], time.monotonic() - started)
        return figures if status == PASSED else None


def outcome(error: Exception) -> tuple[str, str]:
    """Return status and reason of a check that raised: skipped if the machine lacks a device or package."""
    if isinstance(error, Skipped) or (isinstance(error, DeviceError) and str(error).startswith(NOT_AVAILABLE)):
        return SKIPPED, str(error)
    if isinstance(error, ImportError):
        return SKIPPED, f"a package is not installed here: {error}"
    return FAILED, str(error) if isinstance(error, Failed) else _described(error)


def _described(error: BaseException) -> str:
    """Return the error in one line, with the place that raised it."""
    places = traceback.extract_tb(error.__traceback__)
    place = f" ({Path(places[-1].filename).name}, line {places[-1].lineno})" if places else ""
    return f"{type(error).__name__}: {error}{place}"


def percentiles(values_ms: Sequence[float]) -> Figures:
    """Return p50, p90 and p99 in milliseconds, and the number of values."""
    return {f"{name}_ms": ms for name, ms in timing.percentiles(values_ms, 4).items()} | {"runs": len(values_ms)}


def text_table(document: Mapping[str, Any]) -> str:
    """Return a table with a line for each check: part, name, status, and its reason or its figures."""
    rows = [
        [check["part"], check["name"], check["status"], _line(check["figures"], check["reason"])]
        for check in document["checks"]
    ]
    return table(rows, ["part", "check", "status", "figures"])


def _line(figures: Mapping[str, Any], reason: str | None) -> str:
    shown = [f"{name} {_short(value)}" for name, value in figures.items() if _short(value)]
    reasons = [reason.splitlines()[0]] if reason else []
    return "; ".join([*reasons, *shown])[:_WIDEST]


def _short(value: Any) -> str:
    """Return a number, a word or the median of times as text; empty for figures that only the file shows."""
    if isinstance(value, Mapping):
        return f"{value['p50_ms']:.4g} ms" if "p50_ms" in value else ""
    return f"{value:.4g}" if isinstance(value, float) else str(value) if isinstance(value, (int, str)) else ""


def _plain(value: Any) -> Any:
    """Return the value as JSON can hold it: NumPy's numbers as Python's, infinity and NaN as text."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if hasattr(value, "item") and getattr(value, "shape", None) == ():
        value = value.item()
    if isinstance(value, float) and not (float("-inf") < value < float("inf")):
        return str(value)
    return value
