"""The structs that the C library sends and gets: `sent_request` and `sent_answer` of spinescore.c.

They are little endian and have no padding. A number that does not exist is -1. Texts end with a NUL.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from typing import Any, get_args

from spinescore.runtime.scoring.grading import CornerStatus
from spinescore.runtime.study import REGIONS

__all__ = ["ANSWER", "REQUEST", "REQUEST_BYTES", "pack_answer", "unpack_request"]

REQUEST, ANSWER = "application/vnd.spinescore.request", "application/vnd.spinescore.answer"

_REQUEST = struct.Struct("<4I112s")
_VIEW = struct.Struct("<4I2d2Q16s16s16s72s72s")
_MOST_VIEWS = 4
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

_REGION_STATUSES, _TOTAL_STATUSES = ("scored", "rejected", "missing"), ("complete", "imputed", "incomplete")
_CORNER_STATUSES = get_args(CornerStatus)

Json = Mapping[str, Any]


def unpack_request(head: bytes) -> tuple[dict[str, Any], list[tuple[str, bool, int]]]:
    """Return the options of a request, and what follows it: the name of each file, if it is DICOM, its bytes.

    Raises ValueError.
    """
    size, count, budget_ms, strict, formats = _REQUEST.unpack_from(head)
    if size != REQUEST_BYTES or not 1 <= count <= _MOST_VIEWS:
        raise ValueError(f"struct_size is {size}, view_count {count}; use the library of this version")
    views, files = [], []
    for number in range(1, count + 1):
        place = _REQUEST.size + (number - 1) * _VIEW.size
        rows, columns, allocated, stored, row_mm, column_mm, header_bytes, data_bytes, *texts = _VIEW.unpack_from(
            head, place
        )
        name, header = f"view-{number}", f"view-{number}-header" if header_bytes else None
        if header is not None:
            files.append((header, True, header_bytes))
        files.append((name, rows == 0, data_bytes))
        if rows == 0:
            continue
        photometric, region, facing, study, instance = (_read(text) or None for text in texts)
        views.append({
            "part": name, "rows": rows, "columns": columns, "bits_allocated": allocated,
            "bits_stored": stored or (None if header else allocated),
            "pixel_spacing_mm": [row_mm, column_mm] if row_mm else None,
            "photometric_interpretation": photometric or (None if header else "MONOCHROME2"), "region": region,
            "facing": facing, "study_instance_uid": study, "sop_instance_uid": instance, "header": header,
        })  # fmt: skip
    names = [name for name in _read(formats).split(",") if name]
    return {"strict": bool(strict), "budget_ms": budget_ms or None, "formats": names, "views": views}, files


def pack_answer(status: int, retry_after_s: int, document: Json) -> bytes:
    """Return the structs for an answer in JSON: the problem, empty after a success, and the report, if there is one.

    `retry_after_s` is -1 if the answer does not say.
    """
    told: Json = {} if status == 200 else document
    problem = _PROBLEM.pack(
        _PROBLEM.size, 0, 0, retry_after_s, _text(told.get("code"), 48), _text(told.get("detail"), 512),
        _text(told.get("next_step"), 256),
    )  # fmt: skip
    return problem + (_report(document["report"], document.get("results", {})) if "report" in document
                      else bytes(_REPORT_BYTES))  # fmt: skip


def _report(report: Json, results: Mapping[str, str]) -> bytes:
    total, within = report["total"], report["within_budget"]
    warnings, rejects = report.get("notices", ()), report.get("rejects", ())
    links = list(results.items())[:_RESULTS]
    return b"".join((
        _REPORT.pack(_REPORT_BYTES, _TOTAL_STATUSES.index(total["status"]), _number(total["value"]), *total["range"],
                     -1 if within is None else within, 0, _number(report["timings_ms"]["total"]), 0,
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
