"""CSV tables that users write, read with a size limit. Errors name the file and the line."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from pathlib import Path

from spinescore.runtime.files import read_bytes

__all__ = ["csv_rows", "delimiter_of", "read_csv_text"]

_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")


def read_csv_text(path: Path, name: str, limit: int, fault: type[ValueError] = ValueError) -> str:
    """Return the text of a regular file of at most `limit` bytes, in UTF-8 or in UTF-16 with a byte order mark.

    Raises `fault` with a message that begins with `name`; without a name the message says "it".
    """
    try:
        data = read_bytes(path, limit)
    except OSError as error:
        raise fault(f"{path if name else 'it'} cannot be read ({error.strerror or type(error).__name__})") from error
    try:
        text = data.decode("utf-16" if data[:2] in _UTF16_MARKS else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise fault(f"{_named(name)}byte {error.start} is not UTF-8; save the file as UTF-8") from error
    if "\0" in text:  # UTF-16 without its mark, or no text
        raise fault(f"{_named(name)}it holds null characters; save the file as UTF-8")
    return text


def delimiter_of(text: str) -> str:
    """Return the separator of the cells: comma, semicolon or tab, the most frequent one in the first line.

    Spreadsheets write semicolons if the comma is the decimal mark.
    """
    return max(",;\t", key=re.split("[\r\n]", text, maxsplit=1)[0].count)


def csv_rows(text: str, name: str, fault: type[ValueError] = ValueError) -> Iterator[tuple[int, list[str]]]:
    """Yield line number and stripped cells of the header, then of each row that is not blank.

    Raises `fault` for text that is no CSV, and for a row of another width than the header; messages begin as in
    `read_csv_text`.
    """
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter_of(text))
    place = f"{name}, line" if name else "line"
    try:
        header = [cell.strip() for cell in next(rows, [])]
        yield 1, header
        for row in rows:
            cells = [cell.strip() for cell in row]
            if not any(cells):
                continue
            if len(cells) != len(header):
                raise fault(f"{place} {rows.line_num}: {len(cells)} fields where the header has {len(header)}")
            yield rows.line_num, cells
    except csv.Error as error:
        raise fault(f"{place} {rows.line_num}: this is no CSV ({error})") from error


def _named(name: str) -> str:
    return f"{name}: " if name else ""
