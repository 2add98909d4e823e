"""Whether the service lives and is ready, its state and its version."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from spinescore.runtime.appliance.seen.ready import why_not_ready
from spinescore.runtime.appliance.seen.status import status
from spinescore.runtime.appliance.web.access import CLIENT
from spinescore.runtime.appliance.web.site import Shared, Site
from spinescore.runtime.errors import SpineScoreError
from spinescore.runtime.machine.packages import software_version

__all__ = ["health_routes"]


def health_routes(site: Site) -> list[Route]:
    def why_not() -> list[str]:
        try:
            with site.index() as index:
                return why_not_ready(site.places, index, site.clock)
        except SpineScoreError as error:  # of the index
            return [str(error)]

    def state() -> JSONResponse:
        with site.index() as index:
            return JSONResponse(status(site.places, index, site.clock))

    reasons, shown = Shared(why_not), Shared(state)

    async def live(request: Request) -> JSONResponse:
        return JSONResponse({"live": True})

    async def ready(request: Request) -> JSONResponse:
        against = await reasons.get()
        return JSONResponse({"ready": False, "reasons": against}, 503) if against else JSONResponse({"ready": True})

    async def show(request: Request) -> JSONResponse:
        return await shown.get()

    async def version(request: Request) -> JSONResponse:
        client = request.scope.get(CLIENT)
        reader = None if client is None else client.name
        return JSONResponse({"name": "spinescore", "version": software_version(), "reader": reader})

    return [
        *(Route(f"{prefix}/health/live", live) for prefix in ("", "/v2")),
        *(Route(f"{prefix}/health/ready", ready) for prefix in ("", "/v2")),
        Route("/v1/status", show),
        Route("/v1/version", version),
    ]
