"""The licences of the packages that are installed for spinescore, as their own metadata states them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from email.message import Message
from importlib import metadata
from pathlib import Path
from typing import Any

from spinescore.runtime.text import one_line

__all__ = ["NOT_STATED", "Licence", "find_licences", "licences_dict", "licences_text", "stated_licence"]

NOT_STATED = "not stated"

_LONGEST = 60  # characters of a licence's name; some packages have the whole text in that field
_FILE = re.compile(r"(licen[cs]e|copying|notice)[^/]*$", re.IGNORECASE)
_REQUIREMENT = re.compile(r"\s*([A-Za-z0-9][\w.-]*)\s*(?:\[([^\]]*)\])?[^;]*(?:;(.*))?", re.DOTALL)
_EXTRA = re.compile(r"""extra\s*==\s*['"]([^'"]+)['"]""")


@dataclass(frozen=True)
class Licence:
    """A package, its licence (an SPDX expression, a classifier's words, or `not stated`), and its licence files."""

    name: str
    version: str
    licence: str
    files: tuple[str, ...]


def find_licences(package: str = "spinescore") -> list[Licence]:
    """Return the licences of `package` and of every installed package that it or one of its extras needs, by name.

    Packages that are not installed are left out, as those for another system. Nothing is imported, and the network is
    not used.
    """
    licences = [
        Licence(dist.metadata["Name"], dist.version, stated_licence(dist.metadata), tuple(_files(dist)))
        for dist in _needed(package).values()
    ]
    return sorted(licences, key=lambda licence: licence.name.lower())


def licences_text(licences: list[Licence]) -> str:
    """Return a line for each package: name, version, licence, and the first file with its text."""
    rows = [(one.name, one.version, one.licence, next(iter(one.files), "no file")) for one in licences]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return "\n".join(
        one_line("  ".join((*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[3])))
        for row in rows
    )


def licences_dict(licences: list[Licence]) -> dict[str, Any]:
    return {"schema": "spinescore.licences/1", "licences": [asdict(one) for one in licences]}


def _needed(package: str) -> dict[str, metadata.Distribution]:
    """Return the installed distributions by normalised name, by following the requirements."""
    installed: dict[str, metadata.Distribution] = {}
    seen: set[tuple[str, str | None]] = set()
    own = metadata.metadata(package).get_all("Provides-Extra") or []
    pending: list[tuple[str, str | None]] = [(package, None), *((package, extra) for extra in own)]
    while pending:
        name, extra = pending.pop()
        key = re.sub(r"[-_.]+", "-", name).lower()
        if (key, extra) in seen:
            continue
        seen.add((key, extra))
        try:
            dist = installed.get(key) or metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue
        installed[key] = dist
        pending += _requirements(dist, extra)
    return installed


def _requirements(dist: metadata.Distribution, extra: str | None) -> Iterator[tuple[str, str | None]]:
    """Yield what a distribution needs, or one of its extras; other markers are ignored."""
    for line in dist.requires or ():
        match = _REQUIREMENT.match(line)
        if match is None:
            continue
        name, extras, marker = match.groups()
        of = _EXTRA.search(marker or "")
        if (of[1] if of else None) == extra:
            yield name, None
            yield from ((name, part.strip()) for part in (extras or "").split(",") if part.strip())


def stated_licence(stated: metadata.PackageMetadata | Message) -> str:
    """Return the SPDX expression (PEP 639), else the field License if it is just a name, else the classifiers."""
    expression = _field(stated, "License-Expression")
    if expression:
        return expression
    field = _field(stated, "License").strip()
    if 0 < len(field) <= _LONGEST and "\n" not in field and field.upper() != "UNKNOWN":
        return field.split(" :: ")[-1]  # some packages have a classifier here
    classifiers = (line.split(" :: ") for line in stated.get_all("Classifier") or ())
    names = [parts[-1] for parts in classifiers if parts[0] == "License" and len(parts) > 1]
    return " AND ".join(dict.fromkeys(names)) or NOT_STATED


def _field(stated: metadata.PackageMetadata | Message, name: str) -> str:
    """Return a field's first value, or an empty text: versions of Python treat a missing field differently."""
    return str(next(iter(stated.get_all(name) or ()), ""))


def _files(dist: metadata.Distribution) -> Iterator[str]:
    """Yield the files with licence texts: those beside the metadata first, then those in the package."""
    files = [file for file in dist.files or () if _FILE.search(file.as_posix()) and file.suffix not in (".py", ".pyc")]
    for file in sorted(files, key=lambda file: (".dist-info" not in file.as_posix(), file.as_posix())):
        path = Path(str(dist.locate_file(file)))
        if path.is_file():
            yield str(path)
