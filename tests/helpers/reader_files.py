"""CSV files with a reader's grades."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from spinescore.runtime.study import REGIONS, SITES

ALL = [site for region in REGIONS for site in SITES[region]]


def rows(
    study: str,
    grades: Mapping[str, Any] | None = None,
    day: str = "2022-01-10",
    patient: str = "P1",
    reader: str | None = None,
) -> list[str]:
    """Long rows of one study, with grade 0 for each site that `grades` does not name."""
    return [
        ",".join([study, patient, day, site, str((grades or {}).get(site, 0)), *([] if reader is None else [reader])])
        for site in ALL
    ]


def write(path: Path, *studies: list[str], reader: bool = False) -> Path:
    """Write the rows of studies under a header, and return the path."""
    header = "study,patient,study_date,site,grade" + (",reader" if reader else "")
    path.write_text("\n".join([header, *(line for study in studies for line in study)]) + "\n", encoding="utf-8")
    return path
