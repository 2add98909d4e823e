"""Parts of the description of the HTTP service (OpenAPI 3.1)."""

from __future__ import annotations

from typing import Any

__all__ = ["BINARY", "FILES", "NUMBER", "TEXT", "Json", "an_object", "answer", "array", "content", "get", "or_null",
           "parameter", "problems", "ref"]  # fmt: skip

Json = dict[str, Any]

PROBLEM = "application/problem+json"
TEXT: Json = {"type": "string"}
BINARY: Json = {"type": "string", "format": "binary"}
FILES = r"[a-z]+(-[a-z]+)*\.(json|html|png|csv|dcm)"  # names of results


def get(summary: str, responses: Json) -> Json:
    """Return a path that is only read."""
    return {"get": {"summary": summary, "responses": responses | problems({})}}


def problems(responses: dict[str, str]) -> Json:
    """Return answers that are problems; any request may be refused for its token or its role, or fail."""
    always = {"401": "the token is missing or unknown", "403": "the role may not ask for that",
              "500": "the service failed"}  # fmt: skip
    return {status: content(text, PROBLEM, ref("Problem")) for status, text in (always | responses).items()}


def answer(description: str, schema: Json) -> Json:
    """Return an answer in JSON."""
    return content(description, "application/json", schema)


def content(description: str, media_type: str, schema: Json) -> Json:
    """Return an answer of a media type."""
    return {"description": description, "content": {media_type: {"schema": schema}}}


def parameter(place: str, name: str, schema: Json) -> Json:
    """Return a parameter; those in a path are needed."""
    return {"in": place, "name": name, "schema": schema, "required": place == "path"}


def an_object(**properties: Json) -> Json:
    """Return the schema of an object with these fields, and perhaps others."""
    return {"type": "object", "required": list(properties), "properties": properties}


def array(items: Json) -> Json:
    """Return the schema of an array."""
    return {"type": "array", "items": items}


def or_null(schema: Json) -> Json:
    """Return the schema of a value that may be null."""
    return {"anyOf": [schema, {"type": "null"}]}


def ref(name: str) -> Json:
    """Return a reference to a schema of the document."""
    return {"$ref": f"#/components/schemas/{name}"}


# Of paths with the number of a study.
NUMBER: Json = {"parameters": [parameter("path", "number", {"type": "string", "pattern": "^[0-9]{1,15}$"})]}
