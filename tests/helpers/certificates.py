"""Certificates for tests of TLS, made by openssl."""

from __future__ import annotations

import subprocess
from pathlib import Path


def write_certificates(folder: Path, names=("server", "client", "other"), authority: str = "ca") -> Path:
    """Write `<name>.pem` and `<name>.key` of an authority, and of names that it signs; return the folder."""
    for name in (authority, *names):
        words = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={name}"]
        words += ["-addext", "subjectAltName=DNS:localhost", "-keyout", f"{name}.key", "-out", f"{name}.pem"]
        if name != authority:
            words += ["-CA", f"{authority}.pem", "-CAkey", f"{authority}.key"]
        subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)
    return folder
