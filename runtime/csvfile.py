"""CSV tables that users write: read with a limit, and named by file and line where something is wrong."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path

from spinescore.runtime.files import read_text

__all__ = ["csv_rows", "read_csv_text"]


def read_csv_text(path: Path, name: str, limit: int, fault: type[ValueError] = ValueError) -> str:
    """Return the text of a regular file of at most `limit` bytes, without a mark before UTF-8.

    Raises `fault` with a message that names the file; `name` is the file in messages about its content.
    """
    try:
        return read_text(path, limit, "utf-8-sig")
    except OSError as error:
        raise fault(f"{path} cannot be read ({error.strerror or type(error).__name__})") from error
    except UnicodeDecodeError as error:
        raise fault(f"{name}: byte {error.start} is not UTF-8; save the file as UTF-8") from error


def csv_rows(text: str, name: str, fault: type[ValueError] = ValueError) -> Iterator[tuple[int, list[str]]]:
    """Yield the line and the stripped cells of the header, then of each row that is not blank.

    A semicolon separates if the first line has one and no comma, as spreadsheets write it where the comma is the
    decimal mark. Raises `fault` for what is no CSV, and for a row that is not as wide as the header.
    """
    first = text.split("\n", 1)[0]
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=";" if ";" in first and "," not in first else ",")
    try:
        header = [cell.strip() for cell in next(rows, [])]
        yield 1, header
        for row in rows:
            cells = [cell.strip() for cell in row]
            if not any(cells):
                continue
            if len(cells) != len(header):
                raise fault(f"{name}, line {rows.line_num}: {len(cells)} fields where the header has {len(header)}")
            yield rows.line_num, cells
    except csv.Error as error:
        raise fault(f"{name}, line {rows.line_num}: this is no CSV ({error})") from error
