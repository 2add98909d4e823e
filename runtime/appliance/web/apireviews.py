"""The description of the routes for readers: studies as they see them, views, verdicts, events and the page."""

from __future__ import annotations

from spinescore.runtime.appliance.store.reviews import VERDICTS
from spinescore.runtime.appliance.store.studies import STATES
from spinescore.runtime.appliance.web.apiparts import (
    BINARY,
    NUMBER,
    TEXT,
    Json,
    an_object,
    answer,
    array,
    content,
    get,
    or_null,
    parameter,
    problems,
    ref,
)
from spinescore.runtime.study import ALL_SITES, LEVELS, REGIONS

__all__ = ["review_paths", "study_schema"]

_WHOLE: Json = {"type": "integer"}
_URL: Json = {"type": "string", "format": "uri-reference"}
_VERDICT: Json = {"enum": [None, *VERDICTS]}
_TOTAL = or_null(an_object(value=or_null({"type": "number"}), status=TEXT, range=array(_WHOLE)))


def review_paths() -> Json:
    """Return the paths of readers."""
    unknown = {"404": "there is no such study"}
    view = get("The grey values of a radiograph: rows x columns, 16 bits, little endian; larger is brighter", {
        "200": content("the pixels; the head has Spinescore-Size, Spinescore-Window (centre, width), and as ETag the "
                       "sha256 of the DICOM object",
                       "application/octet-stream", BINARY),
        **problems(unknown | {"409": "the radiograph was removed after its time"} | _OF_WORKER)})  # fmt: skip
    region = parameter("path", "region", {"enum": list(REGIONS)})
    events = get("Changes of studies, as server-sent events", {
        "200": content("the events", "text/event-stream", TEXT),
        **problems({"503": "there are too many listeners"})})  # fmt: skip
    events["get"]["parameters"] = [parameter("header", "Last-Event-ID", TEXT)]
    return {
        "/v1/studies/{number}/views/{region}": {"parameters": [*NUMBER["parameters"], region], **view},
        **{f"/v1/studies/{{number}}/{kind}": NUMBER | {"post": call} for kind, call in _calls(unknown).items()},
        "/v1/events": events,
        "/": get("The way to the review page", {"307": {"description": "it leads to /review"}}),
        "/review": get("The review page", {"200": content("the page", "text/html", TEXT), **problems(_NO_FILE)}),
        "/review/{file}": {"parameters": [parameter("path", "file", {"type": "string"})], **get("A file of the page", {
            "200": {"description": "the file", "content": {kind: {"schema": TEXT} for kind in _PAGE}},
            **problems(_NO_FILE)})},
    }  # fmt: skip


_NO_FILE = {"404": "there is no such file"}
_PAGE = ("text/html", "text/javascript", "text/css", "image/svg+xml")
_OF_WORKER = {"422": "the study cannot be scored so; code says why", "503": "the worker is busy, or not ready",
              "504": "it took too long"}  # fmt: skip
_OF_CALLS = {"400": "the verdict is malformed, or does not fit the study", "408": "the body did not arrive in time",
             "409": "the revision is not the newest one, or is being scored", "413": "the body is too large",
             "415": "the Content-Type is not application/json"}  # fmt: skip


def _calls(unknown: dict[str, str]) -> Json:
    study = {"type": "object", "required": ["study"], "properties": {"study": ref("Study")}}
    faults = problems(_OF_CALLS | unknown | {"503": "the service's disk is full"})
    begun = {"202": answer("a revision was begun", study)} | faults
    pair = {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2}
    pairs = {"type": "array", "items": pair, "minItems": 2, "maxItems": 2}
    points = _some({region: _some(dict.fromkeys(levels, pairs)) for region, levels in LEVELS.items()})
    grades = _some({site: {"enum": [0, 1, 2, 3, None]} for site in ALL_SITES})
    regions = array({"enum": list(REGIONS)})
    again = {"description": "Regions that can be read, after a correction said that they cannot", **regions}
    preview = {"200": answer("the report", an_object(report=ref("Report")))}
    return {
        "points": {"summary": "Correct points: centre and anterior point, in pixels of the file", "responses": begun,
                   **_body(["points"], points=points, grades=grades, readable=again)},
        "grades": {"summary": "Correct grades", "responses": begun, **_body(["grades"], grades=grades, readable=again)},
        "unreadable": {"summary": "Say that regions cannot be read", "responses": begun,
                       **_body(["regions"], regions=regions)},
        "readable": {"summary": "Take back that regions cannot be read; their earlier grades and points count again",
                     "responses": begun, **_body(["readable"], readable=again, points=points, grades=grades)},
        "accept": {"summary": "Accept the results", "responses": {"200": answer("it is kept", study)} | faults,
                   **_body([])},
        "preview": {"summary": "The report with a correction; nothing is kept",
                    "responses": preview | problems(_OF_CALLS | unknown | _OF_WORKER),
                    **_body([], points=points, grades=grades, readable=again)},
    }  # fmt: skip


def _some(fields: Json) -> Json:
    return {"type": "object", "properties": fields, "additionalProperties": False}


def _body(needed: list[str], **fields: Json) -> Json:
    words = {name: or_null({"type": "string", "minLength": least, "maxLength": most})
             for name, least, most in (("reader", 1, 64), ("comment", 0, 1000))}  # fmt: skip
    schema = _some({"revision": {"type": "integer", "minimum": 1}, **words, **fields})
    schema["required"] = ["revision", *needed]
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def study_schema() -> Json:
    """Return the schema of a study, as lists have it; one that is shown alone has more."""
    study = an_object(study=_WHOLE, study_instance_uid=TEXT, state={"enum": list(STATES)}, revision=_WHOLE,
                      code=or_null(TEXT), message=or_null(TEXT), received_at=TEXT, study_date=or_null(TEXT),
                      total=_TOTAL, findings=array(TEXT), reviewed=_VERDICT, has_prior={"type": "boolean"})  # fmt: skip
    study["properties"] |= {name: array({"type": "object"}) for name in ("objects", "results", "deliveries")}
    study["properties"]["files"] = array(_URL)
    study["properties"]["report_url"] = or_null(_URL)
    study["properties"]["prior"] = or_null(an_object(study=_WHOLE, report_url=_URL, study_date=or_null(TEXT)))
    study["properties"]["revisions"] = array(an_object(
        revision=_WHOLE, made_at=or_null(TEXT), by=TEXT, verdict=_VERDICT, reader=or_null(TEXT), comment=or_null(TEXT),
        unreadable=array(TEXT), readable=array(TEXT), total=_TOTAL, report_url=or_null(_URL)))  # fmt: skip
    study["properties"]["views"] = _some({region: an_object(
        url=_URL, sha256=TEXT, rows=_WHOLE, columns=_WHOLE, turn_deg=_WHOLE) for region in REGIONS})  # fmt: skip
    return study
