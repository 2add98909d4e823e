"""Studies over HTTP: sent as from any source, by a form or by STOW-RS; listed, shown, scored and delivered again."""

from __future__ import annotations

import asyncio
import re
import shutil
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from functools import partial
from pathlib import Path
from typing import Any

from python_multipart.multipart import parse_options_header
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from spinescore.runtime.appliance.fault import LATER, Fault, Refused
from spinescore.runtime.appliance.seen import status
from spinescore.runtime.appliance.seen.status import dismiss
from spinescore.runtime.appliance.store.index import Index
from spinescore.runtime.appliance.store.objects import Identity, read_identity
from spinescore.runtime.appliance.store.spool import Spool
from spinescore.runtime.appliance.store.studies import STATES
from spinescore.runtime.appliance.web.bodies import RETRY_LATER, Body, form_or_file, query_of, whole_body, wrong_type
from spinescore.runtime.appliance.web.pages import file_response
from spinescore.runtime.appliance.web.problems import Problem, busy, malformed, unknown
from spinescore.runtime.appliance.web.shown import asked, check_study, number_of, show
from spinescore.runtime.appliance.web.site import Site
from spinescore.runtime.appliance.web.upload import DICOM, Part, Related, boundary_of
from spinescore.runtime.appliance.work.consolejob import SUFFIX

__all__ = ["SOURCE", "studies_routes"]

SOURCE = "http"  # the name of the associations of these calls

_MOST_FILES = 64
_MOST_CALLS = 4
_MOST_STUDIES = 100  # in one answer
_PIECE = 1 << 20
_Change = Callable[[Site, Index, int, "str | None"], str]
_NUMBER = re.compile(r"[0-9]{1,15}")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_DATE_LENGTH = len("2026-11-29")
_RESULT_KEY = re.compile(r"[0-9a-f]{64}")
# Failure reasons of STOW-RS (PS3.18, table I.2-2) by code of a fault.
_REASONS = {"not-dicom": 0xC000, "no-uid": 0xA900, "too-large": 0xA700, "quarantined": 0x0111}


@dataclass(frozen=True)
class _Outcome:
    """The outcome of one file: its identity, and the fault for which it was refused or put aside."""

    name: str
    identity: Identity | None
    status: str
    study: int | None
    fault: Fault | None

    def document(self) -> dict[str, Any]:
        code, detail = (None, None) if self.fault is None else (self.fault.code, self.fault.message)
        return {"part": self.name, "status": self.status, "study": self.study, "code": code, "detail": detail}


def studies_routes(site: Site) -> list[Route]:
    calls = asyncio.Semaphore(_MOST_CALLS)

    async def receive(request: Request) -> Response:
        outcomes = await _receive(site, calls, request, partial(_form, request))
        if all(one.status == "refused" for one in outcomes):
            raise Problem(422, outcomes[0].fault or Fault("not-dicom", "no file is DICOM"))
        return JSONResponse({"files": [one.document() for one in outcomes]}, 202)

    async def store(request: Request) -> Response:
        outcomes = await _receive(site, calls, request, partial(_related, request))
        failed = [one for one in outcomes if one.fault is not None]
        code = 200 if not failed else 409 if len(failed) == len(outcomes) else 202
        return JSONResponse(_stored(outcomes), code, media_type="application/dicom+json")

    async def listed(request: Request) -> Response:
        chosen = _choice(request)
        return JSONResponse(await asked(site, lambda index: _list(index, **chosen)))

    async def studies(request: Request) -> Response:
        return await (receive if request.method == "POST" else listed)(request)

    async def shown(request: Request) -> Response:
        number = number_of(request)
        return JSONResponse(await asked(site, lambda index: show(site, index, number)))

    def changing(change: _Change) -> Callable[[Request], Awaitable[Response]]:
        async def changed(request: Request) -> Response:
            number, destination = number_of(request), query_of(request).get("destination")

            def call(index: Index) -> dict[str, Any]:
                check_study(index, number)
                return {"message": change(site, index, number, destination), "study": show(site, index, number)}

            return JSONResponse(await asked(site, call))

        return changed

    async def result(request: Request) -> Response:
        number, key, file = number_of(request), request.path_params["key"], request.path_params["file"]
        if _RESULT_KEY.fullmatch(key):
            files = (await asked(site, lambda index: show(site, index, number)))["files"]
            if f"/v1/studies/{number}/results/{key}/{file}" in files:
                return await file_response(site.places.results / key / file)
        raise unknown("there is no such result, or it was removed after its time")

    return [
        Route("/v1/studies", studies, methods=["GET", "POST"]),
        Route("/v1/studies/{number}", shown),
        Route("/v1/studies/{number}/results/{key}/{file}", result),
        *(
            Route(f"/v1/studies/{{number}}/{name}", changing(change), methods=["POST"])
            for name, change in (("retry", _retry), ("deliver", _deliver), ("dismiss", _dismiss))
        ),
        Route("/dicom-web/studies", store, methods=["POST"]),
    ]


def _form(request: Request, folder: Path) -> Body:
    return form_or_file(request, folder, (DICOM,), _MOST_FILES)


def _related(request: Request, folder: Path) -> Body:
    content_type = request.headers.get("content-type", "")
    kind, options = parse_options_header(content_type)
    if kind.lower() != b"multipart/related" or options.get(b"type", DICOM.encode()).lower() != DICOM.encode():
        raise wrong_type(f'multipart/related; type="{DICOM}"')
    return Related(folder, boundary_of(content_type), _MOST_FILES)


async def _receive(
    site: Site, calls: asyncio.Semaphore, request: Request, make: Callable[[Path], Body]
) -> list[_Outcome]:
    """Take the files of a call into the spool. When this returns they cannot be lost any more."""
    if calls.locked():
        raise busy(f"{_MOST_CALLS} calls are sending studies already; send it again")
    limit = site.config.http.max_body_mb << 20
    async with calls, _folder(site) as folder:
        async with whole_body(request, partial(make, folder), site.places, limit) as body:
            if others := [part.name for part in body.parts if part.kind != DICOM]:
                raise malformed(f"the part {others[0]} is no DICOM file; send each file as {DICOM}")
            if body.request is not None:
                raise malformed("the part request is for /v1/score; a study that waits has no options")
        return await asyncio.to_thread(_take_in, site, body.parts)


@asynccontextmanager
async def _folder(site: Site) -> AsyncIterator[Path]:
    folder = site.places.incoming / f"{uuid.uuid4().hex}{SUFFIX}"
    folder.mkdir(mode=0o700)
    try:
        yield folder
    finally:
        await asyncio.to_thread(shutil.rmtree, folder, True)


def _take_in(site: Site, parts: Sequence[Part]) -> list[_Outcome]:
    """Receive the files in one association. Raises Problem if the spool takes nothing in now; what was stored stays."""
    with site.index() as index:
        spool = Spool(site.places, index, site.clock, site.config.spool.max_object_mb << 20)
        with spool.association(SOURCE) as association:
            outcomes = []
            for part in parts:
                identity = None
                try:
                    identity = read_identity(part.path)
                    with part.path.open("rb") as file:
                        received = spool.receive(iter(lambda: file.read(_PIECE), b""), association)
                except Refused as error:
                    if error.fault.code in LATER:
                        raise Problem(503, error.fault, RETRY_LATER) from None
                    outcomes.append(_Outcome(part.name, identity, "refused", None, error.fault))
                else:
                    outcomes.append(_Outcome(part.name, identity, received.status, received.study, received.fault))
            return outcomes


def _stored(outcomes: Sequence[_Outcome]) -> dict[str, Any]:
    """Return the answer of STOW-RS (PS3.18, table I.2-1)."""
    failed, stored = [], []
    for one in outcomes:
        item: dict[str, Any] = {}
        if one.identity is not None:
            item["00081150"] = {"vr": "UI", "Value": [one.identity.sop_class_uid]}
            item["00081155"] = {"vr": "UI", "Value": [one.identity.sop_instance_uid]}
        if one.fault is None:
            stored.append(item)
        else:
            item["00081197"] = {"vr": "US", "Value": [_REASONS.get(one.fault.code, 0x0110)]}
            failed.append(item)
    sequences = {"00081198": failed, "00081199": stored}
    return {tag: {"vr": "SQ", "Value": items} for tag, items in sequences.items() if items}


def _choice(request: Request) -> dict[str, Any]:
    """Return what a list is asked for: `state`, `since`, `until` and `cursor`. Raises Problem."""
    query = query_of(request)
    state, cursor = query.pop("state", None), query.pop("cursor", None)
    since = _moment("since", query.pop("since", None))
    before = _moment("until", query.pop("until", None), end=True)
    if query:
        names = "state, since, until and cursor"
        raise malformed(f"{next(iter(query))[:60]}: there is no such option; the options are {names}")
    if state is not None and state not in STATES:
        raise malformed(f"state: expected one of {', '.join(STATES)}")
    if cursor is not None and not _NUMBER.fullmatch(cursor):
        raise malformed("cursor: expected the number that the answer before gave as next")
    return {"state": state, "since": since, "before": before, "below": None if cursor is None else int(cursor)}


def _moment(name: str, text: str | None, *, end: bool = False) -> str | None:
    """Return a time as the index has it; with `end` the one after the day, or the second, that is named."""
    if text is None:
        return None
    try:
        if not _DATE.match(text):  # Python also reads other forms
            raise ValueError
        moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
        moment += timedelta(days=len(text) == _DATE_LENGTH, seconds=len(text) != _DATE_LENGTH) * end
        moment = moment.replace(tzinfo=moment.tzinfo or timezone.utc).astimezone(timezone.utc)
    except (ValueError, OverflowError):
        raise malformed(f"{name}: expected a date, or a date with a time, as 2026-11-29T08:00:00Z") from None
    return moment.isoformat(timespec="seconds")


def _list(index: Index, **chosen: Any) -> dict[str, Any]:
    studies = status.list_studies(index, **chosen, most=_MOST_STUDIES)
    return {"studies": studies, "next": studies[-1]["study"] if len(studies) == _MOST_STUDIES else None}


def _retry(site: Site, index: Index, number: int, destination: str | None) -> str:
    return status.retry(index, site.clock, number)


def _deliver(site: Site, index: Index, number: int, destination: str | None) -> str:
    names = [one.name for one in site.config.destination]
    if destination is not None and destination not in names:
        raise malformed(f"there is no destination {destination[:64]!r} in the configuration")
    return status.deliver_again(index, site.clock, number, destination, among=names)


def _dismiss(site: Site, index: Index, number: int, destination: str | None) -> str:
    return dismiss(index, site.clock, number, destination)
