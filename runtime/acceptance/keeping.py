"""Files about a bundle on one machine: where they are kept, and whether they count on this machine.

A file counts if this machine signed it (`spinescore.kernels.signing`), or if it ships inside the installed package.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Protocol, TypeVar

from spinescore.kernels.cache import user_cache
from spinescore.kernels.signing import is_signed
from spinescore.runtime.bundle import Bundle, is_shipped
from spinescore.runtime.documents import read
from spinescore.runtime.errors import EngineError
from spinescore.runtime.files import write_atomic
from spinescore.runtime.jsonfile import read_json

__all__ = ["Signed", "age", "counts", "keep", "kept", "read_kept"]

_FOLDER = "acceptance"

T = TypeVar("T")


class Signed(Protocol):
    """A document that counts only if this machine signed it."""

    @property
    def signed_as(self) -> str: ...
    def digest(self) -> str: ...


def counts(bundle: Bundle, path: Path, document: Signed) -> bool:
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


def keep(
    bundle: Bundle,
    name: str,
    text: str,
    folder: Path | None,
    beside: Path | None,
    read: Callable[[Path], Signed],
) -> Path:
    """Write a file about a bundle on this machine: into `folder`, else `beside`, else where such files lie.

    A file of that name from another machine is left as it is: several machines may share a bundle.
    """
    if folder is None and (beside or not is_shipped(bundle.folder)):
        path = (beside or bundle.folder / _FOLDER) / name
        with suppress(OSError):  # another user owns the folder
            if not _is_foreign(bundle, path, read):
                return write_atomic(path, text)
    return write_atomic((folder or _cached(bundle)) / name, text)


def kept(bundle: Bundle, pattern: str) -> Iterator[Path]:
    """Yield the files of that name in the bundle, then those in the user's cache folder."""
    yield from sorted(bundle.folder.glob(f"{_FOLDER}/{pattern}"))
    try:
        yield from sorted(_cached(bundle).glob(pattern))
    except OSError:  # the user has no home
        return


def read_kept(path: Path, what: str, kind: type[T]) -> T:
    """Return the `kind` in a JSON file that is kept beside bundles. Raises `EngineError` if it is not valid."""
    try:
        return read(kind, read_json(path))
    except OSError as error:
        raise EngineError(f"The {what} {path} cannot be read ({error.strerror or error}).") from error
    except ValueError as error:
        raise EngineError(f"The {what} {path} is not valid ({error}).") from error


def _is_foreign(bundle: Bundle, path: Path, read: Callable[[Path], Signed]) -> bool:
    try:
        return not counts(bundle, path, read(path))
    except EngineError:  # it is missing, or not such a document
        return False


def _cached(bundle: Bundle) -> Path:
    return user_cache() / _FOLDER / bundle.sha256[:16]
