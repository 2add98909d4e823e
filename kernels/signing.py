"""Signatures that tell files made on this machine from files that came with a bundle. The key lies in the cache folder.

The key is 32 random bytes in `user_cache()/key`, which only its user may read (mode 0600). Files that this machine
makes and reads again later (acceptance records, plans, engines, compiled code) are signed by HMAC-SHA256 of their
SHA-256. Signatures lie in `signatures/` beside the key: no bundle carries them, and a read-only bundle can be signed.

So a file that a stranger put into a bundle does not count, nor one that another machine made, nor a damaged one. A
program that runs as this user or as an administrator can read the key, and can sign.

This file needs the standard library only, since everything else may import it.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import stat
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

from spinescore.kernels.cache import user_cache

__all__ = ["is_signed", "key_fault", "sign", "signed_bytes"]

_KEY_BYTES = 32
_FLAGS = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)


def sign(name: str, sha256: str) -> bool:
    """Sign content by its SHA-256 under a name; returns whether the signature could be kept.

    A name has one signature, that of its latest content. If several contents shall count, give each a name.
    """
    try:
        _write(_place(name), _signature(_key(create=True), name, sha256))
        return True
    except (OSError, RuntimeError):
        return False


def is_signed(name: str, sha256: str) -> bool:
    """Return whether this machine signed that content under that name."""
    try:
        key, signature = _key(create=False), _read(_place(name), hashlib.sha256().digest_size)
    except (OSError, RuntimeError):
        return False
    return hmac.compare_digest(signature, _signature(key, name, sha256))


def signed_bytes(name: str, data: bytes) -> bytes | None:
    """Return the data if this machine signed it under that name, else None."""
    return data if is_signed(name, hashlib.sha256(data).hexdigest()) else None


def key_fault() -> str:
    """Return why nothing can be signed here and the next step; empty if it can. Makes the key if there is none."""
    try:
        _write(_place("nothing"), _key(create=True)[:0])
    except (OSError, RuntimeError) as error:
        return (
            f"Files that are made here cannot be signed ({error}), and will not count later: set SPINESCORE_CACHE to "
            "a folder of this user's own."
        )
    return ""


def _key(create: bool) -> bytes:
    """Raises `OSError`, and `RuntimeError` for a user without a home."""
    path = user_cache() / "key"
    try:
        return _read_key(path)
    except (FileNotFoundError, EOFError):
        if not create:
            raise FileNotFoundError(f"{path} is not there") from None
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".key.")  # of mode 0600
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(_KEY_BYTES))
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):  # two processes that begin at once both take the first one's key
            os.link(name, path)
            return _read_key(path)
        with suppress(EOFError):
            return _read_key(path)
        Path(name).replace(path)  # a key that was cut short cannot have signed anything
        return _read_key(path)
    finally:
        Path(name).unlink(missing_ok=True)


def _read_key(path: Path) -> bytes:
    """Raises `OSError` if others could have read or written it, `EOFError` if it is damaged."""
    descriptor = os.open(path, _FLAGS)
    with os.fdopen(descriptor, "rb") as file:
        facts = os.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode):
            raise OSError(f"{path} is no file; remove it")
        if sys.platform != "win32" and (facts.st_uid != os.geteuid() or facts.st_mode & 0o077):
            raise OSError(f"{path} is not readable by this user alone; remove it to begin anew")
        key = file.read(_KEY_BYTES + 1)
    if len(key) != _KEY_BYTES:
        raise EOFError(f"{path} is damaged")
    return key


def _place(name: str) -> Path:
    return user_cache() / "signatures" / hashlib.sha256(_bytes(name)).hexdigest()[:40]


def _signature(key: bytes, name: str, sha256: str) -> bytes:
    return hmac.new(key, _bytes(f"{name}\0{sha256}"), "sha256").digest()


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")  # a path in a name need not be UTF-8


def _read(path: Path, length: int) -> bytes:
    descriptor = os.open(path, _FLAGS)
    with os.fdopen(descriptor, "rb") as file:
        return file.read(length) if stat.S_ISREG(os.fstat(descriptor).st_mode) else b""


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
