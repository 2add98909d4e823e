"""JSON text that others may have written, parsed strictly.

`json.loads` alone accepts NaN and Infinity, numbers that no float holds, half of a character (a lone surrogate), a key
that stands twice, and thousands of nested arrays. `parse_json` refuses them; `spinescore.runtime.documents` makes
dataclasses of its result.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections import Counter
from typing import Any

from spinescore.runtime.files import SMALL_FILE_BYTES, read_bytes

__all__ = ["MAX_DEPTH", "json_lines", "parse_json", "read_json"]

MAX_DEPTH = 64  # nested arrays and objects; a report has 8

_MAX_DIGITS = 308  # the largest float has 309
_LONGEST_KEY = 1024
_ESCAPED_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def parse_json(text: str | bytes, *, any_number: bool = False) -> Any:
    """Return the value of a JSON text. Raises `ValueError`, and nothing else, with the fault in words.

    With `any_number`, NaN, infinities and integers that no float holds are accepted, for callers that check them.
    Bytes may be UTF-8 with or without a byte order mark, UTF-16 or UTF-32, as editors and shells of Windows write them.
    """
    try:
        if isinstance(text, bytes):
            text = text.decode(json.detect_encoding(text)).removeprefix("\ufeff")
        numbers: dict[str, Any] = {} if any_number else _NUMBERS
        document = json.loads(text, object_pairs_hook=_without_doubles, **numbers)
        _check_depth(document)
        if _ESCAPED_SURROGATE.search(text):
            json.dumps(document, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise ValueError("it holds half of a character (a lone surrogate)") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"byte {error.start} is not {error.encoding.upper()}") from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except MemoryError:
        raise ValueError("it takes more memory than there is") from None
    return document


def read_json(path: str | os.PathLike[str], limit: int = SMALL_FILE_BYTES, *, any_number: bool = False) -> Any:
    """Return the value of a JSON file of at most `limit` bytes. Raises `OSError`, or `ValueError` as `parse_json`."""
    return parse_json(read_bytes(path, limit), any_number=any_number)


def json_lines(text: str) -> list[tuple[int, str]]:
    """Return the numbered lines of JSON Lines; none if the text is one document, or no JSON."""
    lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    try:
        parse_json(lines[0][1] if len(lines) > 1 else "")
    except ValueError:
        return []
    return lines


def _integer(digits: str) -> int:
    if len(digits) > _MAX_DIGITS:
        raise ValueError(f"it holds a number of {len(digits)} digits")
    return int(digits)


def _number(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"the number {digits[:40]} is too large")
    return value


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")


_NUMBERS: dict[str, Any] = {
    "parse_int": _integer,
    "parse_float": _number,
    "parse_constant": _refuse,
}


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    longest = max(map(len, members), default=0)
    if longest > _LONGEST_KEY:
        raise ValueError(f"a field's name has {longest} characters")
    if len(members) < len(pairs):
        key = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"it states {key[:60]!r} twice; keep one of them")
    return members


def _check_depth(document: Any) -> None:
    level = [document]
    for _ in range(MAX_DEPTH):
        level = [value for value in level if isinstance(value, (dict, list))]
        if not level:
            return
        level = [item for value in level for item in (value.values() if isinstance(value, dict) else value)]
    raise ValueError(f"it is nested deeper than {MAX_DEPTH} levels")
