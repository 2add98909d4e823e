"""The results of the calls that the programs `probe` and `misuse` make to the double of the service."""

from __future__ import annotations

import re
from collections.abc import Iterable

from helpers.console_build import run
from helpers.console_double import PLAIN, SR

RIGHT = ("right", "indented", "interim", "trailing", "never-continues", "dribble", "own-right")
STATUSES = {
    "ok": (*RIGHT, "large", "no-json", "no-length", "other-length"),  # the structs say how long the answer is
    "closed": (
        "silent",
        "half-head",
        "half-struct",
        "half-body",
        "line-feeds",
        "header-without-colon",
        "folded-header",
        "nul-in-head",
        "cut-problem",
        "cut-report",
        "empty-body",
        "json-beyond-the-body",
        "fetch-half-body",
        "file-half-body",
    ),
    "too-large": ("own-large",),
    "rejected": (
        "rejected",
        "own-rejected",
        "rejected-report",
        "rejected-wrongly",
        "problem-half",
        "problem-cut",
        "fetch-rejected",
        "code-without-end",
        "message-without-end",
        "step-without-end",
    ),
    "busy": ("busy", "busy-early", "no-service", "ready-starting"),
    "refused": ("unauthorized", "broken", "broken-half", "problem-large", "problem-json", "file-broken"),
    "timeout": ("too-late", "slow", "slow-body", "slow-send"),
    "cancelled": ("cancel",),
    "in-use": ("twice-cancel",),
}
FETCHED = ("many-right", "fetch-right", "file-right", "ready-right")
LISTED = {case for cases in STATUSES.values() for case in cases}
EXPECTED = {case: status for status, cases in STATUSES.items() for case in cases}
EXPECTED |= dict.fromkeys(FETCHED, "ok") | dict.fromkeys(PLAIN.keys() - LISTED, "bad-answer")
LINE = re.compile(r"(\S+)(.*?) \| (\S+) http=(\d+) retry=(-?\d+) code=(\S*) \| (.*) \| (.*)")


def calls(words: Iterable[object], address: str, folder: object, cases: Iterable[str], **more: object) -> dict:
    """Run the program; return the groups of its line for each case."""
    text = run([*map(str, words), address, str(folder), *cases], **more)
    lines = [match.groups() for line in text.splitlines() if (match := LINE.fullmatch(line))]
    assert [line[0] for line in lines] == list(cases), text
    return {line[0]: line[1:] for line in lines}


MISUSE = f"""\
no-size: usage
no-place: usage
no-options: usage
sound: ok
no-views: usage
zero-views: usage
five-views: usage
formats: usage
a-row-too-many: usage
stride-beyond-the-data: usage
stride-within-the-data: ok
stride-below-a-row: usage
stride-huge: usage
no-columns: usage
bits-12: usage
bits-stored-17: usage
one-spacing: usage
spacing-negative: usage
no-data: usage
header-of-no-bytes: usage
header: ok
header-of-a-file: usage
text-too-long: usage
view-too-short: usage
newer: ok 1 1
newer-used: usage
no-handle: usage
no-request: usage
parse-no-size: usage
parse-nothing: usage
fetch-elsewhere: usage
fetch-two-lines: usage
fetch-small: too-large {len(SR)}
no-folder: file
cancel-nothing: 0 0
ready: ok
codes: 1 1
names: unknown unknown
"""
