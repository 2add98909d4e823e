"""The few figures of each result that lists of studies show, so that no list opens reports.

`patient_key` is the report's keyed hash, which finds other studies of the same patient, and is shown to nobody.
"""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

from spinescore.runtime.appliance.store.index import Index
from spinescore.runtime.appliance.store.places import Places
from spinescore.runtime.jsonfile import read_json
from spinescore.runtime.outputs.formats import FORMATS

__all__ = ["LATEST", "fill_summaries", "keep_summary", "prior_of", "read_summary"]

# The newest results of a study with the number `{study}`.
LATEST = "(SELECT input_key FROM results WHERE study = {study} ORDER BY revision DESC, made_s DESC LIMIT 1)"


def read_summary(folder: Path) -> dict[str, Any]:
    """Return the columns of a result's summary, from its report; without a whole report there is nothing to show."""
    try:
        report = read_json(folder / FORMATS["json"].file)
    except (OSError, ValueError):
        return {"findings": "[]"}
    total = {name: report["total"][name] for name in ("value", "status", "range")}
    codes = dict.fromkeys(one["code"] for name in ("findings", "notices") for one in report.get(name, ()))
    study = report["study"]
    return {"study_date": study["study_date"], "patient_key": study["patient_key"], "total": json.dumps(total),
            "findings": json.dumps(list(codes))}  # fmt: skip


def keep_summary(index: Index, input_key: str, summary: dict[str, Any]) -> None:
    index.insert("summaries", input_key=input_key, **summary)


def fill_summaries(places: Places, index: Index) -> None:
    """Make the summaries of results that a version without them made."""
    rows = index.rows("SELECT input_key FROM results WHERE removed = 0 AND input_key NOT IN "
                      "(SELECT input_key FROM summaries)")  # fmt: skip
    if rows:
        with index.transaction():
            for row in rows:
                keep_summary(index, row["input_key"], read_summary(places.results / row["input_key"]))


def prior_of(index: Index, study: int) -> sqlite3.Row | None:
    """Return study, date and results of the latest earlier study of the same patient that was scored."""
    row: sqlite3.Row | None = index.one(
        "SELECT q.study, q.input_key, p.study_date FROM summaries u JOIN summaries p USING (patient_key) JOIN results "
        f"q ON q.input_key = p.input_key WHERE u.input_key = {LATEST.format(study='?1')} AND q.study != ?1 AND "
        f"q.scored = 1 AND q.removed = 0 AND q.input_key = {LATEST.format(study='q.study')} AND "
        "(p.study_date, q.study) < (u.study_date, ?1) ORDER BY p.study_date DESC, q.study DESC LIMIT 1", study,
    )  # fmt: skip
    return row
