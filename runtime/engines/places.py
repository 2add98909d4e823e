"""Where engines lie: in `engines/<target>/` of their bundle, or in the user's cache folder if that cannot be written.

An engine and its sidecar are a pair. They are written under a lock, the sidecar last, and a file without a sidecar is
ignored: a process that ends in between leaves no engine that could be opened. If two processes write, the later wins.
"""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from spinescore.kernels.cache import user_cache
from spinescore.kernels.signing import is_signed, sign
from spinescore.runtime.bundle import MANIFEST_NAME, is_shipped
from spinescore.runtime.durable import try_lock
from spinescore.runtime.engines.sidecar import ENGINE_FOLDER, SUFFIX, Sidecar, sidecar_path
from spinescore.runtime.errors import EngineError
from spinescore.runtime.files import file_sha256, read_text, write_atomic

__all__ = [
    "check_origin",
    "engine_file",
    "engine_home",
    "engine_name",
    "engine_paths",
    "failure",
    "is_own",
    "locked",
    "note_failure",
    "store_engine",
    "target_folder",
    "target_name",
]

_FAILED = "not-built.txt"  # in a target's folder
_LONGEST = 2000  # characters of a reason
_RETRY_S = 0.1


def engine_paths(folder: Path) -> Iterator[Path]:
    """Yield the engines of the bundle in `folder` that have a sidecar, by target and name.

    A target in the user's cache folder takes the place of the same target in the bundle's own folder.
    """
    targets: dict[str, list[Path]] = {}
    for home in _homes(folder):
        here: dict[str, list[Path]] = {}
        for sidecar in sorted(home.glob(f"*/*{SUFFIX}.json")):
            here.setdefault(sidecar.parent.name, []).append(sidecar.with_suffix(""))
        targets |= here
    for target in sorted(targets):
        yield from targets[target]


def is_own(folder: Path, path: Path, sidecar: Sidecar) -> bool:
    """Return whether the engine was built on this machine, is trusted by its operator, or ships inside the package."""
    return is_signed(sidecar.signed_as, sidecar.digest()) or (is_shipped(folder) and path.is_relative_to(folder))


def check_origin(folder: Path, path: Path, sidecar: Sidecar) -> None:
    """Refuse an engine of the bundle in `folder` that is not this machine's own. Raises `EngineError`."""
    if not is_own(folder, path, sidecar):
        raise EngineError(
            f"Engine {path} was not built on this machine, and is not loaded: an engine can run code. Build it here "
            f"(spinescore engine build {folder}), or if you trust whoever built it: spinescore bundle trust {folder}"
        )


def engine_name(folder: Path, file: Path) -> str:
    """Return the name of a network or engine in records: its path in the bundle, as if an engine always lay there."""
    if file.is_relative_to(folder):
        return file.relative_to(folder).as_posix()
    return f"{ENGINE_FOLDER}/{file.parent.name}/{file.name}"


def engine_file(folder: Path, name: str) -> Path | None:
    return next((path for path in engine_paths(folder) if engine_name(folder, path) == name), None)


def engine_home(folder: Path) -> Path:
    """Return the folder in which engines of the bundle are written, in a folder for each target."""
    own = folder / ENGINE_FOLDER
    if not is_shipped(folder):
        with suppress(OSError):  # it cannot be written
            own.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=own):
                return own
    return _cached(folder) or own


def target_folder(folder: Path, target: str) -> Path:
    """Return the folder in which that target's engines lie, else the one in the bundle."""
    return next(
        (path.parent for path in engine_paths(folder) if path.parent.name == target), folder / ENGINE_FOLDER / target
    )


def target_name(flavour: str, version: str, capabilities: tuple[str, ...], compatible: bool = False) -> str:
    """Return a name such as `tensorrt-10.16-sm86`: the builder of the engines, and their compute capabilities."""
    places = "-".join(f"sm{capability.replace('.', '')}" for capability in capabilities)
    return f"{flavour}-{version}-{places}{'-compatible' if compatible else ''}"


def store_engine(path: Path, plan: bytes, sidecar: Sidecar) -> None:
    """Write an engine and its sidecar, in place of earlier ones. Raises `OSError`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path.parent / ".lock"):
        for unfinished in path.parent.glob(f".{path.name}.*.tmp"):  # left by a process that was ended
            unfinished.unlink(missing_ok=True)
        sidecar_path(path).unlink(missing_ok=True)
        write_atomic(path, plan)
        sidecar.write(path)
        (path.parent / _FAILED).unlink(missing_ok=True)


def note_failure(folder: Path, target: str, reason: str) -> None:
    """Keep the reason why the target's engines could not be made here, until `store_engine`. Raises `OSError`."""
    sign(*_failed_as(target, reason))
    write_atomic(engine_home(folder) / target / _FAILED, reason)


def failure(folder: Path, target: str) -> str:
    """Return the reason that `note_failure` kept; empty if there is none."""
    for home in _homes(folder):
        with suppress(OSError, ValueError):
            reason = read_text(home / target / _FAILED)[:_LONGEST]
            if is_signed(*_failed_as(target, reason)):  # otherwise it came with the bundle
                return reason
    return ""


def _failed_as(target: str, reason: str) -> tuple[str, str]:
    digest = hashlib.sha256(reason.encode()).hexdigest()
    return f"failure of {target}: {digest}", digest


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Wait for the lock file `path` and hold it against all processes of this machine.

    The system releases it if the process ends. Raises `OSError` if the file cannot be created. On a file system without
    locks nothing is locked.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        with suppress(OSError):
            while not try_lock(file.fileno()):
                time.sleep(_RETRY_S)
        yield


def _homes(folder: Path) -> list[Path]:
    cached = _cached(folder)
    return [folder / ENGINE_FOLDER, *([cached] if cached else [])]


def _cached(folder: Path) -> Path | None:
    """Return the cache folder by the manifest's hash: a moved bundle finds it, too. None without home or manifest."""
    try:
        key = file_sha256(folder / MANIFEST_NAME)[:16]
        return user_cache() / ENGINE_FOLDER / key
    except (OSError, RuntimeError):
        return None
