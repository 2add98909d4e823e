"""`GET /v1/studies/{number}/views/{region}`: the grey values of a radiograph, for the review page.

The worker makes a view when it is first asked for. The spool keeps the last ones, and none over a start of the service.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from functools import partial
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from spinescore.runtime.appliance.store.index import Index
from spinescore.runtime.appliance.store.places import Places
from spinescore.runtime.appliance.store.resultset import JobObject
from spinescore.runtime.appliance.store.summaries import LATEST
from spinescore.runtime.appliance.web.consoles import WorkCalls
from spinescore.runtime.appliance.web.problems import unknown
from spinescore.runtime.appliance.web.shown import asked, number_of, radiographs_of
from spinescore.runtime.appliance.web.site import Site
from spinescore.runtime.appliance.work.reviewjob import VIEW, ReviewJob
from spinescore.runtime.outputs.formats import FORMATS

__all__ = ["views_routes"]

_MOST_KEPT = 12


def views_routes(site: Site, calls: WorkCalls) -> list[Route]:
    async def view(request: Request) -> Response:
        number, region = number_of(request), request.path_params["region"]
        one = await asked(site, lambda index: _object_of(site, index, number, region))
        tag = f'"{one.sha256}"'
        kept = site.places.views / one.sha256
        with suppress(FileNotFoundError):
            return await asyncio.to_thread(_answer, kept, tag)
        async with calls.done(partial(ReviewJob, objects=(one,)), request) as folder:
            answer = await asyncio.to_thread(_answer, folder / VIEW, tag)
            await asyncio.to_thread(_keep, site.places, folder / VIEW, kept)
            return answer

    return [Route("/v1/studies/{number}/views/{region}", view)]


def _object_of(site: Site, index: Index, number: int, region: str) -> JobObject:
    """Return the radiograph of a region of the study's newest results. Raises Problem if there is none."""
    results = index.one(f"SELECT input_key FROM results WHERE input_key = {LATEST.format(study='?')}", number)
    report = None if results is None else site.places.results / results["input_key"] / FORMATS["json"].file
    radiograph = None if report is None else radiographs_of(report).get(region)
    row = radiograph and index.one("SELECT sha256 FROM objects WHERE study = ? AND sop_instance_uid = ?", number,
                                   radiograph["sop_instance_uid"])  # fmt: skip
    if not row:
        raise unknown(f"study {number} has no radiograph of this region that was scored")
    return JobObject(row["sha256"], str(site.places.object(row["sha256"])))


def _keep(places: Places, made: Path, kept: Path) -> None:
    """Give a view its place, if there is room, and remove the oldest ones."""
    if places.has_room():
        made.replace(kept)
    oldest = sorted(places.views.iterdir(), key=lambda path: path.stat().st_mtime)[:-_MOST_KEPT]
    for path in oldest:
        with suppress(FileNotFoundError):
            path.unlink()


def _answer(path: Path, tag: str) -> Response:
    """Return the answer with a view. Raises FileNotFoundError."""
    with path.open("rb") as file:
        head = json.loads(file.readline())
        pixels = file.read()
    size, window = f"{head['rows']} {head['columns']}", "{:g} {:g}".format(*head["window"])
    headers = {"ETag": tag, "Spinescore-Size": size, "Spinescore-Window": window}
    return Response(pixels, 200, headers, "application/octet-stream")
