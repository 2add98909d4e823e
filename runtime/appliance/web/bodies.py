"""The bodies and queries of calls, read within their limits; every fault is a problem."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from python_multipart.multipart import parse_options_header
from starlette.requests import Request

from spinescore.runtime.appliance.fault import Fault
from spinescore.runtime.appliance.store.places import FULL, Places
from spinescore.runtime.appliance.web.consolebody import Packed
from spinescore.runtime.appliance.web.problems import Problem, malformed
from spinescore.runtime.appliance.web.upload import Malformed, Multipart, Whole, boundary_of
from spinescore.runtime.console.wire import REQUEST

__all__ = ["RETRY_LATER", "Body", "form_or_file", "query_of", "small_body", "whole_body", "wrong_type"]

RETRY_LATER = {"Retry-After": "30"}  # of a spool that takes nothing in until an operator has corrected that

_BODY_S = 50.0  # in which a body has to arrive; later the connection is cut off without an answer (`limits`)

Body = Multipart | Packed | Whole


@asynccontextmanager
async def whole_body(request: Request, make: Callable[[], Body], places: Places, limit: int) -> AsyncIterator[Body]:
    """Read a request's body into what `make` returns, and yield it; Malformed in the block is a problem, too.

    Raises Problem, ClientDisconnect.
    """
    try:
        body = make()
        try:
            await asyncio.wait_for(_take(request, body, places, limit), _BODY_S)
        finally:
            body.close()
        body.check()
        yield body
    except Malformed as error:
        raise Problem(413 if error.too_large else 400, Fault("http-request", str(error))) from None
    except asyncio.TimeoutError:
        raise _late() from None
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise _no_space() from None


def query_of(request: Request) -> dict[str, str]:
    """Return the options in a request's query. Raises Problem if one of them is there twice."""
    options: dict[str, str] = {}
    for name, text in request.query_params.multi_items():
        if name in options:
            raise malformed(f"{name[:60]}: the query has this option twice; keep one of them")
        options[name] = text
    return options


async def small_body(request: Request, limit: int) -> bytes:
    """Return a request's body of at most `limit` bytes. Raises Problem, ClientDisconnect."""

    async def take() -> bytes:
        body = b""
        async for chunk in request.stream():
            body += chunk
            if len(body) > limit:
                raise Problem(413, Fault("http-request", f"the body is larger than the limit of {limit >> 10} KiB"))
        return body

    try:
        return await asyncio.wait_for(take(), _BODY_S)
    except asyncio.TimeoutError:
        raise _late() from None


async def _take(request: Request, body: Body, places: Places, limit: int) -> None:
    declared = request.headers.get("content-length", "0")
    size = int(declared) if declared.isascii() and declared.isdecimal() else 0
    taken = 0
    if size <= limit:
        if not places.has_room(size):
            raise _no_space()
        async for chunk in request.stream():
            taken += len(chunk)
            if taken > limit:
                break
            body.write(chunk)
            if taken > size and not places.has_room():  # a body without a length
                raise _no_space()
        else:
            return
    text = f"the body is larger than the limit of {limit >> 20} MiB (http.max_body_mb)"
    raise Problem(413, Fault("http-request", text))


def _late() -> Problem:
    text = f"the body did not arrive within {_BODY_S:g} s; send it again, over a faster connection"
    return Problem(408, Fault("http-request", text))


def _no_space() -> Problem:
    text = "the service's disk has less free space than its reserve; free space there, and send the study again"
    return Problem(503, Fault("no-space", text), RETRY_LATER)


def form_or_file(request: Request, folder: Path, files: tuple[str, ...], most: int) -> Body:
    """Return the body of a call that is a form with at most `most` files, or one file of the types `files`."""
    content_type = request.headers.get("content-type", "")
    kind = parse_options_header(content_type)[0].decode("latin-1").lower()
    if kind == "multipart/form-data":
        return Multipart(folder, boundary_of(content_type), most)
    if kind in files:
        return Packed(folder, most) if kind == REQUEST else Whole(folder, kind)
    *first, last = ("multipart/form-data", *files)
    raise wrong_type(f"{', '.join(first)} and {last}")


def wrong_type(types: str) -> Problem:
    return Problem(415, Fault("http-request", f"the Content-Type is none of {types}"))
