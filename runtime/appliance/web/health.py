"""Whether the service lives and is ready, and its version."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from spinescore.runtime.appliance.web.site import Site
from spinescore.runtime.machine.packages import software_version

__all__ = ["health_routes"]


def health_routes(site: Site) -> list[Route]:
    """Return the routes of health, state and version."""

    async def live(request: Request) -> JSONResponse:
        return JSONResponse({"live": True})

    async def version(request: Request) -> JSONResponse:
        return JSONResponse({"name": "spinescore", "version": software_version()})

    return [
        Route("/health/live", live),
        Route("/v2/health/live", live),
        Route("/v1/version", version),
    ]
