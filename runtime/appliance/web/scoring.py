"""`POST /v1/score`: a console's pixels in, the report out; and `GET /v1/results/{key}/{file}` for the results."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, get_args

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from spinescore.runtime.appliance.fault import Fault
from spinescore.runtime.appliance.store.places import Places
from spinescore.runtime.appliance.web.bodies import Body, form_or_file, query_of, whole_body
from spinescore.runtime.appliance.web.consoles import Consoles
from spinescore.runtime.appliance.web.pages import file_response
from spinescore.runtime.appliance.web.problems import RETRY_SOON, disconnect, malformed, problem, status_of
from spinescore.runtime.appliance.web.upload import DICOM, FRAME, ZIP, Malformed, Part
from spinescore.runtime.appliance.work.consolejob import ANSWER, ConsoleJob, View
from spinescore.runtime.console.wire import REQUEST
from spinescore.runtime.documents import read
from spinescore.runtime.fields import OPTIONAL, Length, Within
from spinescore.runtime.jsonfile import parse_json
from spinescore.runtime.outputs.formats import ResultFormat

__all__ = ["MOST_FILES", "ScoreRequest", "read_query", "read_request", "scoring_routes"]

MOST_FILES = 4
_MOST_BUDGET_MS = 3_600_000.0
_FLAGS = {"true": True, "1": True, "false": False, "0": False}


@dataclass(frozen=True)
class ScoreRequest:
    """The options of a call. Without `views` its files are DICOM."""

    budget_ms: Annotated[float | None, OPTIONAL, Within(1.0, _MOST_BUDGET_MS)] = None
    strict: Annotated[bool, OPTIONAL] = False
    formats: Annotated[tuple[ResultFormat, ...], OPTIONAL, Length(0, len(get_args(ResultFormat)))] = ()
    views: Annotated[tuple[View, ...], OPTIONAL, Length(0, MOST_FILES)] = ()

    def _check_fields(self, path: str) -> None:
        names = [view.part for view in self.views]
        for place, name in enumerate(names):
            if name in names[:place]:
                raise ValueError(f"views[{place}].part: {name!r} is the part of an earlier view; give another")


def read_request(text: bytes) -> ScoreRequest:
    """Return the options in JSON text. Raises `ValueError` that begins with the name of the field."""
    return read(ScoreRequest, _without_nulls(parse_json(text)), "")


def read_query(query: Mapping[str, str]) -> ScoreRequest:
    """Return the options in a query: `budget_ms`, `strict` and `formats`, with commas. Raises `ValueError`."""
    document: dict[str, Any] = {}
    for name, text in query.items():
        if name == "budget_ms":
            document[name] = _number(text)
        elif name == "strict":
            document[name] = _FLAGS.get(text.lower(), text)
        elif name == "formats":
            document[name] = [word.strip() for word in text.split(",") if word.strip()]
        else:
            raise ValueError(f"{name[:60]}: there is no such option; the options are budget_ms, strict and formats")
    return read(ScoreRequest, document)


def _number(text: str) -> float | str:
    try:
        return float(text) if text.isascii() and "_" not in text else text
    except ValueError:
        return text


def _without_nulls(value: Any) -> Any:
    """Return a document without the fields that are null, which mean the same as missing ones."""
    if isinstance(value, dict):
        return {name: _without_nulls(one) for name, one in value.items() if one is not None}
    return [_without_nulls(one) for one in value] if isinstance(value, list) else value


_KEY = re.compile(r"[0-9]{1,15}-[0-9a-f]{32}")


def scoring_routes(consoles: Consoles, places: Places, max_body_bytes: int) -> list[Route]:
    async def score(request: Request) -> Response:
        async with consoles.call() as (key, folder):
            body, options = await _read(request, folder, places, max_body_bytes)
            job = _job(key, folder, body, options)
            code, message = await consoles.score(job, disconnect(request.receive))
            return await _answer(consoles, job, code, message or "")

    async def result(request: Request) -> Response:
        key = request.path_params["key"]
        folder = await consoles.results(key if _KEY.fullmatch(key) else "none")
        return await file_response(folder / request.path_params["file"])

    return [Route("/v1/score", score, methods=["POST"]), Route("/v1/results/{key}/{file}", result)]


async def _read(request: Request, folder: Path, places: Places, limit: int) -> tuple[Body, ScoreRequest]:
    """Return the files and the options of a call. Raises Problem, ClientDisconnect."""
    async with whole_body(
        request, partial(form_or_file, request, folder, (DICOM, ZIP, REQUEST), MOST_FILES), places, limit
    ) as body:
        return body, _options(request, body)


def _options(request: Request, body: Body) -> ScoreRequest:
    """Return the options, in the part `request` or in the query. Raises Malformed."""
    try:
        if body.request is None:
            return read_query(query_of(request))
        if request.query_params:
            raise Malformed("the options are in the part request and in the query; give them in one of the two")
        return read_request(body.request)
    except ValueError as error:
        raise Malformed(f"the options cannot be read: {error}") from None


def _job(key: str, folder: Path, body: Body, options: ScoreRequest) -> ConsoleJob:
    """Return the job of a call. Raises Problem if its parts do not fit its options."""
    parts = {part.name: part for part in body.parts}
    frames = [_frame(view.part, view.byte_count, parts) for view in options.views]
    headers = [None if view.header is None else _header(view.header, parts) for view in options.views]
    files = [part for part in parts.values() if part.kind != FRAME and part not in headers]
    others = [part.name for part in parts.values() if part.kind == FRAME and part not in frames]
    if others:
        raise malformed(f"the part {others[0]} is a raw frame ({FRAME}), and no view in the part request names it; "
                         f"send DICOM files as {DICOM}")  # fmt: skip
    if frames and files:
        raise malformed(f"the part {files[0].name} is a file, and the other parts are raw frames; send one of the two")
    return ConsoleJob(
        key, str(folder), options.views, tuple(str(part.path) for part in frames),
        tuple(None if part is None else str(part.path) for part in headers),
        tuple(str(part.path) for part in files), options.budget_ms, options.strict, options.formats,
        f"/v1/results/{key}",
    )  # fmt: skip


def _frame(name: str, byte_count: int, parts: dict[str, Part]) -> Part:
    part = parts.get(name)
    if part is None:
        raise malformed(f"the part {name} is missing, which a view in the part request names")
    if part.kind != FRAME:
        raise malformed(f"the part {name} is a raw frame by the part request; send it as {FRAME}")
    if part.byte_count != byte_count:
        raise malformed(f"the part {name} has {part.byte_count} bytes, and its rows, columns and bits_allocated mean "
                         f"{byte_count}; send all of its pixels, without padding")  # fmt: skip
    return part


def _header(name: str, parts: dict[str, Part]) -> Part:
    part = parts.get(name)
    if part is None or part.kind != DICOM:
        raise malformed(f"the part {name} is the header of a view by the part request; send it as {DICOM}")
    return part


async def _answer(consoles: Consoles, job: ConsoleJob, code: str | None, message: str) -> Response:
    path = Path(job.folder) / ANSWER
    if code is None:
        content = path.read_bytes()
        if job.formats:
            consoles.keep(job)
        return Response(content, media_type="application/json")
    status = status_of(code)
    report = {"report": json.loads(path.read_bytes())["report"]} if path.exists() else {}
    return problem(status, Fault(code, message), RETRY_SOON if status == 503 else None, **report)
