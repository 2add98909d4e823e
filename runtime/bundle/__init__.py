"""Bundles: a folder with `bundle.json`, the networks and their golden inputs. Nothing in it is run or unpickled."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from spinescore.kernels.signing import is_signed, sign
from spinescore.runtime.errors import BundleError
from spinescore.runtime.files import file_sha256, open_regular
from spinescore.runtime.jsonfile import read_json
from spinescore.runtime.manifest import FileEntry, Manifest

__all__ = ["MANIFEST_NAME", "Bundle", "command_name", "is_shipped", "shipped_bundles"]

MANIFEST_NAME = "bundle.json"

_SHIPPED = Path(__file__).parents[1] / "bundles"
_MANIFEST_LIMIT_BYTES = 16 * 2**20
_CHECK = 3  # version of the networks' check: raised with every stricter rule
_READERS = 4  # files that are checked at the same time


@dataclass(frozen=True)
class Bundle:
    """An opened bundle: its folder, its manifest, and the hash that names it in reports.

    `localizer` is the name of the alternative that replaces the bundle's localizer (see `with_localizer`), or None.
    """

    folder: Path
    manifest: Manifest
    sha256: str
    localizer: str | None = None

    @classmethod
    def open(cls, bundle: str | Path, *, any_network: bool = False) -> Bundle:
        """Open a bundle by its folder, or by the name of a bundle that ships with the package; check every file.

        The costs of its networks are checked once on a machine, and the result is signed. `any_network` leaves this
        check out, for a caller that runs no network.
        Raises `BundleError` if the folder, the manifest or a file is not valid.
        """
        folder = _find(bundle)
        manifest = Manifest.from_dict(_read_json(folder / MANIFEST_NAME))
        with ThreadPoolExecutor(_READERS, "spinescore-check") as pool:
            for checked in [pool.submit(_check, folder, *entry) for entry in manifest.files.items()]:
                checked.result()
        opened = cls(folder, manifest, manifest_sha256(manifest))
        if not any_network and not opened.networks_count:
            from spinescore.runtime.bundle.networkcheck import check_networks

            check_networks(folder, manifest)
            opened.trust_networks()
        return opened

    @property
    def networks_signed_as(self) -> str:
        """The text of the signature for a bundle whose networks were checked, exported or trusted on this machine."""
        return f"networks of the bundle {self.sha256}, check {_CHECK}"

    @property
    def networks_count(self) -> bool:
        """Whether the networks need no check: they ship with the package, or are signed on this machine."""
        return is_shipped(self.folder) or is_signed(self.networks_signed_as, self.sha256)

    def trust_networks(self) -> bool:
        """Sign the networks, so that they are not checked again on this machine; return whether it was stored."""
        return sign(self.networks_signed_as, self.sha256)

    def with_localizer(self, name: str | None) -> Bundle:
        """Return this bundle with one localizer alone: the alternative `name`, or None for the bundle's own.

        The hash stays that of the whole bundle. Raises `BundleError` if there is no such alternative.
        """
        whole = self.manifest.localizer
        files = {alternative.name: alternative.files for alternative in whole.alternatives}
        if name is not None and name not in files:
            raise BundleError(
                f"Bundle {self.manifest.name} has no localizer {name!r} beside its own; there is: "
                f"{', '.join(files) or 'none'}." + " Leave it out for the bundle's own." * (not files)
            )
        alone = replace(whole, files=whole.files if name is None else files[name], alternatives=())
        return replace(self, manifest=replace(self.manifest, localizer=alone), localizer=name)

    def path(self, name: str) -> Path:
        """Return the path of one of the manifest's files."""
        return _inside(self.folder, name)

    def network(self, files: Mapping[str, str], preferred: tuple[str, ...]) -> tuple[Path, str]:
        """Return the path and precision of a network's file in the first of the `preferred` precisions that exists.

        `files` are the network's, as `manifest.localizer.files[region]`. Raises `BundleError` if there is none.
        """
        for precision in preferred:
            if precision in files:
                return self.path(files[precision]), precision
        raise BundleError(
            f"Bundle {self.manifest.name} has the network {next(iter(files.values()))} only in {', '.join(files)}; "
            f"this device wants {' or '.join(preferred)}. Export the bundle again with that precision."
        )


def manifest_sha256(manifest: Manifest) -> str:
    """Return the SHA-256 of the canonical manifest (sorted keys, no spaces, UTF-8), without the files under `engines/`.

    Engines are built per machine, so the same networks have the same hash on every machine.
    """
    document = manifest.to_dict()
    document["files"] = {path: entry for path, entry in document["files"].items() if not path.startswith("engines/")}
    canonical = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def shipped_bundles() -> tuple[str, ...]:
    """Return the names of the bundles that ship with the package."""
    return tuple(sorted(path.parent.name for path in _SHIPPED.glob(f"*/{MANIFEST_NAME}")))


def is_shipped(folder: Path) -> bool:
    """Return whether the bundle is part of this installed package: it is trusted, and nothing is written to it.

    Links are followed first, so that another path to the folder and a link inside it are both recognised.
    """
    return folder.resolve().parent == _SHIPPED.resolve()


def command_name(folder: Path) -> str:
    """Return the name of the bundle in `folder` for a command line."""
    return folder.resolve().name if is_shipped(folder) else str(folder)


def _find(bundle: str | Path) -> Path:
    folder = Path(bundle)
    if folder.is_dir():
        return folder
    if str(bundle) in shipped_bundles():
        return _SHIPPED / str(bundle)
    raise BundleError(
        f"There is no bundle {str(bundle)!r}: it is no folder, and the bundles that ship with this package are "
        f"{', '.join(shipped_bundles()) or 'none'}. Give the folder that holds {MANIFEST_NAME}."
    )


def _read_json(path: Path) -> object:
    try:
        document: object = read_json(path, _MANIFEST_LIMIT_BYTES)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise BundleError(f"{path} cannot be read ({reason}); give the folder that holds {MANIFEST_NAME}.") from error
    except ValueError as error:
        raise BundleError(f"{path} is not valid JSON ({error}); export the bundle again.") from error
    return document


def _inside(folder: Path, name: str) -> Path:
    """Return the path of `name` in the bundle. Refuses paths and links that lead out of the folder."""
    parts = PurePosixPath(name)
    plain = bool(name) and not parts.is_absolute() and ".." not in parts.parts and not set(name) & set("\\:\0")
    path = folder / name if plain else folder
    if not plain or not path.resolve().is_relative_to(folder.resolve()):
        raise BundleError(f"{folder / MANIFEST_NAME} names the file {name!r}, which leaves the bundle's folder.")
    return path


def _check(folder: Path, name: str, entry: FileEntry) -> None:
    path = _inside(folder, name)
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
        sha256 = file_sha256(path) if size == entry.bytes else None
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise BundleError(f"The bundle's file {path} cannot be read ({reason}); copy or export it again.") from error
    if size != entry.bytes:
        message = f"The bundle's file {path} has {size} bytes instead of {entry.bytes}; copy or export it again."
        raise BundleError(message)
    if sha256 != entry.sha256:
        raise BundleError(f"The bundle's file {path} was altered: its SHA-256 is not the manifest's. Export it again.")
