"""The description of the HTTP service: every route is in it, and it is valid. All tests compare answers with it."""

from __future__ import annotations

import json
import re

import jsonschema
import pytest

from helpers.appliance import FakeClock
from helpers.http_calls import call, described
from spinescore.runtime.appliance.configuration.config import Config, Score, SpoolPart
from spinescore.runtime.appliance.store.places import make_places
from spinescore.runtime.appliance.web.access import PUBLIC, ROLES, allowed, read_access
from spinescore.runtime.appliance.web.app import make_app
from spinescore.runtime.appliance.web.consoles import Consoles
from spinescore.runtime.appliance.web.scoring import ScoreRequest, read_request
from spinescore.runtime.appliance.web.site import Site
from spinescore.runtime.appliance.work.consolejob import View
from spinescore.runtime.documents import _names_of


@pytest.fixture
def app(tmp_path, bundle):
    config = Config(SpoolPart(str(tmp_path), 0.001), Score(str(bundle)))
    places, clock = make_places(tmp_path, 1 << 20), FakeClock()
    consoles = Consoles().open(places, clock, lambda **message: None)
    return make_app(Site(config, places, clock, read_access(config.http), consoles))


def test_every_route_is_described_and_no_other(app):
    routes = {(route.path, method.lower()) for route in app.routes for method in route.methods - {"HEAD"}}
    paths = described()["paths"]
    assert {(path, name) for path in paths for name in paths[path] if name != "parameters"} == routes


def test_it_is_served_and_its_references_lead_somewhere(app):
    served = call(app, "GET", "/openapi.json").json()
    assert served == described()

    def follow(value):
        if isinstance(value, dict):
            if "$ref" in value:
                here = served
                for name in value["$ref"].removeprefix("#/").split("/"):
                    here = here[name.replace("~1", "/")]
            for inner in value.values():
                follow(inner)
        elif isinstance(value, list):
            for inner in value:
                follow(inner)

    follow(served)
    for schema in served["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)


def test_the_request_is_described_as_it_is_read():
    schemas = described()["components"]["schemas"]
    assert list(schemas["ScoreRequest"]["properties"]) == list(_names_of(ScoreRequest))
    assert list(schemas["View"]["properties"]) == list(_names_of(View))
    view = {"part": "a", "rows": 2, "columns": 3, "bits_allocated": 16}
    optional = dict.fromkeys(set(schemas["View"]["properties"]) - set(view))
    request = {"budget_ms": None, "strict": None, "formats": None, "views": [view | optional]}
    validator = jsonschema.Draft202012Validator({**schemas["ScoreRequest"], "components": {"schemas": schemas}})
    validator.validate(request)
    assert read_request(json.dumps(request).encode()).views == (View("a", 2, 3, 16),)


def test_every_described_path_has_roles():
    paths = described()["paths"]
    for method, begin in ROLES:
        pattern = re.escape(begin).replace(r"\*", r"\{\w+\}")
        fits = any(re.match(pattern, path) and method.lower() in paths[path] for path in paths)
        assert fits or not ROLES[method, begin], begin
    for path in paths:
        for method in set(paths[path]) - {"parameters"}:
            free = path.endswith(("/retry", "/deliver", "/dismiss")) or PUBLIC.fullmatch(path)
            assert allowed(method.upper(), path) or free, path
    assert allowed("POST", "/v1/studies/3/points") == ("reader",)
    assert allowed("POST", "/v1/studies/3/4/points") == allowed("POST", "/v1/studies/3/deliver/points") == ()
    assert PUBLIC.fullmatch("/v1/studies") is PUBLIC.fullmatch("/review/../v1/studies") is None
    assert allowed("GET", "/v1/results/1-a/sr.dcm") == ("console", "reader")
    assert allowed("HEAD", "/v1/version") == ("console", "reader")
    assert allowed("GET", "/v1/resultsx") == allowed("GET", "/") == allowed("DELETE", "/v1/version") == ()
    assert "console" not in allowed("GET", "/metrics")


def test_unknown_paths_and_methods_are_problems(app):
    assert call(app, "GET", "/nothing").status == 404
    assert call(app, "GET", "/v1/score").status == 405
    assert call(app, "POST", "/v1/version", b"x", "text/plain").status == 405
    assert call(app, "GET", "/v1/score/").status == 404
