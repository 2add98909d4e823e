"""Errors as the clients of the HTTP service get them: problem details (RFC 9457, `application/problem+json`)."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse

from spinescore.runtime.appliance.fault import Fault
from spinescore.runtime.codes import CODES
from spinescore.runtime.text import one_line

__all__ = ["HANDLERS", "RETRY_SOON", "Problem", "busy", "disconnect", "document_of_problem", "malformed", "problem",
           "status_of", "unknown"]  # fmt: skip

RETRY_SOON = {"Retry-After": "1"}  # of a service that has enough to do

# The status of the answer for a job of the worker by its code; what is not here is a reject of the study: 422.
_STATUSES = {"http-busy": 503, "not-ready": 503, "no-space": 503, "cancelled": 503, "worker-timeout": 504,
             "budget": 504, "worker-crashed": 500, "worker-memory": 500, "http-request": 400, "object-missing": 409,
             "object-damaged": 409, "correction-refused": 422}  # fmt: skip


class Problem(Exception):
    """An error that the client gets: a status of HTTP, and a fault."""

    def __init__(self, status: int, fault: Fault, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(fault.message)
        self.status, self.fault, self.headers = status, fault, headers


def malformed(sentence: str) -> Problem:
    return Problem(400, Fault("http-request", sentence))


def unknown(sentence: str) -> Problem:
    return Problem(404, Fault("http-request", sentence))


def busy(sentence: str) -> Problem:
    return Problem(503, Fault("http-busy", sentence), RETRY_SOON)


def document_of_problem(status: int, fault: Fault) -> dict[str, Any]:
    return {"type": f"urn:spinescore:code:{fault.code}", "title": HTTPStatus(status).phrase, "status": int(status),
            "detail": fault.message, "code": fault.code, "next_step": CODES[fault.code].next_step}  # fmt: skip


def problem(status: int, fault: Fault, headers: Mapping[str, str] | None = None, **more: Any) -> JSONResponse:
    """Return an answer that tells of an error; `more` are further members of its object."""
    document = {**document_of_problem(status, fault), **more}
    return JSONResponse(document, status, headers, media_type="application/problem+json")


def status_of(code: str) -> int:
    """Return the status of the answer for a job that ended with a code."""
    return _STATUSES.get(code, 422 if CODES[code].severity in ("reject", "warning") else 500)


async def disconnect(receive: Callable[[], Awaitable[Any]]) -> None:
    """Return when the caller has disconnected, after its body was read."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def _of_problem(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, Problem)
    return problem(error.status, error.fault, error.headers)


async def _of_http(request: Request, error: Exception) -> JSONResponse:
    """Return the answer for what Starlette refuses: an unknown path, a wrong method, a body that is no form."""
    assert isinstance(error, HTTPException)
    path = request.scope["path"]
    details = {404: f"there is no {path} here", 405: f"{path} does not take {request.method}"}
    detail = details.get(error.status_code, str(error.detail))
    return problem(error.status_code, Fault("http-request", detail), error.headers)


async def _of_client(request: Request, error: Exception) -> JSONResponse:
    """Return an answer that nobody gets: the client left before its request was whole."""
    return problem(400, Fault("http-request", "the client closed the connection"))


async def _of_fault(request: Request, error: Exception) -> JSONResponse:
    """Return the answer for a fault of ours; the log names it, without the client's data."""
    fault = Fault("http-fault", f"the request failed ({type(error).__name__})")
    name = getattr(request.scope.get("endpoint"), "__name__", "http")  # not the path, which may name a patient's study
    print(one_line(f"{name}: {fault.message}"), file=sys.stderr, flush=True)
    return problem(500, fault)


HANDLERS: dict[Any, Any] = {
    Problem: _of_problem,
    HTTPException: _of_http,
    ClientDisconnect: _of_client,
    Exception: _of_fault,
}
