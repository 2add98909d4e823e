"""Parts of the description of the HTTP service (OpenAPI 3.1)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

__all__ = ["BINARY", "FILES", "NUMBER", "TEXT", "Json", "an_object", "answer", "array", "call", "content", "get",
           "or_null", "parameter", "problems", "ref"]  # fmt: skip

Json = dict[str, Any]

PROBLEM = "application/problem+json"
TEXT: Json = {"type": "string"}
BINARY: Json = {"type": "string", "format": "binary"}
FILES = r"[a-z]+(-[a-z]+)*\.(json|html|png|csv|dcm)"  # names of results


# The problems by their status. Any request may be refused for its token or its role, or fail.
_PROBLEMS = {
    "400": "the request is malformed", "401": "the token is missing or unknown", "403": "the role may not ask for that",
    "404": "there is no such study, result or file, or it was removed", "408": "the body did not arrive in time",
    "409": "the revision is not the newest one, or is being scored, or its radiograph was removed after its time",
    "413": "the body, a part of it, or its number of files is beyond a limit",
    "415": "the Content-Type is another one", "422": "the study cannot be scored, or no file was taken; code says why",
    "500": "the service failed, or the worker ended while it scored the study",
    "503": "the service is busy, not ready, or its disk is full", "504": "it took too long",
}  # fmt: skip


def get(summary: str, responses: Json) -> Json:
    return {"get": call(summary, responses)}


def call(summary: str, responses: Json, *faults: str, **more: Any) -> Json:
    """Return an operation with its answers, and the statuses of its problems."""
    return {"summary": summary, **more, "responses": responses | problems(faults)}


def problems(statuses: Iterable[str]) -> Json:
    """Return answers that are problems."""
    return {status: content(_PROBLEMS[status], PROBLEM, ref("Problem")) for status in ("401", "403", "500", *statuses)}


def answer(description: str, schema: Json) -> Json:
    return content(description, "application/json", schema)


def content(description: str, media_type: str, schema: Json) -> Json:
    return {"description": description, "content": {media_type: {"schema": schema}}}


def parameter(place: str, name: str, schema: Json) -> Json:
    """Return a parameter; those in a path are needed."""
    return {"in": place, "name": name, "schema": schema, "required": place == "path"}


def an_object(**properties: Json) -> Json:
    """Return the schema of an object with these fields, and perhaps others."""
    return {"type": "object", "required": list(properties), "properties": properties}


def array(items: Json) -> Json:
    return {"type": "array", "items": items}


def or_null(schema: Json) -> Json:
    return {"anyOf": [schema, {"type": "null"}]}


def ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


# Of paths with the number of a study.
NUMBER: Json = {"parameters": [parameter("path", "number", {"type": "string", "pattern": "^[0-9]{1,15}$"})]}
