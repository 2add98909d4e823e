"""Every code of rejects, warnings, skipped steps and errors, with its meaning and the next step.

Codes are stable: new ones are added, none is renamed, but their sentences may change. The table is `codes.json`
(`spinescore.codes/1`), which ships with the package; `codes.md` is the same table for people.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

__all__ = ["CODES", "REJECT_CODES", "Code", "Severity"]

Severity = Literal["reject", "warning", "skipped", "error", "service"]


@dataclass(frozen=True)
class Code:
    """The severity, the meaning and the next step of a code, and the names of its values.

    A `reject` stops a region or a file, a `warning` stops nothing, `skipped` is a step that was skipped (in
    `StudyReport.skipped`), an `error` is raised, and a `service` code is the appliance's, never a report's. `values`
    are the keys that a warning with this code may have in `Finding.values`.
    """

    severity: Severity
    meaning: str
    next_step: str
    values: tuple[str, ...] = ()


def _table() -> dict[str, Code]:
    document = json.loads((Path(__file__).parent / "codes.json").read_text(encoding="utf-8"))
    return {
        name: Code(entry["severity"], entry["meaning"], entry["next_step"], tuple(entry.get("values", ())))
        for name, entry in document["codes"].items()
    }


CODES: Mapping[str, Code] = _table()
REJECT_CODES: Mapping[str, str] = {name: code.meaning for name, code in CODES.items() if code.severity == "reject"}
