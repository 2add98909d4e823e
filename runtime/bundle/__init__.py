"""Bundles: a folder with `bundle.json`, the networks and what proves them. Nothing in it is run or unpickled."""

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
_CHECK = 1  # of the networks: raised with every rule that refuses more
_READERS = 4  # files that are checked at a time


@dataclass(frozen=True)
class Bundle:
    """An opened bundle: its folder, its manifest, and the hash that names it in reports.

    `localizer` is the alternative that stands in place of the bundle's localizer (see `with_localizer`), if one does.
    """

    folder: Path
    manifest: Manifest
    sha256: str
    localizer: str | None = None

    @classmethod
    def open(cls, bundle: str | Path, *, any_network: bool = False) -> Bundle:
        """Open a bundle by its folder, or by the name of one that ships with the package; check every file.

        What its networks take is checked once on a machine, and remembered by a signature. `any_network` leaves that
        check away, for a caller that runs none.
        Raises `BundleError` if the folder, the manifest or a file is not what it should be.
        """
        folder = _find(bundle)
        manifest = Manifest.from_dict(_read_json(folder / MANIFEST_NAME))
        with ThreadPoolExecutor(_READERS, "spinescore-check") as pool:
            for checked in [pool.submit(_check, folder, manifest, *named) for named in manifest.files.items()]:
                checked.result()
        opened = cls(folder, manifest, manifest_sha256(manifest))
        if not any_network and not opened.networks_count:
            from spinescore.runtime.bundle.networkcheck import check_networks

            check_networks(folder, manifest)
            opened.trust_networks()
        return opened

    @property
    def networks_signed_as(self) -> str:
        """What a signature says of a bundle whose networks were checked here, or made here, or trusted."""
        return f"networks of the bundle {self.sha256}, check {_CHECK}"

    @property
    def networks_count(self) -> bool:
        """Whether the networks need no check: they ship with the package, or this machine signed them."""
        return is_shipped(self.folder) or is_signed(self.networks_signed_as, self.sha256)

    def trust_networks(self) -> bool:
        """Sign the networks, so that they are not checked again here; returns whether that could be kept."""
        return sign(self.networks_signed_as, self.sha256)

    def with_localizer(self, name: str | None) -> Bundle:
        """This bundle with one localizer alone: the alternative `name`, or None for the bundle's own.

        The hash stays that of the whole bundle. Raises `BundleError` if it has no such alternative.
        """
        whole = self.manifest.localizer
        files = {alternative.name: alternative.files for alternative in whole.alternatives}
        if name is not None and name not in files:
            raise BundleError(
                f"Bundle {self.manifest.name} has no localizer {name!r} beside its own; there is: "
                f"{', '.join(files) or 'none'}."
            )
        alone = replace(whole, files=whole.files if name is None else files[name], alternatives=())
        return replace(self, manifest=replace(self.manifest, localizer=alone), localizer=name)

    def path(self, name: str) -> Path:
        """The path of one of the manifest's files."""
        return _inside(self.folder, name)

    def network(self, files: Mapping[str, str], preferred: tuple[str, ...]) -> tuple[Path, str]:
        """The file of a network (`manifest.localizer.files[region]`, ..) in the first precision that it has."""
        for precision in preferred:
            if precision in files:
                return self.path(files[precision]), precision
        raise BundleError(
            f"Bundle {self.manifest.name} has the network {next(iter(files.values()))} only in {', '.join(files)}; "
            f"this device wants {' or '.join(preferred)}. Export the bundle again with that precision."
        )


def manifest_sha256(manifest: Manifest) -> str:
    """SHA-256 of the canonical manifest (sorted keys, no spaces, UTF-8), without the files under `engines/`.

    Engines are built per machine: the same networks keep the same name wherever they run.
    """
    document = manifest.to_dict()
    document["files"] = {path: entry for path, entry in document["files"].items() if not path.startswith("engines/")}
    canonical = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def shipped_bundles() -> tuple[str, ...]:
    """Names of the bundles that ship with the package."""
    return tuple(sorted(path.parent.name for path in _SHIPPED.glob(f"*/{MANIFEST_NAME}")))


def is_shipped(folder: Path) -> bool:
    """Whether the bundle is part of this installed package: its folder is not written, and what lies in it counts.

    Links are followed first, so that neither another path to the folder nor a link inside it is mistaken.
    """
    return folder.resolve().parent == _SHIPPED.resolve()


def command_name(folder: Path) -> str:
    """How a command names the bundle in `folder`."""
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
    """The path of `name` in the bundle, refused where it would leave the folder (also by a link)."""
    parts = PurePosixPath(name)
    plain = bool(name) and not parts.is_absolute() and ".." not in parts.parts and not set(name) & set("\\:\0")
    path = folder / name if plain else folder
    if not plain or not path.resolve().is_relative_to(folder.resolve()):
        raise BundleError(f"{folder / MANIFEST_NAME} names the file {name!r}, which leaves the bundle's folder.")
    return path


def _check(folder: Path, manifest: Manifest, name: str, entry: FileEntry) -> None:
    path = _inside(folder, name)
    try:
        with open_regular(path) as file:
            found_size = os.fstat(file.fileno()).st_size
        found = file_sha256(path) if found_size == entry.bytes else None
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise BundleError(f"The bundle's file {path} cannot be read ({reason}); copy or export it again.") from error
    if found_size != entry.bytes:
        raise BundleError(
            f"The bundle's file {path} has {found_size} bytes instead of {entry.bytes}; copy or export it again."
        )
    if found != entry.sha256:
        raise BundleError(f"The bundle's file {path} was altered: its SHA-256 is not the manifest's. Export it again.")
