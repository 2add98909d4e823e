"""Foreign text (file names, headers, bundles, messages of libraries) made safe to print.

A terminal obeys control characters, and a newline could forge a line of output. JSON and HTML have their own escapes,
so text for them is not changed here.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence

__all__ = ["as_json", "brief", "lines", "number_of", "one_line", "several_lines", "table"]

# Invisible or harmful: controls, formats (bidirectional, zero-width), surrogates, unassigned, line ends.
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Cn", "Co", "Zl", "Zp"})
_BLANK_LETTERS = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0")  # letters that show nothing
_SUSPECT = re.compile(r"[^\x20-\x7e]")


def one_line(text: object) -> str:
    """Return the text on one line: letters that a terminal would obey or hide become escapes (`\\x1b`, `\\u202e`)."""
    return _SUSPECT.sub(lambda match: _replaced(match, _text_escape), str(text))


def brief(error: BaseException, length: int = 160) -> str:
    """Return an exception in one line of bounded length."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:length]


def several_lines(text: object) -> str:
    """Return the text like `one_line`, but with its newlines, for text of our own layout."""
    return "\n".join(map(one_line, str(text).split("\n")))


def _replaced(match: re.Match[str], escape: Callable[[str], str]) -> str:
    letter = match[0]
    return escape(letter) if unicodedata.category(letter) in _HIDDEN or letter in _BLANK_LETTERS else letter


def _text_escape(letter: str) -> str:
    return letter.encode("unicode_escape").decode("ascii")


def as_json(text: str) -> str:
    """Return JSON text with these letters as JSON escapes; to a reader it is the same document."""
    lines = text.split("\n")  # between tokens; in a string they are escaped already
    return "\n".join(_SUSPECT.sub(lambda match: _replaced(match, _json_escape), line) for line in lines)


def _json_escape(letter: str) -> str:
    return json.dumps(letter)[1:-1]


def lines(parts: Iterable[object]) -> str:
    """Return parts as lines of one text, each made safe by `one_line`."""
    return "\n".join(map(one_line, parts))


def number_of(count: int, noun: str) -> str:
    """Return a count with its noun, as `1 study` or `2 studies`."""
    plural = f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}s"
    return f"{count} {noun if count == 1 else plural}"


def table(rows: Sequence[Sequence[object]], header: Sequence[str]) -> str:
    """Rows as aligned text under `header`: numbers to the right, the rest to the left."""
    cells = [[one_line(cell) for cell in row] for row in (header, *rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(header))]
    right = [bool(rows) and all(isinstance(row[column], (int, float)) for row in rows) for column in range(len(header))]
    lines = [
        "  ".join(c.rjust(w) if r else c.ljust(w) for c, w, r in zip(line, widths, right, strict=True)).rstrip()
        for line in cells
    ]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)
