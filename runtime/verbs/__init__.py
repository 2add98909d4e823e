"""The verbs of the command line: functions of the parsed arguments that return the exit status."""

from __future__ import annotations

import sys

__all__ = ["FAULT", "NOTHING_SCORED", "OK", "OVER_BUDGET", "REFUSED", "USAGE", "UsageError", "say"]

OK, FAULT, USAGE, NOTHING_SCORED, REFUSED, OVER_BUDGET = range(6)


class UsageError(Exception):
    """An argument that names something which is not there, or does not say what it should."""


def say(message: str) -> None:
    """A line for the person who waits, on standard error."""
    print(message, file=sys.stderr, flush=True)
