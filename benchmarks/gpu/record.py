"""The file that the checks are written to: each as soon as it is done, so that what stops the command loses nothing."""

from __future__ import annotations

import json
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
    """A check whose answer is wrong: the message says how, `figures` by how much."""

    def __init__(self, reason: str, figures: Figures | None = None) -> None:
        super().__init__(reason)
        self.figures = figures or {}


@dataclass
class Record:
    """The document in `path`, written anew with every entry. `end` is the monotonic time at which this part is over."""

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
        """A monotonic time at which a check that may take `seconds` is to stop: never after the part's own end."""
        return min(time.monotonic() + seconds, self.end)

    def write(self) -> None:
        write_atomic(self.path, json.dumps(_plain(self.document), indent=1, allow_nan=False) + "\n")

    def add(self, name: str, status: str, figures: Figures, reason: str | None = None, seconds: float = 0.0) -> None:
        """`reason` says why a check failed or was skipped, or what was cut of one that passed."""
        entry = {"part": self.part, "name": name, "status": status, "figures": figures, "reason": reason}
        self.document["checks"].append({**entry, "seconds": round(seconds, 3)})
        self.write()

    def check(self, name: str, run: Callable[[], Figures]) -> Figures | None:
        """Run one check and note what came of it, whatever it raises. Returns its figures where it passed.

        A check that stopped early says so by a figure `cut`, which becomes the reason.
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
    """Status and reason of a check that raised: skipped where what it needs is not here."""
    if isinstance(error, Skipped) or (isinstance(error, DeviceError) and str(error).startswith(NOT_AVAILABLE)):
        return SKIPPED, str(error)
    if isinstance(error, ImportError):
        return SKIPPED, f"it needs what is not installed here: {error}"
    return FAILED, str(error) if isinstance(error, Failed) else _described(error)


def _described(error: BaseException) -> str:
    """The error in one line, and where it was raised."""
    places = traceback.extract_tb(error.__traceback__)
    where = f" ({Path(places[-1].filename).name}, line {places[-1].lineno})" if places else ""
    return f"{type(error).__name__}: {error}{where}"


def percentiles(values_ms: Any) -> Figures:
    """p50, p90 and p99 in milliseconds, and of how many."""
    import numpy as np

    p50, p90, p99 = np.percentile(values_ms, [50, 90, 99])
    return {"p50_ms": round(p50, 4), "p90_ms": round(p90, 4), "p99_ms": round(p99, 4), "runs": len(values_ms)}


def text_table(document: Mapping[str, Any]) -> str:
    """Every check as a line: part, name, status, and its reason or its figures."""
    rows = [
        [check["part"], check["name"], check["status"], _line(check["figures"], check["reason"])]
        for check in document["checks"]
    ]
    return table(rows, ["part", "check", "status", "figures"])


def _line(figures: Mapping[str, Any], reason: str | None) -> str:
    shown = [f"{name} {_short(value)}" for name, value in figures.items() if _short(value)]
    said = [reason.splitlines()[0]] if reason else []
    return "; ".join([*said, *shown])[:_WIDEST]


def _short(value: Any) -> str:
    """A number, a word, or the median of what was timed; nothing for what the file alone holds."""
    if isinstance(value, Mapping):
        return f"{value['p50_ms']:.4g} ms" if "p50_ms" in value else ""
    return f"{value:.4g}" if isinstance(value, float) else str(value) if isinstance(value, (int, str)) else ""


def _plain(value: Any) -> Any:
    """What JSON can hold: NumPy's numbers as Python's, and what is no number as text."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if hasattr(value, "item") and getattr(value, "shape", None) == ():
        value = value.item()
    if isinstance(value, float) and not (float("-inf") < value < float("inf")):
        return str(value)
    return value
