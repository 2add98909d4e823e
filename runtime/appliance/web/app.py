"""The HTTP application: its routes, and errors as problems."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from spinescore.runtime.appliance.web.access import Guard
from spinescore.runtime.appliance.web.consoles import WorkCalls
from spinescore.runtime.appliance.web.events import events_routes
from spinescore.runtime.appliance.web.health import health_routes, metrics_routes
from spinescore.runtime.appliance.web.openapi import document
from spinescore.runtime.appliance.web.pages import pages_routes
from spinescore.runtime.appliance.web.problems import HANDLERS
from spinescore.runtime.appliance.web.reviews import reviews_routes
from spinescore.runtime.appliance.web.scoring import scoring_routes
from spinescore.runtime.appliance.web.site import Site
from spinescore.runtime.appliance.web.studies import studies_routes
from spinescore.runtime.appliance.web.views import views_routes

__all__ = ["make_app"]


async def _describe(request: Request) -> JSONResponse:
    return JSONResponse(document())


def make_app(site: Site) -> Starlette:
    limit, calls = site.config.http.max_body_mb << 20, WorkCalls(site.consoles)
    app = Starlette(
        routes=[
            *health_routes(site),
            *metrics_routes(site),
            Route("/openapi.json", _describe),
            *studies_routes(site),
            *reviews_routes(site, calls),
            *views_routes(site, calls),
            *events_routes(site),
            *pages_routes(site),
            *scoring_routes(site.consoles, site.places, limit),
        ],
        middleware=[Middleware(Guard, site.access)],
        exception_handlers=HANDLERS,
    )
    app.router.redirect_slashes = False  # an unknown path is unknown
    return app
