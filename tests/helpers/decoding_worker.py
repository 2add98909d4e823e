"""A compressed image and the process that decodes it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from pydicom import uid

from helpers.dicom_files import COLUMNS, ROWS, picture
from spinescore.runtime.reading.decoding import codecs, decode, pool
from spinescore.runtime.reading.pixelformat import PixelFormat

imagecodecs = pytest.importorskip("imagecodecs", reason="the codestreams of this module are written with imagecodecs")

DECLARED = PixelFormat(ROWS, COLUMNS, 16, 16, 15, False, "MONOCHROME2")
FRAME = imagecodecs.jpegls_encode(picture(16))
NAME = codecs.installed(uid.JPEGLSLossless)[0]


@pytest.fixture(autouse=True)
def fresh_pool(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Begin and end each test without worker processes."""
    monkeypatch.delenv(decode.IN_PROCESS_VARIABLE, raising=False)
    monkeypatch.setattr(pool.Pool, "_pools", {})
    yield
    pool.stop()


def running(body: str) -> Callable[[str], list[str]]:
    """Replace the command that starts a worker by one that runs `body`."""
    return lambda file: [sys.executable, "-c", body, file, *sys.path]


def decoded(frame: bytes = FRAME, timeout_s: float | None = None) -> np.ndarray:
    return decode.run_apart(NAME, frame, uid.JPEGLSLossless, DECLARED, timeout_s)
