"""The secret in a file of the configuration, on one line."""

from __future__ import annotations

from pathlib import Path

from spinescore.runtime.appliance.fault import Denied

__all__ = ["read_secret"]

_LONGEST = 16384


def read_secret(path: str) -> str:
    """Return the line of a file. Raises `Denied` if there is none."""
    try:
        with Path(path).open("rb") as file:
            secret = file.read(_LONGEST).decode().strip()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise Denied(f"the credential in {path} cannot be read ({reason})") from None
    if not secret or not secret.isprintable():
        raise Denied(f"the credential in {path} is not one line of text")
    return secret
