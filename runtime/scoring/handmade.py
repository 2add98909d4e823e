"""Check studies and radiographs that a program made by hand, so that no wrong field fails deep inside the scoring."""

from __future__ import annotations

from typing import Any

import numpy as np

from spinescore.runtime.arguments import check_choice, check_kind, check_text, check_whole, is_number, shown
from spinescore.runtime.reading.arrays import check_pixels
from spinescore.runtime.reading.orientation import TURNS
from spinescore.runtime.study import REGIONS, Finding, Radiograph, Reject, Study

__all__ = ["check_study"]

_IDENTITY = ("study_instance_uid", "study_date", "patient_key")
_CHOICES: dict[str, tuple[str | None, ...]] = {
    "region": (None, *REGIONS),
    "facing": (None, "left", "right"),
    "view": (None, "lateral", "other"),
    "facing_from": ("header", "user", "program"),
}


def check_study(study: Study) -> None:
    """Raise `ValueError` if a field of the study, or of one of its radiographs, has a wrong type or value."""
    try:
        for name, kind in (("radiographs", Radiograph), ("rejects", Reject), ("warnings", str)):
            _check_items(f"the study's {name}", getattr(study, name), kind)
        for name in _IDENTITY:
            _check_text(f"the study's {name}", getattr(study, name))
        read_ms = study.read_ms
        if read_ms is not None and not is_number(read_ms):
            raise ValueError(f"the study's read_ms must be a number of milliseconds or None, got {shown(read_ms)}")
        for radiograph in study.radiographs:
            _check_radiograph(radiograph)
    except TypeError as fault:  # a part of the argument has the wrong type, not the argument
        raise ValueError(str(fault)) from None


def _check_radiograph(radiograph: Radiograph) -> None:
    check_kind("the source of a radiograph", radiograph.source, str)
    name = radiograph.source or "a radiograph"
    check_pixels(f"the pixels of {name}", radiograph.pixels)
    table: Any = radiograph.table
    if not isinstance(table, np.ndarray) or table.ndim != 1 or not table.size or table.dtype.kind != "f":
        raise ValueError(f"{name}: its table must be one row of greys, numbers from 0 to 1 of type float32")
    check_whole(f"the stored_min of {name}", radiograph.stored_min, -(1 << 31), 1 << 31)
    for field, choices in _CHOICES.items():
        check_choice(f"the {field} of {name}", getattr(radiograph, field), choices)
    if radiograph.turn_deg is not None:
        check_whole(f"the turn_deg of {name}", radiograph.turn_deg, 0)
        if radiograph.turn_deg not in TURNS:
            raise ValueError(f"the turn_deg of {name} must be one of {TURNS} or None, got {shown(radiograph.turn_deg)}")
    for field in (*_IDENTITY, "modality", "sop_instance_uid"):
        _check_text(f"the {field} of {name}", getattr(radiograph, field))
    check_kind(f"the decoder of {name}", radiograph.decoder, str)
    spacing: Any = radiograph.spacing_mm
    is_pair = isinstance(spacing, (tuple, list)) and len(spacing) == 2 and all(map(is_number, spacing))
    if spacing is not None and not is_pair:
        raise ValueError(f"the spacing_mm of {name} must be two numbers (between rows, between columns) or None, got "
                         f"{shown(spacing)}")  # fmt: skip
    _check_items(f"the warnings of {name}", radiograph.warnings, str)
    _check_items(f"the findings of {name}", radiograph.findings, Finding)


def _check_text(name: str, value: object) -> None:
    if not isinstance(value, str):  # a header may state an empty one
        check_text(name, value)


def _check_items(name: str, items: object, kind: type[Any]) -> None:
    if not isinstance(items, (tuple, list)):
        raise ValueError(f"{name} must be a tuple of {kind.__name__} objects, got {shown(items)}")
    for item in (item for item in items if not isinstance(item, kind)):
        raise ValueError(f"{name} must be {kind.__name__} objects, got {shown(item)} in them; call load_study")
