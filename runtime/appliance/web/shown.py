"""One study as the routes of HTTP show it: its state, with links to its results, views and prior study."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from starlette.requests import Request

from spinescore.runtime.appliance.seen import status
from spinescore.runtime.appliance.store.index import Index
from spinescore.runtime.appliance.store.resultset import SET
from spinescore.runtime.appliance.store.summaries import prior_of
from spinescore.runtime.appliance.web.problems import unknown
from spinescore.runtime.appliance.web.site import Site
from spinescore.runtime.outputs.formats import FORMATS

__all__ = ["asked", "check_study", "number_of", "radiographs_of", "show"]

_NUMBER = re.compile(r"[0-9]{1,15}")
_REPORT = FORMATS["json"].file


def number_of(request: Request) -> int:
    """Return the number of the study in a request's path. Raises Problem."""
    number = request.path_params["number"]
    if not _NUMBER.fullmatch(number):
        raise unknown("a study is named by its number")
    return int(number)


async def asked(site: Site, ask: Callable[[Index], Any]) -> Any:
    """Return what a question to the index gives, in a thread."""

    def call() -> Any:
        with site.index() as index:
            return ask(index)

    return await asyncio.to_thread(call)


def check_study(index: Index, number: int) -> None:
    """Raise Problem if there is no study with this number."""
    if index.one("SELECT 1 FROM studies WHERE id = ?", number) is None:
        raise unknown(f"there is no study {number}")


def show(site: Site, index: Index, number: int) -> dict[str, Any]:
    """Return a study with links to its files, views and prior study. Raises Problem if there is none."""
    check_study(index, number)
    study = status.show_study(index, number)
    files = [
        f"{_link(number, one['input_key'])}/{path.name}"
        for one in study["results"] if not one["removed"]
        for path in sorted((site.places.results / one["input_key"]).glob("*")) if path.name != SET
    ]  # fmt: skip
    keys = {one["revision"]: one.pop("input_key") for one in study["revisions"]}
    for one in study["revisions"]:
        url = f"{_link(number, keys[one['revision']])}/{_REPORT}"
        one["report_url"] = url if url in files else None
    newest = next((one for one in reversed(study["revisions"]) if one["made_at"] is not None), None)
    report_url = newest and newest["report_url"]
    views = {}
    if newest and report_url:
        sha256 = {one["sop_instance_uid"]: one["sha256"] for one in study["objects"]}
        views = _views(number, site.places.results / keys[newest["revision"]] / _REPORT, sha256)
    return {**study, "files": files, "report_url": report_url, "prior": _prior(index, number), "views": views}


def _link(number: int, key: str | None) -> str:
    return f"/v1/studies/{number}/results/{key}"


def _prior(index: Index, number: int) -> dict[str, Any] | None:
    row = prior_of(index, number)
    if row is None:
        return None
    report_url = f"{_link(row['study'], row['input_key'])}/{_REPORT}"
    return {"study": row["study"], "report_url": report_url, "study_date": row["study_date"]}


def radiographs_of(report: Path) -> dict[str, dict[str, Any]]:
    """Return the facts of each region's radiograph in the file of a report; none if the file is not there."""
    try:
        regions = json.loads(report.read_bytes())["regions"]
    except FileNotFoundError:
        return {}
    return {name: one["radiograph"] for name, one in regions.items() if one["radiograph"] is not None}


def _views(number: int, report: Path, sha256: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Return the radiographs of a report; `sha256` has the digests of the study's objects by SOP Instance UID."""
    return {
        name: {"url": f"/v1/studies/{number}/views/{name}", "sha256": sha256[one["sop_instance_uid"]],
               "rows": one["rows"], "columns": one["columns"], "turn_deg": one.get("turn_deg", 0)}
        for name, one in radiographs_of(report).items() if one["sop_instance_uid"] in sha256
    }  # fmt: skip
