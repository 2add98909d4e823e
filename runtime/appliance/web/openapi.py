"""`GET /openapi.json`: the description of the HTTP service (OpenAPI 3.1). A test compares it with the routes."""

from __future__ import annotations

import json
from typing import Any, get_args

from spinescore.runtime.appliance.store.studies import STATES
from spinescore.runtime.appliance.web.scorerequest import MOST_FILES
from spinescore.runtime.machine.packages import software_version
from spinescore.runtime.outputs.formats import ResultFormat

__all__ = ["document"]

Json = dict[str, Any]

_PROBLEM = "application/problem+json"
_DICOM, _ZIP = "application/dicom", "application/zip"
_TEXT: Json = {"type": "string"}
_BINARY: Json = {"type": "string", "format": "binary"}
_FILES = r"[a-z]+(-[a-z]+)*\.(json|html|png|csv|dcm)"


def document() -> Json:
    """Return the whole description."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "spinescore",
            "version": software_version(),
            "description": "The local service of spinescore. Over TCP each request needs a token of a role.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "security": [{"token": []}, {}],
        "paths": _paths(),
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "schemas": {
                "Report": _report(),
                "Problem": _problem_schema(),
                "View": _view(),
                "ScoreRequest": _score_request(),
                "ScoreAnswer": _score_answer(),
                "Study": _study(),
            },
        },
    }


def _paths() -> Json:
    live = _get("Whether the process answers", {"200": _json("it does", _object(live={"const": True}))})
    ready = _get("Whether studies can be scored now", {
        "200": _json("they can", _object(ready={"const": True})),
        "503": _json("they cannot", _object(ready={"const": False}, reasons=_array({"type": "string"}))),
    })  # fmt: skip
    version = _object(name={"const": "spinescore"}, version={"type": "string"})
    return {
        "/health/live": live,
        "/health/ready": ready,
        "/v2/health/live": live,
        "/v2/health/ready": ready,
        "/metrics": _get("Figures for Prometheus", {"200": _content("the figures", "text/plain", {"type": "string"})}),
        "/openapi.json": _get("This document", {"200": _json("the document", {"type": "object"})}),
        "/v1/version": _get("The software", {"200": _json("its name and version", version)}),
        "/v1/status": _get("The state of the service", {"200": _json(
            "spinescore.appliance-status/1, as spinescore status --json prints it", {"type": "object"})}),
        "/v1/score": {"post": _score()},
        "/v1/results/{key}/{file}": _result(),
        **_studies(),
    }  # fmt: skip


def _score() -> Json:
    form: Json = {
        "type": "object",
        "description": f"At most {MOST_FILES} files: DICOM ({_DICOM}), one zip archive of DICOM files ({_ZIP}), or raw "
        "frames (application/octet-stream) that the part request names.",
        "properties": {"request": _ref("ScoreRequest")},
        "additionalProperties": {"type": "string", "format": "binary"},
    }
    raw = {"schema": {"type": "string", "format": "binary"}}
    query = [
        _parameter("query", "budget_ms", {"type": "number", "minimum": 1, "maximum": 3600000}),
        _parameter("query", "strict", {"type": "boolean"}),
        _parameter("query", "formats", _array({"enum": list(get_args(ResultFormat))})) | {"explode": False},
    ]
    return {
        "summary": "Score a study",
        "description": "It goes before the studies of the queue. Options are in the part request, or in the query.",
        "parameters": query,
        "requestBody": {"required": True, "content": {
            "multipart/form-data": {"schema": form, "encoding": {"request": {"contentType": "application/json"}}},
            _DICOM: raw, _ZIP: raw}},
        "responses": {"200": _json("the report, and links to the results", _ref("ScoreAnswer"))} | _problems({
            "400": "the body or an option is malformed", "408": "the body did not arrive in time",
            "413": "the body, a part of it, or its number of files is beyond a limit",
            "415": "the Content-Type is none of the three", "422": "the study cannot be scored; code says why",
            "500": "the service failed, or the worker ended while it scored the study",
            "503": "the service is busy, not ready or full",
            "504": "the study took too long"}),
    }  # fmt: skip


def _result() -> Json:
    path = _get("A result of a study that was scored", {"200": _file()}
                | _problems({"404": "there is no such result, or it was removed"}))  # fmt: skip
    names = {"key": "[0-9]{1,15}-[0-9a-f]{32}", "file": _FILES}
    return {"parameters": [_parameter("path", name, {"type": "string", "pattern": f"^{pattern}$"})
                           for name, pattern in names.items()], **path}  # fmt: skip


def _file() -> Json:
    content: Json = {kind: {"schema": _BINARY} for kind in (_DICOM, "text/html", "image/png", "text/csv")}
    content["application/json"] = {"schema": {"type": "object"}}
    return {"description": "the file", "content": content}


def _studies() -> Json:
    number = {"parameters": [_parameter("path", "number", {"type": "string", "pattern": "^[0-9]{1,15}$"})]}
    unknown = {"404": "there is no such study or result"}
    changed = {"200": _json("what was done, and the study", _object(message=_TEXT, study=_ref("Study")))}
    files: Json = {"type": "object", "minProperties": 1, "additionalProperties": _BINARY}
    limits = {"400": "the request is malformed", "408": "the body did not arrive in time",
              "413": "the body or its number of files is beyond a limit", "415": "the Content-Type is another one",
              "503": "the service is busy, or its disk is full"}  # fmt: skip
    took = _object(part=_TEXT, status={"enum": ["stored", "known", "quarantined", "refused"]},
                   study=_or_null({"type": "integer"}), code=_or_null(_TEXT), detail=_or_null(_TEXT))  # fmt: skip
    dicom_json = {"type": "object"}
    stow = {status: _content(text, "application/dicom+json", dicom_json) for status, text in
            (("200", "all were stored"), ("202", "some were stored"), ("409", "none was stored"))}  # fmt: skip
    again = _problems({"400": "the request is malformed"} | unknown)
    return {
        "/v1/studies": {
            "get": {"summary": "Studies, the newest first", "parameters": [
                _parameter("query", "state", {"enum": list(STATES)}),
                _parameter("query", "since", {"type": "string", "format": "date-time"}),
                _parameter("query", "cursor", {"type": "string", "pattern": "^[0-9]{1,15}$"})],
                "responses": {"200": _json("at most 100 of them, and the cursor of the next ones", _object(
                    studies=_array(_ref("Study")), next=_or_null({"type": "integer"})))}
                | _problems({"400": "an option is malformed"})},
            "post": {"summary": "Send DICOM files of a study that is scored in its turn", "requestBody": {
                "required": True, "content": {"multipart/form-data": {"schema": files}, _DICOM: {"schema": _BINARY}}},
                "responses": {"202": _json("what became of each file", _object(files=_array(took)))}
                | _problems(limits | {"422": "no file was taken"})},
        },
        "/v1/studies/{number}": number
        | _get("A study", {"200": _json("the study", _ref("Study"))} | _problems(unknown)),
        "/v1/studies/{number}/retry": number | {"post": {"summary": "Score a parked study again",
                                                         "responses": changed | again}},
        "/v1/studies/{number}/deliver": number | {"post": {
            "summary": "Deliver the results of a study again", "responses": changed | again,
            "parameters": [_parameter("query", "destination", _TEXT)]}},
        "/v1/studies/{number}/results/{key}/{file}": {"parameters": [
            *number["parameters"], _parameter("path", "key", {"type": "string", "pattern": "^[0-9a-f]{64}$"}),
            _parameter("path", "file", {"type": "string", "pattern": f"^{_FILES}$"})],
            "get": {"summary": "A result of a study", "responses": {"200": _file()} | _problems(unknown)}},
        "/dicom-web/studies": {"post": {"summary": "STOW-RS (PS3.18, section 10.5)", "requestBody": {
            "required": True, "content": {'multipart/related; type="application/dicom"': {"schema": _BINARY}}},
            "responses": stow | _problems(limits)}},
    }  # fmt: skip


def _study() -> Json:
    study = _object(study={"type": "integer"}, study_instance_uid=_TEXT, state={"enum": list(STATES)},
                    revision={"type": "integer"}, code=_or_null(_TEXT), message=_or_null(_TEXT),
                    received_at=_TEXT)  # fmt: skip
    study["properties"] |= {name: _array({"type": "object"}) for name in ("objects", "results", "deliveries")}
    study["properties"]["files"] = _array(_TEXT)
    return study


def _report() -> Json:
    """Return the published schema of the report, with references that hold in this document."""
    from spinescore.runtime.scoring.report import report_schema

    text = json.dumps(report_schema()).replace("#/$defs/", "#/components/schemas/Report/$defs/")
    return {name: value for name, value in json.loads(text).items() if name not in ("$schema", "$id")}


def _problem_schema() -> Json:
    text = {"type": "string"}
    schema = _object(type=text, title=text, status={"type": "integer"}, detail=text, code=text, next_step=text)
    schema["description"] = "RFC 9457, with a code of the table of codes (runtime/codes.md)."
    schema["properties"]["report"] = _ref("Report")
    return schema


def _view() -> Json:
    side = {"type": "integer", "minimum": 1, "maximum": 100000}
    uid = _or_null({"type": "string", "minLength": 1, "maxLength": 64, "pattern": "^[0-9.]+$"})
    spacing = {"type": "array", "minItems": 2, "maxItems": 2,
               "items": {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 100}}  # fmt: skip
    view = _object(part={"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"}, rows=side, columns=side,
                   bits_allocated={"enum": [8, 16]})  # fmt: skip
    view["properties"] |= {
        "bits_stored": _or_null({"type": "integer", "minimum": 1, "maximum": 16}),
        "pixel_spacing_mm": _or_null(spacing),
        "photometric_interpretation": {"enum": ["MONOCHROME1", "MONOCHROME2", None]},
        "region": {"enum": ["cervical", "lumbar", None]},
        "facing": {"enum": ["left", "right", None]},
        "header": _or_null({"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"}),
        "study_instance_uid": uid,
        "sop_instance_uid": uid,
    }
    return view | {"additionalProperties": False,
                   "description": "Unsigned pixels, little endian, row by row, without padding."}  # fmt: skip


def _score_request() -> Json:
    return {"type": "object", "additionalProperties": False, "properties": {
        "budget_ms": _or_null({"type": "number", "minimum": 1, "maximum": 3600000}),
        "strict": _or_null({"type": "boolean"}),
        "formats": _or_null(_array({"enum": list(get_args(ResultFormat))})),
        "views": _or_null(_array(_ref("View")) | {"maxItems": MOST_FILES}),
    }}  # fmt: skip


def _score_answer() -> Json:
    link, text = {"type": "string", "format": "uri-reference"}, {"type": "string"}
    return _object(report=_ref("Report"), results={"type": "object", "additionalProperties": link},
                   not_made={"type": "object", "additionalProperties": text})  # fmt: skip


def _get(summary: str, responses: Json) -> Json:
    return {"get": {"summary": summary, "responses": responses | _problems({})}}


def _problems(responses: dict[str, str]) -> Json:
    """Return answers that are problems; any request may be refused for its token or its role, or fail."""
    always = {"401": "the token is missing or unknown", "403": "the role may not ask for that",
              "500": "the service failed"}  # fmt: skip
    return {status: _content(text, _PROBLEM, _ref("Problem")) for status, text in (always | responses).items()}


def _json(description: str, schema: Json) -> Json:
    return _content(description, "application/json", schema)


def _content(description: str, media_type: str, schema: Json) -> Json:
    return {"description": description, "content": {media_type: {"schema": schema}}}


def _parameter(place: str, name: str, schema: Json) -> Json:
    return {"in": place, "name": name, "schema": schema, "required": place == "path"}


def _object(**properties: Json) -> Json:
    return {"type": "object", "required": list(properties), "properties": properties}


def _array(items: Json) -> Json:
    return {"type": "array", "items": items}


def _or_null(schema: Json) -> Json:
    return {"anyOf": [schema, {"type": "null"}]}


def _ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}
