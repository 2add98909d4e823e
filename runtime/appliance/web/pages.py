"""Files as answers: those of results, and those of the review page, which hold no data and need no token."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from pathlib import Path

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from spinescore.runtime.appliance.web.apiparts import FILES
from spinescore.runtime.appliance.web.problems import unknown
from spinescore.runtime.appliance.web.site import Site
from spinescore.runtime.appliance.web.upload import DICOM

__all__ = ["file_response", "pages_routes"]

_FOLDER = Path(__file__).parent / "review"
_PAGE_FILES = r"[a-z][a-z0-9-]*\.(html|js|css|svg)"
_KINDS = {".json": "application/json", ".html": "text/html; charset=utf-8", ".png": "image/png", ".dcm": DICOM,
          ".csv": "text/csv; charset=utf-8", ".js": "text/javascript; charset=utf-8",
          ".css": "text/css; charset=utf-8", ".svg": "image/svg+xml"}  # fmt: skip
# A page of results is of no origin: whatever were in it could not call the service in the reader's name.
_OF_RESULTS = {"Content-Security-Policy": "sandbox allow-scripts; frame-ancestors 'none'"}
_POLICY = ("default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
           "frame-ancestors 'none'; base-uri 'none'; form-action 'none'")  # fmt: skip
_OF_PAGE = {"Content-Security-Policy": _POLICY, "Referrer-Policy": "no-referrer",
            "Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Resource-Policy": "same-origin",
            "Cache-Control": "no-cache"}  # fmt: skip


def pages_routes(site: Site) -> list[Route]:
    async def root(request: Request) -> Response:
        return RedirectResponse("/review")

    async def file(request: Request) -> Response:
        if site.is_alone:
            raise unknown("this service scores for consoles alone; studies are reviewed at an appliance")
        path = _FOLDER / request.path_params.get("file", "review.html")
        return await _response(path, _PAGE_FILES, _OF_PAGE, "the review page has no such file")

    return [Route("/", root), Route("/review", file), Route("/review/{file}", file)]


async def file_response(path: Path) -> Response:
    """Return a file of results as an answer. Raises Problem if there is none."""
    return await _response(path, FILES, _OF_RESULTS, "there is no such result, or it was removed after its time")


async def _response(path: Path, names: str, headers: Mapping[str, str], missing: str) -> Response:
    try:
        if not re.fullmatch(names, path.name):
            raise FileNotFoundError
        content = await asyncio.to_thread(path.read_bytes)
    except FileNotFoundError:
        raise unknown(missing) from None
    return Response(content, 200, headers, _KINDS[path.suffix])
