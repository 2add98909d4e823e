"""`GET /openapi.json`: the description of the HTTP service (OpenAPI 3.1). A test compares it with the routes."""

from __future__ import annotations

import json
from typing import get_args

from spinescore.runtime.appliance.store.studies import STATES
from spinescore.runtime.appliance.web.apiparts import (
    BINARY,
    FILES,
    NUMBER,
    TEXT,
    Json,
    an_object,
    answer,
    array,
    call,
    content,
    get,
    or_null,
    parameter,
    ref,
)
from spinescore.runtime.appliance.web.apireviews import review_paths, study_schema
from spinescore.runtime.appliance.web.scoring import MOST_FILES
from spinescore.runtime.console.wire import ANSWER, REQUEST
from spinescore.runtime.machine.packages import software_version
from spinescore.runtime.outputs.formats import ResultFormat

__all__ = ["document"]

_DICOM, _ZIP = "application/dicom", "application/zip"
_BODY = ("400", "408", "413", "415", "503")  # problems of calls with files


def document() -> Json:
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
                "Study": study_schema(),
            },
        },
    }


def _paths() -> Json:
    live = get("Whether the process answers", {"200": answer("it does", an_object(live={"const": True}))})
    ready = get("Whether studies can be scored now", {
        "200": answer("they can", an_object(ready={"const": True})),
        "503": answer("they cannot", an_object(ready={"const": False}, reasons=array({"type": "string"}))),
    })  # fmt: skip
    _add_structs(ready["get"])
    version = an_object(name={"const": "spinescore"}, version=TEXT, reader=or_null(TEXT))
    return {
        "/health/live": live,
        "/health/ready": ready,
        "/v2/health/live": live,
        "/v2/health/ready": ready,
        "/metrics": get("Figures for Prometheus", {"200": content("the figures", "text/plain", {"type": "string"})}),
        "/openapi.json": get("This document", {"200": answer("the document", {"type": "object"})}),
        "/v1/version": get("The software", {"200": answer("its name and version, the name of the reader", version)}),
        "/v1/status": get("The state of the service", {"200": answer(
            "spinescore.appliance-status/1, as spinescore status --json prints it", {"type": "object"})}),
        "/v1/score": {"post": _score()},
        "/v1/results/{key}/{file}": _result(),
        **_studies(),
        **review_paths(),
    }  # fmt: skip


def _score() -> Json:
    form: Json = {
        "type": "object",
        "description": f"At most {MOST_FILES} files: DICOM ({_DICOM}), one zip archive of DICOM files ({_ZIP}), or raw "
        "frames (application/octet-stream) that the part request names.",
        "properties": {"request": ref("ScoreRequest")},
        "additionalProperties": BINARY,
    }
    raw = {"schema": BINARY}
    query = [
        parameter("query", "budget_ms", {"type": "number", "minimum": 1, "maximum": 3600000}),
        parameter("query", "strict", {"type": "boolean"}),
        parameter("query", "formats", array({"enum": list(get_args(ResultFormat))})) | {"explode": False},
    ]
    ok = {"200": answer("the report, and links to the results", ref("ScoreAnswer"))}
    operation = call(
        "Score a study", ok, *_BODY, "422", "504", parameters=query,
        description="It goes before the studies of the queue. Options are in the part request, or in the query. "
        f"The C library sends and accepts structs ({REQUEST}, {ANSWER}).",
        requestBody={"required": True, "content": {
            "multipart/form-data": {"schema": form, "encoding": {"request": {"contentType": "application/json"}}},
            _DICOM: raw, _ZIP: raw, REQUEST: raw}},
    )  # fmt: skip
    return _add_structs(operation)


def _add_structs(operation: Json) -> Json:
    """Add the answers that the C library accepts."""
    for response in operation["responses"].values():
        response["content"][ANSWER] = {"schema": BINARY}
    return operation


def _result() -> Json:
    names = {"key": "[0-9]{1,15}-[0-9a-f]{32}", "file": FILES}
    return {"parameters": [parameter("path", name, {"type": "string", "pattern": f"^{pattern}$"})
                           for name, pattern in names.items()],
            "get": _add_structs(call("A result of a study that was scored", {"200": _file()}, "404"))}  # fmt: skip


def _file() -> Json:
    content: Json = {kind: {"schema": BINARY} for kind in (_DICOM, "text/html", "image/png", "text/csv")}
    content["application/json"] = {"schema": {"type": "object"}}
    return {"description": "the file", "content": content}


def _studies() -> Json:
    changed = {"200": answer("what was done, and the study", an_object(message=TEXT, study=ref("Study")))}
    destination = [parameter("query", "destination", TEXT)]
    files: Json = {"type": "object", "minProperties": 1, "additionalProperties": BINARY}
    took = an_object(part=TEXT, status={"enum": ["stored", "known", "quarantined", "refused"]},
                   study=or_null({"type": "integer"}), code=or_null(TEXT), detail=or_null(TEXT))  # fmt: skip
    stow = {status: content(text, "application/dicom+json", {"type": "object"}) for status, text in
            (("200", "all were stored"), ("202", "some were stored"), ("409", "none was stored"))}  # fmt: skip
    listed = an_object(studies=array(ref("Study")), next=or_null({"type": "integer"}))
    time = {"type": "string", "format": "date-time"}
    return {
        "/v1/studies": {
            "get": call(
                "Studies, the newest first",
                {"200": answer("at most 100 of them, and the cursor of the next ones", listed)}, "400",
                parameters=[parameter("query", "state", {"enum": list(STATES)}), parameter("query", "since", time),
                            parameter("query", "until", time),
                            parameter("query", "cursor", {"type": "string", "pattern": "^[0-9]{1,15}$"})],
            ),
            "post": call(
                "Send DICOM files of a study that is scored in its turn",
                {"202": answer("what became of each file", an_object(files=array(took)))}, *_BODY, "422",
                requestBody={"required": True, "content": {
                    "multipart/form-data": {"schema": files}, _DICOM: {"schema": BINARY}}},
            ),
        },
        "/v1/studies/{number}": NUMBER | {"get": call("A study", {"200": answer("the study", ref("Study"))}, "404")},
        "/v1/studies/{number}/retry": NUMBER | {"post": call("Score a parked study again", changed, "400", "404")},
        "/v1/studies/{number}/deliver": NUMBER | {"post": call(
            "Deliver the results of a study again", changed, "400", "404", parameters=destination)},
        "/v1/studies/{number}/dismiss": NUMBER | {"post": call(
            "Give up deliveries of a study that wait or are parked", changed, "400", "404", parameters=destination)},
        "/v1/studies/{number}/results/{key}/{file}": {
            "parameters": [*NUMBER["parameters"],
                           parameter("path", "key", {"type": "string", "pattern": "^[0-9a-f]{64}$"}),
                           parameter("path", "file", {"type": "string", "pattern": f"^{FILES}$"})],
            "get": call("A result of a study", {"200": _file()}, "404"),
        },
        "/dicom-web/studies": {"post": call("STOW-RS (PS3.18, section 10.5)", stow, *_BODY, requestBody={
            "required": True, "content": {'multipart/related; type="application/dicom"': {"schema": BINARY}}})},
    }  # fmt: skip


def _report() -> Json:
    """Return the published schema of the report, with references that hold in this document."""
    from spinescore.runtime.scoring.report import report_schema

    text = json.dumps(report_schema()).replace("#/$defs/", "#/components/schemas/Report/$defs/")
    return {name: value for name, value in json.loads(text).items() if name not in ("$schema", "$id")}


def _problem_schema() -> Json:
    schema = an_object(type=TEXT, title=TEXT, status={"type": "integer"}, detail=TEXT, code=TEXT, next_step=TEXT)
    schema["description"] = "RFC 9457, with a code of the table of codes (runtime/codes.md)."
    schema["properties"]["report"] = ref("Report")
    return schema


def _view() -> Json:
    side = {"type": "integer", "minimum": 1, "maximum": 100000}
    uid = or_null({"type": "string", "minLength": 1, "maxLength": 64, "pattern": "^[0-9.]+$"})
    spacing = {"type": "array", "minItems": 2, "maxItems": 2,
               "items": {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 100}}  # fmt: skip
    view = an_object(part={"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"}, rows=side, columns=side,
                   bits_allocated={"enum": [8, 16]})  # fmt: skip
    view["properties"] |= {
        "bits_stored": or_null({"type": "integer", "minimum": 1, "maximum": 16}),
        "pixel_spacing_mm": or_null(spacing),
        "photometric_interpretation": {"enum": ["MONOCHROME1", "MONOCHROME2", None]},
        "region": {"enum": ["cervical", "lumbar", None]},
        "facing": {"enum": ["left", "right", None]},
        "header": or_null({"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"}),
        "study_instance_uid": uid,
        "sop_instance_uid": uid,
    }
    return view | {"additionalProperties": False,
                   "description": "Unsigned pixels, little endian, row by row, without padding."}  # fmt: skip


def _score_request() -> Json:
    return {"type": "object", "additionalProperties": False, "properties": {
        "budget_ms": or_null({"type": "number", "minimum": 1, "maximum": 3600000}),
        "strict": or_null({"type": "boolean"}),
        "formats": or_null(array({"enum": list(get_args(ResultFormat))})),
        "views": or_null(array(ref("View")) | {"maxItems": MOST_FILES}),
    }}  # fmt: skip


def _score_answer() -> Json:
    link = {"type": "string", "format": "uri-reference"}
    return an_object(report=ref("Report"), results={"type": "object", "additionalProperties": link},
                   not_made={"type": "object", "additionalProperties": TEXT})  # fmt: skip
