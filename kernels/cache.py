"""The folder in which this package keeps the files that it makes on this machine. Needs the standard library only."""

from __future__ import annotations

import os
import sys
from pathlib import Path

__all__ = ["CACHE_VARIABLE", "user_cache"]

CACHE_VARIABLE = "SPINESCORE_CACHE"


def user_cache() -> Path:
    """Return the folder for the files that this package makes here: SPINESCORE_CACHE, else in the user's cache folder.

    A relative SPINESCORE_CACHE is made absolute here, and in this process's environment: neither a later change of the
    current folder nor a worker process may lead to another folder. Raises `OSError` if the user has no home folder.
    """
    chosen = os.environ.get(CACHE_VARIABLE)
    if chosen:
        if not Path(chosen).is_absolute():
            chosen = os.environ[CACHE_VARIABLE] = str(Path(chosen).absolute())
        return Path(chosen)
    stated = os.environ.get("LOCALAPPDATA" if sys.platform == "win32" else "XDG_CACHE_HOME") or ""
    if Path(stated).is_absolute():  # the XDG specification ignores a relative one
        return Path(stated) / "spinescore"
    try:
        home = Path.home()
    except RuntimeError:
        raise OSError("this user has no home folder") from None
    return home.joinpath(*(("AppData", "Local") if sys.platform == "win32" else (".cache",)), "spinescore")
