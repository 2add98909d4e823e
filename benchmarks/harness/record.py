"""A measurement's command line, and the record that it prints and writes.

All records share a head, which `record.schema.json` describes: `schema` (the measurement and its version), `date`,
`hardware`, `versions`, `command` and `protocol`. The figures follow. Records from before the head was shared have other
heads; they are read as they are.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from types import FrameType
from typing import Any

from spinescore.benchmarks.harness.environment import Watch, hardware, versions
from spinescore.runtime.files import write_atomic
from spinescore.runtime.machine.processor import core_count

__all__ = ["Command", "head", "record_schema", "to_json"]

_LINE = 120  # columns
_MODULE = "python -m spinescore.benchmarks."
_ENDING = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))


def head(schema: str, protocol: str, command: Sequence[str]) -> dict[str, Any]:
    """Return the head of a record. In `command`, files and folders become PATH, since a path may name a patient."""
    words = ["PATH" if _is_path(word) else word for word in command]
    return {
        "schema": schema,
        "date": _now(),
        "hardware": hardware(),
        "versions": versions(),
        "command": " ".join(words),
        "protocol": " ".join(protocol.split()),
    }


def record_schema() -> dict[str, Any]:
    """Return the JSON Schema of the head that all records share."""
    schema: dict[str, Any] = json.loads(Path(__file__).with_name("record.schema.json").read_text(encoding="utf-8"))
    return schema


def to_json(document: Any) -> str:
    """Return JSON in which each value that fits into 120 columns, and each list of numbers, has one line."""
    return _lines(document, 0, "") + "\n"


def _lines(value: Any, depth: int, name: str) -> str:
    """Return a value at a depth of nesting; `name` stands before it on its first line."""
    line = name + json.dumps(value, allow_nan=False)
    plain = not value or not isinstance(value, (dict, list, tuple))
    if plain or depth + len(line) < _LINE or all(isinstance(item, (int, float)) for item in value):
        return line
    if isinstance(value, dict):
        items, ends = [_lines(item, depth + 1, f"{json.dumps(key)}: ") for key, item in value.items()], "{}"
    else:
        items, ends = [_lines(item, depth + 1, "") for item in value], "[]"
    space = "\n" + " " * depth
    return name + ends[0] + ",".join(f"{space} {item}" for item in items) + space + ends[1]


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def _is_path(word: str) -> bool:
    return "/" in word or "\\" in word or Path(word).exists()


def _exit(number: int, frame: FrameType | None) -> None:
    """Raise SystemExit, once: a second signal must not interrupt what ends the processes."""
    for one in _ENDING:
        signal.signal(one, signal.SIG_IGN)
    raise SystemExit(128 + number)


class Command:
    """The command `python -m spinescore.benchmarks.NAME`: its options, and the record that it leaves.

    `options` takes the measurement's own options; `--out` is there already.
    """

    def __init__(self, name: str, schema: str, doc: str | None) -> None:
        self._schema, self._doc = schema, doc or ""
        self.options = argparse.ArgumentParser(
            prog=_MODULE + name, description=self._doc, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        self.options.add_argument("--out", type=Path, metavar="F", help="write the record to this JSON file")

    def start(self, argv: Sequence[str] | None) -> argparse.Namespace:
        """Parse the words of the command line (`sys.argv` if None); the measurement's time begins here.

        SIGTERM and SIGHUP then end the measurement as Ctrl-C does: its processes end, and its folders are removed.
        """
        arguments = self.options.parse_args(argv)
        words = sys.argv[1:] if argv is None else argv
        self._command = [*self.options.prog.split(), *words]
        self._began, self._out = _now(), arguments.out
        self._watch = Watch()
        if threading.current_thread() is threading.main_thread():
            for number in _ENDING:
                if signal.getsignal(number) == signal.SIG_DFL:  # `nohup` ignores SIGHUP
                    signal.signal(number, _exit)
        return arguments

    def publish(self, figures: Mapping[str, Any], text: str | None = None) -> dict[str, Any]:
        """Write the record to `--out`, and print it, or `text` in its place; returns the record.

        Raises OSError if the file cannot be written.
        """
        begun = {**head(self._schema, self._doc, self._command), "date": self._began}
        record = {**begun, "conditions": self._watch.conditions(core_count()), **figures}
        written = to_json(record)
        if self._out:
            write_atomic(self._out, written)
        print(written if text is None else text + "\n", end="")
        return record
