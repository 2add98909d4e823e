"""The files of a TLS setting, as they stand in the configuration."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from spinescore.runtime.appliance.configuration.secret import located
from spinescore.runtime.fields import Length

__all__ = ["Path_", "Tls"]

Path_ = Annotated[str, Length(1, 4096)]


@dataclass(frozen=True)
class Tls:
    """Files in PEM: a certificate, its key, and the authority that the other side's certificate must be of."""

    cert: Path_
    key: Path_
    ca: Path_

    def absolute(self, folder: Path) -> Tls:
        """Return the files with paths that begin at `folder`, or are credentials of the service."""
        return Tls(*(located(path, folder) for path in (self.cert, self.key, self.ca)))
