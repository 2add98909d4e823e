"""The folder for networks that OpenVINO compiled for this machine, with the files in it signed."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from spinescore.kernels.cache import user_cache
from spinescore.kernels.signing import is_signed, key_fault, sign, signed_bytes
from spinescore.runtime.files import file_sha256, read_text, write_atomic
from spinescore.runtime.logs import CACHE, log_once
from spinescore.runtime.machine.caches import cache_place

__all__ = ["kept_networks", "read_kept", "read_note", "sign_kept", "write_note"]

_LONGEST = 100  # characters of a note


def kept_networks(path: Path) -> Path | None:
    """Return a folder for compiled networks, which make the next start faster; None if nothing can be kept.

    The plugin reads the files in it, so that files which this machine did not sign are removed. The log has one line if
    nothing can be kept.
    """
    try:
        cache = user_cache() / "openvino" / file_sha256(path)[:32]  # the plugin goes by the path, not by the content
        cache.mkdir(parents=True, exist_ok=True)
        if not os.access(cache, os.W_OK):
            raise OSError(f"{cache.parent} cannot be written")
        if fault := key_fault():
            raise OSError(fault)
        CACHE.debug("compiled networks of %s lie in %s", path.name, cache)
        for file in filter(Path.is_file, cache.iterdir()):
            if not is_signed(_name(file), file_sha256(file)):
                file.unlink()
        return cache
    except (OSError, RuntimeError) as error:
        place, reason = cache_place() or "no folder", getattr(error, "strerror", None) or error
        log_once(CACHE, f"networks are compiled at each start, because nothing can be kept in {place} ({reason})")
        return None


def sign_kept(cache: Path | None) -> None:
    """Sign the files in such a folder that are not signed yet."""
    with suppress(OSError):  # another process has just removed the file
        for file in () if cache is None else filter(Path.is_file, cache.iterdir()):
            sha256 = file_sha256(file)
            if not is_signed(_name(file), sha256):
                sign(_name(file), sha256)


def read_kept(file: Path) -> bytes | None:
    """Return the bytes of a file in such a folder; None if it is not there or this machine did not sign it."""
    with suppress(OSError):
        return signed_bytes(_name(file), file.read_bytes())
    return None


def read_note(path: Path | None) -> str:
    """Return the short text of a file in such a folder; empty if there is none."""
    if path is not None:
        with suppress(OSError, ValueError):
            return read_text(path, _LONGEST, "ascii")
    return ""


def write_note(path: Path | None, text: str) -> None:
    """Write a short text that later starts read, if there is a folder for it."""
    if path is not None and read_note(path) != text:
        with suppress(OSError):
            write_atomic(path, text)


def _name(file: Path) -> str:
    return f"openvino {file.parent.name}/{file.name}"
