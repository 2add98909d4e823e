"""`spinescore serve --http-only`: the local service alone, without configuration, DICOM node, sources and destinations.

It has a spool of its own, in the folder that is named or in a temporary one that ends with the service. Python has no
unix sockets on Windows: there it answers on the loopback interface to those who can read the file with the token.
"""

from __future__ import annotations

import os
import secrets
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from spinescore.runtime.appliance.configuration.config import Config, Score, SpoolPart
from spinescore.runtime.appliance.configuration.endpoints import Http, HttpToken
from spinescore.runtime.appliance.store.places import Places, is_running
from spinescore.runtime.errors import SpineScoreError
from spinescore.runtime.names import DeviceName

__all__ = ["PORT", "ROLES", "alone", "own_folder"]

PORT = 8474  # on Windows, if none is named
ROLES = ("web",)

_PREFIX = "spinescore-http-"
_RESERVE_GB = 0.05
_RESULTS_D = 1.0 / 24.0
_STARTING_S = 60.0


def alone(folder: Path, bundle: str, device: DeviceName, port: int | None) -> tuple[Config, str]:
    """Return how to serve in a folder, and where, in words; with a `port` on TCP, too. Raises SpineScoreError."""
    port = PORT if port is None and sys.platform == "win32" else port
    http, where = Http(), f"on the socket {folder / 'http.sock'}"
    if port is not None:
        token = _token(folder / "token")
        http = Http(tcp=f"127.0.0.1:{port}", token=(HttpToken("console", str(token)),))
        also = "" if sys.platform == "win32" else f"{where}, and "
        where = f"{also}on http://127.0.0.1:{port} with the token in {token}"
    spool = SpoolPart(str(folder), reserve_gb=_RESERVE_GB, results_d=_RESULTS_D)
    near = Path(bundle).absolute()
    return Config(spool, Score(str(near) if near.is_dir() else bundle, device), http=http), where


@contextmanager
def own_folder(folder: Path | None) -> Iterator[Path]:
    """Yield the folder, made if it is missing; without one a temporary folder, which is removed at the end."""
    if folder is not None:
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise SpineScoreError(f"the folder {folder} cannot be made ({error.strerror}); name another one") from None
        yield folder.absolute()
        return
    _remove_abandoned(Path(tempfile.gettempdir()))
    with tempfile.TemporaryDirectory(prefix=_PREFIX, ignore_cleanup_errors=True) as name:
        yield Path(name)


def _remove_abandoned(temporary: Path) -> None:
    """Remove the folders of services that were killed; they may hold radiographs."""
    for folder in temporary.glob(f"{_PREFIX}*"):
        with suppress(OSError):  # it is gone
            facts = folder.lstat()
            is_ours = stat.S_ISDIR(facts.st_mode) and (sys.platform == "win32" or facts.st_uid == os.getuid())
            is_old = time.time() - facts.st_mtime > _STARTING_S  # a younger one may have no lock yet
            if is_ours and is_old and not is_running(Places(folder, 0)):
                shutil.rmtree(folder, ignore_errors=True)


def _token(path: Path) -> Path:
    """Make the file with the token, which only this user can read, if it is not there."""
    if not path.exists():
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(secrets.token_hex(32) + "\n")
    return path
