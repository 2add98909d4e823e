"""The review page: static files that hold no data, so that they need no token."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from spinescore.runtime.appliance.web.problems import unknown
from spinescore.runtime.appliance.web.site import Site

__all__ = ["pages_routes"]

_FOLDER = Path(__file__).parent / "review"
_FILE = re.compile(r"[a-z][a-z0-9-]*\.(html|js|css|svg)")
_KINDS = {"html": "text/html; charset=utf-8", "js": "text/javascript; charset=utf-8", "css": "text/css; charset=utf-8",
          "svg": "image/svg+xml"}  # fmt: skip
_POLICY = ("default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
           "frame-ancestors 'none'; base-uri 'none'; form-action 'none'")  # fmt: skip
_HEADERS = {"Content-Security-Policy": _POLICY, "Referrer-Policy": "no-referrer",
            "Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Resource-Policy": "same-origin",
            "Cache-Control": "no-cache"}  # fmt: skip


def pages_routes(site: Site) -> list[Route]:
    """Return the routes of the review page."""

    async def root(request: Request) -> Response:
        return RedirectResponse("/review")

    async def page(request: Request) -> Response:
        return await _file(site, "review.html")

    async def file(request: Request) -> Response:
        return await _file(site, request.path_params["file"])

    return [Route("/", root), Route("/review", page), Route("/review/{file}", file)]


async def _file(site: Site, name: str) -> Response:
    """Return a file of the page. Raises Problem if there is none."""
    if site.is_alone:
        raise unknown("this service scores for consoles alone; studies are reviewed at an appliance")
    try:
        if not _FILE.fullmatch(name):
            raise FileNotFoundError
        content = await asyncio.to_thread((_FOLDER / name).read_bytes)
    except FileNotFoundError:
        raise unknown("the review page has no such file") from None
    return Response(content, 200, _HEADERS, _KINDS[name.rpartition(".")[2]])
