"""Verdicts of readers over HTTP: corrections of points and grades, regions that can or cannot be read, "accepted".

Bodies are `application/json` alone: a page of another site cannot send that with a browser's certificate. A preview
keeps nothing; with grades alone it is computed here, with points, or regions that can be read again, by the worker,
before the queue.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from python_multipart.multipart import parse_options_header
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from spinescore.runtime.appliance.fault import Fault
from spinescore.runtime.appliance.seen.audit import AuditNotWritten
from spinescore.runtime.appliance.store import reviews
from spinescore.runtime.appliance.store.index import Index, IndexFull
from spinescore.runtime.appliance.store.resultset import JobObject
from spinescore.runtime.appliance.web.access import CLIENT, Client
from spinescore.runtime.appliance.web.bodies import RETRY_LATER, small_body, wrong_type
from spinescore.runtime.appliance.web.consoles import WorkCalls
from spinescore.runtime.appliance.web.problems import Problem, malformed
from spinescore.runtime.appliance.web.shown import asked, check_study, number_of, show
from spinescore.runtime.appliance.web.site import Site
from spinescore.runtime.appliance.work.consolejob import ANSWER
from spinescore.runtime.appliance.work.reviewjob import ReviewJob
from spinescore.runtime.documents import read
from spinescore.runtime.fields import OPTIONAL, Within, check_known
from spinescore.runtime.jsonfile import parse_json
from spinescore.runtime.outputs.formats import FORMATS
from spinescore.runtime.scoring.applied import Comment, Reader, check_words
from spinescore.runtime.scoring.correction import Correction, check_regions, correct
from spinescore.runtime.scoring.report import StudyReport

__all__ = ["CALLS", "reviews_routes"]

_MOST_BYTES = 1 << 16
_JSON = "application/json"
_MOST_REVISION = 1_000_000_000
_PREVIEW = "preview"
# The fields of each call besides those of all calls. Unless it is a preview, the first of them must not be empty.
CALLS: Mapping[str, tuple[str, ...]] = {
    "points": ("points", "grades", "readable"),
    "grades": ("grades", "readable"),
    "unreadable": ("regions",),
    "readable": ("readable", "points", "grades"),
    "accept": (),
    _PREVIEW: ("points", "grades", "readable"),
}


@dataclass(frozen=True)
class _Head:
    """The fields of all calls. A token with a name stands for its reader."""

    revision: Annotated[int, Within(1, _MOST_REVISION)]
    reader: Annotated[Reader | None, OPTIONAL] = None
    comment: Annotated[Comment | None, OPTIONAL] = None


@dataclass(frozen=True)
class _Call:
    """A verdict as it came; `correction` is None if it changes nothing."""

    revision: int
    reader: str
    comment: str | None
    at: str
    correction: Correction | None


def reviews_routes(site: Site, calls: WorkCalls) -> list[Route]:
    """Return the routes of readers' verdicts."""

    async def corrected(request: Request) -> Response:
        number, call = number_of(request), await _read(site, request)
        study = await asked(site, lambda index: _kept(partial(_correct, site, index, number, call)))
        return JSONResponse({"study": study}, 202)

    async def accepted(request: Request) -> Response:
        number, call = number_of(request), await _read(site, request)
        study = await asked(site, lambda index: _kept(partial(_accept, site, index, number, call)))
        return JSONResponse({"study": study})

    async def preview(request: Request) -> Response:
        number, call = number_of(request), await _read(site, request)
        seen, objects, corrections = await asked(site, lambda index: _inputs(site, index, number, call))
        if call.correction is None or not _is_scored_again(call.correction):
            return JSONResponse({"report": await asyncio.to_thread(_corrected, seen, call.correction)})
        await asyncio.to_thread(_check_fits, seen, call.correction)
        make = partial(ReviewJob, objects=objects, corrections=(*corrections, call.correction), seen=str(seen))
        async with calls.done(make, request) as folder:
            return JSONResponse(json.loads((folder / ANSWER).read_bytes()))

    others = {"accept": accepted, _PREVIEW: preview}
    return [Route(f"/v1/studies/{{number}}/{kind}", others.get(kind, corrected), methods=["POST"]) for kind in CALLS]


async def _read(site: Site, request: Request) -> _Call:
    """Return the verdict in a request's body. Raises Problem, ClientDisconnect."""
    if parse_options_header(request.headers.get("content-type", ""))[0].decode("latin-1").lower() != _JSON:
        raise wrong_type(_JSON)
    body = await small_body(request, _MOST_BYTES)
    kind = request.url.path.rpartition("/")[2]
    at = site.clock.date().isoformat(timespec="milliseconds")  # equal corrections count once
    try:
        return _call(kind, parse_json(body), request.scope[CLIENT], at)
    except ValueError as error:
        raise malformed(str(error)) from None


def _call(kind: str, document: Any, client: Client, at: str) -> _Call:
    """Return the verdict in a document. Raises `ValueError`, and Problem for another reader than the token's."""
    if not isinstance(document, dict):
        raise ValueError("document: expected an object with revision and reader")
    names = (*_Head.__dataclass_fields__, *CALLS[kind])
    check_known([name for name in document if name not in names], names, "")
    stated = {name: document[name] for name in _Head.__dataclass_fields__ if document.get(name) not in (None, "")}
    head = read(_Head, stated)
    if client.name is not None and head.reader not in (None, client.name):
        text = f"reader: the token is that of {client.name}; leave the reader out, or use the other reader's token"
        raise Problem(403, Fault("http-request", text))
    reader = client.name or head.reader or (_PREVIEW if kind == _PREVIEW else None)
    if reader is None:
        raise ValueError("reader: this field is missing; give your name or initials")
    check_words("", reader, at, head.comment)
    for name in CALLS[kind][:1]:
        if kind != _PREVIEW and not document.get(name):
            raise ValueError(f"{name}: expected at least one; leave the call out if there is none")
    changes = {"points": document.get("points", {}), "grades": document.get("grades", {}),
               "unreadable": document.get("regions", []), "readable": document.get("readable", [])}  # fmt: skip
    words = {"reader": reader, "at": at, "comment": head.comment}
    changed = any(value != {} and value != [] for value in changes.values())
    correction = read(Correction, {**words, **changes}) if changed else None
    return _Call(head.revision, reader, head.comment, at, correction)


def _kept(change: Any) -> Any:
    """Return what a change of the index returns. Raises Problem if it conflicts, or there is no room for it."""
    try:
        return change()
    except reviews.Conflict as error:
        raise Problem(409, error.fault) from None
    except AuditNotWritten as error:
        raise Problem(503, Fault("audit-not-written", str(error)), RETRY_LATER) from None
    except IndexFull:
        text = "the service's disk is full; free space there, and send the correction again"
        raise Problem(503, Fault("no-space", text), RETRY_LATER) from None


def _seen(site: Site, index: Index, number: int, call: _Call) -> Path:
    """Return the file of the report that the reader sees. Raises Problem."""
    check_study(index, number)
    results = _kept(partial(reviews.latest, index, number, call.revision))
    path: Path = site.places.results / results["input_key"] / FORMATS["json"].file
    if not path.is_file():
        text = f"study {number} has no report that could be corrected ({results['code']})"
        raise Problem(409, Fault("review-conflict", text))
    return path


def _inputs(
    site: Site, index: Index, number: int, call: _Call
) -> tuple[Path, tuple[JobObject, ...], tuple[Correction, ...]]:
    """Return the report that the reader sees, the study's objects, and the corrections in it. Raises Problem."""
    seen = _seen(site, index, number, call)
    rows = index.rows("SELECT sha256 FROM objects WHERE study = ? ORDER BY sop_instance_uid", number)
    objects = tuple(JobObject(row["sha256"], str(site.places.object(row["sha256"]))) for row in rows)
    return seen, objects, reviews.corrections_of(index, number, call.revision)


def _corrected(seen: Path, correction: Correction | None) -> Any:
    """Return the document of a report with a correction that needs no pixels. Raises Problem if it does not fit."""
    report = StudyReport.from_json(seen.read_bytes())
    try:
        return (report if correction is None else correct(report, [correction])).to_dict()
    except ValueError as error:
        raise malformed(str(error).removeprefix("corrections[0].")) from None


def _is_scored_again(correction: Correction) -> bool:
    """Return whether a correction needs the pixels."""
    return bool(correction.points or correction.readable)


def _check_fits(seen: Path, correction: Correction) -> None:
    """Raise Problem if a correction, which needs the pixels, does not fit the report that the reader sees."""
    report = StudyReport.from_json(seen.read_bytes())
    try:
        check_regions(report, correction, again={*correction.points, *correction.readable})
    except ValueError as error:
        raise malformed(str(error)) from None


def _correct(site: Site, index: Index, number: int, call: _Call) -> Any:
    assert call.correction is not None
    seen = _seen(site, index, number, call)
    if _is_scored_again(call.correction):
        _check_fits(seen, call.correction)
    else:
        _corrected(seen, call.correction)
    reviews.take_correction(index, site.clock, number, call.revision, call.correction)
    return show(site, index, number)


def _accept(site: Site, index: Index, number: int, call: _Call) -> Any:
    check_study(index, number)
    reviews.accept(index, site.clock, number, call.revision, call.reader, call.comment, call.at)
    return show(site, index, number)
