"""The verbs of the command line: functions of the parsed arguments that return the exit status."""

from __future__ import annotations

from typing import TYPE_CHECKING

from spinescore.runtime.verbs.streams import say, show, show_json

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

__all__ = [
    "FAULT",
    "NOTHING_SCORED",
    "OK",
    "OVER_BUDGET",
    "REFUSED",
    "USAGE",
    "UsageError",
    "check_paths",
    "say",
    "show",
    "show_json",
]

OK, FAULT, USAGE, NOTHING_SCORED, REFUSED, OVER_BUDGET = range(6)


class UsageError(Exception):
    """An argument that names something which is not there, or does not say what it should."""


def check_paths(paths: Iterable[Path]) -> None:
    """Refuse, before any work, a file or folder that is not there."""
    for path in paths:
        if not path.exists():
            raise UsageError(f"there is no file or folder {path}")
