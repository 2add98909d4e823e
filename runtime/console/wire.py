"""The structs that the C library sends and gets: `sent_request` and `sent_answer` of spinescore.c.

They are little endian and have no padding. A number that does not exist is -1. Texts end with a NUL.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, get_args

from spinescore.runtime.scoring.grading import CornerStatus
from spinescore.runtime.study import REGIONS

__all__ = ["ANSWER", "ANSWERS", "REQUEST", "REQUEST_BYTES", "SentFile", "pack_answer", "unpack_request"]

# The types end with the version of the structs. In each version an answer begins with the same problem, so that a
# library of another version can read why it is refused.
REQUEST, ANSWER = "application/vnd.spinescore.request-2", "application/vnd.spinescore.answer-2"
ANSWERS = re.compile(r"application/vnd\.spinescore\.answer(-[0-9]+)?")

_REQUEST = struct.Struct("<4I112s")
_VIEW = struct.Struct("<4I2d3Q16s16s16s72s72s")
_MOST_VIEWS, _MOST_PIXELS = 4, 65535
REQUEST_BYTES = _REQUEST.size + _MOST_VIEWS * _VIEW.size

_PROBLEM = struct.Struct("<I3i48s512s256s")
_REPORT = struct.Struct("<Iid2iiIdQ72s")
_REGION = struct.Struct("<2id2i48s2I")
_DISC = struct.Struct("<8s7d")
_CORNER = struct.Struct("<16s2i5d")
_FINDING = struct.Struct("<48siI")
_RESULT = struct.Struct("<48s208s")
_DISCS, _WARNINGS, _REJECTS, _RESULTS = 6, 32, 16, 16
_REPORT_BYTES = 9384
_NO_REPORT = struct.Struct("<40xQ9336x")  # all zero but for answer_bytes

_REGION_STATUSES, _TOTAL_STATUSES = ("scored", "rejected", "missing"), ("complete", "imputed", "incomplete")
_CORNER_STATUSES = get_args(CornerStatus)

Json = Mapping[str, Any]


@dataclass(frozen=True)
class SentFile:
    """A file that follows the request: its name, and whether it is DICOM. Rows with padding have a stride."""

    name: str
    is_dicom: bool
    byte_count: int
    row_bytes: int = 0
    stride: int = 0  # 0: no padding


def unpack_request(head: bytes) -> tuple[dict[str, Any], list[SentFile]]:
    """Return the options of a request, and the files that follow it. Raises ValueError."""
    size, count, budget_ms, strict, formats = _REQUEST.unpack_from(head)
    if size != REQUEST_BYTES or not 1 <= count <= _MOST_VIEWS:
        raise ValueError(f"struct_size is {size}, view_count {count}; use the library of this version")
    views, files = [], []
    for number in range(1, count + 1):
        place = _REQUEST.size + (number - 1) * _VIEW.size
        rows, columns, allocated, stored, row_mm, column_mm, header_bytes, data_bytes, stride, *texts = (
            _VIEW.unpack_from(head, place)
        )
        name, header = f"view-{number}", f"view-{number}-header" if header_bytes else None
        if header is not None:
            files.append(SentFile(header, True, header_bytes))
        if rows == 0:
            files.append(SentFile(name, True, data_bytes))
            continue
        row_bytes = columns * (allocated // 8)
        if max(rows, columns) > _MOST_PIXELS or not 0 < row_bytes <= stride:
            raise ValueError(f"view {number} has {rows} rows of {row_bytes} bytes, and a stride of {stride}")
        if data_bytes != (rows - 1) * stride + row_bytes:
            raise ValueError(f"view {number} has {data_bytes} bytes, which its rows and its stride do not mean")
        files.append(SentFile(name, False, data_bytes, row_bytes, stride if stride > row_bytes else 0))
        photometric, region, facing, study, instance = (_read(text) or None for text in texts)
        views.append({
            "part": name, "rows": rows, "columns": columns, "bits_allocated": allocated,
            "bits_stored": stored or (None if header else allocated),
            "pixel_spacing_mm": [row_mm, column_mm] if row_mm or column_mm else None,
            "photometric_interpretation": photometric or (None if header else "MONOCHROME2"), "region": region,
            "facing": facing, "study_instance_uid": study, "sop_instance_uid": instance, "header": header,
        })  # fmt: skip
    names = [name for name in _read(formats).split(",") if name]
    return {"strict": bool(strict), "budget_ms": budget_ms or None, "formats": names, "views": views}, files


def pack_answer(problem: Json, report: Json | None, results: Mapping[str, str], more_bytes: int) -> bytes:
    """Return the structs in front of `more_bytes` of JSON or of a result.

    After a success the problem is empty. It has `retry_after_s` if the answer says when to try again.
    """
    begin = _PROBLEM.pack(
        _PROBLEM.size, 0, 0, problem.get("retry_after_s", -1), _text(problem.get("code"), 48),
        _text(problem.get("detail"), 512), _text(problem.get("next_step"), 256),
    )  # fmt: skip
    if report is None:
        return begin + _NO_REPORT.pack(more_bytes)
    return begin + _report(report, results, more_bytes)


def _report(report: Json, results: Mapping[str, str], more_bytes: int) -> bytes:
    total, within = report["total"], report["within_budget"]
    warnings, rejects = report.get("notices", ()), report.get("rejects", ())
    links = list(results.items())[:_RESULTS]
    return b"".join((
        _REPORT.pack(_REPORT_BYTES, _TOTAL_STATUSES.index(total["status"]), _number(total["value"]), *total["range"],
                     -1 if within is None else within, 0, _number(report["timings_ms"]["total"]), more_bytes,
                     _text(report["study"]["study_instance_uid"], 72)),
        *(_region(report["regions"][name]) for name in REGIONS),
        struct.pack("<2I", len(warnings), len(rejects)),
        _array(map(_finding, warnings[:_WARNINGS]), _WARNINGS * _FINDING.size),
        _array(map(_finding, rejects[:_REJECTS]), _REJECTS * _FINDING.size),
        struct.pack("<2I", len(links), 0),
        _array((_RESULT.pack(_text(name, 48), _text(link, 208)) for name, link in links), _RESULTS * _RESULT.size),
    ))  # fmt: skip


def _region(region: Json) -> bytes:
    code, discs = (region["reject"] or {}).get("code"), region["discs"]
    begin = _REGION.pack(_REGION_STATUSES.index(region["status"]), region["missing"], _number(region["total"]),
                         *region["range"], _text(code, 48), len(discs), 0)  # fmt: skip
    return begin + _array(map(_disc, discs), _DISCS * (_DISC.size + 2 * _CORNER.size))


def _disc(disc: Json) -> bytes:
    begin = _DISC.pack(_text(disc["level"], 8), *disc["centre_px"], *disc["anterior_px"], disc["confidence"],
                       disc["rotation_deg"], _number(disc.get("total")))  # fmt: skip
    return begin + b"".join(map(_corner, disc["corners"]))


def _corner(corner: Json) -> bytes:
    return _CORNER.pack(_text(corner["site"], 16), _CORNER_STATUSES.index(corner["status"]),
                        -1 if corner["grade"] is None else corner["grade"], _number(corner.get("imputed")),
                        *(corner["probabilities"] or (-1.0,) * 4))  # fmt: skip


def _finding(finding: Json) -> bytes:
    region = finding["region"]
    return _FINDING.pack(_text(finding["code"], 48), -1 if region is None else REGIONS.index(region), 0)


def _number(value: float | None) -> float:
    return -1.0 if value is None else value


def _array(items: Iterable[bytes], byte_count: int) -> bytes:
    return b"".join(items).ljust(byte_count, b"\0")


def _text(text: str | None, capacity: int) -> bytes:
    """Return a text in UTF-8, cut between characters so that a NUL fits after it."""
    return (text or "").encode("utf-8", "replace")[: capacity - 1].decode("utf-8", "ignore").encode()


def _read(text: bytes) -> str:
    """Return a text up to its NUL. Raises ValueError if it is not ASCII."""
    return text.partition(b"\0")[0].decode("ascii")
