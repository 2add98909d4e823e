"""Secrets of the configuration: where their files are, and the secret in a file of one line."""

from __future__ import annotations

import os
from pathlib import Path

from spinescore.runtime.appliance.fault import Denied

__all__ = ["located", "read_secret"]

_LONGEST = 16384


def located(name: str, folder: Path) -> str:
    """Return the path of a secret's file: of systemd's credential with this name if there is one, else below `folder`.

    Source: `LoadCredential=` of systemd.exec(5), which sets $CREDENTIALS_DIRECTORY.
    """
    credentials = os.environ.get("CREDENTIALS_DIRECTORY")
    if credentials and (Path(credentials) / name).is_file():
        return str(Path(credentials, name).absolute())
    return str(folder / name)


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
