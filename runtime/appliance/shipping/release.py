"""A release: the folder that installs the appliance, written whole or not at all, and verified.

install.sh, Containerfile, appliance.toml, systemd/     files of this package
wheels/, pip/                                           the packages, and the pip that installs them
requirements.txt                                        each package with its version and the hash of its wheel
release                                                 version, Python and platform, one `name=value` each
sbom.cdx.json                                           the bill of materials
SHA256SUMS, SHA256SUMS.minisig                          the hashes of all other files, and their signature
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from spinescore.runtime.appliance.shipping import minisign
from spinescore.runtime.appliance.shipping.sbom import bill_of_materials
from spinescore.runtime.appliance.shipping.wheels import (
    EXTRAS,
    REQUIREMENTS,
    Target,
    Wheel,
    build_own,
    download,
    pins_for,
    read_wheel,
)
from spinescore.runtime.durable import move, sync
from spinescore.runtime.errors import SpineScoreError
from spinescore.runtime.files import file_sha256, read_text

__all__ = ["MANIFEST", "SIGNATURE", "Release", "verify_release", "write_release"]

MANIFEST, SIGNATURE = "SHA256SUMS", "SHA256SUMS.minisig"

_SHIPPED = {
    "install.sh": "install.sh",
    "Containerfile": "Containerfile",
    "appliance.toml": "appliance.toml",
    "spinescore.service": "systemd/spinescore.service",
    "gpu.conf": "systemd/gpu.conf",
}
_LINE = re.compile(r"([0-9a-f]{64})  ([A-Za-z0-9_][A-Za-z0-9._+!-]*(?:/[A-Za-z0-9_][A-Za-z0-9._+!-]*)*)")


@dataclass(frozen=True)
class Release:
    """The facts of a verified folder. `comment` is the signed comment; it is None if the folder is not signed."""

    version: str
    platform: str
    python: str
    files: int
    comment: str | None


def write_release(
    folder: Path, target: Target, *, own: Path | None = None, key: minisign.SecretKey | None, date: datetime
) -> Release:
    """Write the folder of a release: download the packages, describe them, sign. It must be absent or empty.

    `own` is the wheel of spinescore; None builds it from the source. None as `key` leaves the folder unsigned.
    Raises SpineScoreError.
    """
    _check_absent(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as temporary:
            part = Path(temporary) / "release"
            _write(part, target, own, key, date)
            for path in sorted(part.rglob("*"), reverse=True):
                path.chmod(0o755 if path.is_dir() else 0o644)
                sync(path)
            sync(part)
            move(part, folder)
    except OSError as error:
        raise SpineScoreError(f"the release {folder} could not be written ({error.strerror or error})") from error
    return verify_release(folder, None if key is None else key.public)


def _check_absent(folder: Path) -> None:
    if os.path.lexists(folder) and (not folder.is_dir() or any(folder.iterdir())):
        raise SpineScoreError(f"{folder} is there already and is not empty; name a new folder for the release")


def _write(part: Path, target: Target, own: Path | None, key: minisign.SecretKey | None, date: datetime) -> None:
    wheels, pip = part / "wheels", part / "pip"
    for path in (wheels, pip, part / "systemd"):
        path.mkdir(parents=True)
    others = download(pins_for(read_text(REQUIREMENTS / "appliance.txt"), target), target, wheels)
    (installer,) = download(pins_for(read_text(REQUIREMENTS / "installer.txt"), target), target, pip)
    ours = read_wheel(build_own(wheels, target) if own is None else Path(shutil.copy(own, wheels)), target)
    if ours.name != "spinescore":
        raise SpineScoreError(f"{ours.path.name} is not a wheel of spinescore")
    for name, place in _SHIPPED.items():
        shutil.copyfile(Path(__file__).with_name(name), part / place)
    (part / "requirements.txt").write_text("".join(_pinned(ours, others)), encoding="utf-8")
    about = f"version={ours.version}\npython={target.python_text}\nplatform={target.platform}\n"
    (part / "release").write_text(about, encoding="utf-8")
    bill = bill_of_materials(ours, others, installer, target, date.isoformat(timespec="seconds"))
    (part / "sbom.cdx.json").write_text(json.dumps(bill, indent=1) + "\n", encoding="utf-8")
    sums = "".join(f"{file_sha256(part / name)}  {name}\n" for name in sorted(_files(part)))
    (part / MANIFEST).write_text(sums, encoding="utf-8")
    if key is not None:
        comment = f"spinescore {ours.version} {target.platform} Python {target.python_text} {date:%Y-%m-%d}"
        (part / SIGNATURE).write_text(minisign.sign(sums.encode(), key, comment), encoding="utf-8")


def _pinned(own: Wheel, others: Sequence[Wheel]) -> Iterator[str]:
    """Yield the lines of requirements.txt: each package with the hash of its only wheel."""
    for wheel in sorted([own, *others], key=lambda wheel: wheel.name):
        extras = f"[{','.join(EXTRAS)}]" if wheel is own else ""
        yield f"{wheel.name}{extras}=={wheel.version} --hash=sha256:{wheel.sha256}\n"


def _files(folder: Path) -> Iterator[str]:
    """Yield the paths of the files below a folder. Raises SpineScoreError for anything else, such as a link."""
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink() or not (path.is_dir() or path.is_file()):
            raise SpineScoreError(f"{name} in {folder} is neither a file nor a folder; do not install it")
        if path.is_file():
            yield name


def verify_release(folder: Path, key: minisign.PublicKey | None) -> Release:
    """Return what a release is, after its signature and every file's hash were checked; None as key: hashes only.

    Raises SpineScoreError that names the first fault.
    """
    try:
        text = read_text(folder / MANIFEST)
        comment = None if key is None else minisign.verify(text.encode(), folder / SIGNATURE, key)
        sums = _parse(text, folder)
        there = set(_files(folder)) - {MANIFEST, SIGNATURE}
        for names, fault in ((sums.keys() - there, "lacks"), (there - sums.keys(), "has what its list lacks,")):
            if names:
                raise SpineScoreError(f"{folder} {fault} {min(names)}; get the release again")
        for name, digest in sums.items():
            if file_sha256(folder / name) != digest:
                raise SpineScoreError(f"{name} in {folder} was changed; get the release again")
        about = dict(line.split("=", 1) for line in read_text(folder / "release").splitlines())
        return Release(about["version"], about["platform"], about["python"], len(sums), comment)
    except OSError as error:
        raise SpineScoreError(f"{error.filename or folder} cannot be read ({error.strerror or error})") from error
    except (UnicodeDecodeError, KeyError, ValueError) as error:
        raise SpineScoreError(f"{folder} is no release of spinescore") from error


def _parse(text: str, folder: Path) -> dict[str, str]:
    """Return the hashes by file of a manifest, as sha256sum writes them. Raises SpineScoreError."""
    lines = [_LINE.fullmatch(line) for line in text.splitlines()]
    sums = {line[2]: line[1] for line in lines if line is not None}
    if len(sums) != len(lines) or not sums:
        raise SpineScoreError(f"{folder / MANIFEST} is no list of hashes as sha256sum writes it")
    return sums
