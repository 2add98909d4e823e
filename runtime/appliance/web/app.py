"""The HTTP application: its routes, and errors as problems."""

from __future__ import annotations

from starlette.applications import Starlette

from spinescore.runtime.appliance.web.health import health_routes
from spinescore.runtime.appliance.web.metrics import metrics_routes
from spinescore.runtime.appliance.web.problems import HANDLERS
from spinescore.runtime.appliance.web.site import Site

__all__ = ["make_app"]


def make_app(site: Site) -> Starlette:
    """Return the application of a running service."""
    app = Starlette(routes=[*health_routes(site), *metrics_routes(site)], exception_handlers=HANDLERS)
    app.router.redirect_slashes = False  # an unknown path is unknown
    return app
