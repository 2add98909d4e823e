"""Files of results as answers."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

from starlette.responses import Response

from spinescore.runtime.appliance.web.problems import unknown
from spinescore.runtime.appliance.web.upload import DICOM

__all__ = ["FILE", "file_response"]

FILE = re.compile(r"[a-z]+(-[a-z]+)*\.(json|html|png|csv|dcm)")
_MEDIA_TYPES = {"json": "application/json", "html": "text/html; charset=utf-8", "png": "image/png",
                "csv": "text/csv; charset=utf-8", "dcm": DICOM}  # fmt: skip
# A page of results is of no origin: whatever were in it could not call the service in the reader's name.
_HEADERS = {"Content-Security-Policy": "sandbox allow-scripts; frame-ancestors 'none'"}


async def file_response(path: Path) -> Response:
    """Return a file of results as an answer. Raises Problem if there is none."""
    try:
        if not FILE.fullmatch(path.name):
            raise FileNotFoundError
        content = await asyncio.to_thread(path.read_bytes)
    except FileNotFoundError:
        raise unknown("there is no such result, or it was removed after its time") from None
    return Response(content, 200, _HEADERS, _MEDIA_TYPES[path.suffix[1:]])
