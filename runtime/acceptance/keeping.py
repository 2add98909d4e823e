"""Files about a bundle on one machine: where they are kept, and whether they count on this machine.

A file counts if this machine signed it (`spinescore.kernels.signing`), or if it ships inside the installed package.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import ClassVar, TypeVar

from spinescore.kernels.cache import user_cache
from spinescore.kernels.signing import is_signed, sign
from spinescore.runtime.bundle import Bundle, is_shipped
from spinescore.runtime.documents import document_of, document_sha256, read
from spinescore.runtime.errors import EngineError
from spinescore.runtime.files import write_atomic
from spinescore.runtime.jsonfile import read_json

__all__ = ["SignedDocument", "age", "counts", "keep", "kept"]

_FOLDER = "acceptance"

Document = TypeVar("Document", bound="SignedDocument")


class SignedDocument:
    """A document that counts only if this machine signed it: a frozen dataclass with its own `sha256`."""

    _WHAT: ClassVar[str]  # in messages
    bundle: Mapping[str, str]
    date: str
    sha256: str

    @classmethod
    def read(cls: type[Document], path: Path) -> Document:
        """Read a document. Raises `EngineError` if the file is none, or was altered since it was written."""
        try:
            document = read(cls, read_json(path))
        except OSError as error:
            raise EngineError(f"The {cls._WHAT} {path} cannot be read ({error.strerror or error}).") from error
        except ValueError as error:
            raise EngineError(f"The {cls._WHAT} {path} is not valid ({error}).") from error
        if document.sha256 != document.digest() or not document._is_sound():
            raise EngineError(f"The {cls._WHAT} {path} was altered.")
        return document

    def _is_sound(self) -> bool:
        return True

    @property
    def signed_as(self) -> str:
        return f"{self._WHAT.split()[0]} {self.digest()}"

    def digest(self) -> str:
        return document_sha256({name: value for name, value in document_of(self).items() if name != "sha256"})

    def to_json(self) -> str:
        return json.dumps({**document_of(self), "sha256": self.digest()}, indent=2, allow_nan=False) + "\n"


def counts(bundle: Bundle, path: Path, document: SignedDocument) -> bool:
    """Whether this machine made the document at `path`, its operator trusts it, or it ships inside the package."""
    inside = is_shipped(bundle.folder) and path.is_relative_to(bundle.folder)
    return inside or is_signed(document.signed_as, document.digest())


def age(date: str) -> float:
    """Return the seconds since 1970, to find the latest date; 0 for a future date and for a text that is no date."""
    try:
        time = datetime.fromisoformat(date)
    except ValueError:
        return 0.0
    seconds = (time if time.tzinfo else time.replace(tzinfo=timezone.utc)).timestamp()
    return seconds if seconds <= datetime.now(timezone.utc).timestamp() else 0.0


def keep(bundle: Bundle, name: str, document: SignedDocument, folder: Path | None, beside: Path | None = None) -> Path:
    """Sign a document and write it: into `folder`, else `beside`, else where such files lie. Raises `OSError`.

    A file of that name from another machine is left as it is: several machines may share a bundle.
    """
    sign(document.signed_as, document.digest())
    if folder is None and (beside or not is_shipped(bundle.folder)):
        path = (beside or bundle.folder / _FOLDER) / name
        with suppress(OSError):  # another user owns the folder
            if not _is_foreign(bundle, path, type(document)):
                return write_atomic(path, document.to_json())
    return write_atomic((folder or _cached(bundle)) / name, document.to_json())


def kept(bundle: Bundle, pattern: str) -> Iterator[Path]:
    """Yield the files of that name in the bundle, then those in the user's cache folder."""
    yield from sorted(bundle.folder.glob(f"{_FOLDER}/{pattern}"))
    try:
        yield from sorted(_cached(bundle).glob(pattern))
    except OSError:  # the user has no home
        return


def _is_foreign(bundle: Bundle, path: Path, kind: type[SignedDocument]) -> bool:
    try:
        return not counts(bundle, path, kind.read(path))
    except EngineError:  # it is missing, or not such a document
        return False


def _cached(bundle: Bundle) -> Path:
    return user_cache() / _FOLDER / bundle.sha256[:16]
