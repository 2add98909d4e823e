"""The folder for networks that OpenVINO compiled for this machine, with the files in it signed."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from spinescore.kernels.cache import user_cache
from spinescore.kernels.signing import is_signed, key_fault, sign, signed_bytes
from spinescore.runtime.files import file_sha256, read_bytes, write_atomic
from spinescore.runtime.logs import CACHE, log_once
from spinescore.runtime.machine.caches import cache_place

__all__ = ["kept_networks", "plugin_cache", "read_kept", "write_kept"]

_MOST_BYTES = 8 << 30
_OWN = ("fixed-", "streams-")  # how the names of files begin that `read_kept` reads, and the plugin does not


def kept_networks(path: Path) -> Path | None:
    """Return a folder for compiled networks, which make the next start faster; None if nothing can be kept.

    The log has one line then.
    """
    try:
        cache = user_cache() / "openvino" / file_sha256(path)[:32]  # the plugin goes by the path, not by the content
        cache.mkdir(parents=True, exist_ok=True)
        if not os.access(cache, os.W_OK):
            raise OSError(f"{cache.parent} cannot be written")
        if fault := key_fault():
            raise OSError(fault)
        CACHE.debug("compiled networks of %s lie in %s", path.name, cache)
        return cache
    except (OSError, RuntimeError) as error:
        place, reason = cache_place() or "no folder", getattr(error, "strerror", None) or error
        log_once(CACHE, f"networks are compiled at each start, because nothing can be kept in {place} ({reason})")
        return None


@contextmanager
def plugin_cache(cache: Path) -> Iterator[None]:
    """Remove files that the plugin could read and this machine did not sign; sign those that the plugin adds."""
    known = set()
    for file in _of_plugin(cache):
        with suppress(OSError):  # another process has just removed the file
            if is_signed(_name(file), file_sha256(file)):
                known.add(file)
            else:
                file.unlink()
    yield
    for file in _of_plugin(cache) - known:
        with suppress(OSError):
            sign(_name(file), file_sha256(file))


def read_kept(file: Path | None) -> bytes | None:
    """Return the bytes of a file in such a folder; None if it is not there or this machine did not sign it."""
    with suppress(OSError):
        return None if file is None else signed_bytes(_name(file), read_bytes(file, _MOST_BYTES))
    return None


def write_kept(file: Path | None, data: bytes) -> None:
    """Write and sign a file that later starts read, if there is a folder for it."""
    if file is not None:
        with suppress(OSError):
            write_atomic(file, data)
            sign(_name(file), hashlib.sha256(data).hexdigest())


def _of_plugin(cache: Path) -> set[Path]:
    return {file for file in cache.iterdir() if file.is_file() and not file.name.startswith(_OWN)}


def _name(file: Path) -> str:
    return f"openvino {file.parent.name}/{file.name}"
