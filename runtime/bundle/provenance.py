"""What a bundle's provenance says of its networks: checked against their framework, or what was taken for granted.

The exporter writes it; bundles that were made before say nothing. It is text of a file from anywhere, so that whatever
is not of the expected form counts as not said.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from spinescore.runtime.manifest import Manifest
from spinescore.runtime.notices import notice

__all__ = ["UNCHECKED_NOTE", "NetworkTrust", "trust_lines", "trust_of", "unchecked_note"]

UNCHECKED_NOTE = (
    "the bundle's networks were not checked against the framework that trained them; "
    "`spinescore bundle info` lists what their export took for granted"
)
_MOST = 20  # lines of one network's list
_LONGEST = 300  # characters of one text


@dataclass(frozen=True)
class NetworkTrust:
    """One network: how it was checked ("" if it was not), and what its export took for granted."""

    name: str
    checked: str
    assumed: tuple[str, ...]

    @property
    def state(self) -> str:
        return self.checked or "not checked against the framework that trained it"

    @property
    def line(self) -> str:
        """The same in one line."""
        return self.state + (f"; taken for granted: {'; '.join(self.assumed)}" if self.assumed else "")


def trust_of(manifest: Manifest) -> tuple[NetworkTrust, ...]:
    """Every network of the bundle of which the provenance says something, in the order of its files."""
    said = manifest.provenance.get("networks")
    said = said if isinstance(said, Mapping) else {}
    found = []
    for name in dict.fromkeys(path.rsplit(".", 2)[0] for path in manifest.files if path.endswith(".onnx")):
        entry = said.get(name)
        if isinstance(entry, Mapping) and isinstance(entry.get("assumed"), list):
            assumed = tuple(_text(item) for item in entry["assumed"][:_MOST])
            found.append(NetworkTrust(name, _checked(entry.get("checked")), assumed))
    return tuple(found)


def unchecked_note(manifest: Manifest) -> tuple[str, ...]:
    """A report's note if a network that scores was exported without a check; empty for bundles that say nothing."""
    used = {path.rsplit(".", 2)[0] for files in manifest.networks for path in files.values()}
    unchecked = any(not found.checked for found in trust_of(manifest) if found.name in used)
    return (notice("networks-unchecked", UNCHECKED_NOTE),) if unchecked else ()


def trust_lines(manifest: Manifest) -> list[str]:
    """The same for people: a line for each network, and below it what was taken for granted."""
    lines = []
    for found in trust_of(manifest):
        lines.append(f"{found.name}: {found.state}" + ("; taken for granted:" if found.assumed else ""))
        lines += [f"  {item}" for item in found.assumed]
    return lines


def _checked(record: Any) -> str:
    try:
        return _text(
            f"checked against {record['reference']} ({int(record['pictures'])} pictures, {record['kind']}, SHA-256 "
            f"{str(record['sha256'])[:16]}): within {float(record['difference_of_range']):.1e} of the outputs' range"
            + _stored(record.get("stored_difference_of_range"))
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        return ""


def _stored(difference: Any) -> str:
    return "" if difference is None else f", {float(difference):.1e} with its weights stored in half"


def _text(value: object) -> str:
    """One printable line."""
    line = " ".join(str(value).split())[:_LONGEST]
    return "".join(character if character.isprintable() else "?" for character in line)
